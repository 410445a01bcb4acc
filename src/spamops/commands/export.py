"""`spamops export`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import export, private_file, settings
from ..errors import ExitCode, SettingsError
from ..ledger import Ledger
from .base import Commands, positive

EXPLAINED = """In CSV, text that a spreadsheet would take for a formula gets an apostrophe in front; JSON and Parquet hold it as
it is. Parquet needs the package pyarrow: pip install 'spamops[parquet]'. A file is readable by its owner alone."""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("export", "write runs, verdicts and decisions as a table", _export, explain=EXPLAINED)
    parser.add_argument("--format", choices=export.FORMATS, default="json", help="default: json")
    parser.add_argument(
        "--table", choices=tuple(export.TABLES), help="which one (default: verdicts; with --format json all of them)"
    )
    parser.add_argument("--days", type=positive, metavar="N", help="only of runs that began in the last N days")
    parser.add_argument("--output", metavar="FILE", default="-", help="where to (default: stdout)")


def _export(options: argparse.Namespace) -> int:
    ledger, now = Ledger(settings.looking_back(options.config).state_dir), datetime.now(UTC)
    tables = [options.table] if options.table else list(export.TABLES) if options.format == "json" else ["verdicts"]
    days = None if options.days is None else min(options.days, 36500)
    if options.output == "-":
        if options.json:
            raise SettingsError("--json tells of a file; name it with --output")
        if options.format == "parquet" and sys.stdout.isatty():
            raise SettingsError("Parquet is nothing for a terminal: name a file with --output")
        export.write(ledger, sys.stdout.buffer, options.format, tables, now, days)
        sys.stdout.buffer.flush()
        return int(ExitCode.DONE)
    path = Path(options.output)
    with private_file.written(path) as file:
        rows = export.write(ledger, file, options.format, tables, now, days)
    if options.json:
        print(json.dumps({"file": str(path.absolute()), "rows": rows}))
    else:
        print(f"{path.absolute()}: " + ", ".join(f"{count} {table}" for table, count in rows.items()))
    return int(ExitCode.DONE)
