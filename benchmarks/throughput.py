"""Throughput with a model that takes 1 s an item and serves 8 at once."""

from __future__ import annotations

from typing import Any

from . import setup

ITEMS = 400
LEAST_SHARE = 0.9


def measure() -> dict[str, Any]:
    """One check of ITEMS items."""
    with setup.model_stand_in() as checker, setup.world(ITEMS, checker) as made:
        report = setup.check(made)
    seconds = setup.workflow_seconds(report)
    by_model = sum(verdict["by"] != "rules" for verdict in report["verdicts"])
    best = setup.SERVED_AT_ONCE / setup.SECONDS_AN_ITEM
    return {
        "items": report["checked"],
        "items_by_the_model": by_model,
        "seconds": round(seconds, 2),
        "items_per_second": round(by_model / seconds, 2),
        "best_items_per_second": best,
        "share_of_best": round(by_model / seconds / best, 3),
        "least_share": LEAST_SHARE,
    }


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, figure, limit."""
    told = f"{result['items_per_second']} items/s, {result['share_of_best']:.1%} of {result['best_items_per_second']:g}"
    return [(f"throughput, {result['items_by_the_model']} items", told, "≥ 90 %")]


def passed(result: dict[str, Any]) -> bool:
    """Whether the limit holds."""
    return bool(result["share_of_best"] >= LEAST_SHARE)
