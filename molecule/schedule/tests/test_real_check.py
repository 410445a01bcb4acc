"""A scheduled check with nothing stood in for: the schedule starts the real program, which wakes a server of the sandbox's cloud, has
its real checker judge what the sandbox's site has scheduled, and shelves it. Comes before the tests of the schedule itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from test_schedule import CRON, FOLDER, STATE, TIMERS, apply, on, until

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent
PROGRAM, LIBRARY = "/opt/spamops-real/spamops", "/opt/spamops-real/lib"
FILES = "/etc/spamops-schedule"
SETTINGS = f"SPAMOPS_CONFIG={FILES}/spamops.toml SPAMOPS_SECRETS_DIR={FILES}/secrets SPAMOPS_STATE_DIR={STATE}"
ITEMS = 20


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with everything that it needs, from the lock, for the hosts' Python."""
    folder = tmp_path_factory.mktemp("program")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    chosen = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"]
    lock = ["--require-hashes", "--requirement", "requirements/controller.lock"]
    for command in (
        [*pip, "install", "--target", str(folder / "lib"), "--only-binary", ":all:", "--no-deps", *chosen, *lock],
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)],
    ):
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    (wheel,) = folder.glob("spamops-*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / "lib")], check=True, timeout=60)
    start = folder / "spamops"
    start.write_text(
        f"#!/usr/bin/python3 -B\nimport sys\nsys.path.insert(0, '{LIBRARY}')\nfrom spamops.cli import main\nsys.exit(main())\n"
    )
    start.chmod(0o755)
    folder.chmod(0o755)
    wheel.unlink()
    return folder


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A cloud with a shelved server, a site, and what a controller needs to know of them."""
    folder = tmp_path / "sandbox"
    process = subprocess.Popen(
        [PROGRAMS / "spamops", "sandbox", "up", "--items", str(ITEMS), "--dir", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: process.poll() is not None or (folder / "spamops.toml").exists(), 120)
        assert process.poll() is None
        yield json.loads((folder / "vars.json").read_text())
    finally:
        process.terminate()
        process.wait(timeout=60)


def tunnels(name: str, *urls: str) -> subprocess.Popen[bytes]:
    """The controller's loopback ports on the host, where its program thinks that the cloud and the checker are."""
    made = yaml.safe_load((FOLDER / "inventory/ansible_inventory.yml").read_text())["all"]["hosts"][name]
    ports = sorted({str(urlsplit(url).port) for url in urls})
    options = ["IdentitiesOnly=yes", "ExitOnForwardFailure=yes", f"UserKnownHostsFile={FOLDER / 'known_hosts'}"]
    command = ["ssh", "-F", "none", "-N", "-i", str(FOLDER / "id_ed25519"), *(w for o in options for w in ("-o", o))]
    command += [word for port in ports for word in ("-R", f"127.0.0.1:{port}:127.0.0.1:{port}")]
    return subprocess.Popen([*command, f"debian@{made['ansible_host']}"], stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("name", [TIMERS, CRON])
def test_a_scheduled_check_wakes_judges_and_shelves(
    name: str, sandbox: dict[str, Any], program: Path, tmp_path: Path
) -> None:
    subprocess.run(["docker", "cp", f"{program}/.", f"{name}:{Path(PROGRAM).parent}"], check=True, timeout=120)
    extra = tmp_path / "extra.json"
    settings = {
        "server": sandbox["server"],
        "checker_url": sandbox["checker_url"],
        "auth_url": sandbox["auth"]["auth_url"],
    }
    secrets = {
        "llm_spam_check_api_key": sandbox["api_key"],
        "llm_spam_check_jetstream_os_application_credential_id": sandbox["auth"]["application_credential_id"],
        "llm_spam_check_jetstream_os_application_credential_secret": sandbox["auth"]["application_credential_secret"],
    }
    # No reaper beside it: it would find the sandbox's server between two runs.
    late = {"schedule_reap_calendar": "2099-01-01", "schedule_reap_cron": "0 0 29 2 *"}
    choice = {"schedule_settings": settings, "schedule_secrets": secrets, "schedule_command": PROGRAM} | late
    # What would stop every run is told at once, by the program that will run.
    extra.write_text(json.dumps(choice | {"schedule_settings": settings | {"shelv_seconds": 900}}))
    refused = " ".join(apply(name, f"@{extra}", fails=True).split())
    assert "did you mean shelve_seconds?" in refused, refused[-2000:]
    extra.write_text(json.dumps(choice))
    way = tunnels(name, sandbox["checker_url"], sandbox["auth"]["auth_url"])
    try:
        apply(name, f"@{extra}")
        until(lambda: bool(runs(name)), 300)
        first = runs(name)[-1]
    finally:
        apply(name)
        until(lambda: "spamops-real" not in on(name, "ps axww -o args"), 120)
        way.terminate()
        way.wait(timeout=20)
    assert (first["exit_code"], first["workflow_status"], first["checked"]) == (0, "COMPLETED", ITEMS), first
    assert first["server_states"][0] == first["server_states"][-1] == "SHELVED_OFFLOADED", first


def runs(name: str) -> list[dict[str, Any]]:
    """The ended runs in the history on a host, newest first."""
    told = on(name, f"{SETTINGS} {PROGRAM} history --json 2>/dev/null", check=False)
    return [run for run in json.loads(told or "[]") if run["ended_at"]]
