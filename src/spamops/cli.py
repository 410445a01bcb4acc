"""The command line. stdout is for results (`--json` for machines), stderr for progress and errors."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback

from . import __version__, commands
from .commands.base import Commands, Work, exit_codes
from .errors import ExitCode, SpamopsError


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    os.umask(0o077)  # which items were judged spam is nobody else's business
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    command: Work = options.command
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
    parser = argparse.ArgumentParser(
        prog="spamops",
        description="Run an LLM spam checker on an OpenStack server that stays shelved until there is work.",
        epilog=exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spamops {__version__}")
    added = Commands(parser.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    for command in commands.ALL:
        command.add_to(added)

    from .sandbox import commands as sandbox  # late: its packages are an extra

    sandbox.add_to(added.subparsers)
    return parser
