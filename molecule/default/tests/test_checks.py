"""Two checks on the provisioned server, with a cold start before each, and what must be true of such a server."""

from __future__ import annotations

import base64
import ipaddress
import re
import subprocess

import httpx
import pytest
from conftest import CHECKER, EPHEMERAL, ITEMS, ROOT, SERVER, Scene, docker, on_server

pytestmark = pytest.mark.timeout(900)
UNITS = "ollama temporal spamcheck-api spamcheck-worker spamops-firewall".split()


@pytest.fixture(scope="module", autouse=True)
def journal_of_failures(request: pytest.FixtureRequest) -> object:
    """What the server's journal says, when a test of this module has failed."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        print(subprocess.run(["docker", "exec", SERVER, "journalctl", "--no-pager", "-n", "200", "-p", "info"],
                             text=True, capture_output=True, check=False).stdout)  # fmt: skip


def run_a_good_check(scene: Scene) -> None:
    scheduled = len(scene.site.store.scheduled())
    done = scene.check()
    record = done.record
    assert (done.exit_code, record["exit_code"]) == (0, 0), done.output
    assert record["workflow_status"] == "COMPLETED", record
    assert (record["spam"] + record["not_spam"], record["failed"]) == (scheduled, 0), record
    assert record["server_states"][0] == record["server_states"][-1] == "SHELVED_OFFLOADED", record
    assert not scene.site.store.scheduled()
    boot = scene.machine.boots[-1]
    print(f"MEASURED boot to ready: {boot:.1f} s")
    print(
        f"MEASURED check of {scheduled} items: {record['classify_seconds']:.1f} s, active {record['active_seconds']:.1f} s"
    )
    assert boot <= 60, f"the checker was ready {boot:.1f} s after the boot began"


def test_a_first_check_wakes_the_server_judges_every_item_by_the_model_and_shelves_it(scene: Scene) -> None:
    run_a_good_check(scene)
    assert docker("inspect", "--format", "{{.State.Running}}", SERVER).strip() == "false"


def test_a_second_check_after_a_cold_start_does_the_same(scene: Scene) -> None:
    scene.site.seed(count=ITEMS, seed=2)
    run_a_good_check(scene)


@pytest.fixture
def awake(scene: Scene) -> Scene:
    """The server is on, and its checker ready."""
    if docker("inspect", "--format", "{{.State.Running}}", SERVER).strip() == "false":
        scene.machine.power("", True)
    return scene


def test_only_ssh_and_the_checker_listen_beyond_loopback(awake: Scene) -> None:
    found = set()
    for line in on_server("ss", "--no-header", "--numeric", "--listening", "--tcp", "--udp").splitlines():
        address, port = line.split()[4].rsplit(":", 1)
        plain = address.split("%")[0].strip("[]")
        if plain == "*" or not ipaddress.ip_address(plain).is_loopback:
            found.add(int(port))
    assert found == {22, 8001}


@pytest.mark.parametrize("unit", UNITS)
def test_a_broken_service_has_little_to_break(awake: Scene, unit: str) -> None:
    told = on_server("systemd-analyze", "security", "--no-pager", f"{unit}.service")
    score = float(re.search(r"exposure level for \S+: ([0-9.]+)", told).group(1))
    print(f"MEASURED systemd-analyze security {unit}: {score}")
    assert score <= 2.0


def test_the_checker_answers_the_site_with_the_right_key_only(awake: Scene) -> None:
    assert httpx.get(f"{CHECKER}/ok", headers={"X-API-Key": awake.api_key}).status_code == 200
    assert httpx.get(f"{CHECKER}/ok").status_code == 401
    wrong = httpx.get(f"{CHECKER}/status/none", headers={"X-API-Key": "w" * 40})
    right = httpx.get(f"{CHECKER}/status/none", headers={"X-API-Key": awake.api_key})
    assert wrong.status_code == 401
    assert right.status_code != 401


def secrets_of_the_server() -> dict[str, str]:
    """Every secret that provisioning put on the server, by the file it came from."""
    found = {"api key": (EPHEMERAL / "api_key").read_text().split()[0]}
    listing = on_server(
        "find", "/etc/spamcheck", "/etc/temporal", "-type", "f", "-size", "-4k", "-perm", "/0600", "!", "-perm", "/0044"
    )
    for path in listing.split():
        text = on_server("cat", path).strip()
        if "\n" not in text and len(text) >= 16:
            found[path] = text
    return found


def test_no_secret_is_in_the_process_list_the_journal_the_units_or_the_database(awake: Scene) -> None:
    secrets = secrets_of_the_server()
    assert len(secrets) >= 3, f"too few were found for this test to mean anything: {sorted(secrets)}"
    places = {
        "process list": on_server("ps", "axww", "-o", "args"),
        "journal": on_server("journalctl", "--no-pager", "--output", "export"),
        "units": on_server("sh", "-c", "cat /etc/systemd/system/*.service /etc/systemd/system/*/*.conf /etc/systemd/system/*.timer 2>/dev/null"),
        "world-readable files": on_server("sh", "-c", "find /etc /opt/spamcheck/current/ -type f -perm -o+r -size -100k -exec cat {} +"),
        "database": on_server("runuser", "-u", "postgres", "--", "pg_dumpall", "--no-role-passwords"),
    }  # fmt: skip
    assert "spamcheck" in places["process list"]
    assert "CREATE TABLE" in places["database"]
    for name, secret in secrets.items():
        for where, text in places.items():
            assert secret not in text, f"{name} is in the {where}"
            encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
            assert encoded not in text, f"{name} is in the {where}, as base64"


def test_no_text_of_an_item_is_in_the_database(awake: Scene) -> None:
    dump = on_server("runuser", "-u", "postgres", "--", "pg_dumpall", "--no-role-passwords")
    raw = b"".join(bytes.fromhex(run) for run in re.findall(r"\\\\x((?:[0-9a-f]{2})+)", dump))  # columns of bytes
    assert b"CheckRun" in raw or b"check" in raw, "the histories were not found, so this test means nothing"
    store = awake.site.store
    texts = {
        value[:40]
        for record in store.labels()
        for value in store.content(record).values()
        if isinstance(value, str) and len(value) > 20
    }
    assert len(texts) >= ITEMS
    found = [text for text in texts if text in dump or text.encode() in raw]
    assert not found, f"texts of items are in Temporal's database: {found[:5]}"


def test_the_server_was_provisioned_for_good(awake: Scene) -> None:
    done = subprocess.run(
        ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), str(ROOT / "molecule/default/converge.yml")],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"spamops-default\s.*changed=0 ", done.stdout), done.stdout[-5000:]
    took = float(re.search(r"MEASURED site.yml: ([0-9.]+) s", done.stdout).group(1))
    print(f"MEASURED second provisioning: {took} s")
    assert took <= 60
