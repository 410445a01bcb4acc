"""`spamops status`."""

from __future__ import annotations

import argparse
import json
import sys

from rich.console import Console
from rich.text import Text

from .. import lock, settings
from ..cloud import Server, connect
from ..errors import CloudError
from ..ledger import Ledger
from .base import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    commands.add("status", "show the server's state, the lock and the last run", _status)


def _status(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    runs = Ledger(chosen.state_dir).runs(limit=1)
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
        print(json.dumps({"server": chosen.server, "state": seen, "fault": fault, "lock": holder, "last_run": last}))
    else:
        console = Console()
        console.print(Text(f"server    {chosen.server}: {state or fault}"))
        held = (
            "free" if holder is None else f"held by process {holder.get('pid', '?')} since {holder.get('since', '?')}"
        )
        console.print(Text(f"lock      {held}"))
        told = "none" if last is None else f"{last['id']}, {last['started_at'][:19]}: {last['outcome'] or 'not ended'}"
        console.print(Text(f"last run  {told}"))
    if fault:
        print(f"spamops: {fault}", file=sys.stderr)
    return code
