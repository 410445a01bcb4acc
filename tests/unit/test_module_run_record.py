"""The module run_record, run in this process with its real guard, lock and history."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from ansible_module import Result, run_module
from fake_checker import report
from notice_board import SECRET, NoticeBoard
from scene import QUICK_DELAYS

from spamops import guard, lock
from spamops.attached import RunClock
from spamops.cloud import connect
from spamops.errors import BudgetSpent, ExitCode
from spamops.ledger import Ledger
from spamops.sandbox.cloud import Failure, HttpFault, SandboxCloud, ServerFault, ServerSpec
from spamops.summary import Summary, finish

SERVER = "spamcheck"
AT = "2026-03-01T03:00:0{}.000+00:00"
WOKEN = {
    "changed": True,
    "may_cost": True,
    "notes": [],
    "steps": {"wake": 2.0},
    "states": [
        {"at": AT.format(0), "status": "SHELVED_OFFLOADED", "task_state": None},
        {"at": AT.format(2), "status": "ACTIVE", "task_state": None},
    ],
}
CHECKED = {
    "workflow_id": "check-1",
    "workflow_status": "COMPLETED",
    "progress": {"checked": 3},
    "report": report(3),
    "steps": {"ready": 0.1, "check": 2.0, "report": 0.1},
    "notes": ["waiting for the checker: no connection", "warning: the report came late"],
}
SHELVED = {
    "changed": True,
    "may_cost": True,
    "notes": [],
    "steps": {"shelve": 6.0},
    "states": [
        {"at": AT.format(2), "status": "ACTIVE", "task_state": None},
        {"at": AT.format(8), "status": "SHELVED_OFFLOADED", "task_state": None},
    ],
}
SKIPPED = {"changed": False, "skipped": True}


def fault(msg: str, exit_code: int | None = None, **more: Any) -> dict[str, Any]:
    """What a task returned that failed; without an exit code it broke down."""
    return {"failed": True, "msg": msg} | ({"exit_code": exit_code} if exit_code else {}) | more


class Playbook:
    """A process that stands for ansible-playbook."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Record = Callable[..., Result]


@pytest.fixture
def playbook() -> Iterator[Playbook]:
    process = Playbook()
    yield process
    process.kill()


@pytest.fixture
def record(tmp_path: Path, playbook: Playbook) -> Iterator[Record]:
    """The module with a folder of its own; every run is ended and every guard gone when the test is over."""
    folder = tmp_path / "state"

    def run(state: str, *, check_mode: bool = False, **more: Any) -> Result:
        arguments = {
            "state": state,
            "server": SERVER,
            "state_dir": str(folder),
            "holder_pid": playbook.process.pid,
            "auth": {"auth_url": "http://127.0.0.1:9/v3", "application_credential_secret": "a-secret-that-nobody-sees"},
        }
        return run_module("run_record", arguments | more, check=check_mode)

    yield run
    ledger = Ledger(folder)
    for row in ledger.runs():
        ledger.end(row["id"], Summary(server=SERVER), datetime.now(UTC))
    assert until(lambda: lock.holder(folder, SERVER) is None), "a guard outlived its run"


def until(true: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether it comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_run_is_begun_and_ended_with_its_row_its_verdicts_and_its_lock(
    record: Record, playbook: Playbook, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    begun = record("begun", service_units_per_hour=16)
    assert begun["changed"] is True
    assert begun["run"] == 1
    assert (lock.holder(state, SERVER) or {})["pid"] == playbook.process.pid
    row = Ledger(state).runs()[0]
    assert (row["started_by"], row["service_units_per_hour"], row["ended_at"]) == ("playbook", 16, None)

    ended = record("ended", run=1, wake=WOKEN, check=CHECKED, shelved=SHELVED, service_units_per_hour=16)
    assert ended["changed"] is True
    assert (ended["exit_code"], ended["run"]) == (0, 1)
    summary = ended["summary"]
    assert summary["server_states"] == ["SHELVED_OFFLOADED", "ACTIVE", "SHELVED_OFFLOADED"]
    assert (summary["active_seconds"], summary["classify_seconds"], summary["overhead_seconds"]) == (6.0, 1.5, 4.5)
    assert summary["service_units"] == pytest.approx(6 / 3600 * 16, abs=1e-6)
    assert summary["warnings"] == ["warning: the report came late"]
    assert list(summary["steps"]) == ["wake", "ready", "check", "report", "shelve"]
    written = Ledger(state).run(1) or {}
    assert len(written["verdicts"]) == 3
    assert {name: written[name] for name in summary if name in written} == {
        name: value for name, value in summary.items() if name in written
    }
    assert lock.holder(state, SERVER) is None


def test_a_run_that_is_ended_stays_as_it_is(record: Record, tmp_path: Path) -> None:
    run = record("begun")["run"]
    record("ended", run=run, wake=WOKEN, check=CHECKED, shelved=SHELVED)
    before = Ledger(tmp_path / "state").run(run)
    again = record("ended", run=run, check=fault("another end", 5))
    assert again["changed"] is False
    assert Ledger(tmp_path / "state").run(run) == before


def test_a_second_run_of_the_same_server_is_refused_and_names_the_first(record: Record, playbook: Playbook) -> None:
    record("begun")
    for check in (True, False):
        refused = record("begun", check_mode=check)
        assert refused.failed
        assert refused["exit_code"] == 3
        assert f"another run of {SERVER} is active (process {playbook.process.pid} since " in refused["msg"]
        assert "nothing was touched" in refused["msg"]


def test_runs_of_two_servers_do_not_hinder_each_other(record: Record, tmp_path: Path) -> None:
    record("begun")
    other = record("begun", server="another")
    assert not other.failed
    record("ended", server="another", run=other["run"])
    assert lock.holder(tmp_path / "state", "another") is None


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_touched(record: Record, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = record("begun", state_dir=str(tmp_path / "file" / "state"))
    assert told.failed
    assert told["exit_code"] == 2
    assert "cannot be written" in told["msg"]


def test_check_mode_begins_nothing_and_writes_nothing(record: Record, tmp_path: Path) -> None:
    begun = record("begun", check_mode=True)
    assert (begun["changed"], begun["run"]) == (True, 0)
    ended = record("ended", check_mode=True, run=begun["run"], wake=WOKEN, shelved=SHELVED)
    assert (ended["changed"], ended["exit_code"]) == (False, 0)
    assert not (tmp_path / "state").exists()


def test_check_mode_leaves_an_open_run_open(record: Record, tmp_path: Path) -> None:
    run = record("begun")["run"]
    assert record("ended", run=run, check_mode=True)["changed"] is True
    assert Ledger(tmp_path / "state").is_open(run)


def test_the_end_of_a_run_that_nobody_began_is_refused(record: Record) -> None:
    told = record("ended", run=17)
    assert told.failed
    assert "there is no run 17" in told["msg"]
    assert "run" in record("ended")["msg"]


def test_the_credential_is_in_no_output_no_log_and_no_arguments_of_the_guard(record: Record) -> None:
    begun = record("begun")
    secret = "a-secret-that-nobody-sees"
    assert secret not in begun.text
    assert secret not in begun.logged
    guards = [
        process for process in psutil.process_iter(["cmdline"]) if "spamops.guard" in (process.info["cmdline"] or [])
    ]
    assert guards
    for one in guards:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert secret not in " ".join(one.cmdline()) + str(one.environ())


# What the tasks of a run came to. In check mode with no run: nothing but the conclusion.


@pytest.mark.parametrize(
    ("tasks", "code", "reason"),
    [
        ({"wake": WOKEN, "check": CHECKED, "shelved": SHELVED}, ExitCode.DONE, None),
        ({"wake": SKIPPED, "check": CHECKED, "shelved": SKIPPED}, ExitCode.DONE, None),
        ({"wake": WOKEN, "check": CHECKED, "shelved": SKIPPED}, ExitCode.DONE, None),
        ({"wake": WOKEN}, ExitCode.DONE, None),
        ({"shelved": SHELVED}, ExitCode.DONE, None),
        (
            {"wake": WOKEN, "check": CHECKED | {"report": report(3, failed=2)}, "shelved": SHELVED},
            ExitCode.ITEMS_FAILED,
            "2 items failed",
        ),
        ({"wake": fault("no host", 4, may_cost=False), "shelved": SHELVED}, ExitCode.SERVER_NOT_WOKEN, "no host"),
        ({"wake": WOKEN, "check": fault("it broke", 5), "shelved": SHELVED}, ExitCode.CHECKER_FAILED, "it broke"),
        # Broken down without a word of its own: counted by what the task was for.
        ({"wake": WOKEN, "check": fault("MODULE FAILURE"), "shelved": SHELVED}, ExitCode.CHECKER_FAILED, "MODULE"),
        # Left on, for all that is known: before every other outcome, with the way to end it.
        (
            {"wake": WOKEN, "check": fault("it broke", 5), "shelved": fault("stuck", 4, may_cost=True)},
            ExitCode.SERVER_NOT_SHELVED,
            f"stuck. Shelve it now: openstack server shelve {SERVER} (the run before that: it broke)",
        ),
        (
            {"wake": WOKEN, "check": CHECKED, "shelved": fault("the cloud does not answer", 4, may_cost=False)},
            ExitCode.SERVER_NOT_SHELVED,
            "the cloud does not answer",
        ),
        ({"wake": WOKEN, "check": CHECKED, "shelved": fault("MODULE FAILURE")}, ExitCode.SERVER_NOT_SHELVED, "MODULE"),
        ({"wake": fault("MODULE FAILURE"), "shelved": fault("MODULE FAILURE")}, ExitCode.SERVER_NOT_SHELVED, "MODULE"),
        # Only the shelving was asked for, and nothing is known of the server.
        ({"shelved": fault("401", 4, may_cost=False)}, ExitCode.SERVER_NOT_SHELVED, "401"),
        ({"shelved": fault("no server", 4, may_cost=False, missing=True)}, ExitCode.SERVER_NOT_SHELVED, "no server"),
        ({"check": CHECKED, "shelved": fault("401", 4, may_cost=False)}, ExitCode.SERVER_NOT_SHELVED, "401"),
        # Nothing was woken, so nothing is left on: what stood in the way counts.
        (
            {"wake": fault("401", 4, may_cost=False), "shelved": fault("401", 4, may_cost=False)},
            ExitCode.SERVER_NOT_WOKEN,
            "401",
        ),
        # Deleted by somebody while the check ran: what is not there costs nothing.
        (
            {"wake": WOKEN, "check": CHECKED, "shelved": fault("gone", 4, may_cost=False, missing=True)},
            ExitCode.DONE,
            None,
        ),
    ],
)  # fmt: skip
def test_what_a_run_came_to_follows_from_its_tasks(
    record: Record, tasks: dict[str, Any], code: ExitCode, reason: str | None
) -> None:
    told = record("ended", check_mode=True, run=0, **tasks)
    assert told["summary"]["outcome"] == code.name.lower()
    assert told["exit_code"] == code
    assert (told["summary"]["reason"] is None) if reason is None else (reason in told["summary"]["reason"])


# The guard


@pytest.fixture
def cloud() -> Iterator[SandboxCloud]:
    with SandboxCloud([ServerSpec(name=SERVER, status="ACTIVE")], delays=QUICK_DELAYS) as started:
        yield started


@pytest.mark.parametrize("shelve", [True, False])
def test_a_playbook_that_is_killed_leaves_its_server_shelved_unless_it_was_to_stay_on(
    record: Record, playbook: Playbook, cloud: SandboxCloud, tmp_path: Path, shelve: bool
) -> None:
    state = tmp_path / "state"
    entry = cloud.clouds_yaml()
    begun = record("begun", shelve=shelve, auth=entry["auth"], auth_type=entry["auth_type"])
    playbook.kill()
    assert until(lambda: lock.holder(state, SERVER) is None)
    assert [action for _, action in cloud.action_requests] == (["shelve"] if shelve else [])
    row = Ledger(state).run(begun["run"]) or {}
    assert (row["outcome"], row["exit_code"]) == ("terminated", 143)
    assert row["server_status_after"] == ("SHELVED_OFFLOADED" if shelve else None)


def test_a_playbook_whose_history_was_removed_leaves_no_server_on(
    record: Record, playbook: Playbook, cloud: SandboxCloud, tmp_path: Path
) -> None:
    entry, ledger = cloud.clouds_yaml(), Ledger(tmp_path / "state")
    run = record("begun", auth=entry["auth"], auth_type=entry["auth_type"])["run"]
    ledger.path.unlink()
    RunClock(tmp_path / "state", run).check()  # the task that shelves goes on
    time.sleep(2 * guard.POLL_SECONDS)
    assert lock.holder(tmp_path / "state", SERVER) is not None, "the guard stays at its post"
    playbook.kill()
    assert until(lambda: lock.holder(tmp_path / "state", SERVER) is None)
    assert [action for _, action in cloud.action_requests] == ["shelve"]


def test_what_a_run_came_to_whose_history_was_removed_is_told(record: Record, tmp_path: Path) -> None:
    with NoticeBoard() as board:
        wrong = fault("the cloud is away", 7, may_cost=True)
        told = record("ended", run=17, wake=WOKEN, shelved=wrong, notify_urls=[board.url()])
    assert told.failed
    assert "there is no run 17" in told["msg"]
    assert "NOT SHELVED" in board.titles[0]


def test_a_cloud_that_does_not_answer_at_first_is_left_to_the_run(record: Record, cloud: SandboxCloud) -> None:
    entry = cloud.clouds_yaml()
    cloud.order(HttpFault(hang_seconds=60))
    begun = record("begun", auth=entry["auth"], auth_type=entry["auth_type"])
    assert not begun.failed, begun
    record("ended", run=begun["run"])


# Budget and alarms


def spend(folder: Path, units: float) -> None:
    """A run of this hour cost that much."""
    ledger, now = Ledger(folder), datetime.now(UTC)
    made = Summary(server=SERVER, service_units=units, active_seconds=units / 16 * 3600)
    made.server_timeline = [
        {"at": now.isoformat(), "status": "ACTIVE", "task_state": None, "seconds": units / 16 * 3600}
    ]
    finish(made, ExitCode.CHECKER_FAILED, "it broke")
    ledger.end(ledger.begin(SERVER, "command", now, 16.0), made, now)


def test_a_run_that_the_budget_does_not_allow_is_refused_and_told(record: Record, tmp_path: Path) -> None:
    spend(tmp_path / "state", 40.0)
    with NoticeBoard() as board:
        refused = record("begun", service_units_per_hour=16, budget_month_units=20, notify_urls=[board.url()])
        assert refused.failed
        assert refused["exit_code"] == ExitCode.BUDGET_SPENT
        assert "budget_month_units: 20 service units a month" in refused["msg"]
        assert until(lambda: "the check failed" in board.texts)
        assert "budget_spent" in board.texts
    assert SECRET not in refused.text + refused.logged
    row = Ledger(tmp_path / "state").runs()[0]
    assert (row["outcome"], row["started_by"]) == ("budget_spent", "playbook")
    assert until(lambda: lock.holder(tmp_path / "state", SERVER) is None)
    untouched = record("begun", service_units_per_hour=16, budget_month_units=20, touch=False)
    assert not untouched.failed, "a run that wakes nothing costs nothing"


def test_the_tasks_of_a_run_know_when_its_budget_ends(record: Record, tmp_path: Path) -> None:
    run = record("begun", service_units_per_hour=16, budget_run_seconds=600)["run"]
    at, why = Ledger(tmp_path / "state").deadline(run) or (None, "")
    assert at is not None
    assert 500 < (at - datetime.now(UTC)).total_seconds() < 601
    assert "budget_run_seconds: 600 s a run" in why
    clock = RunClock(tmp_path / "state", run)
    assert 500 < clock.deadline().within(3600) < 601
    Ledger(tmp_path / "state").set_deadline(run, datetime.now(UTC), "budget_run_seconds: 600 s a run")
    with pytest.raises(BudgetSpent, match="ended in time"):
        clock.deadline().within(3600)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"budget_day_units": 5}, "need service_units_per_hour"),
        ({"budget_run_seconds": 0}, "budget_run_seconds must be more than 0"),
        ({"notify_urls": [f"no address {SECRET}"]}, "notify_urls: line 1 is no address"),
        ({"metrics_textfile": "/x/y.txt"}, "must end in .prom"),
    ],
)
def test_faulty_arguments_are_told_before_anything_is_touched(
    record: Record, tmp_path: Path, arguments: dict[str, Any], says: str
) -> None:
    told = record("begun", **arguments)
    assert told.failed
    assert says in told["msg"]
    assert SECRET not in told.text + told.logged
    assert not (tmp_path / "state").exists()


def test_a_run_that_failed_is_told_and_the_next_that_does_not_is_the_all_clear(record: Record, tmp_path: Path) -> None:
    metrics = tmp_path / "spamops.prom"
    with NoticeBoard() as board:
        more = {"notify_urls": [board.url()], "metrics_textfile": str(metrics)}
        run = record("begun", **more)["run"]
        failed = record("ended", run=run, wake=WOKEN, check=fault("it broke", 5), shelved=SHELVED, **more)
        assert ["the check failed" in title for title in board.titles] == [True]
        assert 'spamops_last_run_outcome{outcome="checker_failed"} 1.0' in metrics.read_text()
        run = record("begun", **more)["run"]
        record("ended", run=run, wake=WOKEN, check=CHECKED, shelved=SHELVED, **more)
        assert "all clear: check_failed" in board.titles[1]
        assert 'spamops_alarm_open{kind="check_failed"} 0.0' in metrics.read_text()
    assert SECRET not in failed.text + failed.logged


def test_a_guard_that_cannot_shelve_tells_a_person(
    record: Record, playbook: Playbook, cloud: SandboxCloud, tmp_path: Path
) -> None:
    state, entry = tmp_path / "state", cloud.clouds_yaml()
    cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))
    with NoticeBoard() as board:
        record(
            "begun",
            auth=entry["auth"],
            auth_type=entry["auth_type"],
            shelve_timeout=2,
            notify_urls=[board.url()],
            metrics_textfile=str(tmp_path / "spamops.prom"),
        )
        playbook.kill()
        assert until(lambda: lock.holder(state, SERVER) is None, 60)
        assert ["NOT SHELVED" in title for title in board.titles] == [True]
        assert SECRET not in (state / "guard.log").read_text()
    (alarm,) = Ledger(state).open_alarms(SERVER)
    assert alarm["kind"] == "server_not_shelved"
    assert 'spamops_alarm_open{kind="server_not_shelved"} 1.0' in (tmp_path / "spamops.prom").read_text()


@pytest.mark.parametrize("shelve", [True, False])
def test_a_run_by_name_locks_the_id_too_also_when_the_server_is_to_stay_on(
    record: Record, cloud: SandboxCloud, tmp_path: Path, shelve: bool
) -> None:
    entry = cloud.clouds_yaml()
    more = {"auth": entry["auth"], "auth_type": entry["auth_type"]}
    (server_id,) = ids(cloud)
    run = record("begun", shelve=shelve, **more)
    refused = record("begun", server=server_id, shelve=shelve, **more)
    assert refused["exit_code"] == 3
    record("ended", run=run["run"])


def ids(cloud: SandboxCloud) -> list[str]:
    """The ids of the cloud's servers, as its API tells them."""
    connection = connect(auth=cloud.clouds_yaml()["auth"], auth_type="v3applicationcredential")
    return [str(server.id) for server in connection.compute.servers()]
