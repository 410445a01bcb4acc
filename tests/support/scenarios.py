"""Molecule scenarios as processes beside a test session."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))

BUILDS = {
    "default": ["build-ollama", "build-temporal"],
    "ollama": ["build-ollama"],
    "spamcheck": ["build-ollama"],
    "temporal": ["build-temporal", "build-temporal previous"],
}
"""What in scripts/ builds the programs that a scenario's hosts run, from source: minutes, once."""

AT_ONCE = 2
SECONDS = 2400
"""The longest that a scenario may take."""

EVERYTHING = bool(os.environ.get("SPAMOPS_TEST_ALL"))
"""scripts/test --all, and CI: build what is missing."""


class Missing(Exception):
    """A scenario cannot run here; the message is the reason."""


@dataclass
class Outcome:
    """How a scenario ended, its output, and the figures that it measured."""

    exit_code: int
    output: str
    seconds: float
    figures: list[str] = field(default_factory=list)


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["it said nothing"])[-1]


class Scenarios:
    """Runs the scenarios, AT_ONCE at a time, from its making on."""

    def __init__(self, names: Iterable[str]) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario")
        self._lock = threading.Lock()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._over = False
        # As the session began: the tests beside change it.
        self._environment = {
            **os.environ,
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            # Measured are the controller's processes of the other tests, not Ansible's here.
            "COVERAGE_PROCESS_START": "",
        }
        # Those that need a build come last: it may be going on.
        ordered = sorted(set(names), key=lambda name: (name in BUILDS, name))
        self._futures: dict[str, Future[Outcome]] = {name: self._pool.submit(self._run, name) for name in ordered}

    def outcome(self, name: str) -> Outcome:
        """Wait for a scenario's end. Raises Missing."""
        return self._futures[name].result()

    def stop(self) -> None:
        """End what runs and remove its hosts. Does nothing when all is over."""
        self._over = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            running = dict(self._processes)
        for name, process in running.items():
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            self._call(f"destroy {name}", "molecule", "destroy", "-s", name)
        self._pool.shutdown(wait=True)

    def _run(self, name: str) -> Outcome:
        image, reason = self._image()
        if reason:
            raise Missing(reason)
        for build in BUILDS.get(name, []):
            code, output = self._call(
                f"build {name}", *f"scripts/{build}".split(), *([] if EVERYTHING else ["--cached"])
            )
            if code:
                raise Missing(_last_line(output))
        began = time.monotonic()
        code, output = self._call(name, "molecule", "test", "-s", name, SPAMOPS_HOST_IMAGE=image)
        # Printed by a scenario's test, or as the message of a debug task.
        figures = re.findall(r"^\s*(?:msg: ')?MEASURED (.+?)'?\s*$", output, re.MULTILINE)
        return Outcome(code, output, time.monotonic() - began, figures)

    @cache  # noqa: B019  # one object a session
    def _image(self) -> tuple[str, str]:
        code, output = self._call("image", "scripts/test-host")
        return ("", _last_line(output)) if code else (_last_line(output), "")

    def _call(self, name: str, *command: str, **environment: str) -> tuple[int, str]:
        """Exit code and output (both streams) of a command of the checkout, in a process group of its own."""
        if self._over and not name.startswith("destroy "):
            return 1, "the session is over"
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**self._environment, **environment},
            umask=0o022,  # the tests beside change this process's own
        )
        with self._lock:
            if name in NAMES:
                self._processes[name] = process
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += f"\nit took longer than {SECONDS} s"
        finally:
            with self._lock:
                self._processes.pop(name, None)
        return process.returncode, output
