"""What a run cost, and which outcome wins."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fake_checker import report
from fake_clock import BEGINNING

from spamops.checker import WorkflowStatus
from spamops.cloud import Observed
from spamops.errors import CheckerError, ExitCode
from spamops.summary import Summary, add_check, add_states, conclude, require_completed


def seen(*states: tuple[float, str, str | None]) -> list[Observed]:
    """States at so many seconds from the beginning."""
    return [Observed(BEGINNING + timedelta(seconds=at), status, task) for at, status, task in states]


def test_only_the_seconds_that_the_cloud_bills_are_counted() -> None:
    made = Summary(server="gpu")
    way = seen(
        (0, "SHELVED_OFFLOADED", None),
        (1, "SHELVED_OFFLOADED", "spawning"),
        (50, "ACTIVE", None),
        (80, "ACTIVE", "shelving"),
        (90, "SHELVED", "shelving_offloading"),
        (95, "SHELVED_OFFLOADED", None),
    )
    add_states(made, way, BEGINNING + timedelta(seconds=100), 9.0)
    assert made.active_seconds == 40
    assert made.service_units == pytest.approx(0.1)
    assert made.server_states == ["SHELVED_OFFLOADED", "ACTIVE", "SHELVED", "SHELVED_OFFLOADED"]
    assert (made.server_status_before, made.server_status_after) == ("SHELVED_OFFLOADED", "SHELVED_OFFLOADED")
    assert sum(state["seconds"] for state in made.server_timeline) == 100


def test_a_server_that_is_left_on_is_paid_for_to_the_end_of_the_run() -> None:
    made = Summary(server="gpu")
    add_states(made, seen((0, "ACTIVE", None)), BEGINNING + timedelta(seconds=7), None)
    assert made.active_seconds == 7
    assert made.service_units is None


@pytest.mark.parametrize(("status", "share"), [("ACTIVE", 1), ("SUSPENDED", 0.75), ("SHUTOFF", 0.5), ("ERROR", 1)])
def test_half_asleep_is_billed_in_part(status: str, share: float) -> None:
    made = Summary(server="gpu")
    add_states(made, seen((0, status, None)), BEGINNING + timedelta(hours=1), 16.0)
    assert made.service_units == pytest.approx(16 * share)


def test_nothing_was_seen() -> None:
    made = Summary(server="gpu")
    add_states(made, [], BEGINNING, 16.0)
    assert (made.server_status_before, made.active_seconds, made.service_units) == (None, 0.0, None)


def test_without_a_report_the_counts_of_the_last_status_are_told() -> None:
    made = Summary(server="gpu")
    add_check(made, "COMPLETED", {"checked": 4, "spam": 1, "not_spam": 3, "failed": 0}, None)
    assert (made.checked, made.spam, made.not_spam, made.classify_seconds) == (4, 1, 3, None)


def test_overhead_is_what_was_paid_and_not_classified_in() -> None:
    made = Summary(server="gpu")
    add_states(made, seen((0, "ACTIVE", None), (10, "SHELVED_OFFLOADED", None)), BEGINNING, None)
    add_check(made, "COMPLETED", {}, report())
    assert made.overhead_seconds == 8.5


@pytest.mark.parametrize("status", ["FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"])
def test_every_end_but_completed_is_a_failure(status: str) -> None:
    with pytest.raises(CheckerError, match=f"ended {status}: no site"):
        require_completed("check-1", WorkflowStatus(status, "no site"), None)
    with pytest.raises(CheckerError, match="from the report"):
        require_completed("check-1", WorkflowStatus(status), {"reason": "from the report"})
    require_completed("check-1", WorkflowStatus("COMPLETED"), None)


def concluded(code: ExitCode, *, not_shelved: str | None = None, may_cost: bool = True, failed: int = 0) -> Summary:
    """A run's end."""
    made = Summary(server="gpu", failed=failed)
    reason = None if code is ExitCode.DONE else "the reason"
    conclude(made, code, reason, not_shelved=not_shelved, may_cost=may_cost, run=3)
    return made


@pytest.mark.parametrize(
    "code",
    [ExitCode.DONE, ExitCode.CHECKER_FAILED, ExitCode.SERVER_NOT_WOKEN, ExitCode.TERMINATED, ExitCode.UNEXPECTED],
)
def test_a_server_that_is_left_on_wins_over_every_other_outcome(code: ExitCode) -> None:
    made = concluded(code, not_shelved="stuck", failed=2)
    assert made.exit_code == ExitCode.SERVER_NOT_SHELVED
    assert "stuck. Shelve it now: openstack server shelve gpu" in str(made.reason)
    assert ("the reason" in str(made.reason)) == (code is not ExitCode.DONE)


def test_a_server_that_was_never_on_is_no_alarm() -> None:
    made = concluded(ExitCode.SERVER_NOT_WOKEN, not_shelved="it is in ERROR", may_cost=False)
    assert made.exit_code == ExitCode.SERVER_NOT_WOKEN


def test_failed_items_count_only_when_nothing_else_failed() -> None:
    assert concluded(ExitCode.DONE, failed=2).reason == "2 items failed; see: spamops show 3"
    assert concluded(ExitCode.DONE, failed=2).exit_code == ExitCode.ITEMS_FAILED
    assert concluded(ExitCode.CHECKER_FAILED, failed=2).exit_code == ExitCode.CHECKER_FAILED
