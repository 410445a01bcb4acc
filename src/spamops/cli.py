"""The command line. stdout is for results (`--json` for machines), stderr for progress and errors."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from . import __version__, cycle, lock, progress, render, settings
from .cloud import Server, connect
from .errors import EXIT_CODES, CloudError, ExitCode, SettingsError, SpamopsError
from .ledger import Ledger


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    os.umask(0o077)  # which items were judged spam is nobody else's business
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
    except SpamopsError as error:
        code = int(error.exit_code)
        _tell(options, code, str(error))
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough (| head)
        sys.stderr.close()
        code = 0
    except Exception as error:  # noqa: BLE001 - a defect: told in one line, with the trace only where asked for
        code = int(ExitCode.UNEXPECTED)
        if options.verbose:
            traceback.print_exc()
        _tell(options, code, f"{type(error).__name__}: {error} (a defect; run with --verbose and report it)")
    sys.exit(code)


def _tell(options: argparse.Namespace, code: int, text: str) -> None:
    print(f"spamops: {text}", file=sys.stderr)
    if getattr(options, "json", False):
        print(json.dumps({"exit_code": code, "outcome": ExitCode(code).name.lower(), "reason": text}))


def _parser() -> argparse.ArgumentParser:
    codes = "\n".join(f"  {int(code):>3}  {text}" for code, text in EXIT_CODES.items())
    parser = argparse.ArgumentParser(
        prog="spamops",
        description="Run an LLM spam checker on an OpenStack server that stays shelved until there is work.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spamops {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file (default: SPAMOPS_CONFIG, ./spamops.toml, /etc/spamops)",
    )
    common.add_argument("--json", action="store_true", help="one JSON object on stdout, for machines")
    common.add_argument("--verbose", action="store_true", help="log the libraries' work too, on stderr")

    def add(name: str, text: str, command: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"exit codes:\n{codes}" if name == "run" else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        return sub

    run = add("run", "wake the server, check everything scheduled, shelve the server", _run)
    run.add_argument("--skip-shelving-when-done", action="store_true", help="leave the server on (it costs money)")
    run.add_argument(
        "--skip-changing-instance-state",
        action="store_true",
        help="neither wake nor shelve: the server is seen to elsewhere",
    )
    add("status", "show the server's state, the lock and the last run", _status)
    history = add("history", "list the runs, newest first", _history)
    history.add_argument("--limit", type=_positive, default=20, metavar="N", help="how many (default: 20)")
    show = add("show", "show one run with its verdicts", _show)
    show.add_argument("run", type=_positive, metavar="RUN", help="number of the run, from: spamops history")

    from .sandbox import commands as sandbox  # late: its packages are an extra

    sandbox.add_to(commands)
    return parser


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return value


def _run(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    switches = cycle.Options(options.skip_shelving_when_done, options.skip_changing_instance_state)
    with progress.watcher() as watcher:
        for path in settings.readable_by_others(chosen):
            watcher.note(f"warning: {path} can be read by every user of this machine; chmod 0640 or less")
        summary = cycle.run(chosen, switches, watcher=watcher)
    try:
        if options.json:
            print(json.dumps(summary.as_dict()), flush=True)
        else:
            render.summary(summary.as_dict(), Console())
        if summary.reason:
            print(f"spamops: {summary.reason}", file=sys.stderr)
    except OSError:
        _stop_printing()
    return summary.exit_code


def _stop_printing() -> None:
    """Nobody reads stdout any more (a closed pipe), or it cannot be written (a full disk): the exit code still tells how the
    run went, so neither this nor Python's own flush at the end may change it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


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


def _history(options: argparse.Namespace) -> int:
    runs = Ledger(settings.state_dir_of(options.config)).runs(options.limit)
    if options.json:
        print(json.dumps(runs))
    elif runs:
        render.history(runs, Console())
    else:
        print("no run yet", file=sys.stderr)
    return 0


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
