"""`spamops status`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from .. import budget, lock, settings
from ..cloud import Server, connect
from ..errors import CloudError
from ..ledger import Ledger
from .base import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    commands.add("status", "show the server's state, the lock, the last run, open alarms and the budget", _status)


def _status(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    ledger, now = Ledger(chosen.state_dir), datetime.now(UTC)
    runs = ledger.runs(limit=1)
    alarms = ledger.open_alarms(chosen.server)
    left = budget.left(chosen.budget, ledger.runs_since([chosen.server], budget.month_of(now)[0]), now)
    holder = lock.holder(chosen.state_dir, chosen.server)
    code, fault, state = 0, None, None
    try:
        state = Server(connect(api_timeout=chosen.api_seconds, **chosen.cloud_arguments()), chosen.server).look(
            limit=10
        )
    except CloudError as error:
        code, fault = int(error.exit_code), str(error)
    last = runs[0] if runs else None
    if options.json:
        seen = {"status": state.status, "task_state": state.task_state} if state else None
        told = {
            "server": chosen.server,
            "state": seen,
            "fault": fault,
            "lock": holder,
            "last_run": last,
            "alarms": [{name: row[name] for name in ("kind", "opened_at", "times", "text")} for row in alarms],
            "budget": {this.period: {"limit": this.limit, "spent": this.spent, "left": this.units} for this in left},
        }
        print(json.dumps(told))
    else:
        console = Console()
        console.print(Text(f"server    {chosen.server}: {state or fault}"))
        held = (
            "free" if holder is None else f"held by process {holder.get('pid', '?')} since {holder.get('since', '?')}"
        )
        console.print(Text(f"lock      {held}"))
        ran = "none" if last is None else f"{last['id']}, {last['started_at'][:19]}: {last['outcome'] or 'not ended'}"
        console.print(Text(f"last run  {ran}"))
        for row in alarms:
            console.print(Text(f"alarm     {row['kind']}, since {row['opened_at'][:16]}Z: {row['text']}"))
        for this in left:
            console.print(Text(f"budget    {this.spent:.3g} of {this.limit:g} service units this {this.period} (UTC)"))
    if fault:
        print(f"spamops: {fault}", file=sys.stderr)
    return code
