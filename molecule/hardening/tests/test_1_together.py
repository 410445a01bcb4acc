"""What only the four roles together show. What one role does by itself is tested in its own scenario."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
Machines = Callable[[str], Any]
ELSEWHERE = "198.51.100.77"
"""An address of a documentation network: nobody's, and routed to nowhere."""


@pytest.fixture(params=["spamops-hardening", "spamops-hardening-2"])
def host(request: pytest.FixtureRequest, machine: Machines) -> Any:
    return machine(request.param)


@pytest.fixture
def plain(machine: Machines) -> Any:
    return machine("spamops-hardening")


@pytest.fixture
def other(machine: Machines) -> Any:
    return machine("spamops-hardening-2")


def until_up(host: Any, seconds: float = 60) -> None:
    """Wait until a new login works."""
    end = time.monotonic() + seconds
    while host.ssh().returncode != 0:
        assert time.monotonic() < end, host.ssh().stderr
        time.sleep(0.3)


def rules(host: Any) -> str:
    """What the firewall and fail2ban have in force, without counters and the addresses banned at the time."""
    said: str = host.inside("nft --stateless list table inet spamops; nft list tables | sort")
    return said


def test_the_owner_logs_in_and_becomes_root(host: Any) -> None:
    done = host.ssh(command="sudo whoami")
    assert done.stdout == "root\n", done.stderr


def test_a_right_password_does_not_let_anyone_in(host: Any) -> None:
    host.inside("echo 'debian:Correct-Horse-7-Battery' | chpasswd")
    try:
        methods = host.ssh("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=none").stderr
        assert "(publickey)" in methods, methods
    finally:
        host.inside("passwd --lock debian")
    # A locked password must not lock the key out.
    assert host.ssh().stdout == "in\n"


def test_root_does_not_get_in_with_an_authorised_key(host: Any) -> None:
    host.inside("install -d -m 0700 /root/.ssh && cp ~debian/.ssh/authorized_keys /root/.ssh/")
    try:
        refused = host.ssh(user="root")
        assert refused.returncode == 255
        assert "Permission denied" in refused.stderr, refused.stderr
    finally:
        host.inside("rm -f /root/.ssh/authorized_keys")


def test_files_go_there_and_back_by_sftp(host: Any, tmp_path: Path) -> None:
    sent, fetched = tmp_path / "sent", tmp_path / "fetched"
    sent.write_bytes(os.urandom(200_000))
    done = subprocess.run(
        ["sftp", *host.options(), "-b", "-", f"debian@{host.address}"],
        input=f"put {sent} there\nget there {fetched}\nrm there\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert fetched.read_bytes() == sent.read_bytes()


def test_the_administrator_of_the_baseline_is_let_in_by_the_server(other: Any) -> None:
    assert other.ssh(user="ada", command="sudo whoami").stdout == "root\n"


def test_another_port_leaves_the_old_one_closed(other: Any) -> None:
    done = other.ssh("-o", "Port=22")
    assert done.returncode == 255
    assert "timed out" in done.stderr, done.stderr


def ban(host: Any, address: str) -> None:
    host.inside(f"fail2ban-client set sshd banip {address}")


def banned(host: Any) -> str:
    """What the packet filter, not fail2ban's own memory, has."""
    return str(host.inside("nft list ruleset"))


def harden(host: Any, *arguments: str) -> str:
    """Run the playbook against this host as a person would, with more variables."""
    inventory = f"{host.name} ansible_host={host.address} ansible_port={host.port} ansible_user=debian "
    inventory += f"ansible_ssh_private_key_file={FOLDER / 'id_ed25519'} ansible_python_interpreter=/usr/bin/python3\n"
    hosts = FOLDER / f"hosts-{host.name}"
    hosts.write_text(inventory)
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no",
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", str(hosts), "playbooks/harden.yml", "-e", "harden_hosts=all", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_change_of_the_firewall_leaves_the_bans_in_force(plain: Any) -> None:
    ban(plain, ELSEWHERE)
    try:
        assert ELSEWHERE in banned(plain)
        networks = '{"firewall_site_cidrs": ["203.0.113.0/24"]}'
        assert "changed=0" not in harden(plain, "--tags", "firewall", "-e", networks)
        after = banned(plain)
        assert "203.0.113.0/24" in after
        assert ELSEWHERE in after
        harden(plain, "--tags", "firewall")
        after = banned(plain)
        assert "203.0.113.0/24" not in after
        assert ELSEWHERE in after
    finally:
        plain.inside(f"fail2ban-client set sshd unbanip {ELSEWHERE}")


def added_address(host: Any) -> str:
    """A further address of the host, far from those that the engine gives out."""
    source: str = host.address.rpartition(".")[0].rpartition(".")[0] + ".254.77"
    host.inside(f"ip address add {source}/32 dev eth0")
    return source


def reaches(attacker: Any, source: str, target: Any) -> bool:
    """Whether SSH answers that address within a second."""
    program = (
        f"import socket; s = socket.create_connection(('{target.address}', {target.port}), 1, ('{source}', 0)); "
        "s.settimeout(1); raise SystemExit(not s.recv(4).startswith(b'SSH'))"
    )
    return bool(attacker.attempt(f'python3 -c "{program}"').returncode == 0)


def test_a_banned_address_cannot_even_reach_the_port_that_the_firewall_lets_in(plain: Any, other: Any) -> None:
    # The second host is the attacker, from an address that is added to it for this.
    attacker, target = other, plain
    source = added_address(attacker)
    try:
        assert reaches(attacker, source, target)
        ban(target, source)
        end = time.monotonic() + 2
        while (asked := time.monotonic()) and reaches(attacker, source, target):
            assert asked < end, "still reachable 2 s after the ban"
        target.inside(f"fail2ban-client set sshd unbanip {source}")
        assert reaches(attacker, source, target)
    finally:
        target.attempt(f"fail2ban-client set sshd unbanip {source}")
        attacker.inside(f"ip address del {source}/32 dev eth0")


def test_everything_is_in_force_after_a_reboot(host: Any) -> None:
    ban(host, ELSEWHERE)
    before = rules(host)
    host.inside("chmod 0755 ~debian && chmod 0644 /var/log/dpkg.log")
    subprocess.run(["docker", "restart", "--time", "20", host.name], check=True, capture_output=True, timeout=120)
    until_up(host)
    host.inside(
        "for _ in $(seq 100); do fail2ban-client status sshd >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1"
    )
    assert rules(host) == before
    assert ELSEWHERE in banned(host)
    host.inside(f"fail2ban-client set sshd unbanip {ELSEWHERE}")
    host.inside(
        "for _ in $(seq 100); do systemctl is-system-running | grep -qE 'starting|initial' || exit 0; sleep 0.2; done"
    )
    assert host.inside("systemctl --failed --no-legend --plain") == ""
    assert host.inside("stat -c %a ~debian /var/log/dpkg.log").split() == ["750", "640"]
    assert host.ssh(command="sudo whoami").stdout == "root\n"
