"""The run itself: rounds of reading, classifying and submitting, until a round brings nothing new."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.exceptions import TimeoutError as TemporalTimeout

with workflow.unsafe.imports_passed_through():
    from .activities import Activities
    from .messages import AHEAD, RUN_ENDS, WORKFLOW_NAME, Carried, Outcome, Ref, RunPlan, Summary

_JOURNAL_TIMEOUT = timedelta(seconds=30)
_JOURNAL_RETRIES = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=6)
"""About 6 s of tries: a journal that cannot be written (disk full) must end the run, not hold the server."""


class _RunEnds(Exception):
    """The run cannot go on. The message says why."""


@workflow.defn(name=WORKFLOW_NAME)
class CheckSpamWorkflow:
    """Check everything that the site has scheduled.

    Items wait in a queue; AHEAD times `items_at_once` are in work, of which a worker classifies `items_at_once`. A new
    batch is read before the queue runs dry, so that nothing idles between rounds, and replaces it: what is no longer
    scheduled falls out. The run ends when a batch that was read with nothing in work holds nothing new; an empty batch is
    no proof, because records of other types take up places.
    """

    @workflow.init
    def __init__(self, plan: RunPlan, carried: Carried) -> None:
        """Start with nothing in work."""
        self._plan = plan
        self._rounds = carried.rounds
        self._in_a_row = carried.set_aside_in_a_row
        self._first_reason = carried.first_reason
        self._queue: deque[Ref] = deque()
        self._in_work: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._touched: set[tuple[str, str]] = set()
        self._read_below = 0
        self._nothing_new = False
        self._ends: BaseException | None = None
        self._changed = False

    @workflow.run
    async def run(self, plan: RunPlan, carried: Carried) -> Summary:  # noqa: ARG002 -- see __init__
        """Returns how the run ended; fails with the reason when it could not do its work."""
        try:
            await self._work()
        except (_RunEnds, asyncio.CancelledError) as error:
            await self._stop()
            canceled = isinstance(error, asyncio.CancelledError)
            reason = "canceled" if canceled else str(error)
            await self._close("CANCELED" if canceled else "FAILED", reason)
            if canceled:
                raise
            raise ApplicationError(reason, type="RunFailed", non_retryable=True) from None
        summary = await self._close("COMPLETED", None)
        if summary.status != "COMPLETED":
            raise ApplicationError(summary.reason or "failed", type="RunFailed", non_retryable=True)
        return summary

    async def _work(self) -> None:
        while not self._nothing_new:
            if self._history_is_long():
                if not self._in_work and self._reader is None:
                    workflow.continue_as_new(
                        args=[self._plan, Carried(self._rounds, self._in_a_row, self._first_reason)]
                    )
            else:
                self._start_items()
                if self._reader is None and len(self._queue) + len(self._in_work) <= self._read_below:
                    self._reader = self._start(self._read())
            self._changed = False
            await workflow.wait_condition(lambda: self._changed)
            if self._ends is not None:
                raise self._ends

    def _history_is_long(self) -> bool:
        info = workflow.info()
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= self._plan.history_events

    def _start_items(self) -> None:
        while self._queue and len(self._in_work) < AHEAD * self._plan.items_at_once:
            ref = self._queue.popleft()
            self._touched.add(ref.key)
            self._in_work[ref.key] = self._start(self._check(ref))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._changed = True
        if not task.cancelled() and task.exception() is not None and self._ends is None:
            self._ends = task.exception()

    async def _read(self) -> None:
        """One round. Sets when the next is due, or that there is none."""
        idle = not self._queue and not self._in_work
        # What was in work while the batch was being read may have been settled after the journal was asked.
        self._touched = set(self._in_work)
        try:
            batch = await workflow.execute_activity_method(
                Activities.read_batch,
                args=[workflow.info().workflow_id, self._rounds + 1],
                start_to_close_timeout=timedelta(seconds=self._plan.site_timeout_seconds),
                heartbeat_timeout=timedelta(seconds=self._plan.heartbeat_timeout_seconds),
                retry_policy=self._retries(),
            )
        except ActivityError as error:
            raise _RunEnds(f"the scheduled items could not be read: {_reason(error)}") from None
        finally:
            self._reader = None
        self._rounds += 1
        known = {ref.key for ref in self._queue}
        self._queue = deque(ref for ref in batch if ref.key not in self._touched)
        outstanding = len(self._queue) + len(self._in_work)
        if any(ref.key not in known for ref in self._queue):
            self._read_below = min((AHEAD + 1) * self._plan.items_at_once, outstanding // 2)
        elif idle:
            self._nothing_new = True
        else:
            # Ask again when places among the first 100 have been freed, but not for every single one.
            self._read_below = outstanding // 2

    async def _check(self, ref: Ref) -> None:
        """One item, from text to accepted verdict."""
        try:
            outcome = await self._judge_and_send(ref)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise  # the run is being stopped: that says nothing about the item
            reason = _reason(error)
            if _type(error) in RUN_ENDS:
                raise _RunEnds(reason) from None
            outcome = await self._set_aside(ref, reason)
        finally:
            self._in_work.pop(ref.key, None)
        if outcome in {"submitted", "gone"}:
            self._in_a_row, self._first_reason = 0, ""

    async def _judge_and_send(self, ref: Ref) -> Outcome:
        plan, key = self._plan, [workflow.info().workflow_id, ref.item_id, ref.content_hash]
        heartbeat = timedelta(seconds=plan.heartbeat_timeout_seconds)
        judged = await workflow.execute_activity_method(
            Activities.classify,
            args=key,
            start_to_close_timeout=timedelta(seconds=plan.classify_timeout_seconds + plan.site_timeout_seconds),
            heartbeat_timeout=heartbeat,
            retry_policy=self._retries(),
        )
        if judged.verdict is None:
            return judged.outcome or "superseded"
        return await workflow.execute_activity_method(
            Activities.submit,
            args=[*key, judged.verdict],
            start_to_close_timeout=timedelta(seconds=plan.site_timeout_seconds),
            heartbeat_timeout=heartbeat,
            retry_policy=self._retries(),
        )

    async def _set_aside(self, ref: Ref, reason: str) -> Outcome:
        try:
            await workflow.execute_activity_method(
                Activities.set_aside,
                args=[workflow.info().workflow_id, ref.item_id, ref.content_hash, reason],
                start_to_close_timeout=_JOURNAL_TIMEOUT,
                retry_policy=_JOURNAL_RETRIES,
            )
        except ActivityError as error:
            raise _RunEnds(f"the journal cannot be written: {_reason(error)}") from None
        self._in_a_row += 1
        self._first_reason = self._first_reason or reason
        if self._in_a_row >= self._plan.give_up_after:
            raise _RunEnds(
                f"{self._in_a_row} items in a row were set aside and none was done;"
                f" the first: {self._first_reason}; the last: {reason}"
            )
        return "failed"

    async def _stop(self) -> None:
        """Cancel what is in work, and wait until it has ended."""
        tasks = [task for task in (*self._in_work.values(), self._reader) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, status: str, reason: str | None) -> Summary:
        try:
            return await workflow.execute_activity_method(
                Activities.close_run,
                args=[workflow.info().workflow_id, status, reason],
                start_to_close_timeout=_JOURNAL_TIMEOUT,
                retry_policy=_JOURNAL_RETRIES,
            )
        except ActivityError as error:
            text = f"the journal cannot be written: {_reason(error)}"
            raise ApplicationError(
                f"{reason}; {text}" if reason else text, type="RunFailed", non_retryable=True
            ) from None

    def _retries(self) -> RetryPolicy:
        pause = timedelta(seconds=self._plan.retry_seconds)
        return RetryPolicy(initial_interval=pause, backoff_coefficient=2, maximum_attempts=self._plan.item_attempts)


def _type(error: ActivityError) -> str | None:
    return error.cause.type if isinstance(error.cause, ApplicationError) else None


def _reason(error: ActivityError) -> str:
    """What an activity says of its failure, in words for the operator."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.message
    if isinstance(cause, TemporalTimeout):
        return "no answer within the time limit, or the worker was killed while at it, too many times"
    return f"{type(cause or error).__name__}"
