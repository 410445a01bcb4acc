"""The checker's HTTP API. `python -m spamcheck.api`; SIGTERM ends it with 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from . import door, report
from . import main as program
from .auth import KeyRequired
from .journal import API_BUSY_SECONDS, JOURNAL_FAULTS, Journal
from .logs import event
from .messages import WORKFLOW_ID_PATTERN
from .metrics import Counted, Metrics
from .runs import PARTS, WORKER_SILENCE_SECONDS, JournalDown, Runs, State, TemporalDown
from .settings import Settings
from .temporal import connect

_log = logging.getLogger("spamcheck.api")

MAX_WAIT_SECONDS = 30
"""The longest /status?wait=: shorter than the time-outs of usual proxies (nginx: 60 s)."""
WorkflowId = Annotated[str, Query(pattern=WORKFLOW_ID_PATTERN, max_length=64)]


def build_app(settings: Settings, journal: Journal, runs: Runs) -> FastAPI:
    """The application: every route, behind the key."""
    app = FastAPI(title="spamcheck", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    metrics = Metrics(journal)

    app.add_middleware(KeyRequired, key=settings.api_key.get_secret_value())
    app.add_middleware(Counted, requests=metrics.requests)
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/ok")
    async def ok(detail: bool = False) -> Response:
        problems = await runs.problems()
        body: dict[str, Any] = {"status": "ok"}
        if problems:
            body = {"status": "not ready", "reasons": list(problems.values())}
        if detail:
            worker = runs.worker()
            body["classifier"] = worker.classifier if worker else settings.classifier
            body["models"] = worker.models if worker else {}
            body |= {part: problems.get(part, "ok") for part in PARTS}
        return JSONResponse(body, status_code=503 if problems else 200)

    @app.post("/process-comses-spam")
    async def start() -> Response:
        try:
            workflow_id, already = await runs.start()
        except (TemporalDown, JournalDown) as error:
            return JSONResponse({"detail": f"{error}; try again"}, status_code=503)
        body: dict[str, Any] = {"workflow_id": workflow_id}
        if already:
            body["already_running"] = True
        return JSONResponse(body)

    @app.get("/status")
    async def status(workflow_id: WorkflowId, wait: str = "") -> Response:
        state = await runs.state(workflow_id, wait_seconds(wait))
        if state is None:
            return _no_run(workflow_id)
        body = _status(state)
        silence = runs.worker_silence()
        if state.run.status == "RUNNING" and silence > WORKER_SILENCE_SECONDS:
            # Temporal goes on waiting for another worker; whoever pays for this machine need not.
            body["worker_silent_seconds"] = round(silence, 1)
        return JSONResponse(body)

    @app.get("/report")
    async def whole_report(workflow_id: WorkflowId) -> Response:
        state = await runs.state(workflow_id)
        if state is None:
            return _no_run(workflow_id)
        try:
            journal.check()
            chunks = await asyncio.to_thread(report.stream, settings.state_dir, workflow_id, state.run)
        except JOURNAL_FAULTS as error:
            return JSONResponse({"detail": f"{runs.journal_reason(error)}; the report is in it"}, status_code=503)
        if chunks is None:
            return _no_run(workflow_id)
        return StreamingResponse(chunks, media_type="application/json")

    @app.get("/metrics")
    async def prometheus() -> Response:
        problems = await runs.problems()
        metrics.up = {part: part not in problems for part in PARTS}
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def wait_seconds(text: str) -> float:
    """From 0 to MAX_WAIT_SECONDS. Whatever else is asked for is no reason to keep the status from a caller."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), MAX_WAIT_SECONDS)


def _status(state: State) -> dict[str, Any]:
    run, counts = state.run, state.counts
    body: dict[str, Any] = {
        "workflow_id": run.workflow_id,
        "status": run.status,
        "reason": run.reason,
        "progress": {
            "rounds": run.rounds,
            "found": counts.found,
            "checked": counts.checked,
            "spam": counts.spam,
            "not_spam": counts.not_spam,
            "failed": counts.failed,
            "in_progress": counts.in_progress,
        },
    }
    if state.stale:
        body["stale"] = True
    return body


def _no_run(workflow_id: str) -> Response:
    return JSONResponse({"detail": f"there is no run {workflow_id}"}, status_code=404)


async def _invalid(_request: Request, error: Exception) -> Response:
    """422 that names the faulty parameters, without repeating what was sent."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
    return JSONResponse({"detail": text}, status_code=422)


class CannotListen(Exception):
    """The API's address is taken, or is not one of this machine's."""


class _Server(uvicorn.Server):
    """Leaves signals to `main`: uvicorn would raise them again at the end, and the exit code would not be 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _application(settings: Settings) -> AsyncIterator[FastAPI]:
    journal = Journal(settings.state_dir, busy_seconds=API_BUSY_SECONDS)
    try:
        yield build_app(settings, journal, Runs(await connect(settings, lazy=True), journal, settings))
    finally:
        journal.close()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Listen until `stop` is set.

    Raises JournalError and CannotListen.
    """
    door.raise_file_limit()
    listener = _listener(settings.api_host, settings.api_port)
    async with _application(settings) as app:
        config = uvicorn.Config(
            app,
            http=door.guarded(),
            backlog=door.BACKLOG,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        event(_log, logging.INFO, f"listening on http://{host}:{listener.getsockname()[1]}")
        stopping = asyncio.create_task(_end(server, stop))
        await server.serve(sockets=[listener])
        stopping.cancel()


async def _end(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio sends small answers at once (TCP_NODELAY) only on a socket that names it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if host == "::":
            # Every address of both kinds, whatever the machine's own default is.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, port))
        listener.listen(door.BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {host} port {port} ({error.strerror}); set API_HOST, API_PORT") from None
    return listener


def main() -> int:
    """The program; returns its exit code."""
    return program.run("spamcheck-api", "The checker's HTTP API.", serve, CannotListen)


if __name__ == "__main__":
    sys.exit(main())
