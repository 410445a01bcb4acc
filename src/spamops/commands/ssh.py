"""`spamops ssh`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from .. import settings
from . import asleep
from .base import Commands

EXPLAINED = """Becomes OpenSSH's client, with ssh_host, ssh_user, ssh_port, ssh_key_file and ssh_known_hosts of the settings. A
server that is not ACTIVE is told of at once. What stands behind -- is run there, as in: spamops ssh -- systemctl --failed

exit codes: those of ssh (255: no connection, otherwise the command's), and before it starts
    2  faulty settings or arguments, such as no ssh_host
    4  the server is not ACTIVE"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("ssh", "log in to the server, or run a command on it", _ssh, explain=EXPLAINED)
    parser.add_argument("words", nargs="*", metavar="COMMAND", help="what to run there; without, a shell")


def _ssh(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    target = asleep.target_of(chosen)
    client = target.client()
    asleep.require_active(chosen)
    # As the shell here took the words apart, the shell there gets them.
    command = [" ".join(map(shlex.quote, options.words))] if len(options.words) > 1 else options.words
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(client, [client, *target.arguments(by_hand=sys.stdin.isatty()), *command])  # noqa: S606 - never returns
