"""A real HTTP server that takes alarms as Apprise's json:// sends them, or behaves badly."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spamops.sandbox.http import LoopbackServer

SECRET = "T0psecret-token-of-the-webhook"


class NoticeBoard:
    """Keeps what it was sent. Paths: /take takes it, /fail answers 500, /hang never answers, /drip never ends its answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.received: list[dict[str, Any]] = []
        self.tried: list[str] = []
        self.down = False
        self._http = LoopbackServer(Starlette(routes=[Route("/{way}/{token}", self._take, methods=["POST"])]))

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._http.port

    def url(self, way: str = "take") -> str:
        """An address of Apprise, with a secret in it."""
        return f"json://127.0.0.1:{self.port}/{way}/{SECRET}"

    @property
    def titles(self) -> list[str]:
        """What the messages said at first sight."""
        with self._lock:
            return [str(message["title"]) for message in self.received]

    @property
    def texts(self) -> str:
        """Everything that was received, as one text."""
        with self._lock:
            return "\n".join(f"{message['title']}\n{message['message']}" for message in self.received)

    def clear(self) -> None:
        """Forget what was received."""
        with self._lock:
            self.received.clear()
            self.tried.clear()

    def __enter__(self) -> Self:
        """Start."""
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, also what hangs."""
        self._over.set()
        self._http.stop()

    async def _take(self, request: Request) -> Response:
        body = await request.json()
        way = "fail" if self.down else request.path_params["way"]
        with self._lock:
            self.tried.append(way)
        if way == "fail":
            return Response("no", 500)
        if way == "hang":
            await asyncio.to_thread(self._over.wait, 60)
            return Response("", 500)
        if way == "drip":
            return StreamingResponse(self._drip())
        with self._lock:
            self.received.append(body)
        return Response("")

    async def _drip(self) -> Any:
        while not self._over.is_set():
            yield b"."
            await asyncio.sleep(0.05)
