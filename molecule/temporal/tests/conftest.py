"""What the tests of this scenario share: commands on the hosts, the role run again, a workflow through a tunnel."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(__file__).resolve().parents[1]
PROJECT = SCENARIO.parents[1]
NAMESPACE = "spamcheck"
QUEUE = "tests"
SECONDS = 600

Converge = Callable[..., str]


@dataclass(frozen=True)
class Host:
    """A host of the scenario."""

    name: str

    def run(self, *command: str, check: bool = True) -> str:
        """What a command printed that root ran there."""
        call = ["docker", "exec", self.name, *command]
        done = subprocess.run(call, capture_output=True, text=True, timeout=SECONDS, check=False)
        if check and done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def sh(self, script: str, check: bool = True) -> str:
        """What a script printed that root ran there."""
        return self.run("sh", "-c", script, check=check)

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        """The rows that PostgreSQL's superuser gets."""
        psql = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", statement]
        return self.run(*psql).splitlines()

    def schema(self) -> list[str]:
        """The versions of the two schemas in use."""
        question = "SELECT curr_version FROM schema_version"
        return [*self.sql(question, "temporal"), *self.sql(question, "temporal_visibility")]

    def serves(self) -> bool:
        """Whether the server says that it serves."""
        health = self.run("temporal", "operator", "cluster", "health", "--command-timeout", "5s", check=False)
        return "SERVING" in health and "NOT_SERVING" not in health

    def wait_until_it_serves(self, seconds: float = 120) -> None:
        """Wait, and fail with the journal."""
        end = time.monotonic() + seconds
        while not self.serves():
            if time.monotonic() > end:
                pytest.fail(self.run("journalctl", "--no-pager", "-u", "temporal", "-n", "40"))
            time.sleep(0.3)

    @property
    def address(self) -> str:
        """As seen from here; a restart may change it."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        call = ["docker", "inspect", "--format", form, self.name]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    @contextlib.contextmanager
    def tunnel(self) -> Iterator[str]:
        """The frontend, forwarded over a real login to an address on this machine."""
        keys = FOLDER / f"known_hosts.{self.name}"
        published = self.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub").splitlines()
        keys.write_text("".join(f"{self.name} {key}\n" for key in published))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = [
            "-N",
            f"-L127.0.0.1:{port}:127.0.0.1:7233",
            f"-i{FOLDER / 'id_ed25519'}",
            f"-oUserKnownHostsFile={keys}",
        ]
        options += [
            f"-oHostKeyAlias={self.name}",
            "-oIdentitiesOnly=yes",
            "-oControlPath=none",
            "-oExitOnForwardFailure=yes",
        ]
        with subprocess.Popen(["ssh", *options, f"debian@{self.address}"], stdin=subprocess.DEVNULL) as ssh:
            try:
                end = time.monotonic() + 60
                while True:
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                        break
                    if ssh.poll() is not None or time.monotonic() > end:
                        pytest.fail("no tunnel to the host")
                    time.sleep(0.1)
                yield f"127.0.0.1:{port}"
            finally:
                ssh.terminate()


STEPS: list[str] = []


@activity.defn
async def step(name: str) -> str:
    """Something that must happen once."""
    STEPS.append(name)
    return name


@workflow.defn
class Slow:
    """Does a step, waits to be told, does another."""

    def __init__(self) -> None:
        self.told = False
        self.done: list[str] = []

    @workflow.run
    async def run(self, name: str) -> list[str]:
        for part in ("begun", "ended"):
            await workflow.wait_condition(lambda part=part: part == "begun" or self.told)  # type: ignore[misc]
            self.done.append(
                await workflow.execute_activity(step, f"{name}: {part}", start_to_close_timeout=timedelta(minutes=1))
            )
        return self.done

    @workflow.signal
    def go_on(self) -> None:
        self.told = True

    @workflow.query
    def so_far(self) -> list[str]:
        return self.done


@dataclass(frozen=True)
class Workflows:
    """Workflows on the host, by a worker in this process."""

    host: Host

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client and a worker, while the block runs."""
        with self.host.tunnel() as address:
            client = await Client.connect(address, namespace=NAMESPACE)
            runner = UnsandboxedWorkflowRunner()
            async with Worker(client, task_queue=QUEUE, workflows=[Slow], activities=[step], workflow_runner=runner):
                yield client

    async def begin(self, name: str) -> None:
        """Start a workflow and see its first step done."""
        async with self.client() as client:
            handle = await client.start_workflow(Slow.run, name, id=name, task_queue=QUEUE)
            end = time.monotonic() + 60
            while await self.so_far(handle) != [f"{name}: begun"]:
                assert time.monotonic() < end, "the first step was not done within a minute"

    async def so_far(self, handle: WorkflowHandle[Slow, list[str]]) -> list[str]:
        """The steps that a workflow has done."""
        try:
            return await handle.query(Slow.so_far)
        except RPCError:
            return []

    async def end(self, name: str) -> list[str]:
        """Tell a workflow to go on; what it did in all, as it and as this process saw it."""
        async with self.client() as client:
            handle = client.get_workflow_handle_for(Slow.run, name)
            await handle.signal(Slow.go_on)
            result = await handle.result(rpc_timeout=timedelta(seconds=100))
        assert [made for made in STEPS if made.startswith(f"{name}: ")] == result, "a step was done again"
        return result


@pytest.fixture(scope="session")
def host() -> Host:
    """The host of the bundled server."""
    return Host("spamops-temporal")


@pytest.fixture(scope="session")
def compose() -> Host:
    """The host of the compose project."""
    return Host("spamops-temporal-git")


@pytest.fixture(scope="session")
def workflows(host: Host) -> Workflows:
    """Workflows on the host of the bundled server."""
    return Workflows(host)


def playbook(host: Host, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs the role again on a host, and its environment."""
    keys = FOLDER / "known_hosts"
    address = host.address
    published = host.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_*_key.pub").splitlines()
    known = keys.read_text().splitlines()
    with keys.open("a") as file:  # after a restart the address may be another
        file.writelines(f"{line}\n" for line in (f"{address} {key}" for key in published) if line not in known)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "--inventory", str(FOLDER / "inventory"), "--limit", host.name]
    command += ["--extra-vars", f"ansible_host={address}", *arguments, str(SCENARIO / "converge.yml")]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(FOLDER / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_FORCE_COLOR": "False",  # Molecule wants colours, which would cut the sentences apart
        "ANSIBLE_NOCOLOR": "True",
    }
    return command, environment


@pytest.fixture
def converge() -> Converge:
    """Run the role again on a host, with other variables; what the playbook said, in one line."""

    def run(host: Host, *arguments: str, works: bool = True) -> str:
        command, environment = playbook(host, *arguments)
        done = subprocess.run(
            command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        said = f"the playbook ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
        assert (done.returncode == 0) is works, said
        return " ".join((done.stdout + done.stderr).split())

    return run


@pytest.fixture
def playbook_of() -> Callable[..., tuple[list[str], dict[str, str]]]:
    """The command and environment of the role's run, for a test that does not wait for its end."""
    return playbook
