"""Hardening: seconds of the first and of the second run of harden.yml on a bare host (a container that boots systemd, over SSH)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOST = "spamops-hardening"
FIRST_SECONDS = 45.0
SECOND_SECONDS = 20.0
"""Limits for a machine that does nothing else: two cores, packages from a mirror nearby."""


def measure() -> dict[str, Any]:
    """Boot the host of the scenario `hardening`, harden it twice, remove it."""
    docker = shutil.which("docker")
    if docker is None:
        raise SystemExit("bench: docker was not found: see scripts/test-host")
    named = [docker, "ps", "--all", "--quiet", "--filter", f"name=^{HOST}$"]
    running = subprocess.run(named, capture_output=True, text=True, check=False)
    if running.stdout.strip():
        raise SystemExit(f"bench: there is a container {HOST} already: scripts/molecule destroy -s hardening")
    with tempfile.TemporaryDirectory(prefix="spamops-bench-") as folder:
        environment = os.environ | {"MOLECULE_EPHEMERAL_DIRECTORY": folder}
        try:
            for step in ("create", "prepare"):
                _molecule(step, environment)
            load = os.getloadavg()[0]
            first, second = _run(folder), _run(folder)
        finally:
            _molecule("destroy", environment)
    return {
        "first_seconds": first[0],
        "first_changed": first[1],
        "second_seconds": second[0],
        "second_changed": second[1],
        "load_before": round(load, 2),
    }


def _molecule(step: str, environment: dict[str, str]) -> None:
    """One step of the scenario; its output only when it fails."""
    done = subprocess.run(
        [str(ROOT / "scripts/molecule"), step, "--scenario-name", "hardening"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(f"bench: molecule {step} failed")


def _run(folder: str) -> tuple[float, int]:
    """Seconds of one run, and how many tasks changed something."""
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={folder}/known_hosts",
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", f"{folder}/inventory"]
    command += ["playbooks/harden.yml", "--limit", HOST, "--extra-vars", "harden_hosts=all"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - started, 1)
    changed = re.search(r"changed=(\d+)", done.stdout)
    if done.returncode != 0 or changed is None:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit("bench: harden.yml failed")
    return seconds, int(changed[1])


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, figure, limit."""
    return [
        (
            f"first run of harden.yml (load before: {result['load_before']})",
            f"{result['first_seconds']} s, {result['first_changed']} changes",
            f"≤ {FIRST_SECONDS:g} s",
        ),
        (
            "second run",
            f"{result['second_seconds']} s, {result['second_changed']} changes",
            f"≤ {SECOND_SECONDS:g} s, 0 changes",
        ),
    ]


def passed(result: dict[str, Any]) -> bool:
    """Whether the limits hold."""
    within = result["first_seconds"] <= FIRST_SECONDS and result["second_seconds"] <= SECOND_SECONDS
    return bool(within and result["second_changed"] == 0)
