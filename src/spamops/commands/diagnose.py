"""`spamops diagnose`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from .. import diagnose, settings
from ..errors import ExitCode, SettingsError
from . import asleep
from .base import Commands

EXPLAINED = """Collects over SSH what the server tells of itself (units, journal of this boot, GPU, memory, disk, Ollama,
Temporal, sockets, versions) into one .tar.gz that only you can read. Secrets, texts of items, e-mail addresses and public IP
addresses are removed; look at it before you give it to others all the same. It changes nothing on the server, and does not
wake it. A run that fails collects by itself, before the server is shelved, when ssh_host is set.

exit codes:
    0  the bundle is written
    1  it could not be written
    2  faulty settings or arguments, such as no ssh_host
    4  the server is not ACTIVE, or cannot be logged in to"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add(
        "diagnose",
        "collect what the server tells of itself into one file, without secrets",
        _diagnose,
        explain=EXPLAINED,
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the file goes (default: the current folder)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="limit for all of it (default: 60)")


def _diagnose(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    target = asleep.target_of(chosen)
    if not 1 <= options.seconds <= 3600:
        raise SettingsError("--seconds must be between 1 and 3600")
    asleep.require_active(chosen)
    path = diagnose.collect(
        diagnose.Plan(target, chosen.secrets, options.seconds),
        (options.output or Path()).expanduser().absolute(),
        diagnose.bundle_name(None, datetime.now(UTC)),
        {"by": "hand"},
    )
    print(json.dumps({"bundle": str(path)}) if options.json else path)
    print("spamops: look at it before you give it to others", file=sys.stderr)
    return int(ExitCode.DONE)
