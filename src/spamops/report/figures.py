"""The figures of the report, computed from the history alone. Days are UTC's; a period ends now."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from .. import budget
from ..errors import ExitCode
from ..ledger import Ledger
from .review import Review, review

PERIODS = (7, 30)
"""Days, the present one included."""
BINS = 10
SLOWEST_SHOWN = 10
FAILED_SHOWN = 20
RUNS_SHOWN = 300
VERDICTS_SHOWN = 25_000
"""Newest runs first; what is beyond is in `spamops show` and `spamops export`, so that a phone can open the file."""
UNKNOWN = "unknown"
GOOD = (ExitCode.DONE, ExitCode.ITEMS_FAILED)


@dataclass
class Counts:
    """Items by what came of them."""

    spam: int = 0
    not_spam: int = 0
    failed: int = 0

    @property
    def judged(self) -> int:
        """Those that have a verdict."""
        return self.spam + self.not_spam

    @property
    def share(self) -> float | None:
        """Spam among those judged, 0 to 1."""
        return self.spam / self.judged if self.judged else None

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what a run counted."""
        self.spam += int(counts.get("spam") or 0)
        self.not_spam += int(counts.get("not_spam") or 0)
        self.failed += int(counts.get("failed") or 0)


@dataclass(frozen=True)
class Verdict:
    """One row of the history. `is_spam` is None where the item failed; `decision` is the moderator's, None for none."""

    run: int
    item_id: str
    content_type: str
    is_spam: bool | None
    confidence: float | None
    by: str | None
    seconds: float | None
    indicators: tuple[str, ...]
    failure: str | None
    decision: bool | None


@dataclass
class Cost:
    """Service units and hours of servers that were on, beside those of servers that never sleep, in the same hours. Units are
    None where no rate is known."""

    hours: float = 0.0
    always_hours: float = 0.0
    units: float | None = None
    always_units: float | None = None


@dataclass
class Period:
    """What happened in some days. Counts of items come from the sums of runs, which stay for good; what is told by model, by
    confidence and by item comes from single verdicts, which retention may have removed (`verdicts` says how many there are)."""

    days: int
    begins: datetime
    runs: int = 0
    runs_not_done: int = 0
    items: Counts = field(default_factory=Counts)
    by_day: dict[date, Counts] = field(default_factory=dict)
    by_type: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    verdicts: int = 0
    by_decider: dict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    histogram: list[Counts] = field(default_factory=lambda: [Counts() for _ in range(BINS)])
    slowest: list[Verdict] = field(default_factory=list)
    failed: list[Verdict] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)


@dataclass
class Figures:
    """All that the page shows. `runs` are newest first; `details` holds the verdicts of the newest of them."""

    made_at: datetime
    servers: list[str]
    periods: list[Period]
    runs: list[dict[str, Any]]
    runs_left_out: int
    details: dict[int, list[Verdict]]
    review: Review


def compute(ledger: Ledger, now: datetime, rate: float | None = None) -> Figures:
    """Read the history; `rate` in service units an hour is for runs that hold none of their own.

    Raises LedgerError.
    """
    midnight = budget.day_of(now)[0]
    periods = [Period(days, midnight - timedelta(days=days - 1)) for days in PERIODS]
    for period in periods:
        period.by_day = {(period.begins + timedelta(days=n)).date(): Counts() for n in range(period.days)}
    if not ledger.path.exists():
        return Figures(now, [], periods, [], 0, {}, review([], now))
    with ledger.transaction() as db:
        db.execute("BEGIN")  # all that is read belongs to one moment
        runs = _runs(db, min(period.begins for period in periods))
        beginnings = {
            row["server"]: datetime.fromisoformat(row["first"])
            for row in db.execute("SELECT server, MIN(started_at) AS first FROM runs GROUP BY server")
        }
        last_rate = db.execute(
            "SELECT service_units_per_hour FROM runs WHERE service_units_per_hour IS NOT NULL ORDER BY id DESC LIMIT 1"
        ).fetchone()
        rate = rate if rate is not None else last_rate[0] if last_rate else None
        for period in periods:
            _count_runs(period, runs)
            _count_cost(period, runs, beginnings, now, rate)
        shown = runs[:RUNS_SHOWN]
        details = _count_verdicts(db, periods, {run["id"]: run for run in runs}, {run["id"] for run in shown})
        decisions = [dict(row) for row in db.execute("SELECT * FROM feedback ORDER BY decided_at, imported_at")]
    servers = sorted({run["server"] for run in runs})
    return Figures(now, servers, periods, shown, len(runs) - len(shown), details, review(decisions, now))


def _runs(db: sqlite3.Connection, since: datetime) -> list[dict[str, Any]]:
    """Runs that ended since then or are not ended, newest first."""
    rows = db.execute(
        "SELECT * FROM runs WHERE ended_at IS NULL OR ended_at >= ? ORDER BY id DESC",
        (since.isoformat(timespec="milliseconds"),),
    )
    found = []
    for row in rows:
        values = dict(row)
        details = values.pop("details")
        found.append(values | (json.loads(details) if details else {}))
    return found


def _within(period: Period, run: Mapping[str, Any]) -> bool:
    return run["ended_at"] is not None and datetime.fromisoformat(run["ended_at"]) >= period.begins


def _count_runs(period: Period, runs: Iterable[Mapping[str, Any]]) -> None:
    for run in runs:
        if not _within(period, run) or run["started_by"] == "reap":
            continue
        period.runs += 1
        period.runs_not_done += run["exit_code"] not in GOOD
        period.items.add(run)
        day = period.by_day.get(datetime.fromisoformat(run["ended_at"]).date())
        if day is not None:  # a controller's clock may have been ahead
            day.add(run)
        by_type = run.get("by_type") or {UNKNOWN: run}
        for name, counts in by_type.items():
            added = Counts()
            added.add(counts)
            if added != Counts():
                period.by_type[str(name)].add(counts)


def _count_cost(
    period: Period, runs: list[dict[str, Any]], beginnings: Mapping[str, datetime], now: datetime, rate: float | None
) -> None:
    """What was on, and what would have been: each server from its first run on."""
    without_rate = [run | {"service_units_per_hour": None} for run in runs]
    period.cost.hours = budget.spent(without_rate, period.begins, now, now, 1.0)
    servers = {run["server"] for run in runs if run["ended_at"] is None or _within(period, run)}
    period.cost.always_hours = sum(
        max(0.0, (now - max(period.begins, beginnings[server])).total_seconds()) / 3600 for server in servers
    )
    if rate is not None:
        period.cost.units = budget.spent(runs, period.begins, now, now, rate)
        period.cost.always_units = period.cost.always_hours * rate


def _count_verdicts(
    db: sqlite3.Connection, periods: list[Period], runs: Mapping[int, Mapping[str, Any]], wanted: set[int]
) -> dict[int, list[Verdict]]:
    """Count every verdict of these runs, newest runs first; return those of the runs wanted, whole runs, as many as are shown."""
    details: dict[int, list[Verdict]] = {}
    kept = 0
    slow: dict[int, list[tuple[float, int, Verdict]]] = {period.days: [] for period in periods}
    for number, (run, verdicts) in enumerate(_by_run(_verdicts(db, min(runs, default=0)))):
        inside = [period for period in periods if run in runs and _within(period, runs[run])]
        if run in wanted and (kept + len(verdicts) <= VERDICTS_SHOWN or not details):
            details[run] = verdicts
            kept += len(verdicts)
        for period in inside:
            for place, verdict in enumerate(verdicts):
                _count_verdict(period, verdict)
                if verdict.seconds is not None:
                    entry = (verdict.seconds, -(number * 1_000_000 + place), verdict)
                    heap = slow[period.days]
                    (heapq.heappush if len(heap) < SLOWEST_SHOWN else heapq.heappushpop)(heap, entry)
    for period in periods:
        period.slowest = [
            verdict for _, _, verdict in sorted(slow[period.days], key=lambda entry: entry[:2], reverse=True)
        ]
    return details


def _count_verdict(period: Period, verdict: Verdict) -> None:
    if verdict.is_spam is None:
        if len(period.failed) < FAILED_SHOWN:
            period.failed.append(verdict)
        return
    period.verdicts += 1
    row = {"spam": int(verdict.is_spam), "not_spam": int(not verdict.is_spam)}
    period.by_decider[verdict.by or UNKNOWN].add(row)
    if verdict.confidence is not None:
        period.histogram[min(BINS - 1, max(0, int(verdict.confidence * BINS + 1e-9)))].add(row)


def _verdicts(db: sqlite3.Connection, since_run: int) -> Iterator[Verdict]:
    """Newest runs first; each with the newest decision about it."""
    decisions = {
        (row["run_id"], row["item_id"]): bool(row["is_spam"])
        for row in db.execute("SELECT * FROM feedback WHERE run_id IS NOT NULL ORDER BY decided_at, imported_at")
    }
    rows = db.execute(
        "SELECT run_id, item_id, content_type, is_spam, confidence, decided_by, seconds, indicators, failure FROM verdicts"
        " WHERE run_id >= ? ORDER BY run_id DESC, content_type, length(item_id), item_id",
        (since_run,),
    )
    for run, item, kind, is_spam, confidence, by, seconds, indicators, failure in rows:
        yield Verdict(
            run,
            item,
            kind,
            None if is_spam is None else bool(is_spam),
            confidence,
            by,
            seconds,
            tuple(json.loads(indicators)) if indicators else (),
            failure,
            decisions.get((run, item)),
        )


def _by_run(verdicts: Iterable[Verdict]) -> Iterator[tuple[int, list[Verdict]]]:
    """Verdicts in their runs, which follow each other."""
    some: list[Verdict] = []
    for verdict in verdicts:
        if some and some[0].run != verdict.run:
            yield some[0].run, some
            some = []
        some.append(verdict)
    if some:
        yield some[0].run, some
