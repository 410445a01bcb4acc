"""Growth: seconds and peak memory with the rules, for 100, 1,000 and 10,000 items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import setup

SIZES = (100, 1_000, 10_000)
MEMORY_GROWTH = 1.2
TIME_GROWTH = 1.25
"""Per item, 10,000 against 1,000: time counts as linear up to this factor."""


def measure() -> dict[str, Any]:
    """One check a size, each with processes of its own."""
    sizes = []
    for size in SIZES:
        with setup.world(size, {}) as made:
            report = setup.check(made)
            pids = made.checker.pids
            sizes.append(
                {
                    "items": report["checked"],
                    "failed": report["failed"],
                    "seconds": round(setup.workflow_seconds(report), 2),
                    "worker_mib": peak_mib(pids["worker"]),
                    "api_mib": peak_mib(pids["api"]),
                }
            )
    small, middle, large = sizes
    return {
        "sizes": sizes,
        "seconds_per_item_growth": round(
            (large["seconds"] / large["items"]) / (middle["seconds"] / middle["items"]), 3
        ),
        "worker_memory_growth": round(large["worker_mib"] / small["worker_mib"], 3),
        "api_memory_growth": round(large["api_mib"] / small["api_mib"], 3),
    }


def peak_mib(pid: int) -> float:
    """Peak resident memory of a living process, in MiB (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise SystemExit(f"bench: no peak memory of process {pid}")


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, figure, limit."""
    lines = [
        (
            f"{size['items']:,} items with the rules",
            f"{size['seconds']} s, worker {size['worker_mib']} MiB, API {size['api_mib']} MiB",
            "",
        )
        for size in result["sizes"]
    ]
    return [
        *lines,
        ("seconds per item, 10,000 against 1,000", f"× {result['seconds_per_item_growth']}", f"≤ × {TIME_GROWTH}"),
        (
            "peak memory of the worker, 10,000 against 100",
            f"× {result['worker_memory_growth']}",
            f"≤ × {MEMORY_GROWTH}",
        ),
        ("peak memory of the API, 10,000 against 100", f"× {result['api_memory_growth']}", f"≤ × {MEMORY_GROWTH}"),
    ]


def passed(result: dict[str, Any]) -> bool:
    """Whether the limits hold."""
    memory = max(result["worker_memory_growth"], result["api_memory_growth"])
    return bool(memory <= MEMORY_GROWTH and result["seconds_per_item_growth"] <= TIME_GROWTH)
