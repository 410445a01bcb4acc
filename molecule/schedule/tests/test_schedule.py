"""Checks come by themselves, one at a time, as a user of their own; and go without a trace."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(__file__).parents[1]
TIMERS, CRON = "spamops-schedule", "spamops-schedule-2"
STATE = "/var/lib/spamops"
WRAPPER = "/usr/local/lib/spamops-scheduled"
EXPOSURE = 2.0
KEY_BYTES = 41
"""The key of converge.yml with its line's end."""
REMOVED = (
    "/etc/systemd/system/spamops-check.timer",
    "/etc/systemd/system/spamops-reap.service",
    "/etc/systemd/system/timers.target.wants/spamops-check.timer",
    "/var/lib/systemd/timers/stamp-spamops-check.timer",
    "/etc/cron.d/spamops",
    "/etc/spamops-schedule",
    WRAPPER,
)


def on(name: str, command: str, check: bool = True) -> str:
    """What a shell command of root printed in the container."""
    done = subprocess.run(["docker", "exec", name, "sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def as_user(name: str, command: str) -> str:
    """The same as the user of the schedule."""
    return on(name, f"runuser -u spamops -- {command}")


def log(name: str, job: str) -> list[list[str]]:
    """What the stand-in wrote down: begin JOB NANOSECONDS USER BYTES, and end JOB NANOSECONDS."""
    return [line.split() for line in on(name, f"cat {STATE}/log-{job} 2>/dev/null", check=False).splitlines()]


def begun(name: str, job: str) -> int:
    """How often it began."""
    return sum(line[0] == "begin" for line in log(name, job))


def until(question: Callable[[], bool], seconds: float) -> None:
    """Return when it is true; fail when it does not come true."""
    began = time.monotonic()
    while not question():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.3)


def apply(name: str, *extra: str, fails: bool = False) -> str:
    """Run converge.yml for one host with other variables; what it said. It must succeed, or fail."""
    command = ["ansible-playbook", "-i", str(FOLDER / "inventory"), "-l", name, str(SCENARIO / "converge.yml")]
    for variable in extra:
        command += ["-e", variable]
    environ = os.environ | {"ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "False"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environ)
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the hosts said when a test fails."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        for name in (TIMERS, CRON):
            print(name, on(name, "journalctl -b -n 40 --no-pager", check=False))


def test_the_timers_fire_again_and_again_as_the_own_user_with_the_secret() -> None:
    for job in ("run", "reap"):
        until(lambda job=job: begun(TIMERS, job) >= 3, 90)  # type: ignore[misc]
        begins = [line for line in log(TIMERS, job) if line[0] == "begin"]
        assert {(line[3], int(line[4])) for line in begins} == {("spamops", KEY_BYTES)}
    assert "hello from run" in on(TIMERS, "journalctl -b -u spamops-check.service -o cat --no-pager")
    assert "UTC" in on(TIMERS, "systemctl show -p TimersCalendar spamops-check.timer")


def test_cron_runs_both_as_the_own_user_with_the_secret() -> None:
    for job in ("run", "reap"):
        until(lambda job=job: begun(CRON, job) >= 1, 130)  # type: ignore[misc]
        begin = log(CRON, job)[0]
        assert (begin[3], int(begin[4])) == ("spamops", KEY_BYTES)
    assert "hello from run" in on(CRON, "journalctl -b -t spamops-check -o cat --no-pager")


def overlaps(name: str) -> int:
    """How often a check began before the one before it had ended."""
    return sum(first[0] == second[0] == "begin" for first, second in pairwise(log(name, "run")))


def test_a_check_never_begins_while_another_runs() -> None:
    until(lambda: len(log(TIMERS, "run")) >= 6, 60)
    assert overlaps(TIMERS) == 0
    until(lambda: int(on(CRON, "date +%-S")) in range(10, 45), 60)  # away from cron's own turn
    began = begun(CRON, "run")
    as_user(CRON, f"sh -c '{WRAPPER} run & sleep 1; {WRAPPER} run; wait'")
    assert begun(CRON, "run") == began + 1
    assert overlaps(CRON) == 0
    assert "still runs" in on(CRON, "journalctl -b -t spamops-check -o cat --no-pager")


def test_what_was_missed_is_made_up_for_once() -> None:
    drop_in = "/run/systemd/system/spamops-check.timer.d"
    on(TIMERS, "systemctl stop spamops-check.timer")
    until(lambda: on(TIMERS, "systemctl is-active spamops-check.service", check=False) == "inactive", 30)
    try:
        text = "[Timer]\\nOnCalendar=\\nOnCalendar=monthly UTC\\n"
        on(TIMERS, f"mkdir -p {drop_in}; printf '{text}' > {drop_in}/t.conf; systemctl daemon-reload")
        on(TIMERS, "touch -d '100 days ago' /var/lib/systemd/timers/stamp-spamops-check.timer")
        began = begun(TIMERS, "run")
        on(TIMERS, "systemctl start spamops-check.timer")
        until(lambda: begun(TIMERS, "run") == began + 1, 20)
        time.sleep(6)
        assert begun(TIMERS, "run") == began + 1
    finally:
        on(TIMERS, f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart spamops-check.timer")


def test_cron_s_boot_entry_makes_up_for_a_missed_check_once() -> None:
    assert f"@reboot spamops {WRAPPER} missed" in on(CRON, "cat /etc/cron.d/spamops")
    until(lambda: int(on(CRON, "date +%-S")) in range(10, 40), 60)
    began = begun(CRON, "run")
    as_user(CRON, f"{WRAPPER} missed")
    assert begun(CRON, "run") == began, "nothing was missed"
    as_user(CRON, f"touch -d '25 hours ago' {STATE}/.scheduled/began")
    as_user(CRON, f"{WRAPPER} missed")
    as_user(CRON, f"{WRAPPER} missed")
    assert begun(CRON, "run") == began + 1


@pytest.mark.parametrize("job", ["check", "reap"])
def test_the_services_are_sandboxed(job: str) -> None:
    told = on(TIMERS, f"systemd-analyze security --no-pager spamops-{job}.service").splitlines()[-1]
    exposure = float(told.split(": ")[1].split()[0])
    print(f"MEASURED exposure of spamops-{job}.service = {exposure}")
    assert exposure <= EXPOSURE


def test_nobody_else_can_read_the_secrets() -> None:
    folder = "/etc/spamops-schedule/secrets"
    assert on(TIMERS, f"stat -c '%a %U' {folder}/*") == "600 root"
    assert on(CRON, f"stat -c '%a %U %G' {folder}/*") == "640 root spamops"
    assert on(TIMERS, f"runuser -u debian -- cat {folder}/* 2>&1", check=False).endswith("Permission denied")


@pytest.mark.parametrize("name", [TIMERS, CRON])
def test_absent_leaves_nothing_but_the_history_and_with_it_nothing_at_all(name: str) -> None:
    apply(name, "schedule_state=absent")
    assert on(name, f"ls -d {' '.join(REMOVED)} 2>/dev/null", check=False) == ""
    assert on(name, "systemctl list-units --all --plain --no-legend 'spamops-*'") == ""
    assert on(name, "ls -A /var/lib/systemd/timers | grep spamops", check=False) == ""
    assert log(name, "run"), "the history stays"
    assert "changed=0" in apply(name, "schedule_state=absent")
    until(lambda: on(name, "pgrep -u spamops", check=False) == "", 30)
    apply(name, "schedule_state=absent", "schedule_remove_history=true")
    assert on(name, f"id spamops 2>/dev/null; ls -d {STATE} 2>/dev/null", check=False) == ""
    found = "find / -xdev -path /proc -prune -o -name '*spamops*' -not -path '/opt/*' -not -path '/var/log/*' -print"
    assert [path for path in on(name, found, check=False).splitlines() if not path.startswith("/tmp/")] == []
