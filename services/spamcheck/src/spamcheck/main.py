"""What both programs do alike: the command line, settings, signals and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from . import logs
from .settings import Settings, load

_log = logging.getLogger(__name__)

_EPILOG = """\
Settings come from environment variables and, for keys, from files in CREDENTIALS_DIRECTORY (systemd) or
SPAMCHECK_SECRETS_DIR; the environment wins over files. API_KEY and PAYLOAD_KEY are needed; every other setting has a
default (docs/settings.md lists them all).

exit codes:
  0  ended by SIGTERM or SIGINT
  1  ended by an error; the log on stderr says where
  2  not started: {cannot_start}, or an unknown argument; stderr says which and what to do
"""


class CannotStart(Exception):
    """The program cannot begin its work. The message says why and what to do."""


def run(program: str, description: str, cannot_start: str, work: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> int:
    """Run `work(settings, stop)` until it ends; `stop` is set by SIGTERM and SIGINT. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=_EPILOG.format(cannot_start=cannot_start),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('spamcheck')}")
    parser.parse_args()
    try:
        settings = load()
        logs.configure(settings.log_level)
        asyncio.run(_until_signalled(settings, work))
    except CannotStart as error:
        print(error, file=sys.stderr)  # noqa: T201 -- before there is a log
        return 2
    except Exception as error:  # noqa: BLE001 -- the last resort: a line in the log and an exit code
        _log.exception("%s failed: %s", program, type(error).__name__)
        return 1
    return 0


async def _until_signalled(settings: Settings, work: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(settings, stop)
