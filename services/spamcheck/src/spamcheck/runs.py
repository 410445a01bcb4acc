"""Starting runs and knowing how they are: the journal for what happened, Temporal for whether it goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from .codec import WrongKey
from .journal import JOURNAL_FAULTS, Counts, Journal, JournalError, Run, WorkerSeen
from .logs import event
from .messages import WORKFLOW_NAME, Carried, RunPlan
from .settings import Settings

_log = logging.getLogger(__name__)

DESCRIBE_SECONDS = 2.0
"""What Temporal gets to answer: callers of /status must have their answer soon, with or without Temporal."""
START_SECONDS = 10.0
WORKER_SILENCE_SECONDS = 10.0
"""A worker that was silent for longer counts as gone. It gives a sign of life every second."""
RETRY_SECONDS = 0.25
REMEMBERED_RUNS = 100
"""Runs whose last state is kept in memory, for when the journal cannot be read."""
PARTS = ("journal", "temporal", "worker")
"""What a run needs, as /ok and /metrics name it."""
_DOWN = (RPCError, RuntimeError, OSError, asyncio.TimeoutError, WrongKey)
"""What the SDK raises when Temporal does not answer, or not with anything that can be read: RuntimeError from a client
that was never connected, WrongKey from the codec."""
_UNKNOWN_REASON = "Temporal does not know this run: its store was lost, or the run was deleted"
_NOTHING = Counts()


class TemporalDown(Exception):
    """Temporal does not answer. The message says where it was looked for."""


class JournalDown(Exception):
    """The journal cannot be read or written. The message says why."""


@dataclass(frozen=True, slots=True)
class State:
    """How a run is. `stale`: Temporal or the journal did not answer, this is what was known last."""

    run: Run
    counts: Counts = _NOTHING
    stale: bool = False


class Runs:
    """The runs of this checker. One object a process: it makes sure that one run is active at a time."""

    def __init__(self, client: Client, journal: Journal, settings: Settings) -> None:
        self._client = client
        self._journal = journal
        self._settings = settings
        self._starting = asyncio.Lock()
        self._remembered: dict[str, State] = {}
        self._told = ""

    async def start(self) -> tuple[str, bool]:
        """Start a run, or find the active one. Returns its id, and whether it was running already.

        The journal has the run before Temporal does: a start that was cut off is completed by the next call.
        Raises TemporalDown and JournalDown.
        """
        try:
            workflow_id, already = await self._started()
        except (JournalError, sqlite3.Error) as error:
            raise JournalDown(self.journal_reason(error)) from None
        if workflow_id not in self._remembered:
            self._remember(State(Run(workflow_id, time.time())))
        return workflow_id, already

    async def _started(self) -> tuple[str, bool]:
        async with self._starting:
            self._journal.check()
            active = self._journal.active()
            if active is not None:
                active = (await self._refreshed(active, must_answer=True)).run
                if active.status == "RUNNING" and not await self._never_started(active.workflow_id):
                    return active.workflow_id, True
                if active.status != "RUNNING":
                    # The end may not have been entered (disk full). Then there is no room for another run either.
                    self._journal.confirm_run(active.workflow_id, active.status, active.reason, active.ended_at)
            # Asked first, so that a Temporal that is down leaves no run behind.
            await self._reach()
            workflow_id = self._journal.begin_run(_new_id())
            try:
                await asyncio.wait_for(self._start(workflow_id), START_SECONDS)
            except WorkflowAlreadyStartedError:
                return workflow_id, True
            except _DOWN as error:
                raise self._down(error) from None
            event(_log, logging.INFO, "run started", run=workflow_id)
            return workflow_id, False

    async def state(self, workflow_id: str, wait: float = 0.0) -> State | None:
        """How a run is, None if there is none of that id. `wait`: seconds for which its end is waited for.

        Raises nothing for a run that journal, memory or Temporal know, whichever of them fails.
        """
        deadline = time.monotonic() + wait
        while True:
            state = await self._look(workflow_id)
            if state is None:
                return None
            self._remember(state)
            remaining = deadline - time.monotonic()
            if state.run.status != "RUNNING" or remaining <= 0:
                return state
            if state.stale:
                await asyncio.sleep(min(RETRY_SECONDS, remaining))
            else:
                await self._ended(workflow_id, remaining)

    async def _look(self, workflow_id: str) -> State | None:
        """One look: at the journal, else at what is remembered; then at Temporal."""
        remembered = self._remembered.get(workflow_id)
        run, stale = None, False
        try:
            run = self._entered(workflow_id)
        except JOURNAL_FAULTS as error:
            self.journal_reason(error)
            stale = True
        if run is None and remembered is None:
            try:
                if await self._never_started(workflow_id):
                    return None
            except TemporalDown:
                # Without the journal nobody can say that there is no such run.
                if not stale:
                    return None
        if run is None:
            run, stale = (remembered.run if remembered else Run(workflow_id, time.time())), True
        state = await self._refreshed(run)
        counts = remembered.counts if remembered else _NOTHING
        if not stale:
            try:
                counts = self._journal.counts(workflow_id)
            except JOURNAL_FAULTS as error:
                self.journal_reason(error)
                stale = True
        return State(state.run, counts, stale or state.stale)

    def _remember(self, state: State) -> None:
        self._remembered.pop(state.run.workflow_id, None)
        self._remembered[state.run.workflow_id] = state
        if len(self._remembered) > REMEMBERED_RUNS:
            del self._remembered[next(iter(self._remembered))]

    def _entered(self, workflow_id: str) -> Run | None:
        """A run as the journal has it.

        Raises JOURNAL_FAULTS.
        """
        self._journal.check()
        return self._journal.run(workflow_id)

    def _reread(self, run: Run) -> Run:
        """The run as the journal has it now, or as it is where the journal cannot tell."""
        try:
            return self._entered(run.workflow_id) or run
        except JOURNAL_FAULTS as error:
            self.journal_reason(error)
            return run

    def journal_reason(self, error: Exception) -> str:
        """In words what is wrong with the journal; in the log once, until it is something else."""
        reason = f"journal: {error}" if isinstance(error, (JournalError, sqlite3.Error)) else "journal: it is damaged"
        if reason != self._told:
            event(_log, logging.ERROR, "the journal cannot be used", reason=reason)
            self._told = reason
        return reason

    async def problems(self) -> dict[str, str]:
        """What keeps a run from being done now, by part (PARTS). Empty when nothing does."""
        found = {}
        try:
            self._journal.check()
            self._journal.check_writable()
            worker = self._journal.worker()
        except JOURNAL_FAULTS as error:
            found["journal"] = self.journal_reason(error)
            found["worker"] = "the worker is seen through the journal alone"
        else:
            self._told = ""
            if worker is None:
                found["worker"] = "no worker has started"
            elif worker.age > WORKER_SILENCE_SECONDS:
                found["worker"] = f"the worker has given no sign of life for {worker.age:.0f} s"
        try:
            await self._reach()
        except TemporalDown as error:
            found["temporal"] = str(error)
        return found

    def worker(self) -> WorkerSeen | None:
        """The worker that is alive, None when there is none or the journal cannot tell."""
        worker = self._last_worker()
        return worker if worker is not None and worker.age <= WORKER_SILENCE_SECONDS else None

    def worker_silence(self) -> float:
        """Seconds since the last sign of life of a worker; 0 when there was none yet or the journal cannot tell."""
        worker = self._last_worker()
        return 0.0 if worker is None else worker.age

    def _last_worker(self) -> WorkerSeen | None:
        try:
            return self._journal.worker()
        except JOURNAL_FAULTS:
            return None

    async def _start(self, workflow_id: str) -> None:
        await self._client.start_workflow(
            WORKFLOW_NAME,
            args=[plan_of(self._settings), Carried()],
            id=workflow_id,
            task_queue=self._settings.temporal_task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )

    async def _reach(self) -> None:
        """Raises TemporalDown when Temporal does not answer or lacks the namespace."""
        request = DescribeNamespaceRequest(namespace=self._settings.temporal_namespace)
        limit = timedelta(seconds=DESCRIBE_SECONDS)
        try:
            await asyncio.wait_for(
                self._client.workflow_service.describe_namespace(request, timeout=limit), DESCRIBE_SECONDS
            )
        except _DOWN as error:
            raise self._down(error) from None

    async def _refreshed(self, run: Run, *, must_answer: bool = False) -> State:
        """The run as Temporal knows it, entered in the journal when it has ended.

        Raises TemporalDown if `must_answer`.
        """
        run = self._reread(run)
        if run.confirmed:
            return State(run)
        handle = self._client.get_workflow_handle(run.workflow_id)
        try:
            seen = await asyncio.wait_for(
                handle.describe(rpc_timeout=timedelta(seconds=DESCRIBE_SECONDS)), DESCRIBE_SECONDS
            )
        except _DOWN as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                return State(self._unknown(run))
            if must_answer:
                raise self._down(error) from None
            return State(self._reread(run), stale=True)
        if seen.status in {None, WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW}:
            # The journal may be ahead: the run's last step has entered its end, Temporal has yet to hear of it.
            return State(dataclasses.replace(run, status="RUNNING", reason=None, ended_at=None))
        status = seen.status.name if seen.status else ""
        reason = run.reason
        if reason is None and status != "COMPLETED":
            reason = await self._reason(handle)
        ended_at = run.ended_at or (seen.close_time.timestamp() if seen.close_time else None)
        return State(self._confirmed(dataclasses.replace(run, status=status, reason=reason, ended_at=ended_at)))

    def _confirmed(self, run: Run) -> Run:
        """Enter what Temporal says of an ended run. A journal that cannot be written must not hide the end."""
        try:
            self._journal.confirm_run(run.workflow_id, run.status, run.reason, run.ended_at)
        except JOURNAL_FAULTS as error:
            self.journal_reason(error)
            return run
        return self._reread(run)

    def _unknown(self, run: Run) -> Run:
        """Temporal does not know a run of the journal."""
        if run.status != "RUNNING":
            # Long ago: Temporal forgets runs after its retention time.
            return self._confirmed(run)
        if run.rounds or time.time() - run.started_at > START_SECONDS:
            return self._confirmed(dataclasses.replace(run, status="TERMINATED", reason=_UNKNOWN_REASON))
        return run

    async def _never_started(self, workflow_id: str) -> bool:
        """Whether a run that the journal calls active was cut off before Temporal had it."""
        handle = self._client.get_workflow_handle(workflow_id)
        try:
            await asyncio.wait_for(handle.describe(), DESCRIBE_SECONDS)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return True
            raise self._down(error) from None
        except _DOWN as error:
            raise self._down(error) from None
        return False

    async def _ended(self, workflow_id: str, seconds: float) -> None:
        """Return when a run ends, when Temporal goes away, or after `seconds`."""
        try:
            await asyncio.wait_for(self._client.get_workflow_handle(workflow_id).result(), seconds)
        except (TimeoutError, WorkflowFailureError):
            return
        except (*_DOWN, TemporalError):
            await asyncio.sleep(min(RETRY_SECONDS, seconds))

    async def _reason(self, handle: WorkflowHandle[object, object]) -> str | None:
        """Why a run ended that could not say so itself: terminated, timed out, or an error of the program."""
        try:
            await asyncio.wait_for(handle.result(), DESCRIBE_SECONDS)
        except WorkflowFailureError as error:
            return getattr(error.cause, "message", "") or type(error.cause).__name__
        except (*_DOWN, TemporalError):
            return None
        return None

    def _down(self, error: BaseException) -> TemporalDown:
        where = f"Temporal at {self._settings.temporal_address}"
        if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
            return TemporalDown(f"{where} has no namespace {self._settings.temporal_namespace}")
        return TemporalDown(f"{where} does not answer")


def plan_of(settings: Settings) -> RunPlan:
    """What a run is told of the settings."""
    return RunPlan(
        items_at_once=settings.items_at_once,
        item_attempts=settings.item_attempts,
        retry_seconds=settings.retry_seconds,
        give_up_after=settings.give_up_after,
        classify_timeout_seconds=settings.classify_timeout_seconds,
        # Within its patience a step may be in the middle of a call, and read a batch before it sends.
        site_timeout_seconds=settings.site_patience_seconds + 4 * settings.site_timeout_seconds + 60,
        heartbeat_timeout_seconds=settings.heartbeat_timeout_seconds,
    )


def _new_id() -> str:
    return f"check-spam-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
