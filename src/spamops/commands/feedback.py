"""`spamops feedback import`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import feedback, settings
from ..errors import ExitCode, SettingsError
from ..ledger import Ledger
from .base import Commands

EXPLAINED = """The first row names the columns:
  item_id (or item, id)        the item's id, as in: spamops show RUN
  decision (or status, is_spam)  spam or not_spam (or true, false, t, f, yes, no, 1, 0, ham)
  content_type (or type)       optional
  decided_at (or date)         optional: a day, or a time (UTC where it names no zone)

A decision is about the last verdict of a run that began before it. A file with one faulty row is not imported at all; a file
may be imported again. From a database: psql --csv -c 'SELECT ...' | spamops feedback import -"""


def add_to(commands: Commands) -> None:
    """Add the command, which has commands of its own, to the command line."""
    text = "take in what moderators decided"
    parser = commands.subparsers.add_parser("feedback", help=text, description=f"{text[0].upper()}{text[1:]}.")
    own = Commands(parser.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    add = own.add("import", "read moderators' decisions from a CSV file", _import, explain=EXPLAINED)
    add.add_argument("file", metavar="FILE", help="the file; - for stdin")


def _import(options: argparse.Namespace) -> int:
    ledger = Ledger(settings.looking_back(options.config).state_dir)
    now = datetime.now(UTC)
    if options.file == "-":
        decisions = feedback.read(sys.stdin.buffer, now)
    else:
        try:
            with Path(options.file).open("rb") as file:
                decisions = feedback.read(file, now)
        except OSError as error:
            raise SettingsError(f"{options.file} cannot be read: {error.strerror}") from error
    done = feedback.store(ledger, decisions, now)
    if options.json:
        print(json.dumps(done.as_dict()))
    else:
        told = f"{done.rows} decisions: {done.new} new, {done.changed} changed, {done.unchanged} known before"
        print(told + (f"; of {done.without_verdict} the history has no verdict" if done.without_verdict else ""))
    return int(ExitCode.DONE)
