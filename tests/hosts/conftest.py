"""Scenarios take minutes, most of which are spent waiting: they run beside the other tests, two at a time, and are judged last.
The figures that they measure are shown at the end of the run, whether the tests passed or not."""

from __future__ import annotations

import pytest
from scenarios import Scenarios

MEASURED = pytest.StashKey[list[str]]()
RUNNING = pytest.StashKey[Scenarios]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no figure and nothing running."""
    config.stash[MEASURED] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the scenarios whose tests were chosen, before the first test of all."""
    chosen = [
        item.callspec.params["scenario"] for item in session.items if "scenario" in getattr(item, "fixturenames", ())
    ]
    if chosen and not session.config.option.collectonly:
        session.config.stash[RUNNING] = Scenarios(chosen)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what still runs, after Ctrl-C say, and remove its hosts."""
    if running := config.stash.get(RUNNING, None):
        running.stop()


@pytest.fixture
def scenarios(request: pytest.FixtureRequest) -> Scenarios:
    """The scenarios of this session."""
    return request.config.stash[RUNNING]


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> list[str]:
    """Where a test puts the lines to be shown."""
    return request.config.stash[MEASURED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show what was measured."""
    if lines := config.stash[MEASURED]:
        terminalreporter.section("measured on hosts")
        for line in lines:
            terminalreporter.write_line(line)
