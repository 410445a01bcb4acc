"""The whole of it, with the real checker on a real Temporal dev server: what the demo shows, by both ways of running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from spamops import reap, settings
from spamops.clock import RealClock
from spamops.ledger import Ledger
from spamops.sandbox.transitions import Delays
from spamops.sandbox.world import World

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ITEMS = 60
DELAYS = Delays(shelve_upload=0.2, unshelve_spawn=0.2)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), items=ITEMS, seed=7, delays=DELAYS)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def spamops(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "spamops"), *arguments, "--config", str(world.config)], capture_output=True, text=True, timeout=150
    )


def playbook(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ansible-playbook"), "playbooks/run_check.yml", *arguments],
        cwd=ROOT,
        env={**os.environ, "SPAMOPS_SANDBOX_DIR": str(folder), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=150,
    )


def require_a_good_run(result: dict[str, Any]) -> None:
    assert result["exit_code"] == 0, result["reason"]
    assert result["server_states"][0] == result["server_states"][-1] == "SHELVED_OFFLOADED"
    assert "ACTIVE" in result["server_states"]
    assert result["workflow_status"] == "COMPLETED"
    assert result["checked"] == ITEMS == result["spam"] + result["not_spam"]
    assert 0 < result["classify_seconds"] <= result["active_seconds"]
    assert result["service_units"] > 0


@pytest.fixture(scope="module")
def both(world: World) -> list[dict[str, Any]]:
    """A run by the command, the same items again, a run by the playbook: what the history has of each."""
    run = spamops(world, "run", "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    world.site.seed(count=ITEMS, seed=7)
    played = playbook(world.folder)
    assert played.returncode == 0, played.stdout + played.stderr
    ledger = Ledger(world.state_dir)
    rows = [row for row in (ledger.run(1), ledger.run(2)) if row is not None]
    assert [row["started_by"] for row in rows] == ["command", "playbook"]
    assert {name: rows[0][name] for name in told if name in rows[0]} == {n: v for n, v in told.items() if n in rows[0]}
    return rows


def test_a_check_by_command_and_one_by_playbook_come_to_the_same(both: list[dict[str, Any]], world: World) -> None:
    for row in both:
        require_a_good_run(row)
    for name in ("checked", "spam", "not_spam", "failed", "by_type", "server_states"):
        assert both[0][name] == both[1][name], name
    assert world.site.store.scheduled() == []


def test_the_site_has_the_verdicts_that_the_history_tells_of(both: list[dict[str, Any]], world: World) -> None:
    told = {int(v["item_id"]): v["is_spam"] for row in both for v in row["verdicts"]}
    assert len(told) == 2 * ITEMS
    for record, is_spam in told.items():
        assert world.site.store.stored(record).status == ("spam_likely" if is_spam else "not_spam_likely")
    sent = [update.body["id"] for update in world.site.updates if update.stored]
    assert len(sent) == len(set(sent)) == 2 * ITEMS, "a verdict was sent twice, or not at all"


def test_nothing_personal_is_kept_by_the_controller(both: list[dict[str, Any]], world: World) -> None:
    assert both
    kept = b"".join(path.read_bytes() for path in world.state_dir.rglob("*") if path.is_file())
    content = [world.site.store.content(number) for number in world.site.store.labels()]
    texts = {str(value) for record in content for name, value in record.items() if name in ("email", "name", "title")}
    found = [text for text in texts if len(text) > 8 and text.encode() in kept]
    assert found == []
    assert world.api_key.encode() not in kept


def test_nobody_else_on_the_controller_can_read_the_history(both: list[dict[str, Any]], world: World) -> None:
    assert both
    modes = {path: path.stat().st_mode & 0o077 for path in [world.state_dir, *world.state_dir.rglob("*")]}
    assert {path.name: oct(mode) for path, mode in modes.items() if mode} == {}


def test_looking_back_works_while_the_server_sleeps(both: list[dict[str, Any]], world: World) -> None:
    assert both
    status = json.loads(spamops(world, "status", "--json").stdout)
    assert status["state"]["status"] == "SHELVED_OFFLOADED"
    assert status["lock"] is None
    history = json.loads(spamops(world, "history", "--json").stdout)
    assert [run["id"] for run in history] == [2, 1]
    shown = json.loads(spamops(world, "show", "1", "--json").stdout)
    assert len(shown["verdicts"]) == ITEMS
    for arguments in (("status",), ("history",), ("show", "1")):
        told = spamops(world, *arguments)
        assert told.returncode == 0
        assert told.stdout.strip()


def test_nothing_scheduled_is_a_good_run_too(both: list[dict[str, Any]], world: World) -> None:
    assert both
    run = spamops(world, "run", "--json")
    result = json.loads(run.stdout.splitlines()[-1])
    assert (run.returncode, result["checked"], result["server_status_after"]) == (0, 0, "SHELVED_OFFLOADED")


def test_a_killed_controller_leaves_the_real_checker_its_work_and_then_the_server_to_the_reaper(
    both: list[dict[str, Any]], world: World
) -> None:
    assert both
    world.site.seed(count=500, seed=11)
    waiting = len(world.site.store.scheduled())
    run = subprocess.Popen([str(BIN / "spamops"), "run", "--config", str(world.config)], stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(world.site.store.scheduled()) < waiting), "the check did not begin"
    finally:
        run.kill()
        run.wait()
    plan = reap.plan_of(settings.load(world.config, {}))
    told = reap.reap(plan, clock=LaterClock())
    assert (told.action, told.doing) == (reap.Action.LEFT_ALONE, "working"), told.reason
    assert until(lambda: reap.reap(plan, clock=LaterClock()).action is reap.Action.SHELVED)
    assert world.site.store.scheduled() == [], "it was shelved in the middle of its work"
    assert world.cloud.history(world.server_id)[-1][1] == "SHELVED_OFFLOADED"
    row = Ledger(world.state_dir).runs(limit=1)[0]
    assert (row["outcome"], row["server_status_after"]) == ("terminated", "SHELVED_OFFLOADED")


class LaterClock(RealClock):
    """The machine's clock, put forward by more than the reaper's grace time."""

    def now(self) -> datetime:
        """The time of day, some time from now."""
        return super().now() + timedelta(seconds=700)


def until(true: Callable[[], object], seconds: float = 120.0) -> bool:
    """Whether it comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_sandbox_for_looking_around_ends_without_a_trace(tmp_path: Path) -> None:
    folder = tmp_path / "sandbox"
    process = subprocess.Popen(
        [str(BIN / "spamops"), "sandbox", "up", "--dir", str(folder), "--items", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "The sandbox is up" in process.stdout.readline()
        second = subprocess.run(
            [str(BIN / "spamops"), "sandbox", "up", "--dir", str(folder)], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 2
        assert "already" in second.stderr
        woken = playbook(folder, "--tags", "wake")
        assert woken.returncode == 0, woken.stdout
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (folder / "vars.json").exists()
    deadline = time.monotonic() + 10
    while (left := [p for p in psutil.process_iter(["cmdline", "environ"]) if mentions(p, folder)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert left == []


def mentions(process: psutil.Process, folder: Path) -> bool:
    """Whether the process was started for this sandbox."""
    info = process.info  # type: ignore[attr-defined]
    told = [*(info["cmdline"] or []), *(info["environ"] or {}).values()]
    return process.pid != os.getpid() and any(str(folder) in text for text in told)
