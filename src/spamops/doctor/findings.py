"""What the doctor found: a line each, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. `fail`: a run would fail, or money burns. `skipped`: not looked at, which says nothing."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What was found under a name. `advice` is what to do, where there is something to do."""

    name: str
    level: Level
    text: str
    advice: str | None = None


Tell = Callable[[Finding], None]


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, Level.OK, text)


def warn(name: str, text: str, advice: str) -> Finding:
    """A run would go on, but somebody should see to it."""
    return Finding(name, Level.WARN, text, advice)


def fail(name: str, text: str, advice: str | None = None) -> Finding:
    """A run would fail, or money burns."""
    return Finding(name, Level.FAIL, text, advice)


def skipped(name: str, text: str) -> Finding:
    """Not looked at, and why."""
    return Finding(name, Level.SKIPPED, text)
