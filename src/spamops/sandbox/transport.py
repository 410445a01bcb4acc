"""What stands between a client and the embedded cloud: a record of the requests, and ordered bad answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..clock import Clock
from .faults import HttpFault


@dataclass
class _Order:
    fault: HttpFault
    ordered_at: float
    seen: int = 0
    struck: int = 0


class FaultBook:
    """The bad answers that are still to be given. Safe for many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._orders: list[_Order] = []

    def order(self, fault: HttpFault) -> None:
        """Answer coming requests badly."""
        with self._lock:
            self._orders.append(_Order(fault, self._clock.monotonic()))

    def orders(self) -> list[HttpFault]:
        """The faults that are not used up."""
        with self._lock:
            return [order.fault for order in self._orders]

    def forget(self) -> None:
        """Take back every fault."""
        with self._lock:
            self._orders.clear()

    def take(self, method: str, path: str, action: str | None) -> HttpFault | None:
        """The fault for this request, counted as used; the oldest order comes first."""
        with self._lock:
            now = self._clock.monotonic()
            self._orders = [order for order in self._orders if not self._is_over(order, now)]
            for order in self._orders:
                fault = order.fault
                if now < order.ordered_at + fault.after_seconds or not fault.matches(method, path, action):
                    continue
                order.seen += 1
                if order.seen <= fault.skip:
                    continue
                order.struck += 1
                if fault.times is not None and order.struck >= fault.times:
                    self._orders.remove(order)
                return fault
            return None

    @staticmethod
    def _is_over(order: _Order, now: float) -> bool:
        fault = order.fault
        return fault.for_seconds is not None and now >= order.ordered_at + fault.after_seconds + fault.for_seconds


class Transport:
    """ASGI middleware that notes every request and applies the faults.

    `seen` is told method, path and the action that the body names (None where it names none).
    """

    def __init__(
        self,
        app: ASGIApp,
        faults: FaultBook,
        *,
        seen: Callable[[str, str, str | None], None],
        revoke_tokens: Callable[[], None],
    ) -> None:
        self._app = app
        self._faults = faults
        self._seen = seen
        self._revoke_tokens = revoke_tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = await _read(receive)
        method, path = str(scope["method"]), str(scope["path"])
        action = _action_in(body) if path.endswith("/action") else None
        self._seen(method, path, action)
        replayed = _replay(body, receive)
        fault = self._faults.take(method, path, action)
        if fault is None:
            await self._app(scope, replayed, send)
            return
        await self._serve_badly(fault, scope, replayed, receive, send)

    async def _serve_badly(
        self, fault: HttpFault, scope: Scope, replayed: Receive, receive: Receive, send: Send
    ) -> None:
        if fault.revoke_tokens:
            self._revoke_tokens()
        kept: list[Message] = []
        if fault.accepted:

            async def keep(message: Message) -> None:
                kept.append(message)

            await self._app(scope, replayed, keep)
        if fault.hang_seconds and await _client_left(receive, within=fault.hang_seconds):
            return
        if fault.cut:
            await _cut(receive, send)
        elif fault.status is not None:
            content, content_type = fault.content
            headers = {"content-type": content_type, "content-length": str(len(content)), **fault.headers}
            encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": fault.status, "headers": encoded})
            await send({"type": "http.response.body", "body": content})
        elif fault.accepted:
            for message in kept:
                await send(message)
        else:
            await self._app(scope, replayed, send)


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _action_in(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return next(iter(document), None) if isinstance(document, dict) else None


async def _client_left(receive: Receive, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _cut(receive: Receive, send: Send) -> None:
    """End the connection without a byte of an answer.

    ASGI has no word for this. uvicorn's `send` belongs to the object that holds the connection, so the socket is ended
    there; then its own notice of the end is awaited, lest it answers 500.
    """
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    while (await receive())["type"] != "http.disconnect":
        pass
