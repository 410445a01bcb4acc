"""What a person sees while a run goes on, on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import datetime
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from .checker import WorkflowStatus
from .cloud import Observed

QUIET_SECONDS = 5.0
"""Plain lines tell the counts at most this often, unless the workflow's status changed."""


def counts(status: WorkflowStatus) -> str:
    """How far a check is, in one line."""
    p = status.progress
    if not p:
        return f"workflow {status.status}"
    # Not "of so many": what the site has in store beyond the batches read is known to nobody.
    text = f"{p.get('checked', 0)} checked so far, {p.get('found', 0)} found, {p.get('spam', 0)} spam"
    return text + (f", {p['failed']} failed" if p.get("failed") else "")


class PlainWatcher:
    """A line for each thing that happens, with the local time of day."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._told: tuple[float, str] = (float("-inf"), "")

    def __enter__(self) -> PlainWatcher:
        """Nothing to set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to tear down."""

    def step(self, text: str) -> None:
        """A step begins."""
        self.note(text)

    def server(self, seen: Observed) -> None:
        """The server's state changed."""
        self.note(f"server {seen}")

    def checking(self, status: WorkflowStatus) -> None:
        """How far the check is."""
        now = time.monotonic()
        if status.status == self._told[1] and now - self._told[0] < QUIET_SECONDS:
            return
        self._told = (now, status.status)
        self.note(counts(status))

    def note(self, text: str) -> None:
        """One line. A stream that is gone or full is no reason to stop."""
        with contextlib.suppress(OSError):
            print(f"{datetime.now():%H:%M:%S} {text}", file=self._stream, flush=True)


class TerminalWatcher:
    """A spinner for the step at hand, a bar for the items, and the lines that matter above them."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalWatcher:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was, if it is still there."""
        with contextlib.suppress(OSError):
            self._progress.stop()

    def step(self, text: str) -> None:
        """A step begins: the bar of the one before it goes."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(text, total=None)

    def server(self, seen: Observed) -> None:
        """The server's state changed."""
        self.note(f"server {seen}")

    def checking(self, status: WorkflowStatus) -> None:
        """How far the check is."""
        if self._task is not None:
            done = status.progress.get("checked", 0) + status.progress.get("failed", 0)
            total = status.progress.get("found") or None
            self._progress.update(self._task, description=counts(status), completed=done, total=total)

    def note(self, text: str) -> None:
        """One line above the bar. Plain text: it may quote what a server said."""
        self._console.print(Text(f"{datetime.now():%H:%M:%S} {text}"), highlight=False)


def watcher() -> PlainWatcher | TerminalWatcher:
    """The one that suits stderr."""
    return TerminalWatcher() if sys.stderr.isatty() else PlainWatcher()
