"""Processes that are killed in the middle of a run: nothing is lost, and no verdict is sent twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from spamcheck.journal import Journal

ITEMS = 60
DELAY = 0.05


@pytest.fixture
def stack(processes: Any, own_temporal: Any, make_site: Any) -> Any:
    """A site, API and worker with a Temporal of their own: (site, api, worker, settings)."""
    site = make_site(items=ITEMS, delay=DELAY)
    settings = {
        "temporal_address": own_temporal.address,
        "comses_url": site.server.url,
        "parallelism": 2,
        "site_patience_seconds": 60,
        "item_attempts": 10,
    }
    return site, processes("api", **settings), processes("worker", **settings), settings


def start(http: httpx.Client, address: str) -> str:
    deadline = time.monotonic() + 60
    while (answer := http.get(f"{address}/ok")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return str(http.post(f"{address}/process-comses-spam").json()["workflow_id"])


def reach(site: Any, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(site.received) < number:
        assert time.monotonic() < deadline, f"only {len(site.received)} verdicts"
        time.sleep(0.01)


def end(http: httpx.Client, address: str, workflow_id: str) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = http.get(f"{address}/status", params={"workflow_id": workflow_id, "wait": 5})
        assert answer.status_code == 200, answer.text
        if answer.json()["status"] != "RUNNING":
            return answer.json()
    pytest.fail(f"the run did not end: {answer.text}")


def all_once(site: Any) -> None:
    assert site.times_received() == dict.fromkeys(range(1, ITEMS + 1), 1)


def test_a_killed_worker_costs_no_verdict_and_repeats_none(stack: Any, processes: Any, http: httpx.Client) -> None:
    site, api, worker, settings = stack
    workflow_id = start(http, api.address())
    for number in (10, 30):
        reach(site, number)
        worker.kill()
        worker = processes("worker", **settings)
    status = end(http, api.address(), workflow_id)
    assert (status["status"], status["progress"]["checked"], status["progress"]["failed"]) == ("COMPLETED", ITEMS, 0)
    all_once(site)


def test_a_killed_api_does_not_touch_the_run(stack: Any, processes: Any, http: httpx.Client) -> None:
    site, api, _worker, settings = stack
    workflow_id = start(http, api.address())
    reach(site, 10)
    site.down = True  # so that the run cannot end while the API comes back
    api.kill()
    again = processes("api", **settings).address()
    assert http.post(f"{again}/process-comses-spam").json() == {"workflow_id": workflow_id, "already_running": True}
    site.down = False
    assert end(http, again, workflow_id)["status"] == "COMPLETED"
    all_once(site)


def test_a_killed_temporal_delays_the_run_and_nothing_else(stack: Any, own_temporal: Any, http: httpx.Client) -> None:
    site, api, _worker, _settings = stack
    workflow_id = start(http, api.address())
    reach(site, 10)
    own_temporal.kill()
    answer = http.get(f"{api.address()}/status", params={"workflow_id": workflow_id})
    assert (answer.status_code, answer.json()["status"], answer.json()["stale"]) == (200, "RUNNING", True)
    own_temporal.start()
    status = end(http, api.address(), workflow_id)
    assert (status["status"], status["progress"]["checked"]) == ("COMPLETED", ITEMS)
    all_once(site)


def test_a_site_that_is_down_for_a_while_is_waited_for(stack: Any, http: httpx.Client) -> None:
    site, api, worker, _settings = stack
    workflow_id = start(http, api.address())
    reach(site, 10)
    site.down = True
    deadline = time.monotonic() + 30
    while "waiting for the site" not in worker.text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    site.down = False
    status = end(http, api.address(), workflow_id)
    assert (status["status"], status["progress"]["failed"]) == ("COMPLETED", 0)
    all_once(site)


def test_sigterm_ends_both_cleanly_and_the_next_worker_goes_on(stack: Any, processes: Any, http: httpx.Client) -> None:
    site, api, worker, settings = stack
    workflow_id = start(http, api.address())
    reach(site, 10)
    assert worker.terminate() == 0
    assert api.terminate() == 0
    assert "Traceback" not in worker.text() + api.text()
    processes("worker", **settings)
    again = processes("api", **settings).address()
    assert end(http, again, workflow_id)["status"] == "COMPLETED"
    all_once(site)


def test_logs_hold_neither_content_nor_keys(stack: Any, http: httpx.Client) -> None:
    _site, api, worker, _settings = stack
    end(http, api.address(), start(http, api.address()))
    text = worker.text() + api.text()
    assert "run ended" in text
    for secret in ("Postdoc", "landscape", http.headers["X-API-Key"]):
        assert secret not in text


@pytest.mark.parametrize("name", ["api", "worker"])
def test_faulty_settings_end_with_2_and_one_message(processes: Any, name: str) -> None:
    process = processes(name, api_key="short", payload_key="none")
    assert process.popen.wait(timeout=30) == 2
    assert "API_KEY has 5 characters" in process.text()
    assert "Traceback" not in process.text()


def test_settings_that_only_the_classifier_can_judge_are_named_too(processes: Any) -> None:
    worker = processes("worker", classifier="cascade", custom_instructions="word " * 20_000)
    assert worker.popen.wait(timeout=30) == 2
    assert "settings are faulty" in worker.text()
    assert "Traceback" not in worker.text()


def test_a_worker_without_temporal_waits_with_one_line(processes: Any, free_port: Any) -> None:
    worker = processes("worker", temporal_address=f"127.0.0.1:{free_port()}")
    deadline = time.monotonic() + 30
    while "waiting for Temporal" not in worker.text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    assert len(worker.text().splitlines()) == 1
    assert worker.terminate() == 0


def test_a_worker_that_lost_temporal_gives_no_sign_of_life(processes: Any, own_temporal: Any, tmp_path: Path) -> None:
    processes("worker", temporal_address=own_temporal.address)
    journal = Journal(tmp_path / "state")

    def age() -> float:
        worker = journal.worker()
        return worker.age if worker else float("inf")

    def reached(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, age()
            time.sleep(0.05)

    reached(lambda: age() < 1)
    own_temporal.kill()
    reached(lambda: age() > 4)  # four beats left out
    own_temporal.start()
    reached(lambda: age() < 1)
    journal.close()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_help_and_version_need_no_settings(name: str, tmp_path: Path) -> None:
    def told(option: str) -> str:
        command = [sys.executable, "-m", f"spamcheck.{name}", option]
        answer = subprocess.run(command, env={}, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (answer.returncode, answer.stderr) == (0, "")
        return answer.stdout

    text = told("--help")
    for word in (f"usage: spamcheck-{name}", "environment", "API_KEY", "exit codes"):
        assert word in text
    assert told("--version") == f"spamcheck-{name} {version('spamcheck')}\n"


def test_a_port_in_use_is_said_in_words(processes: Any) -> None:
    first = processes("api", temporal_address="127.0.0.1:1")
    port = first.address().rpartition(":")[2]
    second = processes("api", temporal_address="127.0.0.1:1", api_port=port)
    assert second.popen.wait(timeout=30) == 2
    assert f"port {port}" in second.text()
    assert "Traceback" not in second.text()
