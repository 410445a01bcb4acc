"""Name the processes that a run of this checkout left behind: one a line, and exit code 1 when there are any.

They are those that run from the checkout's .venv, other than this one and those it runs under.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv"


def runs_from_here(process: psutil.Process) -> bool:
    """Whether its program, or the script that it interprets, lies in the environment."""
    try:
        words = process.cmdline()[:2]
        folder = Path(process.cwd())
    except psutil.Error:
        return False  # ended meanwhile, or another user's
    return any((folder / word).is_relative_to(ENVIRONMENT) for word in words)


def left_running() -> list[str]:
    """Process id and command line of each."""
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    return [
        f"{process.pid} {' '.join(process.info['cmdline'] or [])}"
        for process in psutil.process_iter(["cmdline"])
        if process.pid not in own and runs_from_here(process)
    ]


if __name__ == "__main__":
    found = left_running()
    print("\n".join(found))
    sys.exit(1 if found else 0)
