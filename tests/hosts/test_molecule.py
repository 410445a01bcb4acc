"""Every Molecule scenario, on real hosts: containers that boot systemd, reached over SSH.

They need a container engine and the image of a bare host (scripts/test-host sees to both, as root), and some need programs that
are built from source once (minutes). Where one is missing the scenario is skipped with the reason; SPAMOPS_TEST_ALL=1
(scripts/test --all, and CI) builds what is missing and turns that skip into a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))

# Which scripts in scripts/ build what a scenario's hosts run; each prints nothing but paths and does nothing the second time.
BUILDS = {
    "default": ["build-ollama", "build-temporal"],
    "ollama": ["build-ollama"],
    "spamcheck": ["build-ollama"],
    "temporal": ["build-temporal"],
}

EVERYTHING = bool(os.environ.get("SPAMOPS_TEST_ALL"))


def run(*command: str, seconds: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the checkout; its output, both streams as one."""
    return subprocess.run(
        command,
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=seconds,
        env={**os.environ, **environment},
        check=False,
    )


def last_line(output: str) -> str:
    """What a script said last: its reason, when it failed."""
    return (output.strip().splitlines() or ["it said nothing"])[-1]


def missing(reason: str) -> None:
    """Skip, or fail where everything was asked for."""
    if EVERYTHING:
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def host_image() -> tuple[str, str]:
    """The image's name, or "" and the reason why there is none."""
    found = run("scripts/test-host", seconds=900)
    return (last_line(found.stdout), "") if found.returncode == 0 else ("", last_line(found.stdout))


def built(script: str) -> str:
    """Make sure of what the script builds; the reason why it cannot be had, else ""."""
    arguments = [] if EVERYTHING else ["--cached"]
    found = run(f"scripts/{script}", *arguments, seconds=1800)
    return "" if found.returncode == 0 else last_line(found.stdout)


def test_there_are_scenarios() -> None:
    assert "hardening" in SCENARIOS


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_real_host_comes_out_as_promised(scenario: str, measured: list[str]) -> None:
    image, reason = host_image()
    if not image:
        missing(reason)
    for script in BUILDS.get(scenario, []):
        if reason := built(script):
            missing(reason)
    programs = str(Path(sys.executable).parent)
    done = run(
        "molecule",
        "test",
        "-s",
        scenario,
        seconds=2300,
        SPAMOPS_HOST_IMAGE=image,
        NO_COLOR="1",
        PATH=f"{programs}:{os.environ['PATH']}",
        # Measured are the controller's processes of the other tests, not Ansible's here.
        COVERAGE_PROCESS_START="",
    )
    # Printed by a test, or as the message of a debug task.
    figures = re.findall(r"^\s*(?:msg: ')?MEASURED (.+?)'?\s*$", done.stdout, re.MULTILINE)
    measured += [f"{scenario}: {figure}" for figure in figures]
    if done.returncode:
        pytest.fail(f"molecule test -s {scenario}:\n" + "\n".join(done.stdout.splitlines()[-200:]), pytrace=False)
