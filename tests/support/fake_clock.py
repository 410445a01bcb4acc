"""A clock that only moves when somebody sleeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

BEGINNING = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


class FakeClock:
    """An implementation of `spamops.clock.Clock`: `sleep` moves it at once. Safe for many threads.

    `at` lets something happen once the time has come, in the thread that sleeps then.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._planned: list[tuple[float, Callable[[], None]]] = []
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Seconds since the test began."""
        with self._lock:
            return self._seconds

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return BEGINNING + timedelta(seconds=self.monotonic())

    def sleep(self, seconds: float) -> None:
        """Move on by `seconds`, with what was planned until then."""
        with self._lock:
            end = self._seconds + max(0.0, seconds)
            self.slept.append(seconds)
        while (planned := self._next_until(end)) is not None:
            planned()
        with self._lock:
            self._seconds = max(self._seconds, end)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this when the clock reads `seconds` from the test's beginning."""
        with self._lock:
            self._planned.append((seconds, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this `seconds` from now."""
        self.at(self.monotonic() + seconds, action)

    def _next_until(self, end: float) -> Callable[[], None] | None:
        with self._lock:
            due = [planned for planned in self._planned if planned[0] <= end]
            if not due:
                return None
            first = min(due, key=lambda planned: planned[0])
            self._planned.remove(first)
            self._seconds = max(self._seconds, first[0])
            return first[1]
