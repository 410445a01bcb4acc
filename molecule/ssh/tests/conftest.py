"""How the tests reach the hosts: as an outsider by the real clients, and past SSH by the container engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SNAPSHOT = (
    "for f in $(find /etc/ssh /etc/systemd/system /var/lib/spamops-ssh ! -type d 2>/dev/null | sort); do "
    "echo $f $(stat -c '%a %U %G' $f) $(sha256sum <$f); done"
)


@dataclass
class Machine:
    """One host of the scenario."""

    name: str
    address: str
    user: str

    def ssh(
        self, *arguments: str, user: str | None = None, command: str = "echo in", **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Log in anew with the real client and run a command."""
        argv = ["ssh", *self.options(), *arguments, f"{user or self.user}@{self.address}", command]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=40, stdin=subprocess.DEVNULL, **more
        )

    def options(self) -> list[str]:
        """Arguments that every client takes: the scenario's key and known hosts, and nothing that is open already."""
        chosen = {
            "ControlPath": "none",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(FOLDER / "id_ed25519"),
            "UserKnownHostsFile": str(FOLDER / "known_hosts"),
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "10",
        }
        return ["-F", "none", *(word for name, value in chosen.items() for word in ("-o", f"{name}={value}"))]

    def inside(self, script: str) -> str:
        """What a shell script prints, run as root past SSH."""
        done = subprocess.run(
            ["docker", "exec", "-i", self.name, "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def snapshot(self) -> str:
        """Name, mode, owner and digest of everything that decides about logins."""
        return self.inside(SNAPSHOT)

    def journal(self) -> str:
        """The server's last words."""
        return self.inside("journalctl --no-pager -n 15 -t sshd -t sshd-session -t systemd")


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Machine]:
    """A host of the scenario by its name."""
    inventory = yaml.safe_load((FOLDER / "inventory" / "ansible_inventory.yml").read_text())["all"]["hosts"]

    def named(name: str) -> Machine:
        return Machine(name, inventory[name]["ansible_host"], inventory[name]["ansible_user"])

    return named


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """With a failure, what the hosts' servers wrote."""
    report = yield
    if report.when == "call" and report.failed:
        for name in ("spamops-ssh", "spamops-ssh-2", "spamops-ssh-3", "spamops-ssh-4"):
            if f'"{name}"' in Path(item.path).read_text():
                report.sections.append((f"journal of {name}", Machine(name, "", "").journal()))
    return report
