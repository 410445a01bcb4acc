"""The worker: runs the workflow and its activities. `python -m spamcheck.worker`; SIGTERM ends it with 0."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import PollerBehaviorSimpleMaximum, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from . import classify, sources
from . import main as program
from .activities import Activities
from .classify.base import Classifier
from .journal import Journal
from .logs import event
from .messages import AHEAD
from .settings import Settings, SettingsError
from .sources.base import SourceError
from .temporal import connect
from .workflows import CheckSpamWorkflow

_log = logging.getLogger("spamcheck.worker")

BEAT_SECONDS = 1.0
HEALTH_SECONDS = 2.0
"""What Temporal gets to answer before a sign of life is left out."""
READINESS_SECONDS = 10.0
"""How often the state of the models is looked up for `/ok?detail=true`."""
GRACE_SECONDS = 5.0
"""What an activity gets to end by itself on SIGTERM; then it is cancelled, and tried again by the next worker."""
SPARE_ACTIVITIES = 4
"""Room beside the items in work: reading a batch, setting aside, closing a run."""
MAX_POLLERS = 16
MAX_PAUSE_SECONDS = 10.0


def build_worker(client: Client, activities: Activities, settings: Settings) -> Worker:
    """A worker for the settings' task queue."""
    at_once = AHEAD * settings.items_at_once + SPARE_ACTIVITIES
    return Worker(
        client,
        task_queue=settings.temporal_task_queue,
        workflows=[CheckSpamWorkflow],
        activities=activities.all,
        max_concurrent_activities=at_once,
        activity_task_poller_behavior=PollerBehaviorSimpleMaximum(min(at_once, MAX_POLLERS)),
        # After a kill the new worker gets the run's next task within this time.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
        graceful_shutdown_timeout=timedelta(seconds=GRACE_SECONDS),
        # One run at a time: a larger cache would only hold runs that have ended.
        max_cached_workflows=10,
        # An error of the program ends the run. Temporal's default, to wait for a repaired worker, would keep the server on.
        workflow_failure_exception_types=[Exception],
        # Loading our own modules anew for every run takes longer than a small run.
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_modules("spamcheck")
        ),
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop` is set.

    Raises SettingsError, JournalError, SourceError for a faulty address of the site, and whatever ends a worker for good
    (a namespace that does not exist, say).
    """
    try:
        source, classifier = sources.build(settings), classify.build(settings)
    except ValueError as error:
        raise SettingsError(f"the checker's settings are faulty:\n  {error}") from None
    journal = Journal(settings.state_dir)
    identity = f"{os.getpid()}@{socket.gethostname()}"
    try:
        client = await _connected(settings, stop)
        if client is None:
            return
        worker = build_worker(client, Activities(source, classifier, journal, settings), settings)
        async with contextlib.AsyncExitStack() as stack:
            running = asyncio.create_task(worker.run())
            stack.push_async_callback(
                _cancelled, asyncio.create_task(_beat(journal, client, identity, classifier, settings))
            )
            event(_log, logging.INFO, "worker runs", queue=settings.temporal_task_queue, at_once=settings.items_at_once)
            stopping = asyncio.create_task(stop.wait())
            stack.push_async_callback(_cancelled, stopping)
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                event(_log, logging.INFO, "worker ends", grace_seconds=GRACE_SECONDS)
                await worker.shutdown()
            await running
    finally:
        with contextlib.suppress(Exception):
            journal.leave(identity)
        await source.aclose()
        await classifier.aclose()
        journal.close()


async def _connected(settings: Settings, stop: asyncio.Event) -> Client | None:
    """A client, waited for as long as it takes; None when the worker is told to stop first."""
    pause = 0.2
    said = False
    while not stop.is_set():
        try:
            return await connect(settings, lazy=False)
        except (RuntimeError, OSError) as error:
            if not said:
                reason = str(error).splitlines()[0]
                event(_log, logging.WARNING, "waiting for Temporal", address=settings.temporal_address, reason=reason)
                said = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)
    return None


async def _beat(journal: Journal, client: Client, identity: str, classifier: Classifier, settings: Settings) -> None:
    """Enter a sign of life every BEAT_SECONDS, with the state of the models as last seen.

    A worker whose own connection to Temporal is lost gets no work: it stays silent, which /ok tells.
    """
    models: dict[str, str] = {}

    async def look() -> None:
        while True:
            models.update((await classifier.readiness()).models)
            await asyncio.sleep(READINESS_SECONDS)

    looking = asyncio.create_task(look())
    try:
        while True:
            # Neither a lost connection nor a full disk may end the worker.
            with contextlib.suppress(Exception):
                limit = timedelta(seconds=HEALTH_SECONDS)
                if await asyncio.wait_for(client.service_client.check_health(timeout=limit), HEALTH_SECONDS):
                    journal.beat(identity, settings.classifier, models)
            await asyncio.sleep(BEAT_SECONDS)
    finally:
        looking.cancel()


async def _cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> int:
    """The program; returns its exit code."""
    return program.run("spamcheck-worker", "The checker's worker: runs the checks.", serve, SourceError)


if __name__ == "__main__":
    sys.exit(main())
