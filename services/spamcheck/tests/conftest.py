"""Real parts for the checker's tests: a Temporal dev server in a process of its own, a site on loopback, processes."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from temporalio.client import Client, WorkflowHandle

from spamcheck.activities import Activities
from spamcheck.classify.base import Readiness
from spamcheck.items import Item, Verdict, content_hash
from spamcheck.journal import Journal
from spamcheck.messages import Carried, RunPlan
from spamcheck.runs import plan_of
from spamcheck.settings import Settings
from spamcheck.temporal import connect
from spamcheck.worker import build_worker
from spamcheck.workflows import CheckSpamWorkflow
from spamops.sandbox.http import LoopbackServer

KEY = "a-key-of-the-tests-with-32-characters-or-more"
PAYLOAD_KEY = base64.b64encode(bytes(range(32))).decode()
DEADLINE_SECONDS = 40


def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS, what: str = "condition") -> Any:
    """Wait until `condition` gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    pytest.fail(f"{what} did not come about within {seconds} s")


# Temporal


@dataclass
class TemporalServer:
    """A dev server as a process of its own, on a file. It can be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        return self.folder / "temporal.db"

    def start(self) -> None:
        executable = Path(sys.executable).with_name("temporal")
        command = [str(executable), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port)]
        command += ["--db-filename", str(self.database), "--log-level", "error"]
        # Outlives a kill of the process, not a power cut, and spares two thirds of the time.
        command += ["--sqlite-pragma", "synchronous=0"]
        with (self.folder / "temporal.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, what="Temporal dev server")

    def _answers(self) -> bool:
        """The port is open before the server can do anything: ask for the namespace."""
        executable = Path(sys.executable).with_name("temporal")
        command = [str(executable), "operator", "namespace", "describe", "default", "--address", self.address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def temporal(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[TemporalServer]:
    """One for all tests: each uses a task queue and a journal of its own."""
    server = TemporalServer(tmp_path_factory.mktemp("temporal"), free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_temporal(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[TemporalServer]:
    """One for this test alone, to be killed."""
    server = TemporalServer(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


# A run in this process, with parts that do as they are told


@dataclass
class FakeSource:
    """A site in memory. `size` items a batch, in rising order; ids in `dead` stay whatever verdict comes."""

    items: dict[str, Item] = field(default_factory=dict)
    size: int = 100
    dead: set[str] = field(default_factory=set)
    reads: int = 0
    received: list[tuple[str, str]] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    on_read: Callable[[int], None] = lambda _number: None
    on_submit: Callable[[str], None] = lambda _item_id: None

    def add(self, item_id: str, text: str = "", content_type: str = "job") -> Item:
        fields = {"title": text or f"text of {item_id}"}
        item = Item(id=item_id, content_type=content_type, content_hash=content_hash(fields), fields=fields)
        self.items[item_id] = item
        return item

    async def scheduled(self) -> list[Item]:
        self.reads += 1
        self.on_read(self.reads)
        return list(self.items.values())[: self.size]

    async def submit(self, item_id: str, verdict: Verdict) -> None:
        self.on_submit(item_id)
        self.received.append((item_id, self.items[item_id].content_hash if item_id in self.items else ""))
        self.verdicts[item_id] = verdict
        if item_id not in self.dead:
            self.items.pop(item_id, None)

    async def aclose(self) -> None:
        pass


@dataclass
class FakeClassifier:
    """Says spam of every text with the word `spam`."""

    on_classify: Callable[[Item], Any] = lambda _item: None
    tries: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0

    async def classify(self, item: Item) -> Verdict:
        self.tries[item.id] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            told = self.on_classify(item)
            if asyncio.iscoroutine(told):
                await told
        finally:
            self.at_once -= 1
        spam = "spam" in item.fields["title"]
        return Verdict(spam, 0.9, "rules", ("keyword",) if spam else (), f"reasoning about {item.fields['title']}")

    async def readiness(self) -> Readiness:
        return Readiness(models={})

    async def aclose(self) -> None:
        pass


@dataclass
class Bench:
    """A checker in this process: worker, journal and client, on a site and a classifier that a test directs."""

    settings: Settings
    client: Client
    journal: Journal
    source: FakeSource
    classifier: FakeClassifier

    async def start(self, workflow_id: str = "run", **changes: Any) -> WorkflowHandle[Any, Any]:
        plan = RunPlan(**{**vars(plan_of(self.settings)), **changes})
        unique = f"{workflow_id}-{self.settings.temporal_task_queue}"
        return await self.client.start_workflow(
            CheckSpamWorkflow.run, args=[plan, Carried()], id=unique, task_queue=self.settings.temporal_task_queue
        )

    async def run(self, **changes: Any) -> Any:
        """A whole run; returns its summary, raises WorkflowFailureError."""
        handle = await self.start(**changes)
        return await asyncio.wait_for(handle.result(), DEADLINE_SECONDS)

    @property
    def workflow_id(self) -> str:
        return f"run-{self.settings.temporal_task_queue}"


@pytest.fixture
def make_settings(tmp_path: Path, temporal: TemporalServer) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        values: dict[str, Any] = {
            "api_key": KEY,
            "payload_key": PAYLOAD_KEY,
            "state_dir": tmp_path / "state",
            "temporal_address": temporal.address,
            "temporal_task_queue": f"queue-{tmp_path.name}-{os.getpid()}-{time.monotonic_ns()}",
            "classifier": "rules",
            "retry_seconds": 0.05,
            "item_attempts": 3,
            "site_patience_seconds": 1.0,
        }
        return Settings(**{**values, **changes})

    return make


@pytest.fixture
def bench(make_settings: Callable[..., Settings]) -> Callable[..., Any]:
    @asynccontextmanager
    async def make(**changes: Any) -> AsyncIterator[Bench]:
        settings = make_settings(**changes)
        journal = Journal(settings.state_dir)
        client = await connect(settings, lazy=False)
        parts = Bench(settings, client, journal, FakeSource(), FakeClassifier())
        activities = Activities(parts.source, parts.classifier, journal, settings)
        async with build_worker(client, activities, settings):
            yield parts
        journal.close()

    return make


# Processes, against a site on loopback


class LoopbackSite:
    """The two endpoints of the site, as far as a run needs them. `delay` seconds before an update is answered."""

    def __init__(self, items: int, delay: float = 0.0) -> None:
        self.delay = delay
        self.down = False
        self.received: list[dict[str, Any]] = []
        self.scheduled = {
            number: {
                "id": number,
                "contentType": "job",
                "objectId": number,
                "contentObject": {
                    "id": number,
                    "title": f"Postdoc number {number}",
                    "summary": "",
                    "description": f"<p>Modelling of landscape {number}</p>",
                    "externalUrl": "",
                },
            }
            for number in range(1, items + 1)
        }
        self._lock = threading.Lock()
        batch = Route("/api/spam/get-latest-batch/", self._batch)
        update = Route("/api/spam/update/", self._update, methods=["POST"])
        self.server = LoopbackServer(Starlette(routes=[batch, update]))

    async def _batch(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        with self._lock:
            return JSONResponse(list(self.scheduled.values())[:100])

    async def _update(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        body = await request.json()
        with self._lock:
            self.received.append(body)
            self.scheduled.pop(int(body["id"]), None)
        await asyncio.sleep(self.delay)
        return JSONResponse({"message": "SpamModeration updated successfully"})

    def _refusal(self, request: Request) -> Response | None:
        if self.down:
            return PlainTextResponse("down", 503)
        if request.headers.get("x-api-key") != KEY:
            return JSONResponse({"detail": "Invalid API key"}, 401)
        return None

    def times_received(self) -> Counter[int]:
        return Counter(int(body["id"]) for body in self.received)


@pytest.fixture
def make_site() -> Iterator[Callable[..., LoopbackSite]]:
    sites: list[LoopbackSite] = []

    def make(items: int, delay: float = 0.0) -> LoopbackSite:
        site = LoopbackSite(items, delay)
        site.server.start()
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.server.stop()


@dataclass
class Process:
    """A process of the checker, and what it has logged."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def terminate(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=20)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def address(self) -> str:
        def listening() -> str | None:
            for line in self.text().splitlines():
                if "listening on " in line:
                    return line.partition("listening on ")[2].rstrip('"')
            assert self.popen.poll() is None, self.text()
            return None

        return str(until(listening, what="API"))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `api` or `worker` with settings from the environment; whatever is left is killed at the end."""
    started: list[Process] = []

    def start(name: str, **settings: Any) -> Process:
        values = {"API_KEY": KEY, "PAYLOAD_KEY": PAYLOAD_KEY, "CLASSIFIER": "rules", "API_PORT": "0"}
        values |= {"STATE_DIR": str(tmp_path / "state"), "HEARTBEAT_TIMEOUT_SECONDS": "2", "RETRY_SECONDS": "0.1"}
        values |= {key.upper(): str(value) for key, value in settings.items()}
        path = tmp_path / f"{name}-{len(started)}.log"
        environment = {"PATH": os.environ["PATH"], **values}
        with path.open("wb") as log:
            command = [sys.executable, "-m", f"spamcheck.{name}"]
            process = Process(subprocess.Popen(command, env=environment, stdout=log, stderr=log), path)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.kill()


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(headers={"X-API-Key": KEY}, timeout=40) as client:
        yield client


@pytest.fixture
def rows() -> Callable[[Path, str], list[tuple[Any, ...]]]:
    """Ask a journal, or any SQLite file, from outside."""

    def ask(path: Path, statement: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path) as db:
            return db.execute(statement).fetchall()

    return ask
