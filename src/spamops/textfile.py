"""What Prometheus may know of the runs: a file for the textfile collector of node_exporter, which reads it whole at each
scrape. Times are timestamps, not ages, so that the file stays true while nobody writes it. No ids of items, no texts."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__, budget
from .alarms import STATE_MARK, Kind
from .budget import Budget
from .errors import ExitCode, LedgerError
from .ledger import Ledger

log = logging.getLogger(__name__)

STATES = (
    "ACTIVE", "SHELVED", "SHELVED_OFFLOADED", "BUILD", "REBOOT", "SHUTOFF", "PAUSED", "SUSPENDED", "ERROR", "DELETED", "other",
    "unknown",
)  # fmt: skip
"""Nova's statuses that a run meets; a closed list, so that the number of series has an end."""
STEPS = ("wake", "ready", "check", "report", "shelve")
OUTCOMES = tuple(code.name.lower() for code in ExitCode)
CONTENT_TYPES_AT_MOST = 30
BEGINNING = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def write(path: Path, ledger: Ledger, server: str, plan: Budget, at: datetime) -> bool:
    """Write the file anew, at once and readable by all, whatever the umask; whether that went well. Raises nothing."""
    try:
        text = render(ledger, server, plan, at)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except (OSError, LedgerError) as error:
        log.warning("the metrics %s could not be written: %s", path, error)
        return False
    return True


def render(ledger: Ledger, server: str, plan: Budget, at: datetime) -> bytes:
    """The metrics as Prometheus reads them.

    Raises LedgerError.
    """
    registry = CollectorRegistry()
    registry.register(_FromLedger(ledger, server, plan, at))
    return generate_latest(registry)


class _FromLedger(Collector):
    """Metrics that are computed from the history."""

    def __init__(self, ledger: Ledger, server: str, plan: Budget, at: datetime) -> None:
        self._ledger = ledger
        self._server = server
        self._plan = plan
        self._at = at

    def describe(self) -> list[Metric]:
        """Nothing in advance, so that registering does not read the history."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        runs = self._ledger.runs_since([self._server], BEGINNING)
        ended = [run for run in runs if run["ended_at"] is not None]
        build = GaugeMetricFamily("spamops_build_info", "The version that wrote this", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build
        yield _gauge("written_timestamp_seconds", "When this was written", self._at.timestamp())
        yield from _totals(ended)
        checks = [run for run in ended if run["started_by"] != "reap"]
        if checks:
            yield from _last_run(checks)
        yield from self._state()
        yield from self._alarms()
        yield from self._budget(runs)

    def _state(self) -> Iterator[Metric]:
        seen = self._ledger.marked(self._server, STATE_MARK)
        now = "unknown" if seen is None else seen[1] if seen[1] in STATES else "other"
        state = GaugeMetricFamily(
            "spamops_server_state", "Nova's status when the server was last seen", labels=("state",)
        )
        for name in STATES:
            state.add_metric((name.lower(),), float(name == now))
        yield state
        if seen is not None:
            yield _gauge("server_seen_timestamp_seconds", "When the server was last seen", seen[0].timestamp())

    def _alarms(self) -> Iterator[Metric]:
        kinds = {row["kind"] for row in self._ledger.open_alarms(self._server)}
        alarms = GaugeMetricFamily("spamops_alarm_open", "Whether an alarm is open", labels=("kind",))
        for kind in Kind:
            alarms.add_metric((str(kind),), float(kind in kinds))
        yield alarms

    def _budget(self, runs: list[dict[str, Any]]) -> Iterator[Metric]:
        periods = budget.left(self._plan, runs, self._at)
        if not periods:
            return
        limit = GaugeMetricFamily(
            "spamops_budget_limit_service_units", "Service units that a period (UTC) may cost", labels=("period",)
        )
        left = GaugeMetricFamily(
            "spamops_budget_left_service_units", "Service units left in this period", labels=("period",)
        )
        for this in periods:
            limit.add_metric((this.period,), this.limit)
            left.add_metric((this.period,), this.units)
        yield from (limit, left)


def _totals(runs: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    outcomes: Counter[str] = Counter()
    items: Counter[tuple[str, str]] = Counter()
    units, seconds = 0.0, 0.0
    for run in runs:
        outcomes[run["outcome"] or ""] += 1
        units += run["service_units"] or 0.0
        seconds += run["active_seconds"] or 0.0
        items.update(_by_type(run))
    counted = CounterMetricFamily("spamops_runs", "Runs ended, by outcome", labels=("outcome",))
    for outcome in OUTCOMES:
        counted.add_metric((outcome,), outcomes[outcome])
    verdicts = CounterMetricFamily(
        "spamops_items", "Items by what came of them: spam, not_spam, failed", labels=("content_type", "result")
    )
    kept = sorted({content_type for content_type, _ in items})[:CONTENT_TYPES_AT_MOST]
    merged: Counter[tuple[str, str]] = Counter()
    for (content_type, result), count in items.items():
        merged[(content_type if content_type in kept else "other", result)] += count
    for labels, count in sorted(merged.items()):
        verdicts.add_metric(labels, count)
    yield from (counted, verdicts)
    yield CounterMetricFamily("spamops_service_units", "Service units that runs cost", value=units)
    yield CounterMetricFamily("spamops_server_active_seconds", "Seconds in runs that the cloud billed", value=seconds)


def _by_type(run: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Counts by type and result; a run without types (no report) counts as of an unknown one."""
    by_type = run.get("by_type") or {"unknown": {name: run[name] or 0 for name in ("spam", "not_spam", "failed")}}
    return {
        (re.sub(r"[^A-Za-z0-9_.-]", "_", str(content_type))[:40] or "unknown", name): int(counts.get(name) or 0)
        for content_type, counts in by_type.items()
        for name in ("spam", "not_spam", "failed")
    }


def _last_run(runs: list[dict[str, Any]]) -> Iterator[Metric]:
    last = runs[-1]
    yield _gauge("last_run_start_timestamp_seconds", "When the last run that ended began", _stamp(last["started_at"]))
    yield _gauge("last_run_end_timestamp_seconds", "When the last run ended", _stamp(last["ended_at"]))
    successes = [run for run in runs if run["exit_code"] in (ExitCode.DONE, ExitCode.ITEMS_FAILED)]
    if successes:
        stamp = _stamp(successes[-1]["ended_at"])
        yield _gauge("last_success_timestamp_seconds", "When the last run ended that was done", stamp)
    outcome = GaugeMetricFamily("spamops_last_run_outcome", "How the last run ended", labels=("outcome",))
    for name in OUTCOMES:
        outcome.add_metric((name,), float(name == last["outcome"]))
    yield outcome
    steps = GaugeMetricFamily("spamops_last_run_step_duration_seconds", "What each step took", labels=("step",))
    for name in STEPS:
        if name in (last.get("steps") or {}):
            steps.add_metric((name,), last["steps"][name])
    yield steps
    items = GaugeMetricFamily(
        "spamops_last_run_items", "Items of the last run, by what came of them", labels=("result",)
    )
    for name in ("spam", "not_spam", "failed", "superseded"):
        items.add_metric((name,), last.get(name) or 0)
    yield items
    if last["service_units"] is not None:
        yield _gauge("last_run_service_units", "Service units that the last run cost", last["service_units"])


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"spamops_{name}", text, value=value)


def _stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
