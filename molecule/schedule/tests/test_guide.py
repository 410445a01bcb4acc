"""What the operator's guide (docs/operations.md) tells to type for systemd and cron, on hosts that have them.

Runs before test_schedule.py, which takes the schedule away at its end, and leaves the hosts as converge.yml made them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = [line for fence in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S) for line in fence.splitlines()]
OF_SYSTEMD = [line for line in COMMANDS if re.match(r"(sudo )?(systemctl|journalctl) ", line)]
OF_CRON = [line for line in COMMANDS if re.match(r"(sudo )?(cat|mv) /etc/cron", line)]
SCHEDULED = [line for line in COMMANDS if line.startswith("ansible-playbook playbooks/schedule.yml ")]
VARIABLES = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.S)[0])
HOST = "spamops-schedule"
# In the place of spamops: with the settings that the guide wrote down, as a user who can read them.
STAND_IN = """#!/bin/sh
set -eu
grep -q '^server = ' "$SPAMOPS_CONFIG"
echo "hello from $1 with $SPAMOPS_CONFIG as $(id -un)"
"""


def on(command: str) -> str:
    """What a shell command of root printed on the host."""
    done = subprocess.run(["docker", "exec", HOST, "sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def play(*arguments: str) -> None:
    """Run a playbook for the host."""
    command = ["ansible-playbook", "-i", str(FOLDER / "inventory"), *arguments]
    environ = os.environ | {"ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "False"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


def scheduled(line: str) -> None:
    """Run a line of the guide with its variables; the passwords are no matter here, and the host has no other time zone."""
    extra = [word for pair in re.findall(r"(-e) (\S+)", line) for word in pair]
    more = VARIABLES | {"schedule_timezone": "UTC", "schedule_hosts": HOST}
    play("playbooks/schedule.yml", "-e", json.dumps(more), *extra)


@pytest.fixture(autouse=True, scope="module")
def controller() -> Iterator[None]:
    """A host on which the guide's first chapter was done, and which is put back in the end."""
    on("cp -p /opt/spamops/bin/spamops /opt/spamops/bin/first")
    on(f"cat > /opt/spamops/bin/spamops <<'END'\n{STAND_IN}END")
    on("install -d -m 0750 -o root -g spamops /etc/spamops")
    on("echo 'server = \"x\"' > /etc/spamops/spamops.toml; chgrp spamops /etc/spamops/spamops.toml")
    on("chmod 0640 /etc/spamops/spamops.toml")
    yield
    on("mv /opt/spamops/bin/first /opt/spamops/bin/spamops; rm -r /etc/spamops")
    play("-l", HOST, str(ROOT / "molecule" / "schedule" / "converge.yml"))


def test_the_schedule_is_made_looked_at_paused_and_resumed_as_the_guide_says() -> None:
    scheduled(SCHEDULED[0])
    assert len(OF_SYSTEMD) >= 5
    for line in OF_SYSTEMD:
        told = on(line)
        if "list-timers" in line:
            assert "spamops-check.timer" in told
            assert "spamops-reap.timer" in told
        if "journalctl" in line:
            assert "hello from run with /etc/spamops/spamops.toml as spamops" in told
        if " stop " in line:
            assert on("systemctl list-timers --plain --no-legend 'spamops-*'") == ""
        if " start " in line and "timer" in line:
            assert len(on("systemctl list-timers --plain --no-legend 'spamops-*'").splitlines()) == 2


def test_cron_takes_its_place_is_paused_and_goes() -> None:
    of_cron, *removals = SCHEDULED[1:]
    assert "schedule_type=cron" in of_cron
    scheduled(of_cron)
    for line in OF_CRON:
        assert "cat " not in line or " run" in on(line)
        if "mv " in line:
            on(line)
    assert on("ls /etc/cron.d").split().count("spamops") == 1
    for line in removals:
        assert "schedule_state=absent" in line
        scheduled(line)
    assert on("ls /etc/cron.d /etc/systemd/system | grep spamops || true") == ""
    assert on("id spamops 2>/dev/null || echo nobody") == "nobody\n"
