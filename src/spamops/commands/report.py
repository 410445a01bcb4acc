"""`spamops report`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import private_file, settings
from ..errors import ExitCode, SettingsError
from ..ledger import Ledger
from .base import Commands

EXPLAINED = """One HTML file that needs no network: items, verdicts, confidence, cost, runs with their verdicts, and how often
moderators disagreed. It holds ids and verdicts, no texts. Only its owner may read it unless --mode says otherwise.

Settings that it reads: state_dir, service_units_per_hour, moderation_url. It needs no key and no credential."""
DEFAULT = Path("spamops-report.html")


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    report = commands.add(
        "report", "write what happened in the last 7 and 30 days as a page", _report, explain=EXPLAINED
    )
    report.add_argument(
        "--output", type=Path, default=DEFAULT, metavar="FILE", help=f"where to; - for stdout (default: {DEFAULT})"
    )
    report.add_argument("--mode", type=_mode, default=0o600, help="permissions of the file, in octal (default: 0600)")


def _report(options: argparse.Namespace) -> int:
    from .. import report

    chosen = settings.looking_back(options.config)
    to_stdout = str(options.output) == "-"
    if to_stdout and options.json:
        raise SettingsError("--json tells of a file; name it with --output")
    figures = report.compute(Ledger(chosen.state_dir), datetime.now(UTC), chosen.service_units_per_hour)
    page = report.render(figures, chosen.moderation_url).encode()
    if to_stdout:
        sys.stdout.buffer.write(page)
        return int(ExitCode.DONE)
    with private_file.written(options.output, options.mode) as file:
        file.write(page)
    path = options.output.absolute()
    verdicts = sum(map(len, figures.details.values()))
    if options.json:
        print(json.dumps({"file": str(path), "bytes": len(page), "runs": len(figures.runs), "verdicts": verdicts}))
    else:
        print(f"{path}: {len(figures.runs)} runs, {verdicts} verdicts")
    return int(ExitCode.DONE)


def _mode(text: str) -> int:
    """Permissions that keep the file the owner's to read and write."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777 or mode & 0o600 != 0o600 or mode & 0o022:
        raise argparse.ArgumentTypeError(f"{text!r} is no mode such as 0600, 0640 or 0644")
    return mode
