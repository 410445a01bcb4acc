"""What the history forgets: verdicts that are older than a setting, and all about one item when a person asks for it.

What is deleted is overwritten in the file (SQLite's secure_delete), not only unlinked in it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from . import feedback
from .errors import LedgerError
from .ledger import Ledger

log = logging.getLogger(__name__)


def expire(ledger: Ledger, days: int, now: datetime) -> int:
    """Remove the verdicts of runs that ended more than `days` ago; how many. Runs with their sums stay, and so do moderators'
    decisions with the verdict that each is about.

    Raises LedgerError.
    """
    if not ledger.path.exists():
        return 0
    before = (now - timedelta(days=days)).isoformat(timespec="milliseconds")
    with ledger.transaction() as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("BEGIN IMMEDIATE")
        feedback.match(db)
        return db.execute(
            "DELETE FROM verdicts WHERE run_id IN (SELECT id FROM runs WHERE ended_at < ?)", (before,)
        ).rowcount


def after_a_run(ledger: Ledger, days: int | None, now: datetime) -> None:
    """The same, where a setting wants it, raising nothing: a run is judged by what it did before."""
    if days is None:
        return
    try:
        expire(ledger, days, now)
    except LedgerError as error:
        log.warning("old verdicts could not be removed: %s", error)


def forget(ledger: Ledger, item_id: str) -> dict[str, int]:
    """Remove every row about one item: verdicts and moderators' decisions. How many of each there were. The sums of runs name
    no item, and stay.

    Raises LedgerError.
    """
    if not ledger.path.exists():
        return {"verdicts": 0, "feedback": 0}
    with ledger.transaction() as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("BEGIN IMMEDIATE")
        return {
            table: db.execute(f"DELETE FROM {table} WHERE item_id = ?", (item_id,)).rowcount  # noqa: S608
            for table in ("verdicts", "feedback")
        }
