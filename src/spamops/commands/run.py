"""`spamops run`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from rich.console import Console

from .. import cycle, progress, render, retention, settings
from ..ledger import Ledger
from .base import Commands, exit_codes, stop_printing


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    run = commands.add(
        "run", "wake the server, check everything scheduled, shelve the server", _run, explain=exit_codes()
    )
    run.add_argument("--skip-shelving-when-done", action="store_true", help="leave the server on (it costs money)")
    run.add_argument(
        "--skip-changing-instance-state",
        action="store_true",
        help="neither wake nor shelve: the server is seen to elsewhere",
    )


def _run(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    switches = cycle.Options(options.skip_shelving_when_done, options.skip_changing_instance_state)
    with progress.watcher() as watcher:
        for path in settings.readable_by_others(chosen):
            watcher.note(f"warning: {path} can be read by every user of this machine; chmod 0640 or less")
        summary = cycle.run(chosen, switches, watcher=watcher)
    retention.after_a_run(Ledger(chosen.state_dir), chosen.verdict_days, datetime.now(UTC))
    try:
        if options.json:
            print(json.dumps(summary.as_dict()), flush=True)
        else:
            render.summary(summary.as_dict(), Console())
        if summary.reason:
            print(f"spamops: {summary.reason}", file=sys.stderr)
    except OSError:
        stop_printing()
    return summary.exit_code
