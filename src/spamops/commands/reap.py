"""`spamops reap`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime

from .. import reap, retention, settings
from ..ledger import Ledger
from .base import Commands

EXPLAINED = """A server that is on, although no run of this controller lives and nobody did anything to it for a grace time,
is asked what it is doing. It is left alone while it works (up to reap_working_seconds), and shelved when it is idle or
cannot be reached. For a timer: look often, it costs two calls to the cloud.

exit codes:
    0  the server costs nothing, or was shelved, or is rightly on (see "action": nothing, shelved, left_alone, would_shelve)
    1  something unexpected: a defect, please report it
    2  faulty settings or arguments; nothing was touched
    4  the cloud could not be asked, or the server is in ERROR or not there
    7  THE SERVER COULD NOT BE SHELVED and costs money: see to it now
    8  the history could not be read or written"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("reap", "shelve a server that is on although nobody uses it", _reap, explain=EXPLAINED)
    parser.add_argument("--dry-run", action="store_true", help="look and tell; change nothing, raise no alarm")


def _reap(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    result = reap.reap(reap.plan_of(chosen), dry_run=options.dry_run)
    if not options.dry_run:
        retention.after_a_run(Ledger(chosen.state_dir), chosen.verdict_days, datetime.now(UTC))
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"{result.action.replace('_', ' ')}: {result.reason}")
    if result.exit_code:
        print(f"spamops: {result.reason}", file=sys.stderr)
    return result.exit_code
