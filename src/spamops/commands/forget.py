"""`spamops forget`."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime

from .. import retention, settings
from ..errors import ExitCode, SettingsError
from ..ledger import Ledger
from .base import Commands

EXPLAINED = """Deletes at once and for good. What else may hold the item: reports and exports that were written before, backups of
the history, and the checker's journal on the server (it keeps a run for journal_days)."""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add(
        "forget",
        "delete all that the history holds about an item, or verdicts that are too old",
        _forget,
        explain=EXPLAINED,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("item", nargs="?", metavar="ITEM", help="the item's id, as in: spamops show RUN")
    what.add_argument(
        "--expired", action="store_true", help="verdicts older than verdict_days; runs and the reaper do it too"
    )


def _forget(options: argparse.Namespace) -> int:
    chosen = settings.looking_back(options.config)
    ledger = Ledger(chosen.state_dir)
    if options.expired:
        if chosen.verdict_days is None:
            raise SettingsError("verdict_days is not set: verdicts are kept for good")
        gone = {"verdicts": retention.expire(ledger, chosen.verdict_days, datetime.now(UTC))}
    else:
        gone = retention.forget(ledger, options.item)
    if options.json:
        print(json.dumps(gone))
    else:
        print("deleted: " + ", ".join(f"{count} {table}" for table, count in gone.items()))
    return int(ExitCode.DONE)
