"""What the tests of this scenario share: commands on the hosts, the role run again, the journal when a test fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(__file__).resolve().parents[1]
PROJECT = SCENARIO.parents[1]
sys.path.insert(0, str(PROJECT / "tests" / "support"))
NAME = "spamops-spamcheck"
SECONDS = 600


@dataclass(frozen=True)
class Host:
    """A host of the scenario."""

    name: str

    def run(self, *command: str, check: bool = True, stdin: str = "") -> str:
        """What a command printed that root ran there."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.name, *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def sh(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check)

    @property
    def address(self) -> str:
        """As seen from here; a restart may change it."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        done = subprocess.run(
            ["docker", "inspect", "--format", form, self.name], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def ssh(self, *options: str) -> list[str]:
        """The command of a real login."""
        return [
            "ssh",
            f"-i{FOLDER / 'id_ed25519'}",
            f"-oUserKnownHostsFile={FOLDER / 'known_hosts'}",
            "-oIdentitiesOnly=yes",
            "-oControlMaster=no",
            "-oExitOnForwardFailure=yes",
            *options,
            f"debian@{self.address}",
        ]

    def ok(self, key: str, seconds: float = 60) -> float:
        """Wait until the API is ready; returns how long that took."""
        began = time.monotonic()
        answer = "nothing"
        while time.monotonic() - began < seconds:
            try:
                response = httpx.get(
                    f"http://{self.address}:8001/ok", headers={"X-API-Key": key}, timeout=5, trust_env=False
                )
            except httpx.HTTPError as error:
                answer = str(error)
            else:
                if response.status_code == 200:
                    return time.monotonic() - began
                answer = response.text
            time.sleep(0.2)
        pytest.fail(f"the API was not ready after {seconds} s: {answer}")


@pytest.fixture(scope="session")
def host() -> Host:
    """The host of the bundled checker."""
    return Host(NAME)


@pytest.fixture(scope="session")
def compose() -> Host:
    """The host of the compose project."""
    return Host(f"{NAME}-git")


def playbook_command(limit: str, *arguments: str) -> list[str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    inventory = str(FOLDER / "inventory")
    return [str(program), "--inventory", inventory, "--limit", limit, *arguments, str(SCENARIO / "converge.yml")]


def playbook_environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_NOCOLOR": "True",
        "MOLECULE_PROJECT_DIRECTORY": str(PROJECT),
    }


@pytest.fixture
def converge() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the scenario's playbook on one group, with other variables."""

    def run(limit: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            playbook_command(limit, *arguments),
            env=playbook_environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def start_converge() -> Callable[..., subprocess.Popen[bytes]]:
    """The same, not waited for."""

    def start(limit: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            playbook_command(limit, *arguments),
            env=playbook_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    return start


@pytest.fixture(autouse=True)
def journal_of_a_failure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the hosts logged while a test failed."""
    failed = request.session.testsfailed
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    yield
    if request.session.testsfailed > failed:
        for name in (NAME, f"{NAME}-git"):
            print(f"--- journal of {name}")
            print(Host(name).sh(f"TZ=UTC journalctl --no-pager --since '{began}' | tail -n 80", check=False))
