"""`spamops logs`."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from typing import IO

from .. import settings
from ..diagnosis_sources import UNITS, journal_script
from ..errors import SettingsError, SshError
from ..text import harmless_line, one_line
from . import asleep
from .base import Commands, positive, stop_printing

EXPLAINED = """The journal of this boot over SSH, of the checker's units or of those that are named. What it says is shown
without anything that a terminal would act on. Ctrl-C ends it. With --json: one JSON object a line.

exit codes:
    0  all was shown
    2  faulty settings or arguments, such as no ssh_host
    4  the server is not ACTIVE, cannot be logged in to, or the connection broke
  130  ended by Ctrl-C"""
UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@*?\\-]{0,254}")
MOST_BYTES = 65536
"""Of a line; what is longer goes on as another one."""
CONNECTION_BROKE = 255
END_SECONDS = 10.0
"""For the client to end by itself, after it has said all."""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("logs", "show the server's journal", _logs, explain=EXPLAINED)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "-u", "--unit", action="append", type=_unit, default=[], help="only of this unit (may be given again)"
    )
    parser.add_argument(
        "-n", "--lines", type=positive, default=200, metavar="N", help="so many lines back (default: 200)"
    )
    parser.add_argument("--all", action="store_true", help="of all units")


def _unit(text: str) -> str:
    if not UNIT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a unit")
    return text


def _logs(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    target = asleep.target_of(chosen)
    client = target.client()
    if options.all and options.unit:
        raise SettingsError("--all and --unit exclude each other")
    asleep.require_active(chosen)
    units = () if options.all else tuple(options.unit) or UNITS
    script = journal_script(units, options.lines, *(["-f"] if options.follow else []))
    process = subprocess.Popen(
        [client, *target.arguments(), f"sh -c {shlex.quote(script)}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if not options.follow else None,
    )
    return _show(process, as_json=options.json)


def _show(process: subprocess.Popen[bytes], *, as_json: bool) -> int:
    stream: IO[bytes] = process.stdout  # type: ignore[assignment]  # it was asked for
    all_said = False
    try:
        while raw := stream.readline(MOST_BYTES):
            line = harmless_line(raw.decode("utf-8", "replace").rstrip("\r\n"), MOST_BYTES)
            print(json.dumps({"line": line}) if as_json else line, flush=True)
        all_said = True
    except BrokenPipeError:  # the reader has seen enough (| head)
        stop_printing()
        return 0
    finally:
        _end(process, END_SECONDS if all_said else 0.2)
    code = process.returncode
    told = one_line((process.stderr.read() if process.stderr else b"").decode("utf-8", "replace"))
    if code == CONNECTION_BROKE:
        raise SshError(f"the server cannot be logged in to, or the connection broke: {told or 'see above'}")
    if code:
        raise SshError(f"the journal could not be read (journalctl ended with {code}): {told or 'see above'}")
    if told:
        print(f"spamops: {told}", file=sys.stderr)
    return 0


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """The client ends by itself when the server said all; after Ctrl-C, or when nobody reads any more, it is ended."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
