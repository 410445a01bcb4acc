"""What somebody who connects notices of the hardened servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest
from ssh_audit.builtin_policies import BUILTIN_POLICIES

Machines = Callable[[str], Any]
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
AUDIT = [sys.executable, "-m", "ssh_audit.ssh_audit", "--no-colors"]
NOT_QUANTUM_SAFE = "does not provide protection against post-quantum attacks"
POLICY = "Hardened Debian 12 (version 3)"
WEAK = {
    "KexAlgorithms": [
        "diffie-hellman-group14-sha1",
        "diffie-hellman-group14-sha256",
        "ecdh-sha2-nistp256",
        "diffie-hellman-group16-sha512",
    ],
    "Ciphers": ["aes128-cbc", "3des-cbc"],
    "MACs": ["hmac-sha1", "hmac-sha2-256", "umac-64-etm@openssh.com"],
    "HostKeyAlgorithms": ["ecdsa-sha2-nistp256", "ssh-rsa"],
}
# The best that each of these offered in its time and that the server keeps (their release notes).
CLIENTS = {
    "OpenSSH 8.2": ("curve25519-sha256", "chacha20-poly1305@openssh.com", "umac-128-etm@openssh.com", "rsa-sha2-512"),
    "PuTTY 0.76": ("curve25519-sha256", "aes256-ctr", "hmac-sha2-256-etm@openssh.com", "ssh-ed25519"),
    "libssh 0.9": (
        "curve25519-sha256@libssh.org",
        "aes256-gcm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "ssh-ed25519",
    ),
    "OpenSSH 9.0": (
        "sntrup761x25519-sha512@openssh.com",
        "chacha20-poly1305@openssh.com",
        "umac-128-etm@openssh.com",
        "ssh-ed25519",
    ),
}


@pytest.fixture(scope="module")
def plain(machine: Machines) -> Any:
    """The host with the defaults."""
    return machine("spamops-ssh")


def audit(address: str, *arguments: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Failures and warnings of ssh-audit, each with the algorithm it is about."""
    done = subprocess.run(
        [*AUDIT, "--json", *arguments, address], capture_output=True, text=True, check=False, timeout=90
    )
    report = json.loads(done.stdout)
    found: dict[str, list[tuple[str, str]]] = {"fail": [], "warn": []}
    for kind in ("kex", "key", "enc", "mac"):
        assert report[kind], f"ssh-audit saw no {kind}"
        for algorithm in report[kind]:
            for level in found:
                found[level] += [(algorithm["algorithm"], note) for note in algorithm["notes"].get(level, [])]
    return found["fail"], found["warn"]


def test_a_new_login_with_the_key_works(plain: Any) -> None:
    done = plain.ssh()
    assert done.stdout == "in\n", done.stderr


def test_the_right_password_is_not_even_asked_for(plain: Any, tmp_path: Path) -> None:
    plain.inside("echo 'debian:correct horse' | chpasswd")
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho asked >>$0.log\necho correct horse\n")
    ask.chmod(0o700)
    asking = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    done = plain.ssh(
        "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,keyboard-interactive", env=asking
    )
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
    assert not Path(f"{ask}.log").exists()


def test_root_with_a_good_key_stays_outside(plain: Any) -> None:
    plain.inside(
        "install -d -m 700 /root/.ssh && cp ~debian/.ssh/authorized_keys /root/.ssh/ && chown root: /root/.ssh/authorized_keys"
    )
    done = plain.ssh(user="root")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


@pytest.mark.parametrize(
    ("setting", "algorithm"), [(setting, name) for setting, names in WEAK.items() for name in names]
)
def test_weak_algorithms_are_refused_by_the_server(plain: Any, setting: str, algorithm: str) -> None:
    more = ["-o", "Ciphers=aes256-ctr"] if setting == "MACs" else []  # a cipher that needs a code of its own
    done = plain.ssh("-o", f"{setting}={algorithm}", *more)
    assert done.returncode == 255
    assert "no matching" in done.stderr
    assert f"{plain.address} port 22" in done.stderr


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_of_the_last_five_years_get_in(plain: Any, client: str) -> None:
    key_exchange, cipher, mac, host_key = CLIENTS[client]
    known = plain.inside("cat /etc/ssh/ssh_host_rsa_key.pub /etc/ssh/ssh_host_ed25519_key.pub")
    hosts = FOLDER / "known_hosts.clients"
    hosts.write_text("".join(f"{plain.address} {line}\n" for line in known.splitlines()))
    chosen = {"KexAlgorithms": key_exchange, "Ciphers": cipher, "MACs": mac, "HostKeyAlgorithms": host_key}
    options = [
        word
        for name, value in {**chosen, "UserKnownHostsFile": str(hosts)}.items()
        for word in ("-o", f"{name}={value}")
    ]
    # The first value counts.
    argv = ["ssh", *options, *plain.options(), f"{plain.user}@{plain.address}", "echo in"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=40, stdin=subprocess.DEVNULL)
    assert done.stdout == "in\n", done.stderr


def test_paramiko_gets_in_and_transfers_files(plain: Any, tmp_path: Path) -> None:
    client = paramiko.SSHClient()
    host_key = plain.inside("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub")
    known = tmp_path / "known_hosts"
    known.write_text(f"{plain.address} {host_key}")
    client.load_host_keys(str(known))
    with client:
        client.connect(
            plain.address,
            username=plain.user,
            key_filename=str(FOLDER / "id_ed25519"),
            look_for_keys=False,
            allow_agent=False,
        )
        with client.open_sftp() as files:
            assert ".ssh" in files.listdir()


def test_sftp_transfers_a_file(plain: Any, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_text("a file\n")
    argv = ["sftp", *plain.options(), "-b", "-", f"{plain.user}@{plain.address}"]
    done = subprocess.run(argv, input=f"put {sent} received\n", capture_output=True, text=True, check=False, timeout=40)
    assert done.returncode == 0, done.stderr
    assert plain.inside("cat ~debian/received") == "a file\n"


def test_forwarding_is_refused_where_it_is_not_asked_for(plain: Any) -> None:
    done = plain.ssh("-W", "127.0.0.1:22", command="")
    assert done.returncode == 255
    assert "administratively prohibited" in done.stderr


def test_a_short_rsa_key_was_replaced_and_ed25519_was_kept(plain: Any) -> None:
    sizes = plain.inside("ssh-keygen -lf /etc/ssh/ssh_host_rsa_key | cut -d' ' -f1")
    assert sizes == "4096\n"
    offered = plain.ssh("-o", "HostKeyAlgorithms=ssh-ed25519")  # with the known hosts from before the role
    assert offered.stdout == "in\n", offered.stderr


def test_the_package_keeps_its_own_files(plain: Any) -> None:
    assert plain.inside("dpkg --verify openssh-server") == ""


def test_short_groups_are_gone_and_long_ones_stay(plain: Any) -> None:
    used = plain.inside("sshd -T | sed -n 's/^modulifile //p'").strip()
    counts = plain.inside(f"grep -c '^[0-9]' {used}; awk '/^[0-9]/ && $5 < 3071' {used} | wc -l").split()
    assert int(counts[0]) > 50
    assert counts[1] == "0"


def test_nothing_of_the_change_is_left_to_undo_itself(machine: Machines) -> None:
    for name in ("spamops-ssh", "spamops-ssh-2", "spamops-ssh-3"):
        left = machine(name).inside(
            "ls -A /var/lib/spamops-ssh; systemctl list-units --all --no-legend 'spamops-ssh*'; ls /etc/systemd/system"
        )
        assert "pending" not in left
        assert "spamops-ssh-restore" not in left


def test_ssh_audit_has_nothing_but_curve25519_to_say(plain: Any) -> None:
    failures, warnings = audit(plain.address)
    print("ssh-audit, defaults: fail", len(failures), "warn", len(warnings))
    assert failures == []
    assert warnings == [(name, NOT_QUANTUM_SAFE) for name in ("curve25519-sha256", "curve25519-sha256@libssh.org")]


def test_the_defaults_are_within_the_hardened_policy(plain: Any, tmp_path: Path) -> None:
    # The built-in policy wants its key exchanges all and exactly, the ones that ssh-audit itself warns of among them.
    wanted = BUILTIN_POLICIES[POLICY]
    policy = tmp_path / "policy.txt"
    policy.write_text(
        'name = "Debian 12, or stricter"\nversion = 1\nallow_algorithm_subset_and_reordering = true\n'
        f"host_key_sizes = {json.dumps(wanted['hostkey_sizes'])}\ndh_modulus_sizes = {json.dumps(wanted['dh_modulus_sizes'])}\n"
        f"host keys = {', '.join(wanted['host_keys'])}\noptional host keys = {', '.join(wanted['optional_host_keys'])}\n"
        f"key exchanges = {', '.join(wanted['kex'])}\nciphers = {', '.join(wanted['ciphers'])}\nmacs = {', '.join(wanted['macs'])}\n"
    )
    done = subprocess.run(
        [*AUDIT, "-P", str(policy), plain.address], capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0, done.stdout


def test_the_built_in_hardened_policy_passes_with_its_key_exchanges(machine: Machines) -> None:
    jump = machine("spamops-ssh-3")
    done = subprocess.run([*AUDIT, "-P", POLICY, jump.address], capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout
    failures, warnings = audit(jump.address, "--skip-rate-test")
    assert failures == []
    assert {note for name, note in warnings} == {NOT_QUANTUM_SAFE}


class TestBehindAJumpHost:
    """Another port, curve25519 off, a user list that names the jump host, a banner."""

    @pytest.fixture
    def through(self, machine: Machines) -> Callable[..., subprocess.CompletedProcess[str]]:
        far, jump = machine("spamops-ssh-2"), machine("spamops-ssh-3")

        def login(*more: str, command: str = "echo in") -> subprocess.CompletedProcess[str]:
            hop = " ".join(["ssh", *jump.options(), "-W", "%h:%p", f"{jump.user}@{jump.address}"])
            return far.ssh("-p", "2222", "-o", f"ProxyCommand={hop}", *more, command=command)

        return login

    def test_the_way_through_works_and_shows_the_banner(self, through: Callable[..., Any]) -> None:
        done = through()
        assert done.stdout == "in\n", done.stderr
        assert "Authorised use only." in done.stderr

    def test_the_direct_way_is_refused(self, machine: Machines) -> None:
        done = machine("spamops-ssh-2").ssh("-p", "2222")
        assert done.returncode == 255
        assert "Permission denied" in done.stderr

    def test_the_old_port_is_closed(self, machine: Machines) -> None:
        done = machine("spamops-ssh-2").ssh()
        assert "Connection refused" in done.stderr

    def test_curve25519_alone_is_refused(self, through: Callable[..., Any]) -> None:
        assert "no matching key exchange method" in through("-o", "KexAlgorithms=curve25519-sha256").stderr

    def test_ssh_audit_warns_of_nothing(self, machine: Machines) -> None:
        failures, warnings = audit(machine("spamops-ssh-2").address, "--port", "2222")
        print("ssh-audit, hybrid alone: fail", len(failures), "warn", len(warnings))
        assert (failures, warnings) == ([], [])


class TestSocketActivation:
    """systemd holds the port, as on Ubuntu."""

    @pytest.mark.parametrize("port", ["22", "2022"])
    def test_every_port_answers(self, machine: Machines, port: str) -> None:
        done = machine("spamops-ssh-3").ssh("-p", port)
        assert done.stdout == "in\n", done.stderr

    def test_the_socket_not_the_server_listens(self, machine: Machines) -> None:
        jump = machine("spamops-ssh-3")
        assert jump.inside("systemctl is-active ssh.socket").strip() == "active"
        assert "2022" in jump.inside("systemctl show -p Listen ssh.socket")
