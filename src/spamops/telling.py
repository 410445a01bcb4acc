"""Who is told of a run, and how: what the notifiers, the alarms and the metrics share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import limits


@dataclass(frozen=True)
class Telling:
    """`urls` are Apprise's and hold secrets, so they are not shown. Times in seconds."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    seconds: float = limits.NOTIFY_SECONDS
    repeat_seconds: float = limits.NOTIFY_REPEAT_SECONDS
    digest_days: int = 0
    textfile: Path | None = None
