"""The report: seconds of `spamops report`, start of Python included, with 10,000 verdicts over 60 runs in the history."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS, VERDICTS = 60, 10_000
SECONDS = 3.0
TIMES = 3


def measure() -> dict[str, Any]:
    """Fill a history, write the report a few times; the best time is the program's, the others have the machine's noise."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from long_history import decisions, long_history

    from spamops import feedback

    with tempfile.TemporaryDirectory(prefix="spamops-bench-") as folder:
        now = datetime.now(UTC)
        ledger = long_history(Path(folder), now, runs=RUNS, verdicts=VERDICTS)
        feedback.store(ledger, feedback.read(io.BytesIO(decisions(ledger, now).encode()), now), now)
        page = Path(folder) / "report.html"
        command = [str(Path(sys.executable).with_name("spamops")), "report", "--output", str(page)]
        seconds = []
        for _ in range(TIMES):
            started = time.monotonic()
            subprocess.run(
                command, env=os.environ | {"SPAMOPS_STATE_DIR": folder}, check=True, stdout=subprocess.DEVNULL
            )
            seconds.append(round(time.monotonic() - started, 2))
        size = page.stat().st_size
    return {"runs": RUNS, "verdicts": VERDICTS, "seconds": min(seconds), "all_seconds": seconds, "bytes": size}


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, figure, limit."""
    what = f"report of {result['verdicts']:,} verdicts over {result['runs']} runs, {result['bytes'] / 1e6:.2f} MB"
    return [(what, f"{result['seconds']} s", f"≤ {SECONDS:g} s")]


def passed(result: dict[str, Any]) -> bool:
    """Whether the limit holds."""
    return bool(result["seconds"] <= SECONDS)
