"""A CoMSES site on loopback: the two endpoints of the spam check with their quirks, as recorded from the running site."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .http import LoopbackServer
from .items import labelled_items
from .site_faults import Endpoint, Fault, SiteFaults
from .site_fields import NotStorable, Refused, Update, read
from .site_store import SiteStore, UnreadableContent, UnreadableDetails

BATCH_PATH = "/api/spam/get-latest-batch/"
UPDATE_PATH = "/api/spam/update/"
SANDBOX_KEY = "sandbox-site-key-0123456789abcdef0123456789"
"""The key unless another is given. Public, and good for the sandbox alone."""

_ENDPOINTS: dict[str, tuple[Endpoint, str]] = {BATCH_PATH: ("batch", "GET"), UPDATE_PATH: ("update", "POST")}
_HOST = re.compile(r"([a-z0-9.-]+|\[[a-f0-9:.]+\])(?::\d+)?")
_BAD_HOST_PAGE = (
    '\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Bad Request (400)</title>\n</head>\n<body>\n'
    "  <h1>Bad Request (400)</h1><p></p>\n</body>\n</html>\n"
)
_ERROR_PAGE_CHARACTERS = 13740
"""The site's error page without the request's path, which it holds twice (seen: 13,794 and 13,774 characters)."""


@dataclass(frozen=True, slots=True)
class UpdateSeen:
    """One update request: its body as JSON (as text where it is none), the status answered and whether it was stored.

    `status` is None where the connection was cut or the caller gave up.
    """

    body: Any
    status: int | None
    stored: bool


class SandboxSite:
    """The site. `port` 0 takes a free one; `address` is one of this machine that its clients reach; `db_path` None keeps the records in memory, for the life of this object.

    `store` holds the records, `faults` takes orders for faults. `require_https` redirects plain HTTP, as the site's
    production settings do. After `stop`, `start` brings the same site back on the same port.
    Raises PortInUse.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        db_path: Path | None = None,
        api_key: str = SANDBOX_KEY,
        allowed_hosts: Sequence[str] = ("localhost", "127.0.0.1", "server"),
        require_https: bool = False,
    ) -> None:
        self.api_key = api_key
        self.faults = SiteFaults()
        self._allowed_hosts = tuple(allowed_hosts)
        self._require_https = require_https
        self._lock = threading.Lock()
        self._updates: list[UpdateSeen] = []
        self._address = address
        self._server: LoopbackServer | None = self._listen(port)
        self.port = self._server.port
        self.url = self._server.url
        self.store = SiteStore(db_path)

    def seed(self, count: int = 250, seed: int = 1) -> list[int]:
        """Schedule `count` labelled items, the same ones for the same seed, and return their record ids."""
        return self.store.add_all(labelled_items(count, seed))

    @property
    def updates(self) -> list[UpdateSeen]:
        """Every update request so far that reached the endpoint with its method, in the order answered."""
        with self._lock:
            return list(self._updates)

    def start(self) -> None:
        """Answer requests, from now on and after a `stop` again."""
        if self._server is None:
            self._server = self._listen(self.port)
        self._server.start()

    def stop(self) -> None:
        """The site is down: connections are refused. Records stay. May be called twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def close(self) -> None:
        """Stop for good and let go of the records."""
        self.stop()
        self.store.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self, port: int) -> LoopbackServer:
        # uvicorn takes a bound method for an application of ASGI 2.
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(scope, receive, send)

        return LoopbackServer(app, port, self._address)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        endpoint, method = _ENDPOINTS.get(request.url.path, (None, ""))
        fault = self.faults.take(endpoint) if endpoint and request.method == method else None
        response, stored = await self._with_fault(request, body, fault)
        if endpoint == "update" and request.method == method:
            with self._lock:
                status = response.status_code if response else None
                self._updates.append(UpdateSeen(_shown(body), status, stored))
        if response is not None:
            await response(scope, receive, send)
        else:
            # No public way leads from an ASGI application to its socket; uvicorn's request holds it.
            receive.__self__.transport.abort()  # type: ignore[attr-defined]

    async def _with_fault(self, request: Request, body: bytes, fault: Fault | None) -> tuple[Response | None, bool]:
        """The answer (None: cut the connection), and whether an update was stored."""
        if fault is None:
            return self._answer(request, body)
        if fault.kind == "hang":
            if fault.seconds is None:
                await request.receive()  # returns when the caller has gone
                return None, False
            await asyncio.sleep(fault.seconds)
            return self._answer(request, body)
        if fault.kind == "cut_before":
            return None, False
        if fault.kind in {"cut_after", "garbage"}:
            _, stored = self._answer(request, body)
            return (HTMLResponse("<html>\0not what you asked for") if fault.kind == "garbage" else None), stored
        if fault.kind == "500":
            return _server_error(request), False
        headers = {} if fault.retry_after_seconds is None else {"Retry-After": str(fault.retry_after_seconds)}
        return HTMLResponse(f"<html><h1>{fault.kind}</h1></html>", int(fault.kind), headers), False

    def _answer(self, request: Request, body: bytes) -> tuple[Response, bool]:
        """The site's own answer, its checks in the order that the site makes them."""
        path = request.url.path
        query = f"?{request.url.query}" if request.url.query else ""
        if not self._host_allowed(request.headers.get("host", "")):
            return HTMLResponse(_BAD_HOST_PAGE, 400), False
        if self._require_https and request.headers.get("x-forwarded-proto") != "https":
            return _redirect(f"https://{request.headers['host']}{path}{query}"), False
        if f"{path}/" in _ENDPOINTS:
            return _redirect(f"{path}/{query}"), False
        if path not in _ENDPOINTS:
            return HTMLResponse("<!doctype html><title>Not Found</title><h1>Not Found</h1>", 404), False
        if not _accepts_json(request.headers.get("accept", "*/*")):
            return _server_error(request), False
        endpoint, method = _ENDPOINTS[path]
        allow = {"Allow": f"{method}, OPTIONS"}
        key = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(key.encode(), self.api_key.encode()):
            detail = "Invalid API key" if key else "No API key"
            return JSONResponse({"detail": detail}, 401, {**allow, "WWW-Authenticate": "X-API-Key"}), False
        if request.method == "OPTIONS":
            return JSONResponse({"renders": ["application/json"]}, 200, allow), False
        if request.method != method:
            return JSONResponse({"detail": f'Method "{request.method}" not allowed.'}, 405, allow), False
        if endpoint == "batch":
            return self._batch(request, allow), False
        return self._update(request, body, allow)

    def _batch(self, request: Request, allow: dict[str, str]) -> Response:
        try:
            batch = self.store.batch()
        except UnreadableContent:
            return _server_error(request)
        return JSONResponse(batch, 200, allow)

    def _update(self, request: Request, body: bytes, allow: dict[str, str]) -> tuple[Response, bool]:
        try:
            update = read(request.headers.get("content-type", ""), body)
            self._store(update)
        except Refused as refused:
            return JSONResponse(refused.body, refused.status, allow), False
        except (NotStorable, UnreadableDetails):
            return _server_error(request), False
        except KeyError:
            return JSONResponse({"error": "SpamModeration object not found"}, 404, allow), False
        return JSONResponse({"message": "SpamModeration updated successfully"}, 200, allow), True

    def _store(self, update: Update) -> None:
        ordered = self.faults.of_record(update.record_id)
        if ordered == 404:
            raise KeyError(update.record_id)
        if ordered == 500:
            raise UnreadableDetails
        self.store.update(update.record_id, update.is_spam, update.verdict)

    def _host_allowed(self, header: str) -> bool:
        match = _HOST.fullmatch(header.lower())
        if match is None:
            return False
        host = match.group(1).removesuffix(".")
        return any(
            pattern in {"*", host} or (pattern.startswith(".") and (host == pattern[1:] or host.endswith(pattern)))
            for pattern in self._allowed_hosts
        )


def _redirect(location: str) -> Response:
    return Response("", 301, {"Location": location, "Content-Type": "text/html; charset=utf-8"})


def _server_error(request: Request) -> Response:
    path = request.url.path
    start = f'<!doctype html>\n<html lang="en"><title>Server Error</title><!-- {path} {path} -->'
    return HTMLResponse(start.ljust(_ERROR_PAGE_CHARACTERS + 2 * len(path)), 500)


def _accepts_json(accept: str) -> bool:
    media_types = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    return bool(media_types & {"", "*/*", "application/*", "application/json"})


def _shown(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
