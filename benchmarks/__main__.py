"""Run the benches named (all by default), print a table, then one line of JSON; exit 1 when a limit does not hold."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys

from rich.console import Console
from rich.table import Table

from . import growth, hardening, overhead, report, throughput

BENCHES = {"overhead": overhead, "throughput": throughput, "growth": growth, "report": report, "hardening": hardening}
BY_NAME_ALONE = {"hardening"}
"""Needs a container engine and root, which the others do not."""


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"of {', '.join(BENCHES)}; all but hardening when none is named"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended too
    chosen = parser.parse_args().benches or [name for name in BENCHES if name not in BY_NAME_ALONE]
    for name in chosen:
        if name not in BENCHES:
            parser.error(f"there is no bench {name!r}; there are {', '.join(BENCHES)}")
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    table = Table("what", "measured", "limit", title=f"Measured with scripts/bench on {machine}", title_justify="left")
    results, ok = {}, True
    for name in chosen:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        bench = BENCHES[name]
        results[name] = result = bench.measure()
        holds = bench.passed(result)
        result["passed"] = holds
        ok = ok and holds
        for row in bench.rows(result):
            table.add_row(*row)
    Console().print(table)
    print(json.dumps({"machine": machine, **results}))
    if not ok:
        print("bench: a limit does not hold", file=sys.stderr)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
