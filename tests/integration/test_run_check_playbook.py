"""playbooks/run_check.yml and reap.yml, run by the real ansible-playbook against the embedded cloud and a checker on
loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_checker import API_KEY, Answer, FakeChecker, report, status
from notice_board import SECRET, NoticeBoard
from scene import QUICK_DELAYS, write_settings

from spamops import lock
from spamops.ledger import Ledger
from spamops.sandbox.cloud import Failure, SandboxCloud, ServerFault, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
INVENTORY = {
    "all": {
        "hosts": {
            "localhost": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        }
    }
}
RATE = 16.0


@dataclass
class Ended:
    """A command that ended."""

    code: int
    output: str


class Site:
    """A controller's folder, its cloud with one server, and a checker that answers while that server is on."""

    def __init__(self, folder: Path, cloud: SandboxCloud, spec: ServerSpec, checker: FakeChecker) -> None:
        self.folder = folder
        self.cloud = cloud
        self.server = spec.id
        self.checker = checker
        self.state_dir = folder / "state"
        self.variables: dict[str, Any] = {
            "spamops_server": spec.id,
            "spamops_checker_url": checker.url,
            "spamops_api_key": API_KEY,
            "spamops_auth_type": "v3applicationcredential",
            "spamops_auth": cloud.clouds_yaml()["auth"],
            "spamops_state_dir": str(self.state_dir),
            "spamops_service_units_per_hour": RATE,
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, book: str = "run_check.yml", **variables: Any) -> subprocess.Popen[str]:
        """Start the playbook. A variable that is None is left out."""
        given = {name: value for name, value in (self.variables | variables).items() if value is not None}
        (self.folder / "vars.json").write_text(json.dumps(given))
        (self.folder / "hosts.json").write_text(json.dumps(INVENTORY))
        process = subprocess.Popen(
            [
                str(BIN / "ansible-playbook"), "-i", str(self.folder / "hosts.json"), "-e", f"@{self.folder / 'vars.json'}",
                str(ROOT / "playbooks" / book), *arguments,
            ],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def play(self, *arguments: str, book: str = "run_check.yml", **variables: Any) -> Ended:
        """Run the playbook to its end."""
        return ended(self.start(*arguments, book=book, **variables))

    def command(self) -> Ended:
        """Run the same check with `spamops run`."""
        config = write_settings(self.folder, self.cloud, self.server, self.checker.url, service_units_per_hour=RATE)
        process = subprocess.Popen(
            [str(BIN / "spamops"), "run", "--config", str(config), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return ended(process)

    @property
    def now(self) -> str:
        """The server's status, by the cloud's own history."""
        return self.cloud.history(self.server)[-1][1]

    @property
    def asked(self) -> list[str]:
        """Every action that the cloud was asked for."""
        return [action for _, action in self.cloud.action_requests]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, newest first."""
        return Ledger(self.state_dir).runs()

    @property
    def free(self) -> bool:
        """Whether nobody, so no guard either, holds the server's lock."""
        return lock.holder(self.state_dir, self.server) is None


def ended(process: subprocess.Popen[str]) -> Ended:
    output, _ = process.communicate(timeout=120)
    return Ended(process.returncode, output)


def until(true: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether it comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def make_site(folder: Path, status_before: str) -> Iterator[Site]:
    checker = FakeChecker(on=False)
    spec = ServerSpec(status=status_before)
    with SandboxCloud([spec], delays=QUICK_DELAYS, on_power=checker.power) as cloud, checker:
        site = Site(folder, cloud, spec, checker)
        try:
            yield site
        finally:
            checker.stop()
            for process in site.started:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
            assert until(lambda: site.free), "a guard outlived its playbook"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server that is shelved."""
    yield from make_site(tmp_path, "SHELVED_OFFLOADED")


@pytest.fixture
def site_that_is_on(tmp_path: Path) -> Iterator[Site]:
    """A server that is ACTIVE."""
    yield from make_site(tmp_path, "ACTIVE")


def test_one_check_is_recorded_as_the_command_would_and_shows_no_secret_at_any_verbosity(site: Site) -> None:
    played = site.play("-vvv")
    assert played.code == 0, played.output
    assert site.free, "the guard was still there when the playbook ended"
    assert site.asked == ["unshelve", "shelve"]
    assert site.now == "SHELVED_OFFLOADED"
    assert "3 checked, 1 spam, 0 failed" in played.output
    auth = site.variables["spamops_auth"]
    for secret in (API_KEY, auth["application_credential_id"], auth["application_credential_secret"]):
        assert secret not in played.output

    commanded = site.command()
    assert commanded.code == 0, commanded.output
    of_command, of_playbook = site.rows
    ledger = Ledger(site.state_dir)
    measured = {"id", "started_by", "started_at", "ended_at", "server_timeline", "server_states", "steps"} | {
        name for name in of_command if name.endswith("_seconds") or name == "service_units"
    }
    assert of_playbook.keys() == of_command.keys()
    for name in of_command.keys() - measured:
        assert of_playbook[name] == of_command[name], name
    assert list(of_playbook["steps"]) == list(of_command["steps"])
    for row in (of_playbook, of_command):  # which of the passing states are seen depends on when somebody looks
        seen = [status for status in row["server_states"] if status != "SHELVED"]
        assert seen == ["SHELVED_OFFLOADED", "ACTIVE", "SHELVED_OFFLOADED"]
    assert (of_playbook["started_by"], of_command["started_by"]) == ("playbook", "command")
    assert (ledger.run(1) or {})["verdicts"] == (ledger.run(2) or {})["verdicts"] != []
    for row in (of_playbook, of_command):
        paid = site.cloud.active_seconds(site.server)
        assert 0 < row["active_seconds"] < paid
        assert row["service_units"] == pytest.approx(row["active_seconds"] / 3600 * RATE, abs=1e-5)


def test_a_check_that_fails_is_told_and_the_server_is_shelved(site: Site) -> None:
    site.checker.order("status", Answer(body=status("FAILED", "the site does not answer")))
    played = site.play()
    assert played.code != 0
    assert "CHECKER FAILED (exit code 5)" in played.output
    assert "the site does not answer" in played.output
    assert site.asked == ["unshelve", "shelve"]
    assert site.now == "SHELVED_OFFLOADED"
    row = site.rows[0]
    assert (row["outcome"], row["exit_code"], row["workflow_status"]) == ("checker_failed", 5, "FAILED")
    assert site.free


def test_items_that_failed_are_told_and_their_reasons_are_in_the_history(site: Site) -> None:
    site.checker.order("report", Answer(body=report(3, failed=2)))
    played = site.play()
    assert played.code != 0
    assert "ITEMS FAILED (exit code 6)" in played.output
    row = Ledger(site.state_dir).run(1) or {}
    assert (row["outcome"], row["checked"], row["failed"]) == ("items_failed", 3, 2)
    assert sum(verdict["failure"] is not None for verdict in row["verdicts"]) == 2
    assert site.now == "SHELVED_OFFLOADED"


def test_a_server_that_cannot_be_woken_is_told_and_nothing_is_checked(site: Site) -> None:
    site.cloud.order(ServerFault(Failure.NO_CAPACITY, times=None))
    played = site.play(spamops_unshelve_seconds=2)
    assert played.code != 0
    assert "SERVER NOT WOKEN (exit code 4)" in played.output
    assert "no host free" in played.output
    assert site.checker.requests == []
    assert set(site.asked) == {"unshelve"}
    assert site.now == "SHELVED_OFFLOADED"
    assert (site.rows[0]["outcome"], site.rows[0]["exit_code"]) == ("server_not_woken", 4)
    assert site.free


def test_a_server_that_cannot_be_shelved_raises_the_alarm_that_costs_money(site: Site) -> None:
    site.cloud.order(ServerFault(Failure.STUCK, times=None, task_state="shelving_image_uploading"))
    played = site.play(spamops_shelve_seconds=2)
    assert played.code != 0
    assert "SERVER NOT SHELVED (exit code 7)" in played.output
    assert f"openstack server shelve {site.server}" in played.output
    row = site.rows[0]
    assert (row["outcome"], row["exit_code"], row["checked"]) == ("server_not_shelved", 7, 3)
    assert row["server_status_after"] == "ACTIVE"
    assert site.free


def test_a_wrong_credential_is_told_once_and_is_no_false_alarm(site: Site) -> None:
    auth = site.variables["spamops_auth"] | {"application_credential_id": "0" * 32}
    played = site.play(spamops_auth=auth)
    assert played.code != 0
    assert "SERVER NOT WOKEN (exit code 4)" in played.output
    assert "NOT SHELVED" not in played.output
    assert auth["application_credential_secret"] not in played.output
    assert site.rows[0]["exit_code"] == 4


# Check mode, switches, tags


def test_check_mode_changes_nothing_and_does_not_fail(site: Site) -> None:
    played = site.play("--check", "--diff")
    assert played.code == 0, played.output
    assert "-SHELVED_OFFLOADED\n+ACTIVE" in played.output
    assert site.asked == []
    assert "start" not in site.checker.requests
    assert not site.state_dir.exists()


def test_the_server_is_left_on_where_that_was_asked_for(site: Site) -> None:
    played = site.play(skip_shelving_when_done=True)
    assert played.code == 0, played.output
    assert site.asked == ["unshelve"]
    assert site.now == "ACTIVE"
    assert site.rows[0]["server_status_after"] == "ACTIVE"
    assert site.free


def test_the_server_is_not_looked_at_where_that_was_asked_for(site_that_is_on: Site) -> None:
    site = site_that_is_on
    played = site.play(skip_changing_instance_state="true")  # as -e gives it on the command line
    assert played.code == 0, played.output
    assert site.cloud.requests == []
    assert (site.rows[0]["checked"], site.rows[0]["server_status_after"]) == (3, None)


def test_each_part_can_be_done_alone(site: Site) -> None:
    assert site.play("--tags", "wake").code == 0
    assert (site.asked, site.now, site.checker.requests) == (["unshelve"], "ACTIVE", [])
    assert site.free

    assert site.play("--tags", "check").code == 0
    assert (site.asked, site.now) == (["unshelve"], "ACTIVE")
    assert site.checker.requests[-1] == "report"
    answered = len(site.checker.requests)

    assert site.play("--tags", "shelve").code == 0
    assert (site.asked, site.now) == (["unshelve", "shelve"], "SHELVED_OFFLOADED")
    assert len(site.checker.requests) == answered
    assert [(row["exit_code"], row["checked"]) for row in site.rows] == [(0, 0), (0, 3), (0, 0)]


# Settings


@pytest.mark.parametrize(
    "fault",
    [
        {"spamops_server": None},
        {"spamops_server": ""},
        {"spamops_checker_url": None},
        {"spamops_checker_url": "203.0.113.7:8001"},
        {"spamops_api_key": None},
        {"spamops_api_key": "too-short-to-be-a-key"},
        {"spamops_api_key": "unconfigured"},
        {"spamops_api_key": "{{ vault_that_nobody_wrote }}"},
        {"spamops_auth": {"application_credential_secret": "{{ vault_that_nobody_wrote }}"}},
    ],
    ids=str,
)
def test_a_faulty_setting_costs_nothing(site: Site, fault: dict[str, Any]) -> None:
    played = site.play(**fault)
    assert played.code != 0
    if "spamops_auth" in fault:
        assert "vault_that_nobody_wrote" in played.output
    else:
        assert "Set spamops_server (id or name)" in played.output
        assert "nothing was touched" in " ".join(played.output.split())
    assert "too-short-to-be-a-key" not in played.output
    assert site.cloud.requests == []
    assert site.checker.requests == []
    assert not site.state_dir.exists()


def test_without_the_sandbox_its_inventory_says_how_to_start_it(tmp_path: Path) -> None:
    process = subprocess.run(
        [str(BIN / "ansible-playbook"), "playbooks/run_check.yml"], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"SPAMOPS_SANDBOX_DIR": str(tmp_path), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
    )  # fmt: skip
    assert process.returncode != 0
    assert "spamops sandbox up" in process.stdout + process.stderr


# Other runs


def test_a_second_run_is_refused_and_leaves_the_first_ones_server_alone(site: Site) -> None:
    site.checker.hold("status")
    first = site.start()
    assert site.checker.arrived("status")
    assert site.now == "ACTIVE"

    for second in (site.play(), site.play("--tags", "shelve"), site.play("--check")):
        assert second.code != 0
        assert f"another run of {site.server} is active (process {first.pid} since" in second.output
        for later in ("Wake the server", "Check what is scheduled", "Shelve the server", "End the run"):
            assert f"TASK [{later}]" not in second.output
    commanded = site.command()
    assert commanded.code == 3
    assert "is active" in commanded.output
    assert (site.asked, site.now, len(site.rows)) == (["unshelve"], "ACTIVE", 1)

    site.checker.release("status")
    done = ended(first)
    assert done.code == 0, done.output
    assert (site.asked, site.now) == (["unshelve", "shelve"], "SHELVED_OFFLOADED")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_playbook_that_is_ended_by_force_has_its_server_shelved(site: Site, number: signal.Signals) -> None:
    site.checker.hold("status")
    process = site.start()
    assert site.checker.arrived("status")
    os.killpg(process.pid, number)  # Ctrl-C in a terminal reaches the whole group
    assert ended(process).code != 0
    assert until(lambda: site.free)
    assert (site.asked, site.now) == (["unshelve", "shelve"], "SHELVED_OFFLOADED")
    assert (site.rows[0]["outcome"], site.rows[0]["server_status_after"]) == ("terminated", "SHELVED_OFFLOADED")


# Budget, reaper


def test_a_run_that_takes_longer_than_its_budget_is_ended_in_time_and_told(site: Site) -> None:
    site.checker.order("status", Answer(body=status("RUNNING", checked=1)))
    with NoticeBoard() as board:
        began = time.monotonic()
        played = site.play("-vvv", spamops_budget_run_seconds=6, spamops_notify_urls=[board.url()])
        assert time.monotonic() - began < 60
        assert played.code != 0
        assert "BUDGET SPENT (exit code 9)" in played.output
        assert "was ended in time (budget_run_seconds: 6 s a run)" in played.output
        assert ["the check failed" in title for title in board.titles] == [True]
    assert SECRET not in played.output
    assert site.now == "SHELVED_OFFLOADED"
    assert site.rows[0]["outcome"] == "budget_spent"


def test_a_run_without_budget_does_not_wake_the_server(site: Site) -> None:
    assert site.play().code == 0
    refused = site.play(spamops_budget_day_units=0.0001)
    assert refused.code != 0
    assert "budget_day_units: 0.0001 service units a day" in refused.output
    assert site.asked == ["unshelve", "shelve"]


def test_a_playbook_that_dies_with_its_guard_leaves_its_server_to_the_reaper(site: Site) -> None:
    site.checker.hold("status")
    process = site.start()
    assert site.checker.arrived("status", within=60)
    for guard in guards_of(site):
        guard.kill()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    site.checker.release("status")
    assert until(lambda: site.free)
    left = site.play(book="reap.yml")
    assert left.code == 0, left.output
    assert "left alone" in left.output
    assert site.now == "ACTIVE"
    site.checker.active = False
    predicted = site.play("--check", book="reap.yml", spamops_reap_grace_seconds=0)
    assert "would shelve" in predicted.output
    assert site.now == "ACTIVE"
    with NoticeBoard() as board:
        reaped = site.play("-vvv", book="reap.yml", spamops_reap_grace_seconds=0, spamops_notify_urls=[board.url()])
        assert reaped.code == 0, reaped.output
        assert ["the reaper shelved" in title for title in board.titles] == [True]
    assert site.now == "SHELVED_OFFLOADED"
    for secret in (SECRET, API_KEY, site.variables["spamops_auth"]["application_credential_secret"]):
        assert secret not in reaped.output
    (row,) = site.rows
    assert (row["outcome"], row["server_status_after"]) == ("terminated", "SHELVED_OFFLOADED")
    again = site.play(book="reap.yml", spamops_reap_grace_seconds=0)
    assert "changed=0" in again.output


def guards_of(site: Site) -> list[psutil.Process]:
    """The guard of this site's run: whoever holds its lock's file open."""
    path = str(lock.lock_path(site.state_dir, site.server))
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "spamops.guard" in (process.info["cmdline"] or []):
            found += [process for file in process.open_files() if file.path == path]
    return found
