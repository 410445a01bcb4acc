"""`spamops diagnose`, `logs` and `ssh` as commands of their own, over real SSH to loopback, with OpenSSH's client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_checker import API_KEY
from loopback_ssh import LoopbackSsh, tools
from scene import write_settings

from spamops.sandbox.cloud import SandboxCloud, ServerSpec

SPAMOPS = Path(sys.executable).parent / "spamops"
JOURNAL = """echo "args: $*"
printf 'a hostile \\033]0;title\\007 line \\033[31m\\tred\\r\\n'
case "$*" in *" -f "*|*" -f") while :; do echo tick; sleep 0.1; done;; esac"""

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine (openssh-client)")


class Place:
    """A controller with its cloud, and a server that can be logged in to."""

    def __init__(self, folder: Path, ssh: LoopbackSsh) -> None:
        self.folder, self.ssh = folder, ssh
        self.config = folder / "spamops.toml"

    def arguments(self, *words: str) -> list[str]:
        return [str(SPAMOPS), words[0], "--config", str(self.config), *words[1:]]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(*words), cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(params=["ACTIVE"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A server in the state that the test asks for, on by default."""
    spec = ServerSpec(status=request.param)
    fakes = tools(tmp_path / "tools", {"journalctl": JOURNAL, "greet": 'echo "$# words: $1|$2"; exit 7'})
    with LoopbackSsh(tmp_path / "ssh", fakes) as ssh, SandboxCloud([spec]) as cloud:
        write_settings(tmp_path, cloud, spec.id, "http://127.0.0.1:9", **ssh.settings)
        yield Place(tmp_path, ssh)


def test_the_journal_is_shown_without_what_a_terminal_acts_on(place: Place) -> None:
    done = place.run("logs", "--lines", "7")
    assert done.returncode == 0, done.stderr
    assert "-n 7" in done.stdout
    assert "-u spamcheck-api.service" in done.stdout
    assert "a hostile  ]0;title  line  [31m red" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    done = place.run("logs", "--unit", "ollama.service", "--json")
    lines = [json.loads(line)["line"] for line in done.stdout.splitlines()]
    assert "-u ollama.service" in lines[0]
    assert "-u spamcheck" not in lines[0]
    assert "-u" not in place.run("logs", "--all").stdout


@pytest.mark.parametrize("unit", ["--output=cat", "a b", "x;reboot", "$(reboot)", ""])
def test_a_unit_that_is_none_is_refused(place: Place, unit: str) -> None:
    done = place.run("logs", f"--unit={unit}")
    assert done.returncode == 2
    assert place.ssh.commands == []


def test_ctrl_c_ends_following_cleanly_here_and_there(place: Place) -> None:
    process = subprocess.Popen(
        place.arguments("logs", "-f"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:  # type: ignore[union-attr]
        if line == "tick\n":
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the client too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    deadline = time.monotonic() + 30
    while place.ssh.running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not place.ssh.running()


def test_a_reader_that_has_seen_enough_ends_it(place: Place) -> None:
    line = " ".join(place.arguments("logs", "-f")) + " | head -n 3"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert len(done.stdout.splitlines()) == 3
    assert "Traceback" not in done.stderr


def test_ssh_runs_a_command_and_hands_on_its_exit_code(place: Place) -> None:
    done = place.run("ssh", "greet")
    assert (done.returncode, done.stdout) == (7, "0 words: |\n")
    done = place.run("ssh", "--", "greet", "two words", "$HOME; 'x'")
    assert (done.returncode, done.stdout) == (7, "2 words: two words|$HOME; 'x'\n")


@pytest.mark.parametrize("place", ["SHELVED_OFFLOADED"], indirect=True)
@pytest.mark.parametrize("command", ["ssh", "logs", "diagnose"])
def test_a_sleeping_server_is_told_of_at_once_instead_of_a_connection_that_hangs(place: Place, command: str) -> None:
    place.ssh.silent = True
    done = place.run(command)
    assert done.returncode == 4
    assert "the server is SHELVED_OFFLOADED: nobody can log in to it" in done.stderr
    assert place.ssh.commands == []


@pytest.mark.parametrize("command", ["ssh", "logs", "diagnose"])
def test_without_a_host_it_says_what_to_set(place: Place, command: str) -> None:
    lines = place.config.read_text().splitlines(keepends=True)
    place.config.write_text("".join(line for line in lines if not line.startswith("ssh_host")))
    done = place.run(command)
    assert done.returncode == 2
    assert "ssh_host is not set" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("ssh", 255), ("logs", 4), ("diagnose", 4)])
def test_a_host_key_that_is_not_known_is_refused(place: Place, command: str, code: int) -> None:
    place.ssh.known_hosts.write_text("")
    done = place.run(command)
    assert done.returncode == code
    assert "host key" in done.stderr.lower()
    assert place.ssh.commands == []


def test_a_bundle_by_hand_lies_where_it_is_told(place: Place) -> None:
    done = place.run("diagnose", "--output", "out", "--json")
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["bundle"])
    assert path.parent == place.folder / "out"
    with tarfile.open(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.getnames()}
        texts = b"".join(archive.extractfile(name).read() for name in archive.getnames())  # type: ignore[union-attr]
    assert {"units.txt", "journal.txt", "manifest.json"} <= names
    assert API_KEY.encode() not in texts
    assert place.run("diagnose", "--seconds", "0").returncode == 2


def test_a_cloud_that_is_away_does_not_keep_anybody_from_logging_in(place: Place) -> None:
    text = place.config.read_text()
    place.config.write_text("".join(
        'auth_url = "http://127.0.0.1:9/identity/v3"\n' if line.startswith("auth_url") else line
        for line in text.splitlines(keepends=True)
    ))  # fmt: skip
    done = place.run("ssh", "greet")
    assert done.returncode == 7
    assert "trying to log in all the same" in done.stderr
