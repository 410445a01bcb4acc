"""The API's door: a key on every route but the bare liveness one, and JSON for every error."""

from __future__ import annotations

import hmac
import json
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import event, place

_log = logging.getLogger(__name__)

OPEN_PATH = "/live"
HEADER = b"x-api-key"


class KeyRequired:
    """ASGI middleware. Asks for the key before anything else is looked at, unknown paths included."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401; an error of the program becomes a 500 in JSON."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] != OPEN_PATH:
            given = [value for name, value in scope["headers"] if name == HEADER]
            if not given or not given[0].strip():
                await _refuse(scope, send, "No API key")
                return
            if len(given) > 1 or not hmac.compare_digest(given[0], self._key):
                await _refuse(scope, send, "Invalid API key")
                return
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            where = place(error.__traceback__)
            event(_log, logging.ERROR, "unexpected error", path=scope["path"], error=type(error).__name__, at=where)
            if began:
                raise  # the answer is cut off, which the caller notices
            await _answer(send, 500, "the checker failed; its log says where")


async def _refuse(scope: Scope, send: Send, detail: str) -> None:
    """401, and a line in the log. fail2ban's filter reads it: the address comes before anything that the caller chose."""
    event(_log, logging.WARNING, "a call was refused", client=_caller(scope), detail=detail, path=scope["path"][:80])
    await _answer(send, 401, detail)


def _caller(scope: Scope) -> str:
    """The address of whoever calls. A caller of a socket for both kinds of addresses has his IPv4 address."""
    client = scope.get("client")
    return str(client[0]).removeprefix("::ffff:") if client else "unknown"


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"X-API-Key"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
