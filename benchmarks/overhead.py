"""Overhead: paid seconds that are not classification, per run; beside it a plain client that polls every 5 s."""

from __future__ import annotations

import statistics
import time
from typing import Any

import openstack

from spamops import cycle, settings
from spamops.sandbox.world import World

from . import setup

ITEMS = 40
RUNS = 3
POLL_SECONDS = 5.0
"""What the site's own command does: /ok and /status every 5 s."""
LIMIT_SECONDS = 1.0


def measure() -> dict[str, Any]:
    """Both clients in turn, RUNS times."""
    ours, plain = [], []
    with setup.model_stand_in() as checker, setup.world(ITEMS, checker) as made:
        for number in range(RUNS):
            if number:
                made.site.seed(count=ITEMS, seed=100 + number)
            ours.append(_ours(made))
            made.site.seed(count=ITEMS, seed=200 + number)
            plain.append(_plain(made))
    return {
        "items": ITEMS,
        "overhead_seconds": round(statistics.median(ours), 3),
        "overhead_seconds_each": ours,
        "limit_seconds": LIMIT_SECONDS,
        "plain_client_overhead_seconds": round(statistics.median(plain), 3),
        "plain_client_overhead_seconds_each": plain,
        "ratio": round(statistics.median(plain) / statistics.median(ours), 1),
    }


def _ours(made: World) -> float:
    paid = made.cloud.active_seconds(made.server_id)
    summary = cycle.run(settings.load(made.config, environ={}))
    if summary.exit_code or summary.checked != ITEMS:
        raise SystemExit(f"bench: the run ended {summary.outcome}: {summary.reason}; {summary.checked} checked")
    return _overhead(made.cloud.active_seconds(made.server_id) - paid, summary.classify_seconds or 0.0)


def _plain(made: World) -> float:
    paid = made.cloud.active_seconds(made.server_id)
    cloud = openstack.connect(
        auth_type="v3applicationcredential",
        auth={
            "auth_url": made.cloud.auth_url,
            "application_credential_id": made.cloud.application_credential_id,
            "application_credential_secret": made.cloud.application_credential_secret,
        },
    )
    server = cloud.compute.get_server(made.server_id)
    cloud.compute.unshelve_server(server)
    cloud.compute.wait_for_server(server, status="ACTIVE")
    with setup.client(made) as http:
        while http.get("/ok").status_code != 200:
            time.sleep(POLL_SECONDS)
        workflow_id = http.post("/process-comses-spam").json()["workflow_id"]
        while http.get("/status", params={"workflow_id": workflow_id}).json()["status"] != "COMPLETED":
            time.sleep(POLL_SECONDS)
        report = http.get("/report", params={"workflow_id": workflow_id}).json()
    cloud.compute.shelve_server(server)
    cloud.compute.wait_for_server(server, status="SHELVED_OFFLOADED")
    return _overhead(made.cloud.active_seconds(made.server_id) - paid, report["classify_seconds"])


def _overhead(paid: float, classified: float) -> float:
    return round(paid - classified, 3)


def rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Lines of the table: what, figure, limit."""
    return [
        (f"overhead of `spamops run`, {ITEMS} items (median of {RUNS})", f"{result['overhead_seconds']} s", "≤ 1.0 s"),
        ("overhead of a plain client, polling every 5 s", f"{result['plain_client_overhead_seconds']} s", ""),
    ]


def passed(result: dict[str, Any]) -> bool:
    """Whether the limit holds."""
    return bool(result["overhead_seconds"] <= LIMIT_SECONDS)
