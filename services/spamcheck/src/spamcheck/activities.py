"""The steps of a run that touch the world: reading batches, classifying, sending verdicts, keeping the journal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from .classify.base import Classifier, ClassifyError
from .inbox import Inbox
from .items import Item, Verdict
from .journal import Journal
from .logs import event, place
from .messages import SITE_DOWN, SITE_REFUSED, Judged, Outcome, Ref, Summary
from .settings import Settings
from .sources.base import ItemFaulty, ItemGone, ItemRefused, SiteFaulty, SiteRefused, SiteUnreachable, Source

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

MAX_PAUSE_SECONDS = 30.0
"""The longest pause between two tries of a site that is down."""
MISSED_SECONDS = 1.0
"""A text that is not in memory (another worker read the batch, or this one is new) is looked for again unless the batch
was read within this time: with many missing at once, one read serves all."""
_SETTLED: tuple[Outcome, ...] = ("submitted", "gone", "failed")


class Activities:
    """All activities, on one source, classifier and journal.

    Failures are ApplicationErrors whose messages are for the operator and hold no text of an item. Types in
    messages.RUN_ENDS mean that the run cannot go on; all others concern one item.
    """

    def __init__(self, source: Source, classifier: Classifier, journal: Journal, settings: Settings) -> None:
        self._source = source
        self._classifier = classifier
        self._journal = journal
        self._settings = settings
        self._inbox = Inbox(source)
        self._places = asyncio.Semaphore(settings.items_at_once)

    @property
    def all(self) -> list[Callable[..., Any]]:
        """What the worker registers."""
        return [self.read_batch, self.classify, self.submit, self.set_aside, self.close_run]

    @activity.defn
    async def read_batch(self, workflow_id: str, round_number: int) -> list[Ref]:
        """Read a batch; returns what of it is not settled in this run. Texts stay in the inbox."""
        async with _beating():
            self._journal.enter_run(workflow_id)
            if round_number == 1:
                await self._forget_old_runs()
            items = await self._patiently(self._inbox.read)
        refs = [Ref(item.id, item.content_type, item.content_hash) for item in items]
        new = self._journal.add_batch(workflow_id, round_number, refs, self._settings.item_attempts)
        event(_log, logging.INFO, "batch read", run=workflow_id, round=round_number, items=len(refs), open=len(new))
        return new

    @activity.defn
    async def classify(self, workflow_id: str, item_id: str, content_hash: str) -> Judged:
        """Judge one item, if it is still scheduled with the text that was read."""
        key = (workflow_id, item_id, content_hash)
        # Waiting for a free place costs nothing here; waiting in Temporal would leave the classifier idle.
        async with _beating(), self._places:
            state = self._journal.state(*key)
            for outcome in _SETTLED:
                if state == outcome:
                    return Judged(None, outcome)
            item = await self._patiently(lambda: self._find(item_id, content_hash))
            if item is None:
                self._journal.settle(*key, "superseded")
                return Judged(None, "superseded")
            if item.unreadable:
                text = f"its content cannot be read ({item.unreadable})"
                raise ApplicationError(text, type="ContentUnreadable", non_retryable=True)
            # A verdict may be on its way to the site from a try that was cut off: `submit` has to know.
            if state != "sending" and not self._journal.classifying(*key):
                raise _run_has_ended()
            started = time.time()
            try:
                return Judged(await self._classifier.classify(item))
            except ClassifyError as error:
                raise ApplicationError(str(error), type=type(error).__name__) from None
            except Exception as error:  # noqa: BLE001 -- whatever it is, it may quote the item
                _unexpected("the classifier", error)
            finally:
                self._journal.classified(*key, started, max(started, time.time()))

    @activity.defn
    async def submit(self, workflow_id: str, item_id: str, content_hash: str, verdict: Verdict) -> Outcome:
        """Send one verdict, unless the text it is about is no longer scheduled or the site has it already."""
        async with _beating():
            return await self._patiently(lambda: self._submit(workflow_id, item_id, content_hash, verdict))

    @activity.defn
    async def set_aside(self, workflow_id: str, item_id: str, content_hash: str, reason: str) -> None:
        """Enter that an item failed, and why."""
        self._journal.settle(workflow_id, item_id, content_hash, "failed", reason=reason)
        event(_log, logging.WARNING, "item set aside", run=workflow_id, item=item_id, reason=reason)

    @activity.defn
    async def close_run(self, workflow_id: str, status: str, reason: str | None) -> Summary:
        """Enter the end of a run. One that was to end well is FAILED when every item failed and none was checked."""
        counts = self._journal.counts(workflow_id)
        if status == "COMPLETED" and counts.failed and not (counts.checked or counts.gone or counts.superseded):
            reasons = "; ".join(f"{text} ({times} times)" for text, times in self._journal.reasons(workflow_id))
            status, reason = "FAILED", f"every item failed, none was checked: {reasons}"
        self._journal.end_run(workflow_id, status, reason)
        summary = self._journal.summary(workflow_id)
        event(
            _log,
            logging.INFO if status == "COMPLETED" else logging.ERROR,
            "run ended",
            run=workflow_id,
            status=status,
            reason=reason or "",
            checked=summary.checked,
            spam=summary.spam,
            failed=summary.failed,
        )
        return summary

    async def _forget_old_runs(self) -> None:
        """One transaction a run, so that others get their turn."""
        removed = 1
        while removed:
            removed = self._journal.prune(self._settings.journal_days)
            await asyncio.sleep(0)

    async def _find(self, item_id: str, content_hash: str) -> Item | None:
        item = self._inbox.item(item_id, content_hash)
        if item is None:
            await self._inbox.read(max_age=MISSED_SECONDS)
            item = self._inbox.item(item_id, content_hash)
        return item

    async def _submit(self, workflow_id: str, item_id: str, content_hash: str, verdict: Verdict) -> Outcome:
        key = (workflow_id, item_id, content_hash)
        state = self._journal.state(*key)
        for outcome in _SETTLED:
            if state == outcome:
                return outcome
        # A try before this one was cut off, or its answer was lost: only the site can tell what came of it.
        in_doubt = state == "sending"
        await self._inbox.read(max_age=0 if in_doubt else self._settings.fresh_seconds)
        if self._inbox.item(item_id, content_hash) is None:
            accepted = in_doubt and not self._inbox.holds(item_id)
            outcome = "submitted" if accepted else "superseded"
            self._journal.settle(*key, outcome, assumed=accepted)
            return outcome
        if not self._journal.sending(*key, verdict):
            raise _run_has_ended()
        try:
            await self._source.submit(item_id, verdict)
        except ItemGone:
            outcome = "gone"
        except (ItemFaulty, ItemRefused, SiteRefused) as error:
            self._journal.not_sent(*key)
            if isinstance(error, SiteRefused):
                raise
            final = isinstance(error, ItemRefused)
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=final) from None
        else:
            outcome = "submitted"
        self._journal.settle(*key, outcome)
        return outcome

    async def _patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """Call, and call again while the site does not answer, within the patience that is set.

        Raises ApplicationError of the types that end a run, not to be retried.
        """
        down_since: float | None = None
        pause = self._settings.retry_seconds
        while True:
            try:
                return await call()
            except SiteRefused as error:
                raise ApplicationError(str(error), type=SITE_REFUSED, non_retryable=True) from None
            except (SiteUnreachable, SiteFaulty) as error:
                now = time.monotonic()
                if down_since is None:
                    down_since = now
                    event(_log, logging.WARNING, "waiting for the site", reason=str(error))
                if now + pause - down_since > self._settings.site_patience_seconds:
                    text = f"{error} (tried for {now - down_since:.0f} s)"
                    raise ApplicationError(text, type=SITE_DOWN, non_retryable=True) from None
            except ApplicationError:
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it is, it may quote the item
                _unexpected("reading from or sending to the site", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)


def _run_has_ended() -> ApplicationError:
    """A step that Temporal has given up, but that has not heard of it yet."""
    return ApplicationError("the run has ended", type="RunEnded", non_retryable=True)


def _unexpected(where: str, error: Exception) -> NoReturn:
    """Log where an error of the program came from, and pass on its type alone."""
    event(
        _log, logging.ERROR, "unexpected error", where=where, error=type(error).__name__, at=place(error.__traceback__)
    )
    raise ApplicationError(f"unexpected {type(error).__name__} in {where}", type="Unexpected") from None


@contextlib.asynccontextmanager
async def _beating() -> AsyncIterator[None]:
    """Tell Temporal three times a heartbeat time-out that this activity is alive, so that a killed worker is noticed."""
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return

    async def beat() -> None:
        while True:
            await asyncio.sleep(timeout.total_seconds() / 3)
            activity.heartbeat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
