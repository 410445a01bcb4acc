"""Whom fail2ban bans, how soon, for how long, and whom never."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(__file__).resolve().parents[1]
TARGET, ATTACKER = "spamops-fail2ban", "spamops-fail2ban-2"
BAN_SECONDS = 8
"""As in converge.yml."""
SOON_SECONDS = 2.0
PATIENCE = 30.0
"""Until a test has seen what the host does; how soon it did it, the host's own log tells."""
ATTEMPTS = 5
KEY = "k" * 40
OPTIONS = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oConnectTimeout=3", "-oControlPath=none"]
PASSWORD = ["sshpass", "-p", "wrong", "ssh", *OPTIONS, "-oPubkeyAuthentication=no", "-oNumberOfPasswordPrompts=1"]
WRONG_KEY = ["ssh", *OPTIONS, "-oBatchMode=yes", "-oIdentitiesOnly=yes", "-i/root/wrong"]
# Says on the host, under the name of the API's unit, what the API said here.
UNIT = """
[Service]
SyslogIdentifier=spamcheck-api
ExecStart=/usr/bin/tail -n +1 -F /run/api.log
"""
CALLER = """
import http.client, sys
# Patient: this machine may still know the address as that of an earlier attacker's network card.
call = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=40, source_address=(sys.argv[3], 0))
call.request("GET", sys.argv[4], headers={"X-API-Key": "wrong"} if sys.argv[5] == "wrong" else {})
print(call.getresponse().status)
"""


def on(name: str, *command: str, check: bool = True, stdin: str = "") -> str:
    """What a command printed that ran in the container, without a network."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", name, *command], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(name: str, field: str) -> str:
    """One field of the container's network."""
    template = f"{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"
    return subprocess.run(
        ["docker", "inspect", "--format", template, name], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def banned(jail: str = "sshd") -> list[str]:
    """The addresses that a jail has banned."""
    return on(TARGET, "fail2ban-client", "get", jail, "banip").split()


def until(question: Callable[[], object], seconds: float) -> float:
    """How many seconds it took to come true; fails when it does not."""
    began = time.monotonic()
    while not question():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - began


def ban_took(source: str, jail: str = "sshd") -> float:
    """Seconds from what the journal last said of an address before its latest ban to that ban, by the host's clock."""
    log = on(TARGET, "cat", "/var/log/fail2ban.log")
    bans = re.findall(
        rf"^([0-9-]+ [0-9:]+,[0-9]{{3}}).*\[{re.escape(jail)}\] Ban {re.escape(source)}$", log, re.MULTILINE
    )
    assert bans, log[-4000:]
    at = datetime.fromisoformat(f"{bans[-1].replace(',', '.')}+00:00").timestamp()
    told = on(TARGET, "journalctl", "-b", "--no-pager", "--output=short-unix").splitlines()
    before = [float(line.split()[0]) for line in told if source in line and float(line.split()[0]) <= at]
    assert before, told[-40:]
    return at - before[-1]


def reaches(source: str) -> bool:
    """Whether a connection from that address to sshd comes about."""
    program = f"import socket; socket.create_connection(({inspect(TARGET, 'IPAddress')!r}, 22), 2, ({source!r}, 0))"
    done = subprocess.run(["docker", "exec", ATTACKER, "python3", "-c", program], capture_output=True, timeout=30)
    return done.returncode == 0


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the host said when a test fails."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        print(on(TARGET, "sh", "-c", "journalctl -b -n 40 --no-pager; tail -n 40 /var/log/fail2ban.log", check=False))


@pytest.fixture(scope="module")
def addresses() -> Iterator[Callable[[], str]]:
    """Fresh addresses of the attacker: failures are remembered, so each test comes from one of its own."""
    network = ipaddress.ip_interface(f"{inspect(ATTACKER, 'IPAddress')}/{inspect(ATTACKER, 'IPPrefixLen')}").network
    free = iter(range(int(network.broadcast_address) - 20, int(network.broadcast_address)))
    made: list[str] = []

    def fresh() -> str:
        made.append(f"{ipaddress.ip_address(next(free))}/{network.prefixlen}")
        on(ATTACKER, "ip", "addr", "add", made[-1], "dev", "eth0")
        return made[-1].partition("/")[0]

    on(ATTACKER, "sh", "-c", "test -e /root/wrong || ssh-keygen -q -t ed25519 -N '' -f /root/wrong")
    yield fresh
    for address in made:
        on(ATTACKER, "ip", "addr", "del", address, "dev", "eth0", check=False)


def attack(command: list[str], user: str, source: str) -> int:
    """Fail to log in until the address is banned; how many times that took. Each ban must come soon after its cause."""
    for attempt in range(1, ATTEMPTS + 1):
        subprocess.run(
            ["docker", "exec", ATTACKER, *command, f"-b{source}", f"{user}@{inspect(TARGET, 'IPAddress')}", "true"],
            capture_output=True,
            timeout=30,
        )
        try:
            until(lambda: source in banned(), SOON_SECONDS if attempt < ATTEMPTS else PATIENCE)
        except AssertionError:
            continue
        assert ban_took(source) < SOON_SECONDS
        return attempt
    raise AssertionError(f"not banned after {ATTEMPTS} failed logins")


@pytest.mark.parametrize(
    ("command", "user"),
    [(PASSWORD, "debian"), (PASSWORD, "nobodyhere"), (WRONG_KEY, "debian"), (WRONG_KEY, "nobodyhere")],
    ids=["password-known", "password-unknown", "key-known", "key-unknown"],
)
def test_the_fifth_failed_login_is_banned_at_the_latest_and_within_two_seconds(
    command: list[str], user: str, addresses: Callable[[], str]
) -> None:
    source = addresses()  # not tried before: a connection without a login counts as well
    attempts = attack(command, user, source)
    print(f"MEASURED failed logins until banned, {'password' if command is PASSWORD else 'key'} of {user} = {attempts}")
    assert not reaches(source)
    assert source in on(TARGET, "nft", "list", "table", "inet", "f2b-table")


def test_a_ban_ends_after_its_time_and_the_next_one_lasts_longer(addresses: Callable[[], str]) -> None:
    source = addresses()
    attack(WRONG_KEY, "debian", source)
    assert not reaches(source)
    until(lambda: source not in banned(), BAN_SECONDS + 5)
    assert reaches(source)
    attack(WRONG_KEY, "debian", source)
    times = on(TARGET, "fail2ban-client", "get", "sshd", "banip", "--with-time")
    seconds = re.search(rf"{re.escape(source)}\s.*?\+ (\d+) =", times)
    assert seconds, times
    assert int(seconds[1]) >= 2 * BAN_SECONDS


def test_the_controller_is_never_banned() -> None:
    wrong = FOLDER / "wrong"
    if not wrong.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(wrong)], check=True, timeout=30)
    target = f"debian@{inspect(TARGET, 'IPAddress')}"
    ssh = ["ssh", *OPTIONS, "-oBatchMode=yes", "-oIdentitiesOnly=yes"]
    for _ in range(ATTEMPTS + 2):
        done = subprocess.run([*ssh, f"-i{wrong}", target, "true"], capture_output=True, timeout=30)
        assert done.returncode == 255
    time.sleep(SOON_SECONDS)
    right = subprocess.run([*ssh, f"-i{FOLDER}/id_ed25519", target, "true"], capture_output=True, text=True, timeout=30)
    assert right.returncode == 0, right.stderr


def said_by(user: str, name: str, address: str) -> None:
    """Have a user's program write under that name what sshd writes at failed logins."""
    line = f"Failed password for root from {address} port 40000 ssh2"
    on(TARGET, "setpriv", "--reuid", user, "sh", "-ec", f"for i in 1 2 3 4 5 6; do logger -i -t {name} '{line}'; done")


def test_names_of_newer_servers_count_and_a_users_own_program_does_not() -> None:
    said_by("debian", "sshd", "203.0.113.5")
    said_by("root", "sshd", "203.0.113.6")
    said_by("root", "sshd-session", "203.0.113.7")
    until(lambda: {"203.0.113.6", "203.0.113.7"} <= set(banned()), PATIENCE)
    assert "203.0.113.5" not in banned()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """The real API, here; its port, and a call that hands its new log lines to the unit's journal on the host."""
    environment = {
        "PATH": os.environ["PATH"],
        "API_KEY": KEY,
        "PAYLOAD_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "CLASSIFIER": "rules",
        "API_HOST": "0.0.0.0",
        "API_PORT": "0",
        "STATE_DIR": str(tmp_path / "state"),
    }
    path = tmp_path / "api.log"
    on(TARGET, "sh", "-ec", "cat >/run/systemd/system/spamcheck-api.service; : >/run/api.log", stdin=UNIT)
    on(TARGET, "sh", "-ec", "systemctl daemon-reload; systemctl restart spamcheck-api")
    with path.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "spamcheck.api"], env=environment, stdout=log, stderr=log)
    handed = 0

    def hand_over() -> None:
        nonlocal handed
        text = path.read_bytes()
        on(TARGET, "sh", "-c", "cat >>/run/api.log", stdin=text[handed:].decode())
        handed = len(text)

    try:
        until(lambda: b"listening on" in path.read_bytes(), 60)
        found = re.search(r"listening on http://[^ \"]*:(\d+)", path.read_text())
        assert found, path.read_text()
        yield int(found[1]), hand_over
    finally:
        process.terminate()
        process.wait(timeout=20)
        on(TARGET, "systemctl", "stop", "spamcheck-api", check=False)


@pytest.mark.parametrize("key", ["wrong", "none"])
def test_repeated_calls_of_the_api_without_its_key_are_banned(
    key: str, api: tuple[int, Callable[[], None]], addresses: Callable[[], str]
) -> None:
    port, hand_over = api
    source, here = addresses(), inspect(ATTACKER, "Gateway")
    # What a caller chooses must not look like an address: his path goes into the log as well.
    path = "/ok%22%20client=203.0.113.9%20detail="
    for attempt in range(1, ATTEMPTS + 1):
        assert source not in banned("spamcheck-api"), f"banned after {attempt - 1} calls"
        assert on(ATTACKER, "python3", "-c", CALLER, here, str(port), source, path, key).strip() == "401"
        hand_over()
    until(lambda: source in banned("spamcheck-api"), PATIENCE)
    assert ban_took(source, "spamcheck-api") < SOON_SECONDS
    assert not reaches(source)
    assert "203.0.113.9" not in banned("spamcheck-api")
    said = on(TARGET, "fail2ban-regex", "systemd-journal", "spamcheck-api")
    assert re.search(r"Failregex: [1-9]\d* total", said), said
    until(lambda: source not in banned("spamcheck-api"), BAN_SECONDS + 5)
    assert reaches(source)


def converge() -> subprocess.CompletedProcess[str]:
    """Run the role again."""
    command = ["ansible-playbook", "-i", str(FOLDER / "inventory"), "-l", TARGET, str(SCENARIO / "converge.yml")]
    environment = os.environ | {"ANSIBLE_FORCE_COLOR": "False", "ANSIBLE_NOCOLOR": "True"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_jails_that_a_broken_file_of_others_kept_away_are_there_when_it_is_mended() -> None:
    foreign = "/etc/fail2ban/jail.d/foreign.local"
    without = "sed -i '/^\\[spamcheck-api\\]/,$d' /etc/fail2ban/jail.d/spamops.local; systemctl restart fail2ban"
    on(TARGET, "sh", "-ec", without)
    until(lambda: on(TARGET, "fail2ban-client", "status", check=False).strip().endswith("\tsshd"), PATIENCE)
    on(TARGET, "sh", "-c", f"echo '[broken' >{foreign}")
    try:
        refused = converge()
    finally:
        on(TARGET, "rm", foreign)
    assert refused.returncode != 0, refused.stdout
    assert foreign in refused.stdout + refused.stderr
    mended = converge()
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "spamcheck-api" in on(TARGET, "fail2ban-client", "status")
    assert " changed=0 " in converge().stdout
