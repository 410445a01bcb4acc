"""The demo: one check in the sandbox, by the real playbook with the real modules."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from .. import progress, render
from ..errors import ExitCode, Interrupted
from ..ledger import Ledger
from ..signals import SignalGate
from .processes import MissingPart
from .world import SERVER_NAME, World

LOOK_SECONDS = 0.2
COUNT_SECONDS = 2.0
END_SECONDS = 60.0


def run(*, playbook: Path, items: int, seed: int, as_json: bool, keep: bool) -> int:
    """Run the demo; its exit code. The last line on stdout is one JSON object when `as_json`."""
    ansible = _ansible_playbook()
    if ansible is None or not playbook.is_file():
        what = f"the playbook {playbook}" if ansible else "ansible-playbook"
        print(f"demo: {what} was not found; run scripts/demo in a checkout", file=sys.stderr)
        return int(ExitCode.FAULTY_SETTINGS)
    folder = Path(tempfile.mkdtemp(prefix="spamops-demo-"))
    demo = _Demo(folder, ansible, playbook, items=items, seed=seed)
    try:
        with SignalGate(lambda: print("demo: ending; please wait", file=sys.stderr)) as gate:
            ended_by = gate.run(demo.work)
            demo.clean_up()
    finally:
        if keep:
            print(f"demo: its files are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if isinstance(ended_by, Interrupted):
        print("demo: interrupted; nothing is left running", file=sys.stderr)
        return int(ended_by.exit_code)
    if isinstance(ended_by, MissingPart):
        print(f"demo: {ended_by}", file=sys.stderr)
        return int(ExitCode.FAULTY_SETTINGS)
    if ended_by is not None:
        raise ended_by
    return demo.show(as_json)


def _environment() -> dict[str, str]:
    """This process's environment without what would lead the playbook elsewhere: proxies, settings of Ansible and of other
    clouds, a locale that Ansible refuses."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("ANSIBLE_", "OS_", "LC_"))
    }
    return kept | {"LC_ALL": "C.UTF-8"}


def _ansible_playbook() -> str | None:
    beside = Path(sys.executable).parent / "ansible-playbook"
    return str(beside) if beside.is_file() else shutil.which("ansible-playbook")


class _Demo:
    def __init__(self, folder: Path, ansible: str, playbook: Path, *, items: int, seed: int) -> None:
        self.folder = folder
        self.items = items
        self.seed = seed
        self.world: World | None = None
        self.ansible = ansible
        self.playbook = playbook
        self.watcher = progress.PlainWatcher()
        self.process: subprocess.Popen[str] | None = None
        self.result: dict[str, Any] = {}
        self.output: list[str] = []
        self._over = threading.Event()

    def work(self) -> None:
        world = self.world = World(self.folder, items=self.items, seed=self.seed)
        scheduled = len(world.site.store.scheduled())
        self.watcher.note(f"an embedded cloud with one server, an embedded site with {scheduled} scheduled items")
        self.watcher.note("classifier: rules (no model); on a real server Ollama's models decide")
        world.start()
        observer = threading.Thread(target=self._observe, args=(world,), daemon=True)
        observer.start()
        self.process = subprocess.Popen(
            [self.ansible, "-i", str(self.playbook.parent.parent / "inventories" / "sandbox"), str(self.playbook)],
            env={
                **_environment(),
                "ANSIBLE_CONFIG": str(self.playbook.parent.parent / "ansible.cfg"),
                "ANSIBLE_FORCE_COLOR": "0",
                "ANSIBLE_NOCOLOR": "1",
                "SPAMOPS_SANDBOX_DIR": str(world.folder),
                # What Ansible leaves behind when it is ended in the middle goes with the demo's folder.
                **dict.fromkeys(("TMPDIR", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP"), str(world.folder)),
            },
            cwd=self.playbook.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process, which ends the playbook in its own way
        )
        assert self.process.stdout is not None  # noqa: S101 - for the type checker
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("TASK ["):
                self.watcher.note(f"playbook: {line[6:].split(']', 1)[0]}")
        self.process.wait()
        self._over.set()
        observer.join()
        runs = Ledger(world.state_dir).runs(limit=1)
        self.result = (
            runs[0] if runs else {"exit_code": int(ExitCode.UNEXPECTED), "reason": "no run was recorded"}
        ) | {
            "scheduled_before": scheduled,
            "scheduled_after": len(world.site.store.scheduled()),
        }
        if not runs or self.result["exit_code"] not in (ExitCode.DONE, ExitCode.ITEMS_FAILED):
            sys.stderr.write("".join(self.output[-60:]))

    def clean_up(self) -> None:
        """End the playbook if it runs, let its guard shelve the server, then end everything."""
        self._over.set()
        if self.process is not None and self.process.poll() is None:
            self.watcher.note("ending the playbook; its guard shelves the server")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.world is None:
            return
        # The guard, and modules that the playbook left running: all were started with the sandbox's folder.
        deadline = time.monotonic() + END_SECONDS
        while (left := self._descendants()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None and not self.result:
            _, status, task_state = self.world.cloud.history(self.world.server_id)[-1]
            self.watcher.note(f"server {SERVER_NAME}: {status}" + (f" ({task_state})" if task_state else ""))
        self.world.stop()

    def _descendants(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("SPAMOPS_SANDBOX_DIR") == str(self.folder) and process.pid != os.getpid():
                    found.append(process)
        return found

    def show(self, as_json: bool) -> int:
        """Print the result; the exit code."""
        if as_json:
            print(json.dumps(self.result))
        else:
            render.summary(self.result, Console())
            before, after = self.result["scheduled_before"], self.result["scheduled_after"]
            print(f"The site had {before} scheduled items and has {after}.")
        return int(self.result["exit_code"])

    def _observe(self, world: World) -> None:
        """Tell what the cloud and the site go through, as a person with two more windows would see it."""
        seen = 0
        counted_at, counted = time.monotonic(), -1
        while not self._over.wait(LOOK_SECONDS):
            history = world.cloud.history(world.server_id)
            for _, status, task_state in history[seen:]:
                told = f"{status} ({task_state})" if task_state else status
                self.watcher.note(f"server {SERVER_NAME}: {told}")
            seen = len(history)
            if time.monotonic() - counted_at >= COUNT_SECONDS:
                counted_at = time.monotonic()
                scheduled = len(world.site.store.scheduled())
                if scheduled != counted and counted != -1:
                    self.watcher.note(f"site: {scheduled} items still scheduled")
                counted = scheduled
