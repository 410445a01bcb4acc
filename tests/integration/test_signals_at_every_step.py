"""Whatever ends a run early, and whenever: the server is shelved, and nothing is left running.

Real processes against a cloud and a checker on loopback, in real time. Signals are sent when the cloud or the checker has
seen the step, not after a guess of seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_checker import API_KEY, FakeChecker
from scene import QUICK_DELAYS, write_settings

from spamops.ledger import Ledger
from spamops.lock import holder
from spamops.sandbox.cloud import Failure, HttpFault, SandboxCloud, ServerFault, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LIMIT = 60.0
"""Seconds that no wait here may take."""
OFFLOADED = "SHELVED_OFFLOADED"

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning"),
]


class Stage:
    """A cloud with one server, its checker, and the folder of a controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checker = FakeChecker(on=False)
        self.spec = ServerSpec()
        self.cloud = SandboxCloud([self.spec], delays=QUICK_DELAYS, on_power=self.checker.power)
        self.state_dir = folder / "state"
        self.started: list[subprocess.Popen[str]] = []

    @property
    def history(self) -> list[tuple[str, str | None]]:
        """Status and task_state of the server from the beginning."""
        return [(status, task) for _, status, task in self.cloud.history(self.spec.id)]

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `spamops run`."""
        config = write_settings(self.folder, self.cloud, self.spec.id, self.checker.url)
        return self._start([str(BIN / "spamops"), "run", "--json", "--config", str(config), *arguments], {})

    def playbook(self) -> subprocess.Popen[str]:
        """Start playbooks/run_check.yml."""
        variables = {
            "server": self.spec.id,
            "checker_url": self.checker.url,
            "api_key": API_KEY,
            "auth": self.cloud.clouds_yaml()["auth"],
            "state_dir": str(self.state_dir),
        }
        (self.folder / "vars.json").write_text(json.dumps(variables))
        playbook = str(ROOT / "playbooks" / "run_check.yml")
        extra = {"SPAMOPS_SANDBOX_DIR": str(self.folder), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        return self._start([str(BIN / "ansible-playbook"), "-i", str(ROOT / "inventories/sandbox"), playbook], extra)

    def _start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def reached(self, status: str, task_state: str | None) -> Callable[[], bool]:
        """Whether the server is or was there."""
        return lambda: (status, task_state) in self.history

    def asked(self, path: str) -> Callable[[], bool]:
        """Whether the cloud was asked for something under this path."""
        return lambda: any(path in asked for _, asked in self.cloud.requests)

    def free(self) -> bool:
        """Whether nobody holds the server's lock."""
        return holder(self.state_dir, self.spec.id) is None

    def recorded(self) -> dict[str, Any]:
        """The only run in the history."""
        (run,) = Ledger(self.state_dir).runs()
        return run


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    with stage.cloud, stage.checker:
        yield stage
        for process in stage.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def expect_shelved(stage: Stage, process: subprocess.Popen[str], *codes: int) -> None:
    """The run has ended with one of these codes, the server is shelved and stays so, the history and the lock tell so."""
    code, out, err = ended(process)
    assert code in codes, err
    assert stage.history[-1] == (OFFLOADED, None)
    assert json.loads(out.splitlines()[-1])["exit_code"] == code
    assert stage.recorded()["exit_code"] == code
    assert stage.free()
    assert API_KEY not in out + err


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 143}


def test_a_signal_before_anything_is_known_touches_nothing(stage: Stage) -> None:
    stage.cloud.order(HttpFault(path="/identity", hang_seconds=LIMIT))
    process = stage.run()
    wait_for(stage.asked("/identity"), "the run logs in")
    process.send_signal(signal.SIGTERM)
    expect_shelved(stage, process, 143)
    assert stage.cloud.action_requests == []


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_while_the_server_wakes_shelves_it_once_it_is_awake(stage: Stage, number: signal.Signals) -> None:
    process = stage.run()
    wait_for(stage.reached(OFFLOADED, "spawning"), "the server spawns")
    process.send_signal(number)
    expect_shelved(stage, process, CODES[number])
    assert ("ACTIVE", None) in stage.history


def test_a_signal_while_waking_is_asked_for_and_nova_begins_with_it_later_shelves_the_server(stage: Stage) -> None:
    stage.cloud.order(HttpFault(path="/action$", hang_seconds=LIMIT))
    process = stage.run()
    wait_for(stage.asked("/action"), "the run asks for unshelve")
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: [path for _, path in stage.cloud.requests][-1].endswith(stage.spec.id), "the run looks again")
    stage.cloud.act(stage.spec.id, "unshelve")
    expect_shelved(stage, process, 143)
    assert ("ACTIVE", None) in stage.history


@pytest.mark.parametrize("route", ["ok", "start", "status", "report"])
def test_a_signal_while_the_checker_works_shelves_the_server(stage: Stage, route: str) -> None:
    stage.checker.hold(route)
    process = stage.run()
    assert stage.checker.arrived(route, LIMIT)
    process.send_signal(signal.SIGTERM)
    expect_shelved(stage, process, 143)


def test_a_signal_while_the_server_is_shelved_changes_nothing(stage: Stage) -> None:
    process = stage.run()
    wait_for(stage.reached("ACTIVE", "shelving"), "the server is shelved")
    process.send_signal(signal.SIGTERM)
    expect_shelved(stage, process, 0)


def test_impatience_does_not_keep_the_server_on(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.run()
    assert stage.checker.arrived("status", LIMIT)
    process.send_signal(signal.SIGINT)
    wait_for(stage.reached("ACTIVE", "shelving"), "the server is shelved")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
    expect_shelved(stage, process, 130)


def test_two_signals_at_once_are_as_good_as_one(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.run()
    assert stage.checker.arrived("status", LIMIT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    expect_shelved(stage, process, 130, 143)


def test_a_signal_while_the_history_is_written_is_too_late_to_harm(stage: Stage) -> None:
    stage.checker.hold("report")
    process = stage.run()
    assert stage.checker.arrived("report", LIMIT)
    with contextlib.closing(sqlite3.connect(stage.state_dir / "ledger.db", isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        stage.checker.release("report")
        wait_for(lambda: stage.history[-1] == (OFFLOADED, None), "the server is shelved")
        ledger = str(stage.state_dir / "ledger.db")
        wait_for(lambda: ledger in open_files(psutil.Process(process.pid)), "the run writes its history")
        process.send_signal(signal.SIGTERM)
        db.execute("COMMIT")
    expect_shelved(stage, process, 0)


def test_a_signal_and_a_cloud_that_cannot_shelve_end_with_the_alarm(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.run()
    assert stage.checker.arrived("status", LIMIT)
    stage.cloud.act(stage.spec.id, "lock")
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert code == 7, err
    assert "ALARM server_not_shelved" in err
    assert "ended by signal 15" in json.loads(out.splitlines()[-1])["reason"]
    assert stage.history[-1] == ("ACTIVE", None)


def test_a_terminal_that_goes_away_does_not_keep_the_server_on(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.run()
    assert stage.checker.arrived("status", LIMIT)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT) == 143
    process.stdout = process.stderr = None
    assert stage.history[-1] == (OFFLOADED, None)
    assert stage.recorded()["exit_code"] == 143


def test_a_reader_that_goes_away_does_not_turn_a_failure_into_success(stage: Stage) -> None:
    stage.cloud.order(ServerFault(Failure.IMAGE_GONE))
    process = stage.run()
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LIMIT) == 7
    process.stdout = None


def test_a_killed_run_leaves_the_lock_to_the_next_one(stage: Stage) -> None:
    stage.checker.hold("status")
    killed = stage.run()
    assert stage.checker.arrived("status", LIMIT)
    second = stage.run()
    assert ended(second)[0] == 3
    killed.kill()
    killed.communicate()
    wait_for(stage.free, "the lock is free")
    stage.checker.release("status")
    third = stage.run()
    assert ended(third)[0] == 0
    assert stage.history[-1] == (OFFLOADED, None)
    # The next run closes the dead one: its costs are settled from what the cloud logged.
    assert [run["exit_code"] for run in Ledger(stage.state_dir).runs()] == [0, 143]


# The playbook, and its guard


def family(stage: Stage, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes that the playbook started, and its guard."""
    children = psutil.Process(process.pid).children(recursive=True)
    guards = [
        other
        for other in psutil.process_iter(["cmdline"])
        if (other.info["cmdline"] or [])[1:] == ["-m", "spamops.guard"]
        and any(path.startswith(str(stage.state_dir)) for path in open_files(other))
    ]
    assert len(guards) == 1
    return [*children, *guards]


def open_files(process: psutil.Process) -> list[str]:
    """Paths of the plain files that a process has open."""
    try:
        return [file.path for file in process.open_files()]
    except psutil.Error:
        return []


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    """Whether none of them runs any more."""
    return lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_playbook_that_is_ended_by_force_has_its_server_shelved_by_the_guard(
    stage: Stage, number: signal.Signals
) -> None:
    stage.checker.hold("status")
    process = stage.playbook()
    if not stage.checker.arrived("status", LIMIT):
        process.kill()
        pytest.fail(str(process.communicate()))
    left = family(stage, process)
    process.send_signal(number)
    process.communicate(timeout=LIMIT)
    wait_for(lambda: stage.history[-1] == (OFFLOADED, None), "the guard has shelved the server")
    wait_for(stage.free, "the guard has gone")
    stage.checker.release("status")
    wait_for(gone(left), "nothing is left running")
    run = stage.recorded()
    assert (run["outcome"], run["exit_code"]) == ("terminated", 143)
    assert run["server_status_after"] == OFFLOADED
    assert stage.history[-1] == (OFFLOADED, None)
    assert "the playbook was ended before the run was" in (stage.state_dir / "guard.log").read_text()
    assert API_KEY not in (stage.state_dir / "guard.log").read_text()


def test_a_guard_survives_the_signal_that_ends_a_whole_service(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.playbook()
    assert stage.checker.arrived("status", LIMIT)
    left = family(stage, process)
    for one in [*left, psutil.Process(process.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    process.communicate(timeout=LIMIT)
    wait_for(lambda: stage.history[-1] == (OFFLOADED, None), "the guard has shelved the server")
    wait_for(gone(left), "nothing is left running")


def test_the_guard_of_a_playbook_that_ended_well_goes_away(stage: Stage) -> None:
    process = stage.playbook()
    code, out, err = ended(process)
    assert code == 0, out + err
    assert stage.free()
    assert stage.history[-1] == (OFFLOADED, None)
    run = stage.recorded()
    assert (run["exit_code"], run["checked"], run["started_by"]) == (0, 3, "playbook")
    assert API_KEY not in out + err


def test_a_guard_that_cannot_shelve_says_so(stage: Stage) -> None:
    stage.checker.hold("status")
    process = stage.playbook()
    assert stage.checker.arrived("status", LIMIT)
    stage.cloud.act(stage.spec.id, "lock")
    process.kill()
    process.communicate(timeout=LIMIT)
    wait_for(stage.free, "the guard has gone")
    run = stage.recorded()
    assert (run["outcome"], run["exit_code"]) == ("server_not_shelved", 7)
    assert "locked" in run["reason"]
    assert "NOT SHELVED" in (stage.state_dir / "guard.log").read_text()
