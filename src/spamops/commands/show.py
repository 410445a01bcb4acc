"""`spamops show`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from .. import render, settings
from ..errors import SettingsError
from ..ledger import Ledger
from .base import Commands, positive


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    show = commands.add("show", "show one run with its verdicts", _show)
    show.add_argument("run", type=positive, metavar="RUN", help="number of the run, from: spamops history")


def _show(options: argparse.Namespace) -> int:
    ledger = Ledger(settings.state_dir_of(options.config))
    run: dict[str, Any] | None = ledger.run(options.run)
    if run is None:
        raise SettingsError(f"there is no run {options.run} in {ledger.path}; see: spamops history")
    if options.json:
        print(json.dumps(run))
    else:
        render.summary(run, Console())
        if run["verdicts"]:
            render.verdicts(run["verdicts"], Console())
    return 0
