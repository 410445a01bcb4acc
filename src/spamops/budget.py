"""What a server may cost: service units a day and a month, seconds a run. Days and months are UTC's.

What was spent is counted from the history: every run with the time that its server was billed in it, failed ones too, and
one whose controller died from its beginning until somebody settles it (the reaper, or the next run).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .clock import Clock
from .cloud import FREE_STATUSES
from .errors import BudgetSpent, CheckerError, CloudError
from .summary import BILLED_SHARE

LONGEST_AHEAD = timedelta(days=31)
"""No run is looked at further ahead than this."""


@dataclass(frozen=True)
class Budget:
    """`rate` in service units an hour; None for a limit that is not set."""

    rate: float | None = None
    day_units: float | None = None
    month_units: float | None = None
    run_seconds: float | None = None


@dataclass(frozen=True)
class Left:
    """What of a limit is left in a period."""

    period: str
    limit: float
    spent: float
    begins: datetime
    ends: datetime

    @property
    def units(self) -> float:
        """Service units, never less than none."""
        return max(0.0, self.limit - self.spent)


@dataclass(frozen=True)
class Allowance:
    """How long a run may wake and check from now on, in seconds (None: without end), and which limit says so."""

    seconds: float | None
    why: str = ""


def day_of(now: datetime) -> tuple[datetime, datetime]:
    """The UTC day: its beginning, and its end, which is the beginning of the next."""
    begins = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return begins, begins + timedelta(days=1)


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The same of the calendar month."""
    begins = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return begins, (begins + timedelta(days=32)).replace(day=1)


def spent(runs: Iterable[Mapping[str, Any]], begins: datetime, ends: datetime, now: datetime, rate: float) -> float:
    """Service units that these runs (rows of the history) cost between two times; `rate` for rows without one of their own.

    A run that is not ended counts as ACTIVE from its beginning until `now`.
    """
    total = 0.0
    for run in runs:
        own = run.get("service_units_per_hour")
        hours = sum(_overlap(a, b, begins, ends) * share for a, b, share in _billed(run, now)) / 3600
        total += hours * (rate if own is None else own)
    return total


def left(budget: Budget, runs: Iterable[Mapping[str, Any]], now: datetime) -> list[Left]:
    """What is left of each limit in service units that is set."""
    rows = list(runs)
    found = []
    for period, limit, (begins, ends) in (
        ("day", budget.day_units, day_of(now)),
        ("month", budget.month_units, month_of(now)),
    ):
        if limit is not None and budget.rate:
            found.append(Left(period, limit, spent(rows, begins, ends, now, budget.rate), begins, ends))
    return found


def allowance(
    budget: Budget, runs: Iterable[Mapping[str, Any]], now: datetime, *, reserve_seconds: float = 0.0
) -> Allowance:
    """How long a run that begins now may wake and check. `reserve_seconds` is what shelving will take, which is billed too.

    Raises BudgetSpent, with words for the operator, when it may not begin.
    """
    rows = list(runs)
    best = Allowance(None)
    if budget.run_seconds is not None:
        best = Allowance(budget.run_seconds, f"budget_run_seconds: {budget.run_seconds:g} s a run")
    for this in left(budget, rows, now):
        seconds = _seconds_left(this, budget.rate or 0.0, now) - reserve_seconds
        why = f"budget_{this.period}_units: {this.limit:g} service units a {this.period}"
        if seconds <= 0:
            open_runs = [str(run["id"]) for run in rows if run.get("ended_at") is None]
            unsettled = f"; not settled: run {', '.join(open_runs)} (spamops reap does it)" if open_runs else ""
            raise BudgetSpent(
                f"{why}, {this.spent:.3g} of them spent since {_minute(this.begins)}{unsettled}. The server was not woken;"
                f" a run is possible from {_minute(this.ends)} on, or with a larger budget_{this.period}_units"
            )
        if best.seconds is None or seconds < best.seconds:
            best = Allowance(seconds, f"{why}, {this.spent:.3g} of them spent before")
    return best


def shelving_seconds(runs: Iterable[Mapping[str, Any]]) -> float:
    """What the last shelving took, to be kept in reserve: it is billed, and never cut short. 0 where none is known."""
    known = [(run.get("steps") or {}).get("shelve") for run in runs]
    return next((float(seconds) for seconds in reversed(known) if seconds), 0.0)


class Deadline:
    """When a run's waking and checking end, on a clock. Shelving is never cut short by it."""

    def __init__(self, clock: Clock, allowed: Allowance) -> None:
        self._clock = clock
        self._at = None if allowed.seconds is None else clock.monotonic() + allowed.seconds
        self._why = allowed.why

    def within(self, limit: float) -> float:
        """The limit of a step in seconds, or what is left.

        Raises BudgetSpent when nothing is.
        """
        if self._at is None:
            return limit
        remaining = self._at - self._clock.monotonic()
        if remaining <= 0:
            raise BudgetSpent(f"the run was ended in time ({self._why})")
        return min(limit, remaining)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name the budget where a step ended because of it.

        Raises BudgetSpent instead of a fault of the cloud or the checker that came when the time was up.
        """
        try:
            yield
        except (CloudError, CheckerError) as error:
            if self._at is not None and self._clock.monotonic() >= self._at:
                raise BudgetSpent(f"the run was ended in time ({self._why}); at that moment: {error}") from error
            raise


def _billed(run: Mapping[str, Any], now: datetime) -> Iterator[tuple[datetime, datetime, float]]:
    """Intervals that the cloud bills, each with the share of the rate."""
    started = datetime.fromisoformat(run["started_at"])
    if run.get("ended_at") is None:
        yield started, max(started, now), 1.0
        return
    timeline = run.get("server_timeline") or []
    for state in timeline:
        if state["status"] not in FREE_STATUSES:
            begins = datetime.fromisoformat(state["at"])
            yield begins, begins + timedelta(seconds=state["seconds"]), BILLED_SHARE.get(state["status"], 1.0)
    if not timeline and run.get("active_seconds"):
        yield started, started + timedelta(seconds=run["active_seconds"]), 1.0


def _overlap(a: datetime, b: datetime, begins: datetime, ends: datetime) -> float:
    return max(0.0, (min(b, ends) - max(a, begins)).total_seconds())


def _seconds_left(this: Left, rate: float, now: datetime) -> float:
    """Seconds until the limit is reached by a server that is ACTIVE from now on; a new period begins with the whole limit."""
    if this.units <= 0:
        return 0.0
    seconds = this.units / rate * 3600
    ends = this.ends
    while now + timedelta(seconds=min(seconds, LONGEST_AHEAD.total_seconds())) >= ends and ends - now < LONGEST_AHEAD:
        seconds = (ends - now).total_seconds() + this.limit / rate * 3600
        ends = (day_of(ends) if this.period == "day" else month_of(ends))[1]
    return seconds


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
