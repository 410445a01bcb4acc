"""A sandbox for measuring: instant transitions, a checker that is up before the server is woken."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from spamops.sandbox.ollama import SandboxOllama
from spamops.sandbox.transitions import Delays
from spamops.sandbox.world import World

SECONDS_AN_ITEM = 1.0
SERVED_AT_ONCE = 8
MODEL = "llama3.2"


@contextlib.contextmanager
def world(items: int, checker: dict[str, str]) -> Iterator[World]:
    """A running sandbox whose checker is ready."""
    with tempfile.TemporaryDirectory(prefix="spamops-bench-") as folder:
        made = World(Path(folder), items=items, delays=Delays(), checker=checker, always_on=True)
        try:
            made.start()
            wait_until_ready(made)
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def model_stand_in() -> Iterator[dict[str, str]]:
    """An LLM stand-in with Ollama's API that takes 1 s an item and serves 8 at once; the checker's settings for it."""
    ollama = SandboxOllama(seconds_per_answer=SECONDS_AN_ITEM, serves_at_once=SERVED_AT_ONCE)
    ollama.start()
    try:
        yield {
            "CLASSIFIER": "cascade",
            "OLLAMA_URL": ollama.url,
            "OLLAMA_DEFAULT_MODEL": MODEL,
            "OLLAMA_SECOND_MODEL": "none",
            "OLLAMA_NUM_PARALLEL": str(SERVED_AT_ONCE),
            # Room for the longest item in one call: the stand-in takes its time for each call, however long the text.
            "OLLAMA_CONTEXT_TOKENS": "131072",
        }
    finally:
        ollama.stop()


def client(made: World) -> httpx.Client:
    """A client of the sandbox's checker."""
    return httpx.Client(base_url=made.checker.url, headers={"X-API-Key": made.api_key}, timeout=60, trust_env=False)


def wait_until_ready(made: World, limit: float = 60.0) -> None:
    """Return when the checker says ok."""
    deadline = time.monotonic() + limit
    with client(made) as http:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if http.get("/ok").status_code == 200:
                    return
            time.sleep(0.1)
    raise SystemExit(f"bench: the checker was not ready within {limit:g} s; see {made.folder}/server/*.log")


def workflow_seconds(report: dict[str, Any]) -> float:
    """From the workflow's start to its end, in seconds, by the checker's own clock."""
    began, ended = (datetime.fromisoformat(report[name]) for name in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


def check(made: World) -> dict[str, Any]:
    """One check by the API alone, with long polls; its report."""
    with client(made) as http:
        workflow_id = http.post("/process-comses-spam").json()["workflow_id"]
        while True:
            status = http.get("/status", params={"workflow_id": workflow_id, "wait": 20}).json()
            if status["status"] not in ("RUNNING", "CONTINUED_AS_NEW"):
                break
        report: dict[str, Any] = http.get("/report", params={"workflow_id": workflow_id}).json()
    if report["status"] != "COMPLETED":
        raise SystemExit(f"bench: the check ended {report['status']}: {report['reason']}")
    return report
