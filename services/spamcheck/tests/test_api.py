"""The HTTP API as a process of its own, as the site and the controller meet it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.client import Client

from spamcheck.api import wait_seconds
from spamcheck.items import Item
from spamcheck.journal import Journal
from spamcheck.messages import Ref

ROUTES = [
    ("GET", "/ok"),
    ("POST", "/process-comses-spam"),
    ("GET", "/status?workflow_id=check-spam-20261121T060000Z-ab12cd"),
    ("GET", "/report?workflow_id=check-spam-20261121T060000Z-ab12cd"),
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/live/"),
    ("GET", "/"),
]
KNOWN = "check-spam-20261121T060000Z-ab12cd"


@pytest.fixture
def api(processes: Any, temporal: Any, tmp_path: Path) -> str:
    """The address of an API with Temporal behind it, and no worker."""
    return str(processes("api", temporal_address=temporal.address, temporal_task_queue=f"api-{tmp_path}").address())


@pytest.fixture
def api_alone(processes: Any, free_port: Callable[[], int]) -> str:
    """The address of an API whose Temporal is down."""
    return str(processes("api", temporal_address=f"127.0.0.1:{free_port()}").address())


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = Journal(tmp_path / "state")
    yield journal
    journal.close()


def ended(http: httpx.Client, api: str, workflow_id: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = http.get(f"{api}/status", params={"workflow_id": workflow_id, "wait": 30}).json()
        if answer["status"] != "RUNNING":
            return answer
    pytest.fail("the run did not end")


# The door


def test_every_route_but_the_bare_liveness_one_needs_the_key(api_alone: str) -> None:
    for method, path in ROUTES:
        for headers, detail in (
            ({}, "No API key"),
            ({"X-API-Key": ""}, "No API key"),
            ({"X-API-Key": "x"}, "Invalid API key"),
        ):
            answer = httpx.request(method, api_alone + path, headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"detail": detail}), path
    assert httpx.get(f"{api_alone}/live").json() == {"status": "alive"}


def test_faulty_requests_get_json(api_alone: str, http: httpx.Client) -> None:
    wanted = [
        ("GET", "/nothing", 404),
        ("GET", "/ok/", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/process-comses-spam", 405),
        ("GET", "/status", 422),
        ("GET", "/status?workflow_id=../../etc/passwd", 422),
        ("GET", f"/status?workflow_id={KNOWN}", 404),
        ("GET", f"/report?workflow_id={KNOWN}", 404),
    ]
    for method, path, status in wanted:
        answer = http.request(method, api_alone + path)
        assert (answer.status_code, "detail" in answer.json()) == (status, True), path
        assert "passwd" not in answer.text


@pytest.mark.parametrize("wait", ["", "abc", "nan", "-1", "-inf", "1e-9"])
def test_a_caller_whose_wait_makes_no_sense_gets_the_status_at_once(
    wait: str, api: str, http: httpx.Client, journal: Journal
) -> None:
    journal.begin_run(KNOWN)
    answer = http.get(f"{api}/status", params={"workflow_id": KNOWN, "wait": wait}, timeout=20)
    assert (answer.status_code, answer.json()["status"]) == (200, "RUNNING")


@pytest.mark.parametrize("wait", ["60", "31", "inf", "1e400"])
def test_a_caller_who_would_wait_too_long_still_sees_the_end(
    wait: str, api_alone: str, http: httpx.Client, journal: Journal
) -> None:
    journal.begin_run(KNOWN)
    journal.end_run(KNOWN, "COMPLETED", None)
    answer = http.get(f"{api_alone}/status", params={"workflow_id": KNOWN, "wait": wait})
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETED")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 30), ("30", 30), ("2.5", 2.5), ("inf", 30), ("-5", 0), ("nan", 0), ("abc", 0), ("", 0)],
)
def test_no_wait_is_longer_than_proxies_allow(text: str, seconds: float) -> None:
    assert wait_seconds(text) == seconds


# The journal damaged, locked or gone


def damage(path: Path) -> None:
    """Every page is garbage, for everybody who reads from now on."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE makes_others_forget_what_they_have_read (x)")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(b"garbage " * 8192)


def strip(path: Path) -> None:
    """The rows have lost their form."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE runs RENAME TO lost")
        db.execute("ALTER TABLE workers RENAME TO lost_too")
        db.execute("ALTER TABLE totals RENAME TO lost_as_well")


def replace(path: Path) -> None:
    path.parent.rename(path.parent.with_name("aside"))
    Journal(path.parent).close()


RUINS = {"damaged": damage, "stripped": strip, "gone": Path.unlink, "replaced": replace}


@pytest.mark.parametrize("ruin", RUINS.values(), ids=RUINS)
def test_a_ruined_journal_costs_nobody_the_status_of_a_run(
    ruin: Callable[[Path], None], api: str, http: httpx.Client, journal: Journal, make_settings: Any
) -> None:
    workflow_id = http.post(f"{api}/process-comses-spam").json()["workflow_id"]
    journal.add_batch(workflow_id, 1, [Ref("1", "job", "a")], 3)
    http.get(f"{api}/status", params={"workflow_id": workflow_id})
    ruin(journal.path)

    def status(run: str, wait: str = "0") -> httpx.Response:
        return http.get(f"{api}/status", params={"workflow_id": run, "wait": wait})

    answer = status(workflow_id, "0.3")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["stale"], body["progress"]["found"]) == ("RUNNING", True, 1)
    answer = status(KNOWN)
    assert (answer.status_code, "detail" in answer.json()) == (404, True)
    ok = http.get(f"{api}/ok", params={"detail": "true"})
    assert ok.status_code == 503
    assert ok.json()["reasons"][0].startswith("journal: ")
    assert (ok.json()["temporal"], ok.json()["worker"] == "ok") == ("ok", False)
    report = http.get(f"{api}/report", params={"workflow_id": workflow_id})
    assert (report.status_code, report.json()["detail"].startswith("journal: ")) == (503, True)
    metrics = http.get(f"{api}/metrics")
    assert (metrics.status_code, 'spamcheck_up{part="journal"} 0.0' in metrics.text) == (200, True)
    start = http.post(f"{api}/process-comses-spam")
    assert (start.status_code, start.json()["detail"].startswith("journal: ")) == (503, True)

    async def terminate() -> None:
        client = await Client.connect(make_settings().temporal_address)
        await client.get_workflow_handle(workflow_id).terminate(reason="stopped by the operator")

    asyncio.run(terminate())
    body = status(workflow_id).json()
    assert (body["status"], body["reason"], body["stale"]) == ("TERMINATED", "stopped by the operator", True)


def test_a_run_of_before_the_restart_is_asked_of_temporal_when_the_journal_is_ruined(
    processes: Any, temporal: Any, http: httpx.Client, journal: Journal, tmp_path: Path
) -> None:
    common = {"temporal_address": temporal.address, "temporal_task_queue": f"restart-{tmp_path}"}
    first = processes("api", **common)
    workflow_id = http.post(f"{first.address()}/process-comses-spam").json()["workflow_id"]
    first.kill()
    api = processes("api", **common).address()
    strip(journal.path)
    answer = http.get(f"{api}/status", params={"workflow_id": workflow_id})
    assert (answer.status_code, answer.json()["status"], answer.json()["stale"]) == (200, "RUNNING", True)


def test_without_journal_and_temporal_no_run_is_said_to_be_unknown(
    api_alone: str, http: httpx.Client, journal: Journal
) -> None:
    assert http.get(f"{api_alone}/status", params={"workflow_id": KNOWN}).status_code == 404
    strip(journal.path)
    answer = http.get(f"{api_alone}/status", params={"workflow_id": KNOWN})
    assert (answer.status_code, answer.json()["status"], answer.json()["stale"]) == (200, "RUNNING", True)
    assert len(http.get(f"{api_alone}/ok").json()["reasons"]) == 3


def test_a_locked_journal_hides_neither_itself_nor_the_end_of_a_run(
    api: str, http: httpx.Client, journal: Journal, make_settings: Any
) -> None:
    workflow_id = http.post(f"{api}/process-comses-spam").json()["workflow_id"]

    async def terminate() -> None:
        client = await Client.connect(make_settings().temporal_address)
        await client.get_workflow_handle(workflow_id).terminate(reason="stopped by the operator")

    asyncio.run(terminate())
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ok = http.get(f"{api}/ok")
        assert (ok.status_code, ok.json()["reasons"][0]) == (503, "journal: database is locked")
        answer = http.get(f"{api}/status", params={"workflow_id": workflow_id})
        assert (answer.status_code, answer.json()["status"]) == (200, "TERMINATED")
        report = http.get(f"{api}/report", params={"workflow_id": workflow_id}).json()
        assert (report["status"], report["reason"]) == ("TERMINATED", "stopped by the operator")
        assert report["ended_at"] is not None
        assert http.get(f"{api}/metrics").status_code == 200
        assert http.post(f"{api}/process-comses-spam").status_code == 503
    assert http.get(f"{api}/ok").json()["reasons"] == ["no worker has started"]


def test_a_full_disk_does_not_hand_out_a_run_that_has_ended(
    processes: Any, temporal: Any, http: httpx.Client, make_settings: Any, tmp_path: Path
) -> None:
    process = processes("api", temporal_address=temporal.address, temporal_task_queue=f"full-{tmp_path}")
    api = process.address()
    workflow_id = http.post(f"{api}/process-comses-spam").json()["workflow_id"]

    async def terminate() -> None:
        client = await Client.connect(make_settings().temporal_address)
        await client.get_workflow_handle(workflow_id).terminate(reason="stopped by the operator")

    asyncio.run(terminate())
    # From now on no file of the process can be written, as on a full disk.
    limits = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    answer = http.get(f"{api}/status", params={"workflow_id": workflow_id})
    assert (answer.status_code, answer.json()["status"]) == (200, "TERMINATED")
    answer = http.get(f"{api}/report", params={"workflow_id": workflow_id})
    assert (answer.status_code, answer.json()["status"]) == (200, "TERMINATED")
    answer = http.post(f"{api}/process-comses-spam")
    assert (answer.status_code, answer.json()["detail"].startswith("journal: ")) == (503, True)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, limits)
    answer = http.post(f"{api}/process-comses-spam")
    assert answer.status_code == 200
    assert answer.json()["workflow_id"] != workflow_id


def test_a_refused_call_is_logged_with_the_callers_address(processes: Any, free_port: Callable[[], int]) -> None:
    process = processes("api", temporal_address=f"127.0.0.1:{free_port()}", api_host="::")
    port = process.address().rpartition(":")[2]
    path = "/ok%20client=203.0.113.9"
    httpx.get(f"http://127.0.0.1:{port}{path}", headers={"X-API-Key": "wrong"})
    httpx.get(f"http://127.0.0.1:{port}/ok")
    lines = [line for line in process.text().splitlines() if "refused" in line]
    begin = 'level=WARNING logger=spamcheck.auth msg="a call was refused" client=127.0.0.1 detail='
    assert [line.partition(" ")[2] for line in lines] == [
        f'{begin}"Invalid API key" path="/ok client=203.0.113.9"',
        f'{begin}"No API key" path=/ok',
    ]


# Temporal down


def test_the_api_starts_without_temporal_and_says_what_is_missing(api_alone: str, http: httpx.Client) -> None:
    answer = http.get(f"{api_alone}/ok")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert len(answer.json()["reasons"]) == 2
    answer = http.post(f"{api_alone}/process-comses-spam")
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (503, True)


def test_a_start_that_temporal_did_not_see_leaves_no_run_behind(
    api_alone: str, http: httpx.Client, journal: Journal
) -> None:
    http.post(f"{api_alone}/process-comses-spam")
    assert journal.active() is None


def test_status_of_a_known_run_is_no_error_while_temporal_is_down(
    api_alone: str, http: httpx.Client, journal: Journal
) -> None:
    journal.begin_run(KNOWN)
    journal.add_batch(KNOWN, 1, [Ref("1", "job", "a")], 3)
    answer = http.get(f"{api_alone}/status", params={"workflow_id": KNOWN})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["stale"], body["progress"]["found"]) == ("RUNNING", True, 1)
    began = time.monotonic()
    assert http.get(f"{api_alone}/status", params={"workflow_id": KNOWN, "wait": 1}).json()["stale"] is True
    # The time-outs of Temporal come on top of the second that was asked for; unlimited, it would be 30 s or more.
    assert 0.9 < time.monotonic() - began < 20
    journal.end_run(KNOWN, "COMPLETED", None)
    body = http.get(f"{api_alone}/status", params={"workflow_id": KNOWN}).json()
    assert (body["status"], body["stale"]) == ("COMPLETED", True)
    assert http.get(f"{api_alone}/report", params={"workflow_id": KNOWN}).json()["status"] == "COMPLETED"


def test_the_api_finds_a_temporal_that_comes_up_later(
    processes: Any, own_temporal: Any, http: httpx.Client, journal: Journal
) -> None:
    own_temporal.kill()
    api = processes("api", temporal_address=own_temporal.address).address()
    assert http.get(f"{api}/ok").status_code == 503
    journal.beat("1@host", "rules", {})
    own_temporal.start()
    deadline = time.monotonic() + 30
    while (answer := http.get(f"{api}/ok")).status_code != 200 and time.monotonic() < deadline:
        journal.beat("1@host", "rules", {})
    assert answer.json() == {"status": "ok"}


# Runs


def test_ok_needs_a_worker_that_is_alive(api: str, http: httpx.Client, journal: Journal, rows: Any) -> None:
    assert http.get(f"{api}/ok").json() == {"status": "not ready", "reasons": ["no worker has started"]}
    journal.beat("1@host", "rules", {"llama3.2": "not loaded"})
    assert (http.get(f"{api}/ok").status_code, http.get(f"{api}/ok").json()) == (200, {"status": "ok"})
    assert http.get(f"{api}/ok", params={"detail": "true"}).json() == {
        "status": "ok",
        "classifier": "rules",
        "models": {"llama3.2": "not loaded"},
        "journal": "ok",
        "temporal": "ok",
        "worker": "ok",
    }
    rows(journal.path, "UPDATE workers SET beat_at = beat_at - 60")
    answer = http.get(f"{api}/ok")
    assert (answer.status_code, "no sign of life" in answer.json()["reasons"][0]) == (503, True)


def test_a_worker_that_died_in_a_run_is_told_by_status(
    api: str, http: httpx.Client, journal: Journal, rows: Any
) -> None:
    workflow_id = http.post(f"{api}/process-comses-spam").json()["workflow_id"]
    journal.beat("1@host", "rules", {})
    told = http.get(f"{api}/status", params={"workflow_id": workflow_id}).json()
    assert "worker_silent_seconds" not in told
    rows(journal.path, "UPDATE workers SET beat_at = beat_at - 60")
    told = http.get(f"{api}/status", params={"workflow_id": workflow_id}).json()
    assert told["status"] == "RUNNING"
    assert 60 <= told["worker_silent_seconds"] < 90


def test_starting_twice_gives_the_same_run(api: str, http: httpx.Client) -> None:
    first = http.post(f"{api}/process-comses-spam").json()
    second = http.post(f"{api}/process-comses-spam").json()
    assert set(first) == {"workflow_id"}
    assert second == {"workflow_id": first["workflow_id"], "already_running": True}


async def test_starting_many_times_at_once_gives_one_run(api: str, http: httpx.Client) -> None:
    async with httpx.AsyncClient(headers=http.headers, timeout=30) as client:
        answers = await asyncio.gather(*(client.post(f"{api}/process-comses-spam") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["workflow_id"] for answer in answers}) == 1


def test_a_start_that_was_cut_off_is_completed_by_the_next(api: str, http: httpx.Client, journal: Journal) -> None:
    journal.begin_run(KNOWN)  # the process died between the journal and Temporal
    assert http.post(f"{api}/process-comses-spam").json() == {"workflow_id": KNOWN}
    assert http.get(f"{api}/status", params={"workflow_id": KNOWN}).json()["status"] == "RUNNING"


@pytest.mark.parametrize(("details", "reason"), [((), "stopped by the operator"), (("in clear",), None)])
def test_a_run_that_was_terminated_is_not_running_for_ever(
    details: tuple[str, ...], reason: str | None, api: str, http: httpx.Client, make_settings: Any
) -> None:
    workflow_id = http.post(f"{api}/process-comses-spam").json()["workflow_id"]

    async def terminate() -> None:
        client = await Client.connect(make_settings().temporal_address)
        await client.get_workflow_handle(workflow_id).terminate(*details, reason="stopped by the operator")

    asyncio.run(terminate())
    status = http.get(f"{api}/status", params={"workflow_id": workflow_id}).json()
    assert (status["status"], status["reason"]) == ("TERMINATED", reason)
    report = http.get(f"{api}/report", params={"workflow_id": workflow_id}).json()
    assert (report["status"], report["ended_at"] is not None) == ("TERMINATED", True)
    assert http.post(f"{api}/process-comses-spam").json()["workflow_id"] != workflow_id


def test_a_run_that_temporal_has_lost_is_not_running_for_ever(api: str, http: httpx.Client, journal: Journal) -> None:
    lost = "check-spam-20261121T060000Z-105700"
    journal.begin_run(lost)
    journal.add_batch(lost, 1, [], 3)
    status = http.get(f"{api}/status", params={"workflow_id": lost}).json()
    assert (status["status"], "does not know this run" in status["reason"]) == ("TERMINATED", True)


async def test_the_long_poll_ends_with_the_run(processes: Any, bench: Any, http: httpx.Client) -> None:
    async with bench(classifier="rules") as parts:
        settings = parts.settings
        api = processes(
            "api", temporal_address=settings.temporal_address, temporal_task_queue=settings.temporal_task_queue
        ).address()
        parts.source.add("1", "spam")
        go_on = asyncio.Event()

        async def classify(_item: Item) -> None:
            await go_on.wait()

        parts.classifier.on_classify = classify
        async with httpx.AsyncClient(headers=http.headers, timeout=40) as client:
            workflow_id = (await client.post(f"{api}/process-comses-spam")).json()["workflow_id"]
            began = time.monotonic()
            answer = await client.get(f"{api}/status", params={"workflow_id": workflow_id, "wait": 0.5})
            assert (answer.json()["status"], 0.4 < time.monotonic() - began < 20) == ("RUNNING", True)
            polling = asyncio.create_task(client.get(f"{api}/status", params={"workflow_id": workflow_id, "wait": 30}))
            await asyncio.sleep(0.2)
            go_on.set()
            await parts.client.get_workflow_handle(workflow_id).result()
            ended_at = time.monotonic()
            answer = await polling
            # Generous for a busy machine: an end that is not noticed would be told when the 30 s are over.
            assert time.monotonic() - ended_at < 15
        status = answer.json()
        assert status == {
            "workflow_id": workflow_id,
            "status": "COMPLETED",
            "reason": None,
            "progress": {
                "rounds": status["progress"]["rounds"],
                "found": 1,
                "checked": 1,
                "spam": 1,
                "not_spam": 0,
                "failed": 0,
                "in_progress": 0,
            },
        }
        metrics = (await asyncio.to_thread(http.get, f"{api}/metrics")).text
        assert 'spamcheck_items_checked_total{content_type="job",verdict="spam"} 1.0' in metrics
        assert 'spamcheck_runs_total{status="COMPLETED"} 1.0' in metrics
        assert workflow_id not in metrics


def test_metrics_have_units_and_no_data_of_items(api: str, http: httpx.Client) -> None:
    http.get(f"{api}/some/path/of/someone@example.org")
    text = http.get(f"{api}/metrics").text
    assert "example.org" not in text
    assert 'spamcheck_up{part="temporal"} 1.0' in text
    assert 'spamcheck_up{part="worker"} 0.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_sites_own_command_works_unchanged(
    processes: Any, temporal: Any, make_site: Any, http: httpx.Client, tmp_path: Path
) -> None:
    site = make_site(items=12)
    common = {
        "temporal_address": temporal.address,
        "temporal_task_queue": f"site-{tmp_path}",
        "comses_url": site.server.url,
    }
    api = processes("api", **common).address()
    processes("worker", **common)
    workflow_id = ""
    key = http.headers["X-API-Key"]
    with httpx.Client(timeout=30) as client:
        client.headers.clear()
        deadline = time.monotonic() + 60
        for call in SITE_CALLS:
            headers = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate", "User-Agent": "python-requests/2.32.3"}
            headers |= {"X-API-Key": key} | ({"Content-Length": "0"} if call["method"] == "POST" else {})
            wanted = call["body"]
            while True:
                path = call["path"].replace("wf-1", workflow_id)
                answer = client.request(call["method"], api + path, headers=headers)
                body = answer.json()
                if call["body"] == {"status": "RUNNING"}:
                    assert answer.status_code == 200
                    assert body["status"] in {"RUNNING", "COMPLETED"}
                    break
                if answer.status_code == 200 and all(
                    body.get(name) == wanted[name] for name in wanted if name == "status"
                ):
                    break
                assert call["method"] == "GET", body
                assert time.monotonic() < deadline, body
                time.sleep(0.05)
            if "workflow_id" in wanted:
                workflow_id = body["workflow_id"]
                assert workflow_id
    assert site.times_received() == dict.fromkeys(range(1, 13), 1)
    assert json.loads(http.get(f"{api}/report", params={"workflow_id": workflow_id}).text)["checked"] == 12


SITE_CALLS: list[dict[str, Any]] = [
    {"method": "GET", "path": "/ok", "body": {"status": "ok"}},
    {"method": "POST", "path": "/process-comses-spam", "body": {"workflow_id": "wf-1"}},
    {"method": "GET", "path": "/status?workflow_id=wf-1", "body": {"status": "RUNNING"}},
    {"method": "GET", "path": "/status?workflow_id=wf-1", "body": {"status": "COMPLETED"}},
]
"""What the site asks of the checker, recorded: python-requests, no body and no content type with the POST."""
