"""Name the processes that a run of this checkout left behind: one a line, and exit code 1 when there are any.

They are those that run from the checkout's .venv, other than this one and those it runs under.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv"


def left_running() -> list[str]:
    """Process id and command line of each."""
    own = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.pid not in own and any(word.startswith(f"{ENVIRONMENT}/") for word in words[:2]):
            found.append(f"{process.pid} {' '.join(words)}")
    return found


if __name__ == "__main__":
    found = left_running()
    print("\n".join(found))  # noqa: T201
    sys.exit(1 if found else 0)
