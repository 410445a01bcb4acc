"""`spamcheck`: what is done to the checker beside running it. One command so far: `spamcheck watchdog`."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version

from . import watchdog

_EPILOG = """\
exit codes:
  0  done
  1  unexpected: a defect, please report it
  2  an unknown argument, or faulty settings; stderr says which
  3  the server is idle, but could not be shelved; the next pass tries again
"""


def main() -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="spamcheck",
        description="The checker's own housekeeping. The checker itself is spamcheck-api and spamcheck-worker.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('spamcheck')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "watchdog",
        help="look once whether this server is idle, and shelve it when it has been for long enough",
        description="One pass; a timer runs it every minute. Settings come from the environment and credential files.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.parse_args()
    return watchdog.main()


if __name__ == "__main__":
    sys.exit(main())
