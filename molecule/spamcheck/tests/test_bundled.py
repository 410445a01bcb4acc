"""What an operator and an attacker notice of the bundled checker. The tests run in this order, on one host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from notice_board import SECRET, NoticeBoard

from spamops.sandbox.cloud import AccessRule, Credential, SandboxCloud, ServerSpec

API_KEY = "molecule-api-key-0123456789abcdefghijk"
SITE_KEY = "molecule-site-key-0123456789abcdefghij"
CLOUD_ID = "0123456789abcdef0123456789abcdef"
CLOUD_SECRET = "molecule-cloud-secret-0123456789abcdef"
SERVER = "4d2f0b0a-6b0c-4a53-9d77-0c8f5e1a2b3c"
KEYSTONE_PORT, ALARM_PORT = 35357, 35358
INSTRUCTIONS = 'Quotes "like these", a $HOME, a back\\slash and `ticks`\nstay as they are.\n'
SERVICES = ("spamcheck-api.service", "spamcheck-worker.service")
UNITS = (*SERVICES, "spamcheck-watchdog.service")
PROJECT = Path(__file__).resolve().parents[3]

NOTHING_CHANGED = re.compile(r"changed=0\s.*failed=0")

# Each run of the playbook takes half a minute on a busy machine.
pytestmark = pytest.mark.timeout(600)

Converge = Callable[..., subprocess.CompletedProcess[str]]


def call(host: Any, path: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"X-API-Key": key}
    return httpx.get(f"http://{host.address}:8001{path}", headers=headers, timeout=20, trust_env=False)


# It works


def test_the_api_answers_from_outside_and_refuses_whoever_has_no_key(host: Any) -> None:
    host.ok(API_KEY)
    assert call(host, "/live").json() == {"status": "alive"}
    assert call(host, "/ok", API_KEY).json() == {"status": "ok"}
    assert [call(host, "/ok").status_code, call(host, "/ok", "wrong").status_code] == [401, 401]
    assert call(host, "/ok", SITE_KEY).status_code == 401
    assert call(host, "/ok?detail=true", API_KEY).json()["classifier"] == "rules"


def test_only_the_api_listens_on_addresses_that_others_reach(host: Any) -> None:
    listening = host.sh("ss -Hltn | awk '{print $4}'").split()
    reachable = [where for where in listening if not where.startswith(("127.", "[::1]"))]
    assert {where.rpartition(":")[2] for where in reachable} == {"22", "8001"}


def test_what_a_setting_holds_reaches_the_checker_as_it_is(host: Any) -> None:
    pid = host.run("systemctl", "show", "--property=MainPID", "--value", "spamcheck-worker.service").strip()
    environment = dict(
        entry.partition("=")[::2] for entry in host.run("cat", f"/proc/{pid}/environ").split("\0") if entry
    )
    assert environment["CUSTOM_INSTRUCTIONS"] == INSTRUCTIONS
    assert environment["ITEM_ATTEMPTS"] == "3"


# It is locked in


@pytest.mark.parametrize("unit", UNITS)
def test_a_units_exposure_is_low(host: Any, unit: str) -> None:
    told = host.run("systemd-analyze", "security", "--no-pager", unit)
    score = re.search(rf"exposure level for {unit}: ([0-9.]+)", told)
    assert score is not None, told
    assert float(score[1]) <= 2.0


def test_the_units_are_what_systemd_takes_them_for(host: Any) -> None:
    files = [f"/etc/systemd/system/{unit}" for unit in (*UNITS, "spamcheck-watchdog.timer")]
    assert host.sh(f"systemd-analyze verify {' '.join(files)} 2>&1").strip() == ""


@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_comes_after_what_it_needs_and_is_bounded(host: Any, unit: str) -> None:
    shown = dict(line.partition("=")[::2] for line in host.run("systemctl", "show", unit).splitlines())
    assert {"network-online.target", "temporal.service", "ollama.service"} <= set(shown["After"].split())
    assert (shown["UnitFileState"], shown["ActiveState"], shown["User"]) == ("enabled", "active", "spamcheck")
    assert (shown["Restart"], shown["StartLimitBurst"]) == ("on-failure", "20")
    assert int(shown["MemoryMax"]) < 2**30


def test_no_secret_can_be_seen_by_whoever_should_not(host: Any) -> None:
    payload_key = host.run("cat", "/etc/spamcheck/payload_key").strip()
    assert len(payload_key) == 44
    secrets = (API_KEY, SITE_KEY, CLOUD_SECRET, CLOUD_ID, SECRET, payload_key)
    places = {
        "the arguments and environments of processes": "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'",
        "the journal": "journalctl --no-pager --output=export",
        "the units": f"systemctl cat {' '.join(UNITS)}; systemctl show {' '.join(UNITS)}",
        "files that everybody may read": (
            "find /etc /opt /var /run /usr/local /home /srv -xdev -type f -perm -o+r -size -20M -print0"
            " | xargs -0 grep -aohE '(molecule-(api|site|cloud)|T0psecret)-[a-z0-9-]+|"
            + re.escape(payload_key).replace("/", "[/]")
            + "' || true"
        ),
    }
    for place, command in places.items():
        seen = host.sh(f"({command}) 2>/dev/null", check=False)
        assert not [secret for secret in secrets if secret in seen], place
    assert host.run("stat", "-c", "%a %U", "/etc/spamcheck").split() == ["700", "root"]
    assert set(host.sh("stat -c '%a %U' /etc/spamcheck/*").splitlines()) == {"600 root"}


# It comes back


@pytest.mark.parametrize("unit", SERVICES)
def test_a_killed_process_comes_back(host: Any, unit: str) -> None:
    before = int(host.run("systemctl", "show", "--property=NRestarts", "--value", unit))
    pid = host.run("systemctl", "show", "--property=MainPID", "--value", unit).strip()
    host.run("kill", "-KILL", pid)
    deadline = time.monotonic() + 60
    while (
        int(host.run("systemctl", "show", "--property=NRestarts", "--value", unit)) == before
        # It is "activating" until the pause before a restart is over, and until it says that it is ready.
        or host.run("systemctl", "show", "--property=ActiveState", "--value", unit).strip() != "active"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    host.ok(API_KEY)


# It shelves itself


@pytest.fixture
def cloud() -> Iterator[SandboxCloud]:
    """A cloud that knows this server and a credential that may do nothing but act on it."""
    rule = AccessRule("POST", f"/v2.1/servers/{SERVER}/action")
    with SandboxCloud([ServerSpec(id=SERVER, status="ACTIVE")], port=KEYSTONE_PORT) as cloud:
        cloud.add_credential(Credential(id=CLOUD_ID, secret=CLOUD_SECRET, roles=("member",), access_rules=(rule,)))
        yield cloud


@pytest.fixture
def impatient(host: Any) -> Iterator[None]:
    """A watchdog that waits for two seconds only, and whose passes are made by the test."""
    host.run("systemctl", "stop", "spamcheck-watchdog.timer")
    settings = "WATCHDOG_IDLE_MINUTES=0.03\nWATCHDOG_GRACE_MINUTES=0\nSPAMCHECK_LOG_LEVEL=DEBUG\n"
    host.run("sh", "-c", "cat >/run/impatient.env", stdin=settings)
    folder = "/run/systemd/system/spamcheck-watchdog.service.d"
    host.sh(f"mkdir -p {folder}; printf '[Service]\\nEnvironmentFile=/run/impatient.env\\n' >{folder}/test.conf")
    host.run("systemctl", "daemon-reload")
    yield
    host.sh(f"rm -r {folder} /run/impatient.env; systemctl daemon-reload; systemctl reset-failed")
    host.run("systemctl", "start", "spamcheck-watchdog.timer")


def watchdog_pass(host: Any) -> str:
    """One pass, and what it logged."""
    cursor = host.sh("journalctl -n 1 -o export | sed -n 's/^__CURSOR=//p'").strip()
    host.run("systemctl", "start", "spamcheck-watchdog.service", check=False)
    return str(host.run("journalctl", f"--after-cursor={cursor}", "-u", "spamcheck-watchdog", "--no-pager"))


@pytest.fixture
def board() -> Iterator[NoticeBoard]:
    """Where the server's alarms go: a real HTTP server."""
    with NoticeBoard() as board:
        yield board


@pytest.mark.usefixtures("impatient")
def test_a_server_that_nobody_needs_shelves_itself_with_an_alarm_and_not_while_somebody_is_logged_in(
    host: Any, cloud: SandboxCloud, board: NoticeBoard
) -> None:
    ways = {KEYSTONE_PORT: KEYSTONE_PORT, ALARM_PORT: board.port}
    arguments = [word for there, here in ways.items() for word in ("-R", f"127.0.0.1:{there}:127.0.0.1:{here}")]
    tunnel = subprocess.Popen(host.ssh("-N", *arguments), stdin=subprocess.DEVNULL)
    login = subprocess.Popen(
        [*host.ssh("-tt"), "sleep 300"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not host.sh("who").strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "somebody is logged in" in watchdog_pass(host)
        time.sleep(3)
        assert "somebody is logged in" in watchdog_pass(host)
        login.terminate()
        login.wait(timeout=20)
        while host.sh("who").strip() and time.monotonic() < deadline + 30:
            time.sleep(0.2)
        time.sleep(3)
        said = watchdog_pass(host)
        assert "the cloud was asked to shelve this server" in said
        assert cloud.action_requests == [(SERVER, "shelve")]
        assert cloud.history(SERVER)[-1][1] == "SHELVED_OFFLOADED"
        assert board.titles == ["The spam checker's server has shelved itself"]
    finally:
        for process in (login, tunnel):
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.usefixtures("impatient")
def test_a_cloud_that_does_not_answer_is_told_in_the_journal(host: Any) -> None:
    watchdog_pass(host)
    time.sleep(3)
    said = watchdog_pass(host)
    assert "idle, but not shelved; the next pass tries again" in said
    assert "cannot be reached" in said


# It can be changed, and changed back


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checker's source with another version."""
    folder = tmp_path_factory.mktemp("newer") / "spamcheck"
    shutil.copytree(
        PROJECT / "services" / "spamcheck", folder, ignore=shutil.ignore_patterns("tests", "__pycache__", "*.egg-info")
    )
    project = folder / "pyproject.toml"
    project.write_text(re.sub(r'(?m)^version = ".*"$', 'version = "99.1.0"', project.read_text()))
    return folder


@pytest.fixture(scope="module")
def wheelhouse(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of everything, as an administrator downloads them on a machine that has a network."""
    folder = tmp_path_factory.mktemp("wheels")
    host.sh(
        "rm -rf /var/tmp/wheels; PIP_CERT=/etc/ssl/certs/ca-certificates.crt /opt/spamcheck/current/bin/pip download --quiet"
        " --require-hashes --no-deps --only-binary=:all: --dest /var/tmp/wheels"
        " --requirement /opt/spamcheck/current/requirements.lock"
    )
    subprocess.run(["docker", "cp", f"{host.name}:/var/tmp/wheels/.", str(folder)], check=True, capture_output=True)
    return folder


def release(host: Any, link: str = "current") -> str:
    return str(host.run("readlink", f"/opt/spamcheck/{link}", check=False)).strip().removeprefix("releases/")


def releases(host: Any) -> set[str]:
    return set(host.run("ls", "/opt/spamcheck/releases").split())


def running(host: Any) -> str:
    """The release that the API's process was started from."""
    pid = host.run("systemctl", "show", "--property=MainPID", "--value", "spamcheck-api.service").strip()
    first = host.run("cat", f"/proc/{pid}/cmdline").split("\0")[0]
    return first.split("/")[4]


def upgrade(source: Path, wheels: Path) -> list[str]:
    # An index that nobody can reach: everything comes from the wheelhouse.
    values = (("source_dir", source), ("wheelhouse", wheels), ("index_url", "http://127.0.0.1:9/"))
    return [word for name, value in values for word in ("-e", f"spamcheck_{name}={value}")]


def test_an_upgrade_that_is_cut_off_leaves_what_ran_and_can_be_repeated(
    host: Any, converge: Converge, start_converge: Callable[..., subprocess.Popen[bytes]], newer: Path, wheelhouse: Path
) -> None:
    before = release(host)
    host.sh(
        "mkdir -p /opt/spamcheck/releases/0.0.1-ancient && touch -d 2020-01-01 /opt/spamcheck/releases/0.0.1-ancient"
    )
    process = start_converge("bundled", *upgrade(newer, wheelhouse))
    deadline = time.monotonic() + 240
    half = "ls -d /opt/spamcheck/releases/99.1.0-*/lib/python3*/site-packages/pydantic"
    while not host.sh(f"{half} 2>/dev/null || true").strip():
        assert process.poll() is None, "the playbook ended before it could be cut off"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    host.sh(
        "for process in /proc/[0-9]*; do tr '\\0' ' ' <$process/cmdline | grep -q releases/99.1.0- &&"
        " kill -9 ${process#/proc/}; done 2>/dev/null",
        check=False,
    )
    assert (release(host), running(host)) == (before, before)
    host.ok(API_KEY)

    converge("bundled", *upgrade(newer, wheelhouse))
    after = release(host)
    assert after.startswith("99.1.0-")
    assert (running(host), release(host, "previous")) == (after, before)
    assert host.run("/opt/spamcheck/current/bin/spamcheck-api", "--version").split()[-1] == "99.1.0"
    assert releases(host) == {before, after}
    host.ok(API_KEY)


def test_a_rollback_goes_back_once_and_the_next_run_forward(
    host: Any, converge: Converge, newer: Path, wheelhouse: Path
) -> None:
    after, before = release(host), release(host, "previous")
    converge("bundled", "-e", "spamcheck_rollback=true")
    assert (release(host), running(host)) == (before, before)
    host.ok(API_KEY)
    assert NOTHING_CHANGED.search(converge("bundled", "-e", "spamcheck_rollback=true").stdout)
    assert release(host) == before
    done = converge("bundled", *upgrade(newer, wheelhouse))
    assert "Make an empty environment" not in done.stdout
    assert (release(host), running(host)) == (after, after)
    assert releases(host) == {before, after}


# As a run leaves it that was killed after it wrote the settings, or a new secret.
@pytest.mark.parametrize("left", ["rm /etc/spamcheck/.applied", "touch /etc/spamcheck/comses_api_key"])
def test_a_run_that_was_cut_off_before_the_restart_is_completed_by_the_next_which_tells_no_secret(
    host: Any, converge: Converge, left: str
) -> None:
    since = host.run("systemctl", "show", "--property=MainPID", "--value", "spamcheck-api.service")
    host.run(*left.split())
    done = converge("bundled", "-vvv", "--diff")
    assert host.run("systemctl", "show", "--property=MainPID", "--value", "spamcheck-api.service") != since
    for secret in (API_KEY, SITE_KEY, CLOUD_SECRET):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if secret in line]
        assert not lines, lines[:3]


def test_without_a_credential_there_is_no_watchdog(host: Any, converge: Converge) -> None:
    none = [
        f"spamcheck_watchdog_{name}="
        for name in ("auth_url", "application_credential_id", "application_credential_secret")
    ]
    arguments = [word for value in none for word in ("-e", value)]
    converge("bundled", *arguments)
    assert host.sh("ls /etc/systemd/system/spamcheck-watchdog* 2>/dev/null || true") == ""
    assert set(host.run("ls", "/etc/spamcheck").split()) == {"api_key", "comses_api_key", "payload_key"}
    assert "watchdog" not in host.run("systemctl", "list-units", "--all", "--no-pager")


# It says what is wrong


def test_faulty_values_are_all_named_before_anything_is_changed(converge: Converge) -> None:
    faulty = {
        "spamcheck_api_key": "short",
        "spamcheck_payload_key": "not base64",
        "spamcheck_site_url": "",
        "spamcheck_settings": {"item_atempts": 3},
        "spamcheck_watchdog_auth_url": "",
        "spamcheck_port": 0,
        "spamcheck_keep_releases": 1,
    }
    done = converge("bundled", "-e", json.dumps(faulty), check=False)
    assert done.returncode != 0
    told = " ".join((done.stdout + done.stderr).split())
    for words in (
        "spamcheck_api_key is missing, or too short",
        "spamcheck_payload_key must be 32 bytes in base64",
        "spamcheck_site_url is not set",
        "spamcheck_settings holds item_atempts",
        "The watchdog needs all of",
        "spamcheck_port must be between 1 and 65535",
        "spamcheck_keep_releases must be at least 2",
        "Nothing was changed.",
        "changed=0",
    ):
        assert words in told, words


def test_a_python_that_is_too_old_is_refused_with_what_to_do(host: Any, converge: Converge) -> None:
    host.run(
        "sh",
        "-c",
        "cat >/usr/local/bin/python3.10; chmod 0755 /usr/local/bin/python3.10",
        stdin="#!/bin/sh\necho 3.10\n",
    )
    before = release(host)
    done = converge("bundled", "-e", "spamcheck_python=/usr/local/bin/python3.10", check=False)
    assert done.returncode != 0
    assert "The checker needs Python 3.11 or newer" in " ".join((done.stdout + done.stderr).split())
    assert release(host) == before
    host.ok(API_KEY)


def test_a_checker_that_is_not_ready_fails_the_run_with_the_reason(host: Any, converge: Converge) -> None:
    host.run("systemctl", "stop", "temporal.service")
    try:
        done = converge("bundled", "-e", "spamcheck_prove_seconds=3", check=False)
        assert done.returncode != 0
        assert "Temporal at 127.0.0.1:7233 does not answer" in " ".join((done.stdout + done.stderr).split())
    finally:
        host.run("systemctl", "start", "temporal.service")
        host.ok(API_KEY)


# It comes back; last, because the address may be another one then


def test_after_a_reboot_it_is_ready_by_itself(host: Any) -> None:
    subprocess.run(["docker", "restart", "--time", "10", host.name], check=True, capture_output=True, timeout=120)
    seconds = host.ok(API_KEY)
    print(f"MEASURED ready {seconds:.1f} s after the boot")
    assert host.run("systemctl", "is-active", *SERVICES).split() == ["active", "active"]
