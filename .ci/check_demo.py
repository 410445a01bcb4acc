"""Check the JSON that `scripts/demo --json` ends with (on stdin) against what one run has to come to.

Argument: the demo's exit code. Exit code 0 when everything holds; else 1, with a line for each fault on stderr.
"""

from __future__ import annotations

import json
import sys
from typing import Any

SCHEDULED = 250
"""Items that the demo's site has scheduled at the start."""

DONE, SOME_ITEMS_FAILED = 0, 6
"""Exit codes of `spamops run`."""


def faults_of(result: dict[str, Any], exit_code: int) -> list[str]:
    """What is wrong with the result; empty when nothing is."""
    failed = result["failed"]
    expectations = {
        "server_status_before is SHELVED_OFFLOADED": result["server_status_before"] == "SHELVED_OFFLOADED",
        "server_status_after is SHELVED_OFFLOADED": result["server_status_after"] == "SHELVED_OFFLOADED",
        "the server was ACTIVE in between": "ACTIVE" in str(result["server_states"]),
        f"scheduled_before is {SCHEDULED}": result["scheduled_before"] == SCHEDULED,
        "scheduled_after is what failed": result["scheduled_after"] == failed,
        "checked and failed are all that was scheduled": result["checked"] + failed == SCHEDULED,
        "spam and not_spam are all that was checked": result["spam"] + result["not_spam"] == result["checked"],
        "there is spam, and there is other content": result["spam"] > 0 and result["not_spam"] > 0,
        "workflow_status is COMPLETED": result["workflow_status"] == "COMPLETED",
        "exit_code tells whether items failed": result["exit_code"] == (SOME_ITEMS_FAILED if failed else DONE),
        "the demo ends with exit_code": result["exit_code"] == exit_code,
    }
    return [words for words, holds in expectations.items() if not holds]


def main() -> int:
    """Read, check, say."""
    try:
        faults = faults_of(json.loads(sys.stdin.read()), int(sys.argv[1]))
    except (ValueError, KeyError, TypeError) as error:
        faults = [f"the last line is the demo's result as JSON ({type(error).__name__}: {error})"]
    for fault in faults:
        print(f"does not hold: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
