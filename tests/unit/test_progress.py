"""What a person sees on the way."""

from __future__ import annotations

import io
import sys

import pytest
from fake_clock import BEGINNING

from spamops.checker import WorkflowStatus
from spamops.cloud import Observed
from spamops.progress import PlainWatcher, TerminalWatcher, counts, watcher


class Full(io.StringIO):
    """A stream that cannot be written."""

    def write(self, _: str) -> int:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device")


def test_counts_are_told_in_words() -> None:
    progress = {"found": 9, "checked": 4, "spam": 1, "failed": 0}
    assert counts(WorkflowStatus("RUNNING", None, progress)) == "4 checked so far, 9 found, 1 spam"
    assert counts(WorkflowStatus("RUNNING", None, progress | {"failed": 2})).endswith(", 2 failed")
    assert counts(WorkflowStatus("RUNNING")) == "workflow RUNNING"


def test_a_log_is_not_flooded_and_the_end_is_told() -> None:
    stream = io.StringIO()
    plain = PlainWatcher(stream)
    for checked in range(1000):
        plain.checking(WorkflowStatus("RUNNING", None, {"found": 1000, "checked": checked}))
    plain.checking(WorkflowStatus("COMPLETED", None, {"found": 1000, "checked": 1000}))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "1000 checked so far" in lines[-1]


def test_every_state_of_the_server_is_a_line() -> None:
    stream = io.StringIO()
    with PlainWatcher(stream) as plain:
        plain.step("waking the server")
        plain.server(Observed(BEGINNING, "ACTIVE", "shelving"))
    assert [line[9:] for line in stream.getvalue().splitlines()] == ["waking the server", "server ACTIVE (shelving)"]


def test_a_full_disk_behind_the_log_stops_nothing() -> None:
    PlainWatcher(Full()).note("a line")


def test_a_closed_terminal_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    with TerminalWatcher():
        pass


def test_a_terminal_gets_a_bar_and_what_a_server_said_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with TerminalWatcher() as drawn:
        drawn.step("checking")
        drawn.checking(WorkflowStatus("RUNNING", None, {"found": 3, "checked": 1}))
        drawn.note("[bold]not markup[/bold]")
        drawn.server(Observed(BEGINNING, "ACTIVE", None))
        drawn.step("shelving the server")
    assert "[bold]not markup[/bold]" in stream.getvalue()
    assert "server ACTIVE" in stream.getvalue()


def test_cron_gets_plain_lines() -> None:
    assert isinstance(watcher(), PlainWatcher)
