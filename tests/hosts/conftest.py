"""The figures that scenarios measure are shown at the end of the run, whether the tests passed or not."""

from __future__ import annotations

import pytest

MEASURED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with no figure."""
    config.stash[MEASURED] = []


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
