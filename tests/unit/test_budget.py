"""The budget: no more is spent than was allowed, and nobody is refused who may."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from spamops import budget
from spamops.budget import Allowance, Budget, Deadline
from spamops.errors import BudgetSpent, CheckerError, TooSlow

NOON = datetime(2026, 3, 15, 12, 0, tzinfo=UTC)
RATE = 16.0


def run(began: datetime, hours: float, *, status: str = "ACTIVE", rate: float | None = RATE) -> dict[str, Any]:
    """A run as the history has it, whose server was in one status that long."""
    return {
        "id": 1,
        "started_at": began.isoformat(),
        "ended_at": (began + timedelta(hours=hours)).isoformat(),
        "service_units_per_hour": rate,
        "active_seconds": hours * 3600,
        "exit_code": 5,
        "server_timeline": [
            {"at": began.isoformat(), "status": status, "seconds": hours * 3600},
            {"at": (began + timedelta(hours=hours)).isoformat(), "status": "SHELVED_OFFLOADED", "seconds": 10.0},
        ],
    }


def still_open(began: datetime) -> dict[str, Any]:
    """A run that nobody ended."""
    return {"id": 7, "started_at": began.isoformat(), "ended_at": None, "service_units_per_hour": None}


def of_today(*runs: dict[str, Any], now: datetime = NOON) -> float:
    """What the runs cost on the day of `now`."""
    begins, ends = budget.day_of(now)
    return budget.spent(runs, begins, ends, now, RATE)


def test_a_failed_run_counts_as_any_other() -> None:
    assert of_today(run(NOON - timedelta(hours=3), 0.5)) == pytest.approx(8.0)


def test_a_run_over_midnight_is_split_between_the_two_days() -> None:
    began = datetime(2026, 3, 14, 23, 0, tzinfo=UTC)
    assert of_today(run(began, 2)) == pytest.approx(16.0)
    assert of_today(run(began, 2), now=NOON - timedelta(days=1)) == pytest.approx(16.0)


def test_the_day_is_utcs_wherever_the_controller_stands() -> None:
    from zoneinfo import ZoneInfo

    begins, ends = budget.day_of(datetime(2026, 3, 15, 20, 0, tzinfo=ZoneInfo("America/Phoenix")))
    assert (begins.isoformat(), ends.isoformat()) == ("2026-03-16T00:00:00+00:00", "2026-03-17T00:00:00+00:00")
    assert budget.month_of(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))[1] == datetime(2027, 1, 1, tzinfo=UTC)
    assert budget.month_of(datetime(2028, 2, 29, tzinfo=UTC))[1] == datetime(2028, 3, 1, tzinfo=UTC)


def test_a_run_whose_controller_died_counts_until_somebody_settles_it() -> None:
    assert of_today(still_open(NOON - timedelta(hours=2))) == pytest.approx(32.0)


def test_states_are_billed_by_their_share() -> None:
    began = NOON - timedelta(hours=4)
    assert of_today(run(began, 1, status="SHUTOFF")) == pytest.approx(8.0)
    assert of_today(run(began, 1, status="SHELVED_OFFLOADED")) == 0
    assert of_today(run(began, 1, rate=2.0)) == pytest.approx(2.0)
    bare = run(began, 1) | {"server_timeline": []}
    assert of_today(bare) == pytest.approx(16.0)


def test_without_limits_a_run_may_go_on_for_ever() -> None:
    assert budget.allowance(Budget(rate=RATE), [run(NOON, 500)], NOON).seconds is None


def test_a_spent_budget_is_told_with_what_to_do() -> None:
    rows = [run(NOON - timedelta(hours=3), 1), still_open(NOON - timedelta(hours=1))]
    with pytest.raises(BudgetSpent) as told:
        budget.allowance(Budget(RATE, day_units=24), rows, NOON)
    for words in (
        "budget_day_units: 24 service units a day",
        "32 of them spent since 2026-03-15 00:00 UTC",
        "not settled: run 7",
        "The server was not woken",
        "possible from 2026-03-16 00:00 UTC on",
    ):
        assert words in str(told.value)


def test_the_least_limit_ends_the_run() -> None:
    rows = [run(NOON - timedelta(hours=3), 1)]
    plan = Budget(RATE, day_units=24, month_units=1000, run_seconds=3600)
    allowed = budget.allowance(plan, rows, NOON)
    assert (allowed.seconds, "budget_day_units" in allowed.why) == (1800, True)
    allowed = budget.allowance(plan, rows, NOON, reserve_seconds=300)
    assert allowed.seconds == 1500
    allowed = budget.allowance(Budget(RATE, 24, 1000, 600), rows, NOON)
    assert (allowed.seconds, "budget_run_seconds" in allowed.why) == (600, True)
    with pytest.raises(BudgetSpent, match="budget_month_units"):
        budget.allowance(Budget(RATE, 24, 16, 600), rows, NOON)


def test_a_run_before_midnight_has_the_next_days_budget_too() -> None:
    late = datetime(2026, 3, 15, 23, 30, tzinfo=UTC)
    assert budget.allowance(Budget(RATE, day_units=16), [], late).seconds == 1800 + 3600


def test_what_shelving_will_take_is_kept_in_reserve() -> None:
    rows: list[dict[str, Any]] = [{"steps": {"shelve": 30.0}}, {"steps": {"shelve": 90.0}}, {"steps": {}}]
    assert budget.shelving_seconds(rows) == 90.0
    assert budget.shelving_seconds([]) == 0.0


@given(
    st.lists(st.tuples(st.integers(0, 40 * 24), st.floats(0, 30)), max_size=8),
    st.floats(0.1, 500),
    st.one_of(st.none(), st.floats(0.1, 5000)),
)
def test_whoever_keeps_to_the_deadline_stays_within_every_limit(
    past: list[tuple[int, float]], day: float, month: float | None
) -> None:
    now = datetime(2026, 3, 25, 17, 13, tzinfo=UTC)
    rows = [run(now - timedelta(hours=ago), min(hours, ago)) for ago, hours in past]
    plan = Budget(RATE, day_units=day, month_units=month)
    try:
        allowed = budget.allowance(plan, rows, now)
    except BudgetSpent:
        assert any(left.units == 0 for left in budget.left(plan, rows, now))
        return
    assert allowed.seconds is not None
    hours = min(allowed.seconds, 20 * 86400) / 3600
    rows.append(run(now, hours))
    end = now + timedelta(hours=hours)
    moment = now
    while moment <= end:
        for limit, (begins, ends) in ((day, budget.day_of(moment)), (month, budget.month_of(moment))):
            if limit is not None:
                assert budget.spent(rows, begins, ends, end, RATE) <= limit + 1e-6
        moment += timedelta(days=1)


def test_a_step_ends_with_the_budget_and_says_so() -> None:
    clock = FakeClock()
    deadline = Deadline(clock, Allowance(100, "budget_run_seconds: 100 s a run"))
    assert deadline.within(300) == 100
    assert deadline.within(50) == 50
    with pytest.raises(TooSlow), deadline.named():
        raise TooSlow("for another reason")
    clock.sleep(100)
    with (
        pytest.raises(BudgetSpent, match=r"ended in time \(budget_run_seconds: 100 s a run\).*: the check did not end"),
        deadline.named(),
    ):
        raise CheckerError("the check did not end")
    with pytest.raises(BudgetSpent, match="ended in time"):
        deadline.within(300)
    endless = Deadline(clock, Allowance(None))
    assert endless.within(300) == 300
    with pytest.raises(CheckerError), endless.named():
        raise CheckerError("for another reason")
