"""The checker's HTTP API with answers as ordered and no work behind it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from spamops.clock import Clock, RealClock
from spamops.sandbox.http import LoopbackServer

API_KEY = "k" * 8 + "-of-the-fake-checker-" + "z" * 16
WORKFLOW_ID = "check-1"
PATHS = {"ok": "/ok", "start": "/process-comses-spam", "status": "/status", "report": "/report", "metrics": "/metrics"}


@dataclass(frozen=True)
class Answer:
    """One answer: to the next `times` requests (None: to all), or for `seconds` from the first of them.

    With `cut` the connection ends without an answer.
    """

    status: int = 200
    body: Mapping[str, Any] | str = ""
    times: int | None = None
    seconds: float | None = None
    cut: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def report(count: int = 3, failed: int = 0) -> dict[str, Any]:
    """A run's report with `count` verdicts, the first of them spam."""
    verdicts = [
        {
            "item_id": str(number),
            "content_type": "jobs",
            "content_hash": f"{number:064x}",
            "is_spam": number == 1,
            "confidence": 0.9,
            "by": "rules",
            "indicators": ["links"],
            "seconds": 0.1,
        }
        for number in range(1, count + 1)
    ]
    failures = [
        {"item_id": str(1000 + number), "content_type": "events", "content_hash": f"{number:064x}", "reason": "500"}
        for number in range(failed)
    ]
    return {
        "workflow_id": WORKFLOW_ID,
        "status": "COMPLETED",
        "reason": None,
        "rounds": 2,
        "checked": count,
        "spam": min(1, count),
        "not_spam": max(0, count - 1),
        "failed": failed,
        "superseded": 0,
        "left": 0,
        "classify_seconds": 1.5,
        "by_type": {"jobs": {"spam": min(1, count), "not_spam": max(0, count - 1), "failed": 0}},
        "verdicts": verdicts,
        "failures": failures,
    }


def status(word: str, reason: str | None = None, **progress: int) -> dict[str, Any]:
    """The body of a status answer."""
    counts = {"rounds": 1, "found": 3, "checked": 0, "spam": 0, "not_spam": 0, "failed": 0, "in_progress": 0} | progress
    return {"workflow_id": WORKFLOW_ID, "status": word, "reason": reason, "progress": counts}


class FakeChecker:
    """A checker whose check takes two status answers and finds three items.

    `order` puts other answers before the usual ones of a route (ok, start, status, report); `before` is called when a
    request of a route comes in; `hold` keeps a route's requests waiting until `release`, and `arrived` tells of them.
    `on` is whether its server is on: when it is not, connections are cut. `active` is whether a check goes on, which its
    metrics tell; with `tells` False it has no metrics.
    """

    def __init__(self, *, clock: Clock | None = None, on: bool = True, api_key: str = API_KEY) -> None:
        self.on = on
        self._clock = clock or RealClock()
        self._key = api_key
        self._lock = threading.Lock()
        self._orders: dict[str, list[Answer]] = {name: [] for name in PATHS}
        self._first: dict[int, float] = {}
        self._used: dict[int, int] = {}
        self._before: dict[str, Callable[[], None]] = {}
        self._held: dict[str, threading.Event] = {}
        self._arrived: dict[str, threading.Event] = {name: threading.Event() for name in PATHS}
        self._answered = 0
        self.active = False
        self.tells = True
        self.requests: list[str] = []
        routes = [
            Route(path, self._endpoint(name), methods=["POST" if name == "start" else "GET"])
            for name, path in PATHS.items()
        ]
        self._http = LoopbackServer(Starlette(routes=routes))

    @property
    def url(self) -> str:
        """The base address."""
        return self._http.url

    def start(self) -> None:
        """Return when requests are answered; until then connections are refused."""
        self._http.start()

    def stop(self) -> None:
        """Stop answering."""
        for held in self._held.values():
            held.set()
        self._http.stop()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def power(self, _server_id: str, on: bool) -> None:
        """The hook for the cloud: the checker answers while its server is on."""
        self.on = on
        self.active = self.active and on

    def order(self, route: str, *answers: Answer) -> None:
        """Answer a route like this first, in this order."""
        with self._lock:
            self._orders[route] += answers

    def before(self, route: str, action: Callable[[], None]) -> None:
        """Do this once, when the next request of a route comes in, before it is answered."""
        with self._lock:
            self._before[route] = action

    def hold(self, route: str) -> None:
        """Keep this route's requests waiting."""
        self._held[route] = threading.Event()

    def release(self, route: str) -> None:
        """Answer what was kept waiting."""
        self._held[route].set()

    def arrived(self, route: str, within: float = 30.0) -> bool:
        """Whether a request of this route came, within so many seconds."""
        return self._arrived[route].wait(within)

    def _endpoint(self, name: str) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            with self._lock:
                self.requests.append(name)
                action = self._before.pop(name, None)
            if action is not None:
                await asyncio.to_thread(action)
            self._arrived[name].set()
            held = self._held.get(name)
            while held is not None and not held.is_set() and not await request.is_disconnected():
                await asyncio.to_thread(held.wait, 0.02)
            if not self.on:
                return _Cut()
            if request.headers.get("x-api-key") != self._key:
                return _json(401, {"detail": "Invalid API key"})
            return self._answer(name, request)

        return endpoint

    def _answer(self, name: str, request: Request) -> Response:
        ordered = self._ordered(name)
        if ordered is not None:
            if ordered.cut:
                return _Cut()
            if isinstance(ordered.body, str):
                kind = "text/html" if ordered.body.startswith("<") else "application/json"
                return Response(ordered.body, ordered.status, dict(ordered.headers), media_type=kind)
            return _json(ordered.status, ordered.body)
        if name == "ok":
            return _json(200, {"status": "ok"})
        if name == "metrics":
            text = f"# TYPE spamcheck_run_active gauge\nspamcheck_run_active {float(self.active)}\n"
            return Response(text, 200, media_type="text/plain") if self.tells else _json(404, {"detail": "Not Found"})
        if name == "start":
            self.active = True
            return _json(200, {"workflow_id": WORKFLOW_ID})
        if request.query_params.get("workflow_id") != WORKFLOW_ID:
            return _json(404, {"detail": "no such workflow"})
        if name == "report":
            return _json(200, report())
        self._answered += 1
        if self._answered == 1:
            return _json(200, status("RUNNING", checked=1, in_progress=2))
        self.active = False
        return _json(200, status("COMPLETED", checked=3, spam=1, not_spam=2))

    def _ordered(self, name: str) -> Answer | None:
        now = self._clock.monotonic()
        with self._lock:
            while self._orders[name]:
                answer = self._orders[name][0]
                began = self._first.setdefault(id(answer), now)
                used = self._used.get(id(answer), 0)
                spent = answer.times is not None and used >= answer.times
                if spent or (answer.seconds is not None and now >= began + answer.seconds):
                    self._orders[name].pop(0)
                    continue
                self._used[id(answer)] = used + 1
                return answer
        return None


class _Cut(Response):
    """The connection ends without a byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport_of(send)
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def _transport_of(send: Any) -> Any:
    """uvicorn's connection, under what Starlette wrapped around its `send`."""
    while not hasattr(send, "__self__"):
        send = next(cell.cell_contents for cell in send.__closure__ if callable(cell.cell_contents))
    return send.__self__.transport


def _json(status_code: int, body: Mapping[str, Any]) -> Response:
    return Response(json.dumps(body), status_code, media_type="application/json")
