"""How the tests reach the hosts: as an outsider by the real clients, and past SSH by the container engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PORTS = {"spamops-hardening": 22, "spamops-hardening-2": 2222}


@dataclass
class Machine:
    """One host of the scenario."""

    name: str

    @property
    def address(self) -> str:
        """Its address, which another boot may change."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        done = subprocess.run(
            ["docker", "inspect", "--format", form, self.name], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    @property
    def port(self) -> int:
        return PORTS[self.name]

    def options(self) -> list[str]:
        """The scenario's key and known hosts, and nothing that is open already. (The address may change with a boot.)"""
        chosen = {
            "ControlPath": "none",
            "IdentitiesOnly": "yes",
            "IdentityFile": str(FOLDER / "id_ed25519"),
            "UserKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "no",
            "ConnectTimeout": "10",
            "Port": str(self.port),
        }
        return ["-F", "none", *(word for name, value in chosen.items() for word in ("-o", f"{name}={value}"))]

    def ssh(self, *arguments: str, user: str = "debian", command: str = "echo in") -> subprocess.CompletedProcess[str]:
        """Log in anew with the real client and run a command."""
        # Of an option that is given twice ssh takes the first.
        argv = ["ssh", *arguments, *self.options(), f"{user}@{self.address}", command]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)

    def attempt(self, script: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root past SSH, whatever comes of it."""
        return subprocess.run(
            ["docker", "exec", "-i", self.name, "bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def inside(self, script: str, seconds: float = 120) -> str:
        """What a shell script prints, run as root past SSH."""
        done = self.attempt(script, seconds)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Machine]:
    """A host of the scenario by its name."""
    return Machine


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the journals' end when a test fails."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        for name in PORTS:
            print(name, Machine(name).attempt("journalctl --no-pager -n 40").stdout)
