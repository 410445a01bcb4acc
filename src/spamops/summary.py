"""What a run comes to: counts, seconds, service units and the exit code, from what was seen. One place for both ways of
running a check, the command and the playbook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from .checker import WorkflowStatus
from .cloud import FREE_STATUSES, Observed
from .errors import CheckerError, ExitCode

BILLED_SHARE = {"SUSPENDED": 0.75, "SHUTOFF": 0.5}
"""Share of the hourly rate by status (Jetstream2's documentation); every other status that is not free counts whole."""


@dataclass
class Summary:
    """One run. Times of day are ISO 8601 in UTC, durations seconds; `service_units` is None where no rate is set."""

    server: str
    run: int | None = None
    exit_code: int = int(ExitCode.UNEXPECTED)
    outcome: str = ""
    reason: str | None = None
    server_status_before: str | None = None
    server_status_after: str | None = None
    server_states: list[str] = field(default_factory=list)
    server_timeline: list[dict[str, Any]] = field(default_factory=list)
    workflow_id: str | None = None
    workflow_status: str | None = None
    rounds: int | None = None
    checked: int = 0
    spam: int = 0
    not_spam: int = 0
    failed: int = 0
    superseded: int = 0
    left: int = 0
    by_type: dict[str, dict[str, int]] = field(default_factory=dict)
    active_seconds: float = 0.0
    classify_seconds: float | None = None
    overhead_seconds: float | None = None
    service_units: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def add_states(summary: Summary, seen: Iterable[Observed], end: datetime, rate: float | None) -> None:
    """What the server went through, what of it was paid for, until `end`; `rate` in service units an hour."""
    states = list(seen)
    if not states:
        return
    summary.server_status_before = states[0].status
    summary.server_status_after = states[-1].status
    summary.server_states = [s.status for n, s in enumerate(states) if n == 0 or states[n - 1].status != s.status]
    ends = [s.at for s in states[1:]] + [end]
    summary.server_timeline = [
        {
            "at": s.at.isoformat(timespec="milliseconds"),
            "status": s.status,
            "task_state": s.task_state,
            "seconds": round((until - s.at).total_seconds(), 3),
        }
        for s, until in zip(states, ends, strict=True)
    ]
    # Shelved or not, the last state lasts beyond the run; what was paid for in the run ends with it.
    paid = {s: max(0.0, (until - s.at).total_seconds()) for s, until in zip(states, ends, strict=True)}
    summary.active_seconds = round(sum(v for s, v in paid.items() if s.status not in FREE_STATUSES), 3)
    if rate is not None:
        billed = sum(v * BILLED_SHARE.get(s.status, 1.0) for s, v in paid.items() if s.status not in FREE_STATUSES)
        summary.service_units = round(billed / 3600 * rate, 6)
    _add_overhead(summary)


def add_check(summary: Summary, status: str, progress: Mapping[str, int], report: Mapping[str, Any] | None) -> None:
    """What the checker told: the report where there is one, otherwise the counts of its last status answer."""
    summary.workflow_status = status
    source: Mapping[str, Any] = report if report is not None else progress
    for name in ("checked", "spam", "not_spam", "failed", "superseded", "left"):
        value = source.get(name)
        if isinstance(value, int):
            setattr(summary, name, value)
    if isinstance(source.get("rounds"), int):
        summary.rounds = source["rounds"]
    if report is not None:
        summary.by_type = {str(k): dict(v) for k, v in (report.get("by_type") or {}).items()}
        seconds = report.get("classify_seconds")
        summary.classify_seconds = round(float(seconds), 3) if isinstance(seconds, int | float) else None
    _add_overhead(summary)


def require_completed(workflow_id: str, status: WorkflowStatus, report: Mapping[str, Any] | None) -> None:
    """Raise CheckerError, with the reason, for any terminal status but COMPLETED."""
    if status.status != "COMPLETED":
        reason = status.reason or (report or {}).get("reason") or "the checker gives no reason"
        raise CheckerError(f"the check {workflow_id} ended {status.status}: {reason}")


def conclude(
    summary: Summary, code: ExitCode, reason: str | None, *, not_shelved: str | None, may_cost: bool, run: int | None
) -> None:
    """The one place for which outcome wins: a server left on before anything else, failed items last.

    `code` and `reason` tell how the work before the shelving went; `not_shelved` why the server is not shelved.
    """
    if not_shelved is not None and may_cost:
        before = f" (the run before that: {reason})" if reason else ""
        reason = f"{not_shelved}. Shelve it now: openstack server shelve {summary.server}{before}"
        code = ExitCode.SERVER_NOT_SHELVED
    elif code is ExitCode.DONE and summary.failed:
        code = ExitCode.ITEMS_FAILED
        reason = f"{summary.failed} items failed" + (f"; see: spamops show {run}" if run else "")
    finish(summary, code, reason)


def finish(summary: Summary, code: ExitCode, reason: str | None) -> None:
    """The end: exit code and, in words, the outcome."""
    summary.exit_code = int(code)
    summary.outcome = code.name.lower()
    summary.reason = reason


def summarise_tasks(
    server: str,
    wake: Mapping[str, Any],
    check: Mapping[str, Any],
    shelved: Mapping[str, Any],
    end: datetime,
    rate: float | None,
    run: int | None,
) -> Summary:
    """The summary of a run that a playbook did, from what its tasks returned; a task that was skipped returned nothing."""
    summary = Summary(server=server, run=run or None)
    seen: list[Observed] = []
    for state in [*(wake.get("states") or []), *(shelved.get("states") or [])]:
        observed = Observed(datetime.fromisoformat(state["at"]), state["status"], state["task_state"])
        if not seen or (seen[-1].status, seen[-1].task_state) != (observed.status, observed.task_state):
            seen.append(observed)
    add_states(summary, seen, end, rate)
    for task in (wake, check, shelved):
        summary.steps |= task.get("steps") or {}
    summary.workflow_id = check.get("workflow_id")
    if check.get("workflow_status"):
        add_check(summary, check["workflow_status"], check.get("progress") or {}, check.get("report") or None)
    summary.warnings = [
        note for task in (wake, check, shelved) for note in task.get("notes") or [] if "warning" in note
    ]
    code, reason = ExitCode.DONE, None
    for task, meaning in ((wake, ExitCode.SERVER_NOT_WOKEN), (check, ExitCode.CHECKER_FAILED)):
        if task.get("failed") and code is ExitCode.DONE:
            code = ExitCode(task.get("exit_code") or meaning)
            reason = str(task.get("msg"))
    # A server that was there and is gone costs nothing. One of which nothing was seen before (only shelving was asked for),
    # or whose task broke down without a word, may be on.
    gone = shelved.get("missing") and wake.get("states")
    conclude(
        summary,
        code,
        reason,
        not_shelved=str(shelved.get("msg")) if shelved.get("failed") and not gone else None,
        may_cost=not wake or any(task.get("may_cost", task.get("failed")) for task in (wake, shelved)),
        run=run,
    )
    return summary


def _add_overhead(summary: Summary) -> None:
    if summary.classify_seconds is not None:
        summary.overhead_seconds = round(max(0.0, summary.active_seconds - summary.classify_seconds), 3)
