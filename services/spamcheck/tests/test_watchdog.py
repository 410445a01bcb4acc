"""The idle watchdog: a server that nobody needs shelves itself, one that is needed never does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from notice_board import SECRET, NoticeBoard
from pydantic import SecretStr, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.client import Client

from spamcheck import sessions, watchdog
from spamcheck.items import Item
from spamcheck.journal import Journal
from spamcheck.settings import WatchdogSettings
from spamcheck.shelve import Cloud, CloudFault
from spamcheck.watchdog import BUSY_AT, TOLD_AT, Memory, Seen, not_shelved, one_pass
from spamops.sandbox.cloud import AccessRule, Credential, Delays, HttpFault, SandboxCloud, ServerSpec
from spamops.sandbox.http import LoopbackServer

SERVER = str(uuid.uuid4())
MINUTE = 60.0


@pytest.fixture
def sandbox() -> Iterator[SandboxCloud]:
    """A cloud with this server, ACTIVE."""
    with SandboxCloud([ServerSpec(id=SERVER, status="ACTIVE")], delays=Delays()) as cloud:
        yield cloud


@pytest.fixture
def credential(sandbox: SandboxCloud) -> Credential:
    """An application credential that may do nothing but act on this server, as the documentation says to make one."""
    rule = AccessRule("POST", f"/v2.1/servers/{SERVER}/action")
    return sandbox.add_credential(Credential(name="watchdog", roles=("member",), access_rules=(rule,)))


@pytest.fixture
def settings(sandbox: SandboxCloud, credential: Credential, tmp_path: Path) -> WatchdogSettings:
    return WatchdogSettings(
        os_auth_url=sandbox.auth_url,
        os_application_credential_id=credential.id,
        os_application_credential_secret=credential.secret,
        server_id=SERVER,
        watchdog_state_file=tmp_path / "run" / "state.json",
        state_dir=tmp_path / "state",
    )


class Host:
    """A server with a clock of its own, on which passes are made."""

    def __init__(self, settings: WatchdogSettings, uptime: float = 1 * MINUTE) -> None:
        self.settings = settings
        self.uptime = uptime
        self.now = 1_800_000_000.0
        self.seen = Seen()
        self.on_look: Callable[[], None] = lambda: None

    def look(self) -> Seen:
        self.on_look()
        return self.seen

    def passes(self, minutes: float = 0.0) -> bool:
        """Time goes by; then one pass. Returns whether the cloud was asked."""
        self.uptime += minutes * MINUTE
        self.now += minutes * MINUTE
        cloud = Cloud(self.settings)
        try:
            return one_pass(self.settings, self.look, cloud, uptime=lambda: self.uptime, now=lambda: self.now)
        finally:
            cloud.close()


@pytest.fixture
def host(settings: WatchdogSettings) -> Host:
    return Host(settings)


def shelvings(sandbox: SandboxCloud) -> int:
    return sandbox.action_requests.count((SERVER, "shelve"))


# When


def test_a_server_that_nobody_needs_is_shelved_after_the_minutes_that_are_set(
    host: Host, sandbox: SandboxCloud
) -> None:
    assert not host.passes()
    assert not host.passes(29)
    assert shelvings(sandbox) == 0
    assert host.passes(2)
    assert sandbox.history(SERVER)[-1][1] == "SHELVED_OFFLOADED"
    assert [path for method, path in sandbox.requests if method == "POST"] == [
        "/identity/v3/auth/tokens",
        f"/compute/v2.1/servers/{SERVER}/action",
    ]


def test_a_server_that_is_needed_is_left_on_and_counted_anew(host: Host, sandbox: SandboxCloud) -> None:
    host.passes()
    host.seen = Seen("a check is working")
    assert not host.passes(600)
    host.seen = Seen()
    assert not host.passes(29)
    assert host.passes(2)
    assert shelvings(sandbox) == 1


def test_a_server_that_has_just_been_woken_is_left_on(host: Host) -> None:
    host.settings = host.settings.model_copy(update={"watchdog_idle_minutes": 1, "watchdog_grace_minutes": 15})
    host.passes()
    assert not host.passes(13)
    assert host.passes(2)


def test_the_first_pass_on_a_server_that_has_long_been_up_shelves_nothing(settings: WatchdogSettings) -> None:
    host = Host(settings, uptime=9000 * MINUTE)
    assert not host.passes()
    assert not host.passes(29)
    assert host.passes(2)


def test_what_was_before_the_boot_does_not_count(host: Host, settings: WatchdogSettings) -> None:
    settings.watchdog_state_file.parent.mkdir()
    settings.watchdog_state_file.write_text(json.dumps({"boot": "another", "busy_at": -90_000.0}))
    assert not host.passes(20)


def test_a_memory_that_cannot_be_written_does_not_keep_the_server_on(
    settings: WatchdogSettings, tmp_path: Path, sandbox: SandboxCloud
) -> None:
    (tmp_path / "run").write_text("a file where a folder should be")
    host = Host(settings, uptime=29 * MINUTE)
    assert not host.passes()
    host.seen = Seen("somebody is logged in")
    assert not host.passes(60)
    host.seen = Seen()
    assert host.passes(1)


def test_a_run_that_began_and_ended_between_two_passes_counts(host: Host) -> None:
    host.passes()
    host.seen = Seen(last_run=host.now + 20 * MINUTE)
    assert not host.passes(31)
    assert not host.passes(18)
    assert host.passes(2)


def test_a_journal_from_the_future_does_not_keep_the_server_on(host: Host) -> None:
    host.passes()
    host.seen = Seen(last_run=host.now + 10_000 * MINUTE)
    assert host.passes(31)


@pytest.mark.parametrize("late", [Seen("a check is working"), "run"])
def test_what_begins_while_the_cloud_is_asked_for_a_token_is_not_cut_off(
    host: Host, sandbox: SandboxCloud, late: Any
) -> None:
    host.passes()
    looks: list[int] = []

    def second_look() -> None:
        looks.append(1)
        if len(looks) == 2:
            host.seen = Seen(last_run=host.now) if late == "run" else late

    host.on_look = second_look
    assert not host.passes(31)
    assert (len(looks), shelvings(sandbox)) == (2, 0)


# The cloud


# Alarms


@pytest.fixture
def board(host: Host) -> Iterator[NoticeBoard]:
    """A real HTTP server that takes the alarms."""
    with NoticeBoard() as board:
        send_to(host, board)
        yield board


def send_to(host: Host, board: NoticeBoard, way: str = "take") -> None:
    address = SecretStr(board.url(way).replace("json://", "http://"))
    host.settings = host.settings.model_copy(update={"watchdog_alarm_url": address})


def test_a_server_that_shelves_itself_tells_somebody(host: Host, board: NoticeBoard) -> None:
    host.passes()
    host.passes(20)
    assert not board.received
    host.passes(11)
    assert board.titles == ["The spam checker's server has shelved itself"]
    assert f"Server {SERVER} was on and idle for 31 minutes" in board.texts
    assert board.received[0]["type"] == "warning"


def test_a_server_that_cannot_shelve_itself_tells_it_once_an_hour(
    host: Host, board: NoticeBoard, settings: WatchdogSettings
) -> None:
    for minute in range(125):
        not_shelved(host.settings, "the cloud is away", uptime=lambda minute=minute: minute * MINUTE)  # type: ignore[misc]
    assert board.titles == ["The spam checker's server is NOT SHELVED"] * 3
    assert "the cloud is away" in board.texts
    # What is remembered of alarms and of work does not get in each other's way.
    memory = Memory(settings.watchdog_state_file)
    memory.write(BUSY_AT, 7.0)
    assert (memory.read(BUSY_AT), memory.read(TOLD_AT)) == (7.0, 120 * MINUTE)


@pytest.mark.parametrize("way", ["fail", "nobody"])
def test_an_alarm_that_nobody_takes_keeps_no_server_on_and_its_address_to_itself(
    host: Host, sandbox: SandboxCloud, board: NoticeBoard, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    if way == "nobody":
        address = SecretStr(f"http://127.0.0.1:9/{SECRET}")
        host.settings = host.settings.model_copy(update={"watchdog_alarm_url": address})
    else:
        send_to(host, board, way)
    host.passes()
    assert host.passes(31)
    assert shelvings(sandbox) == 1
    assert "the alarm was not taken" in caplog.text
    assert SECRET not in caplog.text


def test_a_watchdog_that_fails_tells_it_once_an_hour(
    host: Host, board: NoticeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_settings: WatchdogSettings) -> Seen:
        raise LookupError("of this test")

    monkeypatch.setattr(watchdog, "load_watchdog", lambda: host.settings)
    monkeypatch.setattr(watchdog, "look", broken)
    monkeypatch.setattr(watchdog.logs, "configure", lambda _level: None)
    assert [watchdog.main(), watchdog.main()] == [1, 1]
    assert board.titles == ["The idle watchdog of the spam checker's server fails"]
    assert "LookupError" in board.texts


def test_an_address_that_is_none_is_refused(settings: WatchdogSettings) -> None:
    with pytest.raises(ValidationError, match="must be an address that begins with"):
        WatchdogSettings(**settings.model_dump() | {"watchdog_alarm_url": "slack.example.org/x"})


def test_a_faulty_cloud_is_tried_again_at_the_next_pass(host: Host, sandbox: SandboxCloud) -> None:
    host.passes()
    with sandbox.outage(), pytest.raises(CloudFault, match=r"Keystone at .* cannot be reached"):
        host.passes(31)
    sandbox.order(HttpFault(status=503, path="/action"))
    with pytest.raises(CloudFault, match="did not accept to shelve"):
        host.passes(1)
    assert host.passes(1)


def test_a_second_request_while_the_server_is_being_shelved_is_no_fault(
    host: Host, sandbox: SandboxCloud, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.force_state(SERVER, "ACTIVE", "shelving")
    host.passes()
    with caplog.at_level(logging.WARNING):
        assert not host.passes(31)
    assert "the next pass tries again" in caplog.text


def test_a_server_that_nova_refuses_to_shelve_for_long_is_told(host: Host, sandbox: SandboxCloud) -> None:
    """Locked by an administrator, or stuck: nobody else may be there to see it."""
    sandbox.act(SERVER, "lock")
    host.passes()
    assert not host.passes(31)
    assert not host.passes(28)
    with pytest.raises(CloudFault, match=r"does not shelve server .* locked.*, and that for more than 30 minutes"):
        host.passes(2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"os_application_credential_secret": "wrong-secret"}, "refuses the application credential"),
        ({"os_application_credential_id": "f" * 32}, "refuses the application credential"),
        ({"server_id": str(uuid.uuid4())}, "does not let this application credential shelve"),
        ({"os_region_name": "Elsewhere"}, "no public address of Nova in region Elsewhere; it has RegionOne"),
        ({"os_interface": "internal"}, "no internal address of Nova"),
    ],
)
def test_a_fault_of_the_settings_is_told_in_words_without_secrets(
    settings: WatchdogSettings, credential: Credential, changes: dict[str, str], words: str
) -> None:
    values = settings.model_dump() | changes
    host = Host(WatchdogSettings(**values))
    host.passes()
    with pytest.raises(CloudFault, match=re.escape(words)) as caught:
        host.passes(31)
    assert credential.secret not in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


def test_a_server_that_the_cloud_does_not_know_is_told(settings: WatchdogSettings, sandbox: SandboxCloud) -> None:
    other = str(uuid.uuid4())
    free = sandbox.credential
    host = Host(
        WatchdogSettings(
            **settings.model_dump()
            | {
                "server_id": other,
                "os_application_credential_id": free.id,
                "os_application_credential_secret": free.secret,
            }
        )
    )
    host.passes()
    with pytest.raises(CloudFault, match=f"Nova knows no server {other}"):
        host.passes(31)


@pytest.mark.parametrize("suffix", ["", "/", "/v3", "/v3/"])
def test_keystones_address_may_be_written_with_or_without_its_version(
    settings: WatchdogSettings, sandbox: SandboxCloud, suffix: str
) -> None:
    values = settings.model_dump() | {"os_auth_url": f"{sandbox.url}/identity{suffix}"}
    host = Host(WatchdogSettings(**values))
    host.passes()
    assert host.passes(31)


def test_the_servers_id_comes_from_the_metadata_service(settings: WatchdogSettings, sandbox: SandboxCloud) -> None:
    async def metadata(_request: Request) -> Response:
        return JSONResponse({"uuid": SERVER, "name": "spamcheck"})

    service = LoopbackServer(Starlette(routes=[Route("/openstack/latest/meta_data.json", metadata)]))
    url = f"{service.url}/openstack/latest/meta_data.json"
    host = Host(WatchdogSettings(**settings.model_dump() | {"server_id": None, "metadata_url": url}))
    host.passes()
    with pytest.raises(CloudFault, match=r"does not tell this server's id .* set SERVER_ID"):
        host.passes(31)
    service.start()
    assert host.passes(1)
    service.stop()
    assert shelvings(sandbox) == 1


# What is seen


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may be logged in."""
    monkeypatch.setattr(watchdog, "logged_in", lambda: 0)


def looked(settings: WatchdogSettings, **changes: Any) -> Seen:
    return watchdog.look(WatchdogSettings(**settings.model_dump() | changes))


@pytest.mark.usefixtures("nobody")
async def test_a_check_that_works_is_seen_and_one_without_a_worker_is_not(
    bench: Any, settings: WatchdogSettings, temporal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(classifier="rules") as parts:
        where = {"temporal_address": temporal.address, "state_dir": parts.settings.state_dir}
        go_on = asyncio.Event()

        async def classify(_item: Item) -> None:
            await go_on.wait()

        parts.classifier.on_classify = classify
        parts.source.add("1")
        handle = await parts.start()

        def look_until(busy: str | None) -> Seen:
            """What is seen in the end: Temporal lists a workflow a moment after it began or ended."""
            deadline = time.monotonic() + 40
            while (seen := looked(settings, **where)).busy != busy and time.monotonic() < deadline:
                time.sleep(0.2)
            assert seen.busy == busy
            return seen

        await asyncio.to_thread(look_until, "a check is working")
        go_on.set()
        await handle.result()
        seen = await asyncio.to_thread(look_until, None)
        assert abs(time.time() - (seen.last_run or 0)) < 60


@pytest.mark.usefixtures("nobody")
async def test_a_workflow_that_no_worker_attends_to_does_not_keep_the_server_on(
    own_temporal: Any, settings: WatchdogSettings, caplog: pytest.LogCaptureFixture
) -> None:
    client = await Client.connect(own_temporal.address)
    await client.start_workflow("CheckSpamWorkflow", id="stuck", task_queue="deserted")
    deadline = time.monotonic() + 40
    with caplog.at_level(logging.WARNING):
        while "no worker attends" not in caplog.text and time.monotonic() < deadline:
            seen = await asyncio.to_thread(looked, settings, temporal_address=own_temporal.address)
            assert seen.busy is None
    assert "no worker attends" in caplog.text


@pytest.mark.usefixtures("nobody")
def test_without_temporal_no_check_gets_on(
    settings: WatchdogSettings, free_port: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert looked(settings, temporal_address=f"127.0.0.1:{free_port()}") == Seen()
    assert "counts as idle" in caplog.text


@pytest.mark.usefixtures("nobody")
def test_the_journal_tells_when_a_run_was(settings: WatchdogSettings, free_port: Callable[[], int]) -> None:
    where = {"temporal_address": f"127.0.0.1:{free_port()}"}
    times = iter((1000.0, 5000.0))
    journal = Journal(settings.state_dir, lambda: next(times))
    assert looked(settings, **where).last_run is None
    journal.begin_run("a")
    assert looked(settings, **where).last_run == 1000.0
    journal.end_run("a", "COMPLETED", None)
    assert looked(settings, **where).last_run == 5000.0
    journal.close()


def test_whoever_is_logged_in_keeps_the_server_on(settings: WatchdogSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "logged_in", lambda: 1)
    assert looked(settings).busy == "somebody is logged in"


def test_sessions_are_counted_by_whichever_knows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_logind", lambda: 0)
    monkeypatch.setattr(sessions, "_utmp", lambda: 2)
    assert sessions.logged_in() == 2
    monkeypatch.setattr(sessions, "_logind", lambda: None)
    monkeypatch.setattr(sessions, "_utmp", lambda: None)
    with pytest.raises(OSError, match="neither"):
        sessions.logged_in()


def test_sessions_of_this_machine_can_be_counted() -> None:
    assert sessions.logged_in() >= 0


# The program


def watchdog_process(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spamcheck.cli", "watchdog"]
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "CREDENTIALS_DIRECTORY": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_reads_its_credential_from_files_and_shelves(
    sandbox: SandboxCloud, credential: Credential, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    environment = {
        "OS_AUTH_URL": sandbox.auth_url,
        "SERVER_ID": SERVER,
        "TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "STATE_DIR": str(tmp_path / "state"),
        "WATCHDOG_IDLE_MINUTES": "0.001",
        "WATCHDOG_GRACE_MINUTES": "0",
        "WATCHDOG_STATE_FILE": str(tmp_path / "run" / "state.json"),
        "SPAMCHECK_LOG_LEVEL": "DEBUG",
    }
    lacking = watchdog_process(folder, **environment)
    assert lacking.returncode == 2
    assert "OS_APPLICATION_CREDENTIAL_ID is not set" in lacking.stderr
    (folder / "os_application_credential_id").write_text(credential.id + "\n")
    (folder / "os_application_credential_secret").write_text("wrong" * 10)
    # Somebody may be logged in where the tests run: then the first two passes end there, as they should.
    if sessions.logged_in():
        assert "somebody is logged in" in watchdog_process(folder, **environment).stderr
        return
    assert watchdog_process(folder, **environment).returncode == 0
    refused = watchdog_process(folder, **environment)
    assert refused.returncode == 3
    assert "refuses the application credential" in refused.stderr
    (folder / "os_application_credential_secret").write_text(credential.secret + "\n")
    done = watchdog_process(folder, **environment)
    assert (done.returncode, shelvings(sandbox)) == (0, 1), done.stderr
    assert "the cloud was asked to shelve this server" in done.stderr
    for answer in (refused, done):
        assert not any(secret in answer.stderr for secret in (credential.secret, credential.id, "wrong" * 10))
