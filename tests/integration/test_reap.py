"""The reaper: no server burns money because a controller died, and no server that works is shelved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fake_checker import API_KEY, Answer, FakeChecker
from notice_board import SECRET, NoticeBoard
from scene import QUICK_DELAYS, Scene, write_settings

from spamops import cycle, reap, settings
from spamops.clock import RealClock
from spamops.cloud import Server
from spamops.errors import LedgerError
from spamops.ledger import Ledger
from spamops.lock import ServerLock
from spamops.reap import Action, Reaped
from spamops.sandbox.cloud import Failure, SandboxCloud, ServerFault, ServerSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")

SPAMOPS = Path(sys.executable).parent / "spamops"
OFFLOADED = "SHELVED_OFFLOADED"
GRACE, WORKING = 600.0, 7200.0


class LaterClock(RealClock):
    """The machine's clock, put forward: the grace time passes without anybody waiting for it."""

    def __init__(self, ahead: float) -> None:
        self._ahead = timedelta(seconds=ahead)

    def now(self) -> datetime:
        """The time of day, some time from now."""
        return super().now() + self._ahead


@pytest.fixture
def board() -> Iterator[NoticeBoard]:
    with NoticeBoard() as made:
        yield made


def woken(scene: Scene, seconds_ago: float, *, by_run: bool = False) -> None:
    """Somebody woke the server so long ago; with `by_run` a run of this controller that died."""
    if by_run:
        scene.state_dir.mkdir(exist_ok=True)
        Ledger(scene.state_dir).begin(scene.server_id, "command", scene.clock.now(), 16.0)
    scene.cloud.act(scene.server_id, "unshelve")
    scene.clock.sleep(seconds_ago)
    scene.cloud.advance()


def test_a_controller_that_was_killed_leaves_no_server_on(tmp_path: Path, board: NoticeBoard) -> None:
    checker = FakeChecker(on=False)
    spec = ServerSpec()
    with SandboxCloud([spec], delays=QUICK_DELAYS, clock=RealClock(), on_power=checker.power) as cloud, checker:
        config = write_settings(tmp_path, cloud, spec.id, checker.url, notify_urls=[board.url()], api_seconds=2.0)
        checker.hold("status")
        run = subprocess.Popen(
            [str(SPAMOPS), "run", "--config", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert checker.arrived("status", within=60)
        os.kill(run.pid, signal.SIGKILL)
        run.wait(timeout=30)
        checker.release("status")
        checker.active = False  # what it had in hand came to its end
        plan = reap.plan_of(settings.load(config, {}))

        early = reap.reap(plan, clock=LaterClock(GRACE - 60))
        assert (early.action, early.exit_code) == (Action.LEFT_ALONE, 0)
        assert "within the grace time" in early.reason
        assert cloud.history(spec.id)[-1][1] == "ACTIVE"
        assert board.received == []

        late = reap.reap(plan, clock=LaterClock(GRACE + 1))
        assert (late.action, late.exit_code, late.status_after) == (Action.SHELVED, 0, OFFLOADED), late.reason
        assert cloud.history(spec.id)[-1][1] == OFFLOADED
    assert late.settled == [1]
    row = Ledger(tmp_path / "state").run(1)
    assert row is not None
    assert (row["outcome"], row["workflow_id"], row["server_status_after"]) == ("terminated", "check-1", OFFLOADED)
    assert "the controller died" in row["reason"]
    assert GRACE <= row["active_seconds"] < GRACE + 120
    assert row["service_units"] == pytest.approx(row["active_seconds"] / 3600 * 16, abs=0.01)
    (title,) = board.titles
    assert "the reaper shelved a server that nobody used" in title
    assert "service units" in board.texts
    assert SECRET not in board.texts


@pytest.mark.parametrize(
    ("seconds_on", "active", "tells", "action", "says"),
    [
        (GRACE - 100, False, True, Action.LEFT_ALONE, "within the grace time"),
        (GRACE + 100, False, True, Action.SHELVED, "idle: the checker has no active check"),
        (GRACE + 100, True, True, Action.LEFT_ALONE, "the checker has an active check"),
        (WORKING + 100, True, True, Action.SHELVED, "and that for more than 7200 s"),
        (GRACE + 100, False, False, Action.LEFT_ALONE, "does not tell whether it works"),
        (WORKING + 100, False, False, Action.SHELVED, "does not tell whether it works"),
    ],
)
def test_a_server_that_is_on_is_judged_by_what_it_does(
    seconds_on: float, active: bool, tells: bool, action: Action, says: str, tmp_path: Path
) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, seconds_on)
        scene.checker.active, scene.checker.tells = active, tells
        told = scene.reap()
        assert (told.action, told.exit_code) == (action, 0), told.reason
        assert says in told.reason
        assert scene.ends == (OFFLOADED if action is Action.SHELVED else "ACTIVE")


def test_a_checker_without_metrics_is_asked_for_the_check_of_the_run_that_died(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, GRACE + 100, by_run=True)
        Ledger(scene.state_dir).note_workflow(1, "check-1")
        scene.checker.tells = False
        told = scene.reap()
        assert (told.action, told.doing) == (Action.LEFT_ALONE, "working"), told.reason
        told = scene.reap()  # the fake's second answer is COMPLETED
        assert (told.action, told.doing) == (Action.SHELVED, "idle"), told.reason


@pytest.mark.parametrize(
    ("route", "answer", "doing"),
    [
        ("metrics", Answer(cut=True, seconds=60), "idle"),
        ("metrics", Answer(503, "later", seconds=60), "idle"),
        ("metrics", Answer(cut=True), "unreachable"),
        ("metrics", Answer(200, 'spamcheck_run_active 1.0\nspamcheck_up{part="worker"} 0.0\n'), "stalled"),
    ],
)
def test_one_failing_answer_shelves_nobody_and_a_lasting_one_does(
    route: str, answer: Answer, doing: str, tmp_path: Path
) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, GRACE + 100)
        scene.checker.order(route, answer)
        began = scene.clock.monotonic()
        told = scene.reap()
        assert (told.action, told.doing) == (Action.SHELVED, doing), told.reason
        assert scene.clock.monotonic() - began >= (60 if doing == "idle" else 120)


def test_a_checker_that_never_answers_is_unreachable(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.checker_listens = False
        woken(scene, GRACE + 100)
        told = scene.reap()
        assert (told.action, told.doing) == (Action.SHELVED, "unreachable"), told.reason


def test_a_refused_key_is_no_proof_that_nothing_works(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, GRACE + 100)
        scene.settings["api_key"] = "another-key-than-the-one-that-the-checker-has"
        told = scene.reap()
        assert (told.action, told.doing) == (Action.LEFT_ALONE, "unknown")
        assert "refuses the key" in told.reason


@pytest.mark.parametrize(
    ("at", "action", "ends", "code"),
    [
        (OFFLOADED, Action.NOTHING, OFFLOADED, 0),
        ("SHELVED", Action.NOTHING, "SHELVED", 0),
        ("SHUTOFF", Action.SHELVED, OFFLOADED, 0),
        ("PAUSED", Action.SHELVED, OFFLOADED, 0),
        ("SUSPENDED", Action.SHELVED, OFFLOADED, 0),
        ("ERROR", Action.LEFT_ALONE, "ERROR", 4),
        ("DELETED", Action.FAILED, "DELETED", 4),
    ],
)
def test_every_state_that_costs_is_seen_to(at: str, action: Action, ends: str, code: int, tmp_path: Path) -> None:
    with Scene(tmp_path, ServerSpec(status=at)) as scene:
        scene.clock.sleep(GRACE + 100)
        told = scene.reap()
        assert (told.action, told.exit_code, scene.ends) == (action, code, ends), told.reason


def test_a_dry_run_changes_nothing_and_tells_nobody(tmp_path: Path, board: NoticeBoard) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, GRACE + 100, by_run=True)
        before = (scene.state_dir / "ledger.db").read_bytes()
        told = scene.reap(dry_run=True)
        assert (told.action, told.exit_code, scene.ends) == (Action.WOULD_SHELVE, 0, "ACTIVE")
        assert scene.cloud.action_requests == []
        assert (scene.state_dir / "ledger.db").read_bytes() == before
    assert board.received == []


def test_a_live_run_of_this_controller_is_left_alone_whatever_its_server_does(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, WORKING * 2)
        lock = ServerLock(scene.state_dir, scene.server_id)
        lock.acquire(pid=4711)
        told = scene.reap()
        assert told.action == Action.LEFT_ALONE
        assert "process 4711" in told.reason
        lock.release()
        lock = ServerLock(scene.state_dir, scene.server_id)
        scene.settings["server"] = "spamcheck"  # the same by its name, while the run has the id
        lock.acquire(pid=4712)
        assert "process 4712" in scene.reap().reason
        lock.release()
        assert scene.ends == "ACTIVE"


def test_a_run_that_never_ends_is_an_alarm_though_it_keeps_its_server(tmp_path: Path, board: NoticeBoard) -> None:
    """Stopped by Ctrl-Z, say: the process lives, and with it its lock."""
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, WORKING + 100)
        lock = ServerLock(scene.state_dir, scene.server_id)
        lock.acquire(pid=4711)
        (path,) = (scene.state_dir / "locks").iterdir()
        since = scene.clock.now() - timedelta(seconds=WORKING - 10)
        path.write_text(json.dumps({"pid": 4711, "since": since.isoformat()}))
        assert (scene.reap().exit_code, board.titles) == (0, [])
        scene.clock.sleep(20)
        scene.checker.active = True
        assert (scene.reap().exit_code, board.titles) == (0, []), "a long check that works"
        scene.checker.active = False
        told = scene.reap()
        assert (told.action, told.exit_code, scene.ends) == (Action.LEFT_ALONE, 7, "ACTIVE")
        assert "process 4711" in told.reason
        assert "was it suspended?" in told.reason
        assert "NOT SHELVED" in board.titles[0]
        lock.release()


def test_a_run_that_begins_while_the_reaper_looks_keeps_its_server(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        woken(scene, GRACE + 100)
        lock = ServerLock(scene.state_dir, scene.server_id)
        scene.checker.before("metrics", lambda: lock.acquire(pid=4711))
        told = scene.reap()
        lock.release()
        assert (told.action, scene.ends) == (Action.LEFT_ALONE, "ACTIVE")
        assert "process 4711" in told.reason


@pytest.mark.parametrize("grace", [0.0, GRACE])
def test_the_reaper_of_another_controller_leaves_a_run_alone_at_every_step(tmp_path: Path, grace: float) -> None:
    """Locks are files of one machine: the other controller knows nothing of this run but what the cloud and checker say."""
    seen: dict[str, Reaped] = {}
    with Scene(tmp_path) as scene:
        other = tmp_path / "other"

        def look(step: str) -> None:
            seen[step] = scene.reap(state_dir=other, reap_grace_seconds=grace, status_grace_seconds=0.0)

        scene.clock.at(0.5, lambda: look("unshelving"))
        scene.clock.at(5, lambda: look("spawning"))
        scene.checker.before("status", lambda: look("checking"))
        if grace:
            scene.clock.at(11, lambda: look("booting"))
            scene.checker.before("report", lambda: look("fetching the report"))
        told = scene.run()
        assert told.code == 0, told.message
        look("asleep")
    assert {str(one.action) for one in seen.values()} == {"nothing", "left_alone"}, {
        step: one.reason for step, one in seen.items()
    }
    assert set(seen) >= {"unshelving", "spawning", "checking"}
    assert seen["asleep"].action == Action.NOTHING
    assert [action for _, action in scene.cloud.action_requests] == ["unshelve", "shelve"]


def test_a_server_that_was_left_on_by_intention_is_reaped_when_the_grace_time_is_over(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.options = cycle.Options(skip_shelving_when_done=True)
        assert scene.run().code == 0
        scene.clock.sleep(GRACE - 10)
        assert scene.reap().action == Action.LEFT_ALONE
        scene.clock.sleep(20)
        told = scene.reap()
        assert (told.action, scene.ends) == (Action.SHELVED, OFFLOADED)
        runs = Ledger(scene.state_dir).runs()
        assert [run["started_by"] for run in runs] == ["reap", "command"]
        # What it cost after the run is counted, once.
        assert GRACE < runs[0]["active_seconds"] < GRACE + 60
        on = sum(run["active_seconds"] for run in runs)
        assert on == pytest.approx(scene.cloud.active_seconds(scene.server_id), abs=3)


def test_a_run_that_died_and_whose_server_somebody_shelved_is_counted_as_long_as_it_was_on(
    tmp_path: Path, board: NoticeBoard
) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, 1000, by_run=True)
        scene.cloud.act(scene.server_id, "shelve")
        scene.clock.sleep(5000)
        scene.cloud.advance()
        told = scene.reap()
        assert (told.action, told.settled) == (Action.NOTHING, [1])
        (run,) = Ledger(scene.state_dir).runs()
        # From when it was asked to wake; Nova's log does not tell when it was ACTIVE.
        assert 0 <= run["active_seconds"] - scene.cloud.active_seconds(scene.server_id) < 20
        assert run["exit_code"] == 143
    assert "the check failed" in board.titles[0]


def test_each_run_that_died_is_told(tmp_path: Path, board: NoticeBoard) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        for times in (1, 2):
            woken(scene, 1000, by_run=True)
            scene.cloud.act(scene.server_id, "shelve")
            scene.clock.sleep(1000)
            scene.cloud.advance()
            assert scene.reap().settled == [times]
            assert ["the check failed" in title for title in board.titles] == [True] * times


def damaged(scene: Scene) -> None:
    (scene.state_dir / "ledger.db").write_bytes(b"this is no database" * 1000)


def read_only(scene: Scene) -> None:
    scene.patch.setattr(Ledger, "begin", refused)
    scene.patch.setattr(Ledger, "raise_alarm", refused)


def refused(*_: object, **__: object) -> None:
    raise LedgerError("the history cannot be written: no space left on device")


def no_locks(scene: Scene) -> None:
    (scene.state_dir / "locks").write_text("a file where a folder should be")


@pytest.mark.parametrize("fault", [damaged, read_only, no_locks])
def test_a_history_that_cannot_be_used_keeps_no_server_on(
    fault: Callable[[Scene], None], tmp_path: Path, board: NoticeBoard
) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, GRACE + 100)
        scene.state_dir.mkdir()
        fault(scene)
        scene.at_end.append(scene.patch.undo)
        told = scene.reap()
        assert (told.action, told.exit_code, scene.ends) == (Action.SHELVED, 8, OFFLOADED), told.reason
    assert "the reaper shelved a server that nobody used" in board.titles[0]


@pytest.mark.parametrize("where", ["look", "bring_to"])
def test_a_defect_is_told(where: str, tmp_path: Path, board: NoticeBoard) -> None:
    """openstacksdk passes on whatever it does not know, an OSError for certificates that are not there for example."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("of this test")

    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, GRACE + 100)
        scene.patch.setattr(Server, where, broken)
        scene.at_end.append(scene.patch.undo)
        told = scene.reap()
    assert (told.action, told.exit_code) == (Action.FAILED, 1 if where == "look" else 7)
    assert "OSError: of this test" in told.reason
    assert ("cannot be seen" if where == "look" else "NOT SHELVED") in board.titles[0]


def test_an_alarm_is_repeated_until_the_server_is_shelved_and_then_taken_back(
    tmp_path: Path, board: NoticeBoard
) -> None:
    with Scene(tmp_path) as scene:
        scene.settings |= {"notify_urls": [board.url()], "notify_repeat_seconds": 3600.0}
        woken(scene, GRACE + 100)
        scene.cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))
        told = scene.reap()
        assert (told.action, told.exit_code, scene.ends) == (Action.FAILED, 7, "ACTIVE")
        assert "Shelve it now" in told.reason
        assert ["NOT SHELVED" in title for title in board.titles] == [True]
        assert scene.reap().exit_code == 7  # soon after: tried again, not told again
        assert len(board.titles) == 1
        scene.clock.sleep(3600)
        assert scene.reap().exit_code == 7
        assert len(board.titles) == 2
        assert "Open since" in board.received[1]["message"]
        board.clear()
        scene.cloud.forget_faults()
        scene.clock.sleep(60)
        assert scene.reap().action == Action.SHELVED
        assert sorted("all clear: server_not_shelved" in title for title in board.titles) == [False, True]
        board.clear()
        assert scene.reap().action == Action.NOTHING
        assert board.received == []
        runs = Ledger(scene.state_dir).runs()
        assert sum(run["active_seconds"] for run in runs) == pytest.approx(
            scene.cloud.active_seconds(scene.server_id), abs=10
        )


def test_a_cloud_that_does_not_answer_is_an_alarm_and_seeing_the_server_again_its_end(
    tmp_path: Path, board: NoticeBoard
) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        scene.cloud.api_down()
        assert scene.reap().exit_code == 4
        assert "cannot be seen" in board.titles[-1]
        scene.cloud.api_up()
        assert scene.reap().exit_code == 0
        assert "all clear: server_not_seen" in board.titles[-1]


def test_a_cloud_that_goes_away_between_two_looks_is_told(tmp_path: Path, board: NoticeBoard) -> None:
    with Scene(tmp_path) as scene:
        scene.settings["notify_urls"] = [board.url()]
        woken(scene, GRACE + 100)
        scene.checker.before("metrics", scene.cloud.api_down)
        assert scene.reap().exit_code == 4
    assert "cannot be seen" in board.titles[0]


def test_a_server_that_was_deleted_is_not_told_to_cost_money_for_ever(tmp_path: Path, board: NoticeBoard) -> None:
    with Scene(tmp_path) as scene:
        scene.settings |= {"notify_urls": [board.url()], "notify_repeat_seconds": 3600.0}
        woken(scene, GRACE + 100)
        scene.cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))
        assert scene.reap().exit_code == 7
        board.clear()
        scene.cloud.force_state(scene.server_id, "DELETED")
        assert scene.reap().exit_code == 4
        assert sorted("all clear: server_not_shelved" in title for title in board.titles) == [False, True]
        board.clear()
        scene.clock.sleep(3700)
        assert scene.reap().exit_code == 4
        (title,) = board.titles
        assert "cannot be seen" in title


def test_what_the_reaper_prints_is_for_machines_too(tmp_path: Path) -> None:
    spec = ServerSpec(status="ACTIVE")
    checker = FakeChecker()
    with SandboxCloud([spec], delays=QUICK_DELAYS) as cloud, checker:
        config = write_settings(tmp_path, cloud, spec.id, checker.url, reap_grace_seconds=0)
        dry = call("reap", "--dry-run", "--json", "--config", str(config))
        assert dry.returncode == 0, dry.stderr
        assert json.loads(dry.stdout)["action"] == "would_shelve"
        done = call("reap", "--config", str(config))
        assert (done.returncode, done.stdout[:8]) == (0, "shelved:"), done.stderr
    assert API_KEY not in dry.stdout + dry.stderr + done.stdout + done.stderr


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run([str(SPAMOPS), *arguments], capture_output=True, text=True, timeout=150)
