"""`spamops metrics`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from .. import settings, textfile
from ..errors import ExitCode, SettingsError
from ..ledger import Ledger
from .base import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("metrics", "show the metrics for Prometheus, computed from the history", _metrics)
    parser.add_argument(
        "--write", action="store_true", help="write them to metrics_textfile, as runs and the reaper do"
    )


def _metrics(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    ledger, now = Ledger(chosen.state_dir), datetime.now(UTC)
    if options.write:
        if chosen.metrics_textfile is None:
            raise SettingsError("metrics_textfile is not set")
        written = textfile.write(chosen.metrics_textfile, ledger, chosen.server, chosen.budget, now)
        if options.json:
            print(json.dumps({"file": str(chosen.metrics_textfile), "written": written}))
        if not written:
            print(f"spamops: {chosen.metrics_textfile} could not be written", file=sys.stderr)
        return int(ExitCode.DONE if written else ExitCode.HISTORY_NOT_WRITTEN)
    text = textfile.render(ledger, chosen.server, chosen.budget, now).decode()
    print(json.dumps({"metrics": text}) if options.json else text, end="\n" if options.json else "")
    return int(ExitCode.DONE)
