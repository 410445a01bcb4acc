"""The API's connections: whoever is let in must say what he wants, and soon.

uvicorn limits the pause between two requests, but not the time a request's head may take. Half-open connections, which need no
key, would take up every file descriptor of the process and make it unreachable.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the connection, or from the last answer, to the end of the next request's head."""
MAX_WAITING = 256
"""Connections without a complete head. One more, and the one that has waited longest is closed: an honest caller sends his
head at once, so it is not his."""
BACKLOG = 1024
"""Connections that the kernel holds until they are accepted; asyncio may accept as many at once."""
FILES = 4 * BACKLOG
"""Descriptors that the process may have: a burst must not exhaust them before the oldest are closed."""


def guarded(head_seconds: float = HEAD_SECONDS, max_waiting: int = MAX_WAITING) -> type[H11Protocol]:
    """A protocol class for uvicorn's `http` setting, whose connections share these two limits."""
    waiting: dict[Guarded, asyncio.TimerHandle] = {}

    class Guarded(H11Protocol):
        """One connection; it waits whenever no request of it is being answered."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._look()
            if len(waiting) > max_waiting:
                oldest = next(iter(waiting))
                oldest._answered()
                oldest.transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            self._answered()
            super().connection_lost(exc)

        def _look(self) -> None:
            if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
                self._answered()
            elif self not in waiting:  # a byte now and then is no reason to wait longer
                waiting[self] = self.loop.call_later(head_seconds, self._give_up)

        def _answered(self) -> None:
            timer = waiting.pop(self, None)
            if timer is not None:
                timer.cancel()

        def _give_up(self) -> None:
            waiting.pop(self, None)
            self.transport.abort()

    return Guarded


def raise_file_limit() -> None:
    """Let this process have as many descriptors as a burst of connections needs, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
