"""`spamops history`."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console

from .. import render, settings
from ..ledger import Ledger
from .base import Commands, positive


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    history = commands.add("history", "list the runs, newest first", _history)
    history.add_argument("--limit", type=positive, default=20, metavar="N", help="how many (default: 20)")


def _history(options: argparse.Namespace) -> int:
    runs = Ledger(settings.state_dir_of(options.config)).runs(options.limit)
    if options.json:
        print(json.dumps(runs))
    elif runs:
        render.history(runs, Console())
    else:
        print("no run yet", file=sys.stderr)
    return 0
