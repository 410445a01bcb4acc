"""`spamops doctor`."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.text import Text

from ..errors import ExitCode, SettingsError
from .base import Commands

EXPLAINED = """Looks at everything that a run needs, side by side: settings, secrets, the cloud's credential and what it may do, the
server, quota, clocks, the checker with its worker, Temporal and models (where the server is on), the site, SSH, the history,
alarms, the budget, the timer and who is told. It wakes nothing, changes nothing and costs nothing. Each line says ok, warn, fail or
skipped, and what to do.

exit codes:
    0  all is well, or there are warnings alone
    1  something unexpected: a defect, please report it
    2  faulty arguments
   11  something failed: a run would fail, or money burns"""

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("doctor", "look whether all that a run needs is as it should be", _doctor, explain=EXPLAINED)
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="limit for all of it (default: 20); what hangs is told"
    )


def _doctor(options: argparse.Namespace) -> int:
    from ..doctor import Level, examine, runner  # late: the cloud's and the notifiers' packages take a while

    if not 1 <= options.seconds <= 600:
        raise SettingsError("--seconds must be between 1 and 600")
    findings = examine(options.config, options.seconds)
    worst = runner.worst(findings)
    code = ExitCode.NOT_READY if worst is Level.FAIL else ExitCode.DONE
    if options.json:
        rows = [{"name": f.name, "level": str(f.level), "text": f.text, "advice": f.advice} for f in findings]
        print(json.dumps({"level": str(worst), "exit_code": int(code), "findings": rows}))
        return int(code)
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        first, *more = finding.text.splitlines()
        line = Text(f"{finding.level:<8}", style=STYLES[finding.level])
        console.print(line.append(f"{finding.name:<{width}}  {first}", style="default"))
        for text in [*more, *([f"→ {finding.advice}"] if finding.advice else [])]:
            console.print(Text(" " * (width + 10) + text.strip()))
    return int(code)
