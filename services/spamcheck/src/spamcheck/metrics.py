"""What Prometheus may know: counts, seconds and states. No ids, texts, names or addresses in labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .journal import JOURNAL_FAULTS, Journal

_STATUSES = ("COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT")


class Metrics:
    """The API's registry."""

    def __init__(self, journal: Journal) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "spamcheck_api_requests", "Requests answered", ("route", "status"), registry=self.registry
        )
        self.up: dict[str, bool] = {}
        ProcessCollector(registry=self.registry)
        self.registry.register(_FromJournal(journal, lambda: self.up))


class Counted:
    """ASGI middleware that counts answers."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count by route and status."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The path of an unknown route is whatever a caller sent: not a label.
                route = getattr(scope.get("route"), "path", "other")
                self._requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)


class _FromJournal(Collector):
    """Metrics that are computed from the journal at each scrape."""

    def __init__(self, journal: Journal, up: Callable[[], Mapping[str, bool]]) -> None:
        self._journal = journal
        self._up = up

    def describe(self) -> list[Metric]:
        """Nothing in advance, so that registering does not read the journal."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of them; those of the journal only while it can be read."""
        up = GaugeMetricFamily("spamcheck_up", "Whether a part answers", labels=("part",))
        for part, answers in self._up().items():
            up.add_metric((part,), float(answers))
        yield up
        try:
            kept = [*self._totals(), *self._active(), *self._last_end()]
        except JOURNAL_FAULTS:
            return
        yield from kept

    def _last_end(self) -> Iterator[Metric]:
        last = self._journal.last_end()
        if last is not None:
            yield GaugeMetricFamily("spamcheck_last_run_end_timestamp_seconds", "When the last run ended", value=last)

    def _totals(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("spamcheck_runs_total", "Runs ended, by Temporal's status", labels=("status",))
        checked = CounterMetricFamily(
            "spamcheck_items_checked_total", "Verdicts that the site accepted", labels=("content_type", "verdict")
        )
        others = {
            name: CounterMetricFamily(f"spamcheck_items_{name}_total", text, labels=("content_type",))
            for name, text in (
                ("failed", "Items set aside"),
                ("gone", "Items whose record no longer existed"),
                ("superseded", "Items that were edited, or decided by a person, while in work"),
            )
        }
        seconds: dict[str, dict[str, float]] = {}
        ended = dict.fromkeys(_STATUSES, 0.0)
        for name, content_type, label, amount in self._journal.totals():
            if name == "runs":
                ended[label] = amount
            elif name == "checked":
                checked.add_metric((content_type, label), amount)
            elif name == "classify_seconds":
                seconds.setdefault(content_type, {})[label] = amount
            elif name in others:
                others[name].add_metric((content_type,), amount)
        for status, amount in ended.items():
            runs.add_metric((status,), amount)
        classify = SummaryMetricFamily(
            "spamcheck_classify_seconds", "Time to classify an item", labels=("content_type",)
        )
        for content_type, parts in seconds.items():
            classify.add_metric((content_type,), int(parts.get("count", 0)), parts.get("sum", 0.0))
        yield from (runs, checked, *others.values(), classify)

    def _active(self) -> Iterator[Metric]:
        run = self._journal.active()
        counts = None if run is None else self._journal.counts(run.workflow_id)
        yield GaugeMetricFamily("spamcheck_run_active", "Whether a run is active", value=float(run is not None))
        yield GaugeMetricFamily(
            "spamcheck_queue_items",
            "Items found, but not begun, in the active run",
            value=counts.waiting if counts else 0,
        )
        yield GaugeMetricFamily(
            "spamcheck_items_in_progress", "Items in work in the active run", value=counts.in_progress if counts else 0
        )
