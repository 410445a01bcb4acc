"""What a person notices of the firewall: who gets in, who does not, and that no change locks its owner out."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
ALONE, OTHER = "spamops-firewall", "spamops-firewall-2"
CHECKER, UNKNOWN = 8001, 9999
CUTS_SSH = "tcp dport 22 drop"
FOREIGN = """
table inet f2b-table {
    set addr-set-sshd { type ipv4_addr; elements = { 203.0.113.9 } }
    chain f2b-chain { type filter hook input priority filter - 1; ip saddr @addr-set-sshd reject; }
}
table ip nat {
    chain DOCKER { tcp dport 8080 dnat to 198.51.100.7:80; }
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }
}
"""
# Opens as many connections as it is told, says how many came through, and holds them until its input ends.
CALLER = """
import socket, sys, time
host, port, count, hold = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "hold"
held, through = [], 0
for _ in range(count):
    try:
        call = socket.create_connection((host, port), timeout=3)
    except OSError:
        continue
    through += 1
    if hold:
        held.append(call)
        continue
    with call:  # the other end has closed as well when this one does
        call.shutdown(socket.SHUT_WR)
        call.recv(1)
    time.sleep(0.02)  # the kernel looks for connections that are over once in a while only
print(through, flush=True)
sys.stdin.read()
"""
LISTENER = """
import asyncio, sys
async def answer(reader, writer):
    await reader.read()
    writer.close()
async def main():
    servers = [await asyncio.start_server(answer, ["0.0.0.0", "::"], int(port), backlog=256) for port in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))
asyncio.run(main())
"""


def on(name: str, *command: str, stdin: str = "", check: bool = True) -> str:
    """What a command printed that ran in the container, without a network."""
    done = subprocess.run(
        ["docker", "exec", "--interactive", name, *command], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def address(name: str) -> str:
    """The container's IPv4 address, which may change when it is restarted."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return subprocess.run(
        ["docker", "inspect", "--format", template, name], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def link_local(name: str) -> str:
    """The container's IPv6 link-local address, without the interface."""
    found = re.search(r"inet6 (fe80[0-9a-f:]+)", on(name, "ip", "-6", "-o", "addr", "show", "dev", "eth0"))
    assert found, "the container has no IPv6 address"
    return found[1]


def login(name: str, host: str | None = None) -> subprocess.CompletedProcess[str]:
    """A new login as Ansible's user with its key."""
    return subprocess.run(
        [
            "ssh",
            "-oBatchMode=yes",
            "-oConnectTimeout=3",
            "-oControlPath=none",
            "-oIdentitiesOnly=yes",
            f"-oHostKeyAlias={address(name)}",
            f"-oUserKnownHostsFile={FOLDER}/known_hosts",
            "-oStrictHostKeyChecking=yes",
            f"-i{FOLDER}/id_ed25519",
            f"debian@{host or address(name)}",
            "true",
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )


def opens(host: str, port: int) -> bool:
    """Whether a connection from the controller comes about."""
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def opens_from(name: str, host: str, port: int, count: int = 1) -> int:
    """How many of `count` connections from another host come about, one after the other."""
    return int(on(name, "python3", "-c", CALLER, host, str(port), str(count), "close"))


def play(limit: str, playbook: str = "converge.yml", **variables: Any) -> subprocess.CompletedProcess[str]:
    """The role again, with other values."""
    command = ["ansible-playbook", "-i", str(FOLDER / "inventory"), str(SCENARIO / playbook), "--limit", limit]
    return subprocess.run([*command, "-e", json.dumps(variables)], capture_output=True, text=True, timeout=150)


def cut_off(rollback_seconds: int) -> None:
    """Load rules that cut SSH, and let the controller die before it can confirm them or take them back."""
    variables = json.dumps({"extra": [CUTS_SSH], "firewall_rollback_seconds": rollback_seconds})
    command = ["ansible-playbook", "-i", str(FOLDER / "inventory"), str(SCENARIO / "converge.yml"), "-l", OTHER]
    with subprocess.Popen(
        [*command, "-e", variables], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as controller:
        assert eventually(lambda: CUTS_SSH in rules(OTHER), 120)
        os.killpg(controller.pid, signal.SIGKILL)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Its output; fails when the playbook did."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """Why the playbook failed, in one line; fails when it did not."""
    assert done.returncode != 0, done.stdout
    return " ".join((done.stdout + done.stderr).split())


def rules(name: str) -> str:
    """The table without counters."""
    return on(name, "nft", "--stateless", "list", "table", "inet", "spamops")


def without_elements(listing: str) -> str:
    """The same without what packets put into the dynamic sets."""
    return re.sub(r"(flags dynamic[^\n]*\n(?:\t\ttimeout[^\n]*\n)?)\t\telements = \{[^}]*\}\n", r"\1", listing)


def eventually(question: Callable[[], object], seconds: float = 30) -> bool:
    """Whether it comes true in time."""
    until = time.monotonic() + seconds
    while not question():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture(scope="module", autouse=True)
def listeners() -> Iterator[None]:
    """Something that answers at the checker's port and at one that nobody asked for."""
    for name in (ALONE, OTHER):
        listen(name)
    yield
    for name in (ALONE, OTHER):
        on(name, "systemctl", "stop", "listener", check=False)


def listen(name: str) -> None:
    on(name, "systemctl", "stop", "listener", check=False)  # one that a run left behind which was cut off
    on(
        name,
        "systemd-run",
        "--quiet",
        "--collect",
        "--unit=listener",
        "python3",
        "-c",
        LISTENER,
        str(CHECKER),
        str(UNKNOWN),
    )
    assert eventually(lambda: on(name, "ss", "-Hltn", f"sport = :{CHECKER}"))


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest) -> Iterator[None]:
    """Show what the hosts said when a test fails."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        for name in (ALONE, OTHER):
            print(on(name, "sh", "-c", "journalctl -b -n 30 --no-pager; nft list ruleset", check=False))


class TestWhoGetsIn:
    def test_the_role_alone_locks_nobody_out_and_closes_the_rest(self) -> None:
        assert login(ALONE).returncode == 0
        assert opens_from(OTHER, address(ALONE), 22) == 1
        assert not opens(address(ALONE), CHECKER)
        assert not opens(address(ALONE), UNKNOWN)

    def test_only_administrators_reach_ssh(self) -> None:
        assert login(OTHER).returncode == 0
        assert opens_from(ALONE, address(OTHER), 22) == 0

    def test_only_sites_reach_the_checker(self) -> None:
        assert opens(address(OTHER), CHECKER)
        assert not opens(address(OTHER), UNKNOWN)
        assert opens_from(OTHER, address(ALONE), CHECKER) == 0

    def test_the_same_in_ipv6(self) -> None:
        there = link_local(OTHER)
        assert login(OTHER, f"{there}%docker0").returncode == 0
        assert opens(f"{there}%docker0", CHECKER)
        assert not opens(f"{there}%docker0", UNKNOWN)
        assert opens_from(ALONE, f"{there}%eth0", 22) == 0
        assert opens_from(ALONE, f"{there}%eth0", CHECKER) == 1
        assert not opens(f"{link_local(ALONE)}%docker0", CHECKER)


class TestLimits:
    """From one source 10 connections at a time and 60 new ones a minute, from all 16."""

    @pytest.fixture
    def held(self) -> Iterator[int]:
        """How many of 15 connections from one host came about; they stay open."""
        with subprocess.Popen(
            ["docker", "exec", "-i", ALONE, "python3", "-c", CALLER, address(OTHER), str(CHECKER), "15", "hold"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as caller:
            assert caller.stdout
            assert caller.stdin
            yield int(caller.stdout.readline())
            caller.stdin.close()

    def test_one_source_cannot_take_them_all_and_all_cannot_take_too_many(self, held: int) -> None:
        assert held == 10
        mine = []
        for _ in range(9):
            try:
                mine.append(socket.create_connection((address(OTHER), CHECKER), timeout=3))
            except ConnectionRefusedError:
                continue
        for call in mine:
            call.close()
        assert len(mine) == 6

    def test_new_connections_are_limited_also_in_ipv6(self) -> None:
        through = opens_from(ALONE, f"{link_local(OTHER)}%eth0", CHECKER, 120)
        assert 50 <= through <= 75, through

    def test_half_open_connections_count(self) -> None:
        on(
            ALONE,
            "nft",
            "-f",
            "-",
            stdin=f"table ip t {{ chain c {{ type filter hook input priority -5; tcp sport {CHECKER} drop; }}; }}",
        )
        try:
            opening = f"""
import socket, time
calls = [socket.socket() for _ in range(20)]
for call in calls:
    call.setblocking(False)
    call.connect_ex(({address(OTHER)!r}, {CHECKER}))
time.sleep(0.5)
"""
            before = half_open()
            on(ALONE, "python3", "-c", opening)
            assert 5 <= half_open() - before <= 10
        finally:
            on(ALONE, "nft", "delete", "table", "ip", "t")


def half_open() -> int:
    return len(on(OTHER, "ss", "-Hn", "state", "syn-recv", "sport", "=", f":{CHECKER}").splitlines())


class TestNobodyIsLockedOut:
    @pytest.fixture(autouse=True)
    def as_before(self) -> Iterator[None]:
        """Whatever a test does, the rules afterwards are those from before, or the test fails."""
        before, file = without_elements(rules(OTHER)), on(OTHER, "cat", "/etc/spamops/firewall.nft")
        yield
        assert without_elements(rules(OTHER)) == before
        assert on(OTHER, "cat", "/etc/spamops/firewall.nft") == file
        assert "nft-rollback" not in on(OTHER, "systemctl", "list-timers", "--all")

    @pytest.mark.parametrize(
        ("variables", "says"),
        [
            ({"firewall_ssh_ports": []}, "firewall_ssh_ports is empty: nobody could log in"),
            (
                {"firewall_admin_cidrs": ["192.0.2.0/24", "2001:db8::/32"]},
                "firewall_admin_cidrs would shut out the machine",
            ),
            ({"firewall_admin_cidrs": ["example.org"]}, "hold networks such as 192.0.2.0/24"),
            ({"firewall_admin_cidrs": ["300.0.0.1"]}, "firewall_admin_cidrs: '300.0.0.1' does not appear to be"),
            ({"firewall_rollback_seconds": 1}, "firewall_rollback_seconds must be at least 15"),
            ({"extra": ["tcp dport 22 drip"]}, "nft refuses the rules, so nothing was changed"),
        ],
    )
    def test_a_forbidden_change_is_refused_and_says_what_to_set(self, variables: dict[str, Any], says: str) -> None:
        assert says in failed(play(OTHER, **variables))
        assert login(OTHER).returncode == 0

    def test_a_rule_that_cuts_ssh_is_taken_back(self) -> None:
        assert "no new login from the controller came through" in failed(
            play(OTHER, extra=[CUTS_SSH], firewall_rollback_seconds=15)
        )
        assert login(OTHER).returncode == 0

    def test_an_admin_list_without_the_controller_is_taken_back_where_the_preflight_is_left_out(self) -> None:
        said = failed(play(OTHER, "unguarded.yml", firewall_admin_cidrs=["192.0.2.0/24"], firewall_rollback_seconds=15))
        assert "The previous ones are in force again, and a new login works" in said
        assert login(OTHER).returncode == 0

    @pytest.mark.parametrize(
        "variables", [{"firewall_extra_rules": [CUTS_SSH]}, {"firewall_admin_cidrs": ["192.0.2.0/24"]}]
    )
    def test_without_the_guard_the_same_changes_lock_out(self, variables: dict[str, Any]) -> None:
        on(OTHER, "cp", "-a", "/etc/spamops", "/root/spamops")
        try:
            play(OTHER, "unguarded.yml", firewall_rollback_seconds=0, **variables)
            assert login(OTHER).returncode != 0
        finally:
            on(
                OTHER,
                "sh",
                "-ec",
                "rm -r /etc/spamops; mv /root/spamops /etc/spamops; nft -f /etc/spamops/firewall.nft",
            )
        assert login(OTHER).returncode == 0

    def test_a_controller_that_dies_before_it_confirms_leaves_the_previous_rules(self) -> None:
        cut_off(rollback_seconds=15)
        assert CUTS_SSH not in on(OTHER, "cat", "/etc/spamops/firewall.nft"), "a reboot now would lock out"
        assert login(OTHER).returncode != 0
        assert eventually(lambda: CUTS_SSH not in rules(OTHER))
        assert login(OTHER).returncode == 0

    def test_a_run_while_a_change_waits_leaves_that_one_its_way_back(self) -> None:
        cut_off(rollback_seconds=45)
        by_engine = {"ansible_connection": "community.docker.docker", "ansible_host": OTHER, "ansible_user": "root"}
        said = failed(play(OTHER, "unguarded.yml", **by_engine))
        assert "is another change waiting for its confirmation?" in said
        assert CUTS_SSH in rules(OTHER), "this machine is too slow: the change is over before the second run"
        assert eventually(lambda: CUTS_SSH not in rules(OTHER), 75)
        assert login(OTHER).returncode == 0
        succeeded(play(OTHER))

    def test_a_timer_that_found_nothing_to_take_back_does_not_stop_later_changes(self) -> None:
        # As when a controller died before its rules were written: systemd keeps the unit that failed.
        on(OTHER, "systemd-run", "--quiet", "--unit=nft-rollback-spamops", "--on-active=1ms", "/bin/false")
        assert eventually(lambda: "failed" in on(OTHER, "systemctl", "is-failed", "nft-rollback-spamops", check=False))
        succeeded(play(OTHER, firewall_dhcp_client=False))
        succeeded(play(OTHER))

    def test_rules_for_which_no_timer_can_be_had_are_not_loaded(self) -> None:
        # One is armed already, as by another controller whose change waits for its confirmation.
        unit = "--unit=nft-rollback-spamops"
        on(OTHER, "systemd-run", "--quiet", unit, "--on-active=1h", "--timer-property=AccuracySec=1s", "/bin/true")
        try:
            said = failed(play(OTHER, extra=[CUTS_SSH], firewall_rollback_seconds=15))
        finally:
            on(OTHER, "systemctl", "stop", "nft-rollback-spamops.timer", check=False)
        assert "no timer could be armed that would restore the previous rules, so nothing was changed" in said
        assert CUTS_SSH not in rules(OTHER)
        assert login(OTHER).returncode == 0

    def test_over_a_connection_that_proves_nothing_no_rules_are_loaded(self) -> None:
        over = {"ansible_connection": "ansible.builtin.paramiko_ssh", "ansible_host_key_checking": False}
        said = failed(
            play(OTHER, "unguarded.yml", firewall_extra_rules=[CUTS_SSH], firewall_rollback_seconds=15, **over)
        )
        assert "cannot show that a new login works" in said
        assert CUTS_SSH not in rules(OTHER)
        assert login(OTHER).returncode == 0

    def test_the_port_of_the_connection_stays_open_whatever_the_list_says(self) -> None:
        succeeded(play(OTHER, firewall_ssh_ports=[2222]))
        assert "tcp dport { 22, 2222 }" in rules(OTHER)
        assert login(OTHER).returncode == 0
        succeeded(play(OTHER))


def test_the_very_first_rules_are_taken_back_when_they_cut_the_connection_itself() -> None:
    # Nothing is tracked yet, so the connection that brings the rules is not an established one for them.
    on(ALONE, "systemctl", "stop", "spamops-firewall")
    on(ALONE, "mv", "/etc/spamops/firewall.nft", "/root/firewall.nft")
    done = play(ALONE, firewall_extra_rules=[CUTS_SSH], firewall_rollback_seconds=15)
    assert "no new login from the controller came through" in failed(done)
    assert login(ALONE).returncode == 0
    assert "spamops" not in on(ALONE, "nft", "list", "tables")
    assert "changed=1" in succeeded(play(ALONE))


def test_what_somebody_took_out_by_hand_comes_back() -> None:
    before = rules(ALONE)
    on(ALONE, "nft", "flush", "chain", "inet", "spamops", "checker")
    assert "changed=1" in succeeded(play(ALONE))
    assert rules(ALONE) == before
    assert "changed=0" in succeeded(play(ALONE))


class TestTheTablesOfOthers:
    @pytest.fixture
    def foreign(self) -> Iterator[Callable[[], str]]:
        """Tables like those of fail2ban and Docker; how they are now."""
        on(ALONE, "nft", "-f", "-", stdin=FOREIGN)

        def now() -> str:
            return on(ALONE, "sh", "-c", "nft list table inet f2b-table; nft list table ip nat")

        assert "203.0.113.9" in now()
        yield now
        on(ALONE, "sh", "-c", "nft delete table inet f2b-table; nft delete table ip nat", check=False)

    def test_they_survive_a_change_a_restart_a_reload_and_a_stop(self, foreign: Callable[[], str]) -> None:
        before = foreign()
        assert "changed=1" in succeeded(play(ALONE, firewall_dhcp_client=False))
        assert foreign() == before
        assert "changed=1" in succeeded(play(ALONE))
        for action in ("restart", "reload", "stop"):
            on(ALONE, "systemctl", action, "spamops-firewall")
            assert foreign() == before, action
        on(ALONE, "systemctl", "start", "spamops-firewall")
        assert foreign() == before

    @pytest.mark.parametrize("action", ["start", "restart", "reload", "stop"])
    def test_the_distributions_unit_cannot_open_the_host(self, action: str) -> None:
        before = rules(ALONE)
        if action in {"reload", "stop"}:
            on(ALONE, "systemctl", "start", "nftables")
        on(ALONE, "systemctl", action, "nftables")
        try:
            assert rules(ALONE) == before
        finally:
            on(ALONE, "systemctl", "stop", "nftables")

    def test_whoever_stops_both_units_has_no_rules_left(self) -> None:
        on(ALONE, "systemctl", "start", "nftables")
        on(ALONE, "systemctl", "stop", "nftables", "spamops-firewall")
        try:
            assert on(ALONE, "nft", "list", "tables") == ""
        finally:
            on(ALONE, "systemctl", "start", "spamops-firewall")


class TestCheckModeOnABareHost:
    @pytest.fixture(autouse=True)
    def bare(self) -> Iterator[None]:
        """As a fresh image is: what Ansible needs for packages is not there, and check mode does not install it."""
        on(ALONE, "apt-get", "--yes", "--quiet", "remove", "python3-apt")
        yield
        on(ALONE, "apt-get", "--yes", "--quiet", "install", "python3-apt")

    @pytest.mark.parametrize(
        ("role", "variables"),
        [
            ("name=comses.spamops.firewall", {"firewall_packages": ["nftables", "tree"]}),
            ("name=comses.spamops.fail2ban tasks_from=install", {}),
        ],
    )
    def test_a_role_whose_package_is_missing_does_not_fail(self, role: str, variables: dict[str, Any]) -> None:
        command = ["ansible", ALONE, "-i", str(FOLDER / "inventory"), "--become", "--check", "-m", "include_role"]
        done = subprocess.run(
            [*command, "-a", role, "-e", json.dumps(variables)], capture_output=True, text=True, timeout=150
        )
        succeeded(done)


def reboot(name: str) -> None:
    subprocess.run(["docker", "restart", name], check=True, capture_output=True, timeout=120)
    assert eventually(
        lambda: on(name, "systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}, 60
    )


def when(unit: str, moment: str) -> int:
    """Microseconds of the kernel's clock; `moment` is one of systemd's timestamps, such as ExecMainStart."""
    return int(on(OTHER, "systemctl", "show", "--value", f"--property={moment}TimestampMonotonic", unit))


class TestReboot:
    def test_the_rules_are_the_same(self) -> None:
        before = without_elements(rules(OTHER))
        reboot(OTHER)
        assert on(OTHER, "systemctl", "is-active", "spamops-firewall").strip() == "active"
        assert rules(OTHER) == before
        listing = on(OTHER, "nft", "--stateless", "list", "ruleset")
        assert listing.strip() == before.strip(), "there is nothing beside it"

    def test_they_are_in_force_before_a_service_listens(self) -> None:
        assert 0 < when("spamops-firewall", "ExecMainExit") <= when("ssh", "ExecMainStart")

    def test_they_are_loaded_after_tmp_was_emptied(self) -> None:
        # systemd makes the unit's private /dev in /tmp: emptied at that moment, the unit fails and the host stays open.
        assert 0 < when("systemd-tmpfiles-setup", "ExecMainExit") <= when("spamops-firewall", "ExecMainStart")

    def test_a_first_try_that_fails_is_repeated(self) -> None:
        before = without_elements(rules(OTHER))
        drop_in = "/etc/systemd/system/spamops-firewall.service.d/once.conf"
        # /run is empty after a boot: the folder can be made by the first try alone.
        fails_once = "[Service]\nExecStartPre=+/bin/sh -c '! mkdir /run/tried'\n"
        on(OTHER, "sh", "-c", f"mkdir -p $(dirname {drop_in}) && cat >{drop_in}", stdin=fails_once)
        try:
            reboot(OTHER)
            assert eventually(lambda: "inet spamops" in on(OTHER, "nft", "list", "tables"), 20)
            assert on(OTHER, "ls", "-d", "/run/tried").strip() == "/run/tried"
            assert rules(OTHER) == before
        finally:
            on(OTHER, "sh", "-c", f"rm -r $(dirname {drop_in}) && systemctl daemon-reload")
