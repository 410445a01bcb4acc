"""How long a server was on, from Nova's own action log: what a run cost whose controller died before it could tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from .cloud import FREE_STATUSES, LoggedAction, Observed, Server
from .errors import CloudError, ExitCode, LedgerError
from .ledger import Ledger
from .summary import Summary, add_states, finish

WAKING = frozenset({"create", "unshelve", "start", "resume", "unpause", "rebuild"})
SHELVING = frozenset({"shelve", "shelveOffload", "delete"})
NO_MATTER = SHELVING | {"lock", "unlock"}
"""Actions that do not mean that anybody wants to use the server: a shelving that failed leaves it on, and unused."""

DIED = "the controller died: nobody ended the run"


def actions_of(server: Server) -> list[LoggedAction] | None:
    """The action log; None where it cannot be had (a credential's access rules may forbid it)."""
    try:
        return server.actions()
    except CloudError:
        return None


def touched_at(actions: Sequence[LoggedAction] | None, changed_at: datetime | None) -> datetime | None:
    """When somebody last did something to the server; without a log, when Nova last changed its record."""
    times = [action.at for action in actions or () if action.name not in NO_MATTER]
    return max(times) if times else changed_at


def states_since(
    actions: Iterable[LoggedAction] | None, since: datetime, now: Observed, changed_at: datetime | None
) -> list[Observed]:
    """The states that the server must have had since then, up to what it is now. Without a log it counts as ACTIVE from then
    on: a cost that is overstated is looked into, one that is understated is not."""
    on = now.status not in FREE_STATUSES
    if actions is None:
        return [Observed(since, "ACTIVE", None), now]
    log = [action for action in actions if not action.failed and action.name in WAKING | SHELVING]
    before = [action for action in log if action.at < since]
    was_on = before[-1].name in WAKING if before else False
    states = [Observed(since, "ACTIVE" if was_on else "SHELVED_OFFLOADED", None)]
    for action in log:
        if action.at < since:
            continue
        # A shelving is billed until the server has left its host: the log has only when it was asked for.
        at = min(action.at, now.at)  # the cloud's clock may be ahead
        if action.name in WAKING:
            states.append(Observed(at, "ACTIVE", None))
        elif states[-1].status == "ACTIVE":
            states.append(Observed(at, "ACTIVE", "shelving"))
    if not on and states[-1].status == "ACTIVE":
        ended = changed_at if changed_at is not None and changed_at >= states[-1].at else now.at
        states.append(Observed(min(ended, now.at), now.status, None))
    states.append(now)
    return states


def settle(
    ledger: Ledger,
    runs: Iterable[dict[str, Any]],
    states: Sequence[Observed],
    end: datetime,
    rate: float | None,
    *,
    reason: str = DIED,
) -> list[int]:
    """Close runs that nobody will close, with what the server went through since each began; their numbers.

    Raises LedgerError.
    """
    closed = []
    for row in runs:
        summary = Summary(server=row["server"], run=row["id"], workflow_id=row["workflow_id"])
        add_states(
            summary,
            _from(states, datetime.fromisoformat(row["started_at"])),
            end,
            row["service_units_per_hour"] or rate,
        )
        finish(summary, ExitCode.TERMINATED, reason)
        ledger.end(row["id"], summary, end)
        closed.append(row["id"])
    return closed


def settle_dead(
    ledger: Ledger, server: Server, names: Iterable[str], except_run: int, end: datetime, rate: float | None
) -> list[int]:
    """Close every run of this server but one that is open although no process can hold the server's lock any more; called
    by who holds it, after the server was looked at. A log that cannot be read or written settles nothing."""
    try:
        dead = [row for row in ledger.open_runs(names) if row["id"] != except_run]
        if not dead:
            return []
        actions = actions_of(server)
        since = min(datetime.fromisoformat(row["started_at"]) for row in dead)
        return settle(ledger, dead, states_since(actions, since, server.seen[-1], server.changed_at), end, rate)
    except LedgerError:
        return []


def _from(states: Sequence[Observed], since: datetime) -> list[Observed]:
    """The states from a time on, the one that held then included."""
    before = [state for state in states if state.at <= since]
    first = [Observed(since, before[-1].status, before[-1].task_state)] if before else []
    return first + [state for state in states if state.at > since]
