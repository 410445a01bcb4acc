"""How often the machine was wrong, by what moderators decided: false positives and false negatives by week, type and model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

WEEKS = 26


@dataclass
class Score:
    """Verdicts that a moderator decided on."""

    right: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def reviewed(self) -> int:
        """All of them."""
        return self.right + self.wrong

    @property
    def wrong(self) -> int:
        """Verdicts that the moderator did not share."""
        return self.false_positives + self.false_negatives

    @property
    def wrong_share(self) -> float | None:
        """0 to 1."""
        return self.wrong / self.reviewed if self.reviewed else None

    def add(self, machine: bool, moderator: bool) -> None:
        """Count one verdict."""
        if machine == moderator:
            self.right += 1
        elif machine:
            self.false_positives += 1
        else:
            self.false_negatives += 1


@dataclass
class Review:
    """All decisions that the history holds. Weeks are named by their Monday (UTC), and are those in which the machine judged."""

    decisions: int = 0
    without_verdict: int = 0
    all: Score = field(default_factory=Score)
    by_week: dict[date, Score] = field(default_factory=dict)
    by_type: dict[str, Score] = field(default_factory=lambda: defaultdict(Score))
    by_model: dict[str, Score] = field(default_factory=lambda: defaultdict(Score))


def review(decisions: Iterable[Mapping[str, Any]], now: datetime) -> Review:
    """Count decisions (rows of the history, oldest first). Of several about one verdict the last counts."""
    found = Review()
    last: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in decisions:
        found.decisions += 1
        if row["run_id"] is None:
            found.without_verdict += 1
        else:
            last[(row["item_id"], row["run_id"])] = row
    monday = _monday(now.date())
    found.by_week = {monday - timedelta(weeks=n): Score() for n in reversed(range(WEEKS))}
    for row in last.values():
        machine, moderator = bool(row["verdict_is_spam"]), bool(row["is_spam"])
        scores = [found.all, found.by_type[row["content_type"]], found.by_model[row["verdict_by"] or "unknown"]]
        week = found.by_week.get(_monday(datetime.fromisoformat(row["verdict_at"]).date()))
        for score in (*scores, *([week] if week is not None else [])):
            score.add(machine, moderator)
    return found


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
