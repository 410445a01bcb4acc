"""A small history, for whatever shows one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from fake_checker import report
from fake_clock import BEGINNING

from spamops.alarms import STATE_MARK, Kind
from spamops.budget import Budget
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.summary import Summary, add_check, finish

PLAN = Budget(16.0, day_units=24.0, month_units=300.0)


def some_history(folder: Path) -> Ledger:
    """Two checks, one of them failed, and what the reaper found."""
    ledger = Ledger(folder)
    for number, code in enumerate((ExitCode.ITEMS_FAILED, ExitCode.CHECKER_FAILED)):
        at = BEGINNING + timedelta(hours=number)
        made = Summary(server="gpu", steps={"wake": 9.5, "check": 20.0, "shelve": 8.0, "<odd>": 1.0})
        made.active_seconds, made.service_units = 900.0, 4.0
        made.server_timeline = [{"at": at.isoformat(), "status": "ACTIVE", "task_state": None, "seconds": 900.0}]
        if code is ExitCode.ITEMS_FAILED:
            add_check(made, "COMPLETED", {}, report(5, failed=1))
        finish(made, code, None)
        ledger.end(ledger.begin("gpu", "command", at, 16.0), made, at + timedelta(minutes=20))
    found = Summary(server="gpu", active_seconds=90.0, service_units=0.4)
    finish(found, ExitCode.DONE, "reaped")
    at = BEGINNING + timedelta(hours=2)
    ledger.end(ledger.begin("gpu", "reap", at, 16.0), found, at)
    ledger.mark("gpu", STATE_MARK, at, "SHELVED_OFFLOADED")
    ledger.raise_alarm("gpu", Kind.CHECK_FAILED, "text", 2, at, again=True)
    return ledger
