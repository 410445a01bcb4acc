"""A history of many runs and verdicts, the same each time, for the report and its bench."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.summary import Summary, add_check, finish

TYPES = {"job": 0.38, "event": 0.22, "codebase": 0.06, "memberprofile": 0.47}
"""Types with their share of spam."""
MODELS = (("rules", 0.45), ("ollama/llama3.2", 0.4), ("ollama/llama3.1", 0.15))
INDICATORS = ("links", "seo_keywords", "hidden_text", "contact_bait", "off_topic", "copied_text")
RATE = 16.0


def long_history(folder: Path, now: datetime, *, runs: int = 60, verdicts: int = 10_000, hours: float = 11.0) -> Ledger:
    """Runs every so many hours until now, each with its share of the verdicts; some fail, and some have failed items."""
    chance = random.Random(8)
    ledger = Ledger(folder)
    given = 0
    for number in range(runs):
        at = now - timedelta(hours=hours * (runs - number))
        count = (verdicts - given) // (runs - number)
        code = ExitCode.CHECKER_FAILED if number % 17 == 11 else ExitCode.DONE
        report = _report(chance, given, count, failed=2 if number % 9 == 4 else 0)
        if report["failed"] and code is ExitCode.DONE:
            code = ExitCode.ITEMS_FAILED
        given += count
        end(ledger, "gpu", at, report, code, chance)
    return ledger


def end(
    ledger: Ledger, server: str, at: datetime, report: dict[str, Any], code: ExitCode, chance: random.Random
) -> int:
    """A run that began then, with its timeline; its number."""
    check = report["classify_seconds"] + 4
    steps = {
        "wake": 40 + 30 * chance.random(),
        "ready": 8 + 9 * chance.random(),
        "check": check,
        "report": 0.4,
        "shelve": 55 + 40 * chance.random(),
    }
    made = Summary(server=server, steps={name: round(seconds, 3) for name, seconds in steps.items()})
    add_check(made, "COMPLETED" if code is not ExitCode.CHECKER_FAILED else "FAILED", {}, report)
    states, begins = [], at
    for status, seconds in (
        ("SHELVED_OFFLOADED", 4.0),
        ("ACTIVE", sum(steps.values()) - 4),
        ("SHELVED_OFFLOADED", 0.0),
    ):
        states.append({"at": begins.isoformat(), "status": status, "task_state": None, "seconds": round(seconds, 3)})
        begins += timedelta(seconds=seconds)
    made.server_timeline = states
    made.active_seconds = states[1]["seconds"]
    made.service_units = round(made.active_seconds / 3600 * RATE, 6)
    finish(made, code, None if code is ExitCode.DONE else f"it ended as {code.name.lower()}")
    run = ledger.begin(server, "command", at, RATE)
    ledger.end(run, made, at + timedelta(seconds=sum(steps.values())), report)
    return run


def _report(chance: random.Random, first: int, count: int, failed: int) -> dict[str, Any]:
    by_type = {name: {"spam": 0, "not_spam": 0, "failed": 0} for name in TYPES}
    rows, failures = [], []
    for number in range(first, first + count - failed):
        kind = chance.choice(list(TYPES))
        is_spam = chance.random() < TYPES[kind]
        (by,) = chance.choices([name for name, _ in MODELS], [weight for _, weight in MODELS])
        seconds = 0.002 if by == "rules" else round(0.4 + chance.expovariate(1.2), 3)
        by_type[kind]["spam" if is_spam else "not_spam"] += 1
        rows.append(
            {
                "item_id": str(1000 + number),
                "content_type": kind,
                "content_hash": f"{number:064x}",
                "is_spam": is_spam,
                "confidence": round(1 - abs(chance.gauss(0, 0.16)) % 0.95, 3),
                "by": by,
                "indicators": chance.sample(INDICATORS, 2) if is_spam else [],
                "seconds": seconds,
            }
        )
    for number in range(first + count - failed, first + count):
        by_type["job"]["failed"] += 1
        failures.append(
            {
                "item_id": str(1000 + number),
                "content_type": "job",
                "content_hash": f"{number:064x}",
                "reason": "the model gave no answer that fits, three times",
            }
        )
    spam = sum(row["is_spam"] for row in rows)
    return {
        "workflow_id": "check-1", "status": "COMPLETED", "rounds": 2, "checked": len(rows), "spam": spam,
        "not_spam": len(rows) - spam, "failed": failed, "superseded": 0, "left": 0,
        "classify_seconds": round(sum(row["seconds"] for row in rows) / 4, 3), "by_type": by_type, "verdicts": rows,
        "failures": failures,
    }  # fmt: skip


def decisions(ledger: Ledger, at: datetime, *, every: int = 7) -> str:
    """A CSV file of moderators, who decided on some items: not always as the machine did."""
    chance = random.Random(9)
    lines = ["item_id,decision,decided_at"]
    with ledger.transaction() as db:
        rows = db.execute("SELECT item_id, is_spam FROM verdicts WHERE is_spam IS NOT NULL ORDER BY rowid").fetchall()
    for row in rows[::every]:
        wrong = chance.random() < (0.06 if row["is_spam"] else 0.02)
        lines.append(f"{row['item_id']},{'spam' if bool(row['is_spam']) != wrong else 'not_spam'},{at.date()}")
    return "\n".join(lines) + "\n"
