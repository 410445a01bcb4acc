"""What the commands share: how one is added to the command line, and the kinds of their arguments."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import EXIT_CODES

Work = Callable[[argparse.Namespace], int]
"""What a command does: from its options to its exit code. Raises SpamopsError, which the command line tells."""


class Commands:
    """The subcommands of one parser. Each takes --config, --json and --verbose."""

    def __init__(self, subparsers: Any) -> None:
        self.subparsers = subparsers
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="settings file (default: SPAMOPS_CONFIG, ./spamops.toml, /etc/spamops)",
        )
        self._common.add_argument("--json", action="store_true", help="one JSON object on stdout, for machines")
        self._common.add_argument("--verbose", action="store_true", help="log the libraries' work too, on stderr")

    def add(self, name: str, text: str, work: Work, *, explain: str | None = None) -> argparse.ArgumentParser:
        """A command; `text` is its one line of help, `explain` what stands below the help of its options."""
        parser: argparse.ArgumentParser = self.subparsers.add_parser(
            name,
            parents=[self._common],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=explain,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(command=work)
        return parser


def exit_codes() -> str:
    """Every exit code with its meaning, for --help."""
    return "exit codes:\n" + "\n".join(f"  {int(code):>3}  {text}" for code, text in EXIT_CODES.items())


def positive(text: str) -> int:
    """The type of an argument that is a number from 1 up."""
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return value


def stop_printing() -> None:
    """Nobody reads stdout any more (a closed pipe), or it cannot be written (a full disk): the exit code still tells how the
    work went, so neither this nor Python's own flush at the end may change it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
