"""What both programs do alike: the command line, settings, signals and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version

from . import logs
from .journal import JournalError
from .settings import Settings, SettingsError, load

_log = logging.getLogger(__name__)

Work = Callable[[Settings, asyncio.Event], Awaitable[None]]
"""Runs until the event is set."""

_M_ARENA_MAX = -8  # glibc's malloc.h
ARENAS = 2
"""glibc gives every few threads a heap of their own, and each keeps what a long text once took: with 10,000 items the worker's
peak was 21 % above that of 100 items, with two heaps 11 %."""

_EPILOG = """\
Settings come from environment variables and from files in the folder CREDENTIALS_DIRECTORY (systemd sets it) or
SPAMCHECK_SECRETS_DIR; the environment wins over files. API_KEY and PAYLOAD_KEY are needed, every other setting has a
default.

exit codes:
  0  ended by SIGTERM or SIGINT
  1  ended by an error; the log on stderr says where
  2  not started: an unknown argument, faulty settings, a journal or an address that cannot be used; stderr says which
"""


def run(program: str, description: str, work: Work, *refusals: type[Exception]) -> int:
    """Parse the command line, then work until SIGTERM or SIGINT. Returns the exit code.

    `refusals` are told in their own words, with exit code 2, beside faulty settings and an unusable journal.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('spamcheck')}")
    parser.parse_args()
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call, and no such habit
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
    told: tuple[type[Exception], ...] = (SettingsError, JournalError, *refusals)
    try:
        settings = load()
        logs.configure(settings.log_level)
        asyncio.run(_until_signalled(settings, work))
    except told as error:
        print(error, file=sys.stderr)  # noqa: T201 -- before there is a log
        return 2
    except Exception as error:  # noqa: BLE001 -- the last resort: a line in the log and an exit code
        _log.exception("%s failed: %s", program, type(error).__name__)
        return 1
    return 0


async def _until_signalled(settings: Settings, work: Work) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(settings, stop)
