"""One check run, from lock to shelved: the only place that knows the order of things.

From the moment the server was first seen, it is shelved again whatever happens: success, failure, time-out, a signal, a
full disk. Only a controller that dies outright (SIGKILL, power) cannot: the reaper, or the next run, shelves the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from . import budget, diagnose, followup, notify, uptime
from .budget import Allowance, Deadline
from .checker import Checker, WorkflowStatus
from .clock import Clock, RealClock
from .cloud import ACTIVE, SHELVED, Observed, Server, connect
from .errors import (
    BudgetSpent,
    CheckerError,
    CloudError,
    ExitCode,
    Interrupted,
    LedgerError,
    RunActive,
    ServerMissing,
    SettingsError,
    SpamopsError,
)
from .ledger import Ledger
from .lock import ServerLock
from .settings import Settings
from .signals import SignalGate
from .summary import Summary, add_check, add_states, conclude, finish, require_completed

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """Who follows a run: the terminal, or nobody."""

    def step(self, text: str) -> None:
        """A step begins."""

    def server(self, seen: Observed) -> None:
        """The server's state changed."""

    def checking(self, status: WorkflowStatus) -> None:
        """The checker told how far it is."""

    def note(self, text: str) -> None:
        """Something worth a line: a retry, a warning."""


class Nobody:
    """A watcher that does not look."""

    def step(self, text: str) -> None:
        """Nothing."""

    def server(self, seen: Observed) -> None:
        """Nothing."""

    def checking(self, status: WorkflowStatus) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class _Harmless:
    """Passes everything on to a watcher, and its faults to nobody: a terminal that is gone, a full disk behind a redirection
    or a closed pipe must not keep the server on."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def step(self, text: str) -> None:
        """A step begins."""
        self._tell(self._watcher.step, text)

    def server(self, seen: Observed) -> None:
        """The server's state changed."""
        self._tell(self._watcher.server, seen)

    def checking(self, status: WorkflowStatus) -> None:
        """The checker told how far it is."""
        self._tell(self._watcher.checking, status)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._tell(self._watcher.note, text)

    @staticmethod
    def _tell(method: Callable[[Any], None], told: Any) -> None:
        with suppress(Exception):
            method(told)


@dataclass(frozen=True)
class Options:
    """`skip_shelving_when_done` leaves the server on; `skip_changing_instance_state` touches it not at all."""

    skip_shelving_when_done: bool = False
    skip_changing_instance_state: bool = False


def run(
    settings: Settings,
    options: Options = Options(),
    *,
    watcher: Watcher | None = None,
    clock: Clock | None = None,
    connection: Any | None = None,
) -> Summary:
    """One run; its summary, whose `exit_code` tells how it went.

    `connection` is one of openstacksdk, made from the settings where it is not given. Raises RunActive and SettingsError
    before anything is touched; later faults are in the summary.
    """
    return _Run(settings, options, _Harmless(watcher or Nobody()), clock or RealClock(), connection).run()


@dataclass
class _Run:
    settings: Settings
    options: Options
    watcher: Watcher
    clock: Clock
    connection: Any | None
    row: int = 0
    server: Server | None = None
    report: dict[str, Any] | None = None
    id_lock: ServerLock | None = None
    deadline: Deadline = field(init=False)
    summary: Summary = field(init=False)

    def __post_init__(self) -> None:
        self.summary = Summary(server=self.settings.server)
        self.ledger = Ledger(self.settings.state_dir)
        seconds = self.settings.budget_run_seconds
        self.deadline = Deadline(self.clock, Allowance(seconds, f"budget_run_seconds: {seconds} s a run"))

    def run(self) -> Summary:
        lock = ServerLock(self.settings.state_dir, self.settings.server)
        lock.acquire()
        try:
            try:
                self.row = self.ledger.begin(
                    self.settings.server, "command", self.clock.now(), self.settings.service_units_per_hour
                )
            except LedgerError as error:
                raise SettingsError(f"{error}; nothing was touched. Make room, or set state_dir") from error
            self.summary.run = self.row
            with SignalGate(lambda: self.watcher.note("a run ends by shelving the server; please wait")) as gate:
                ended_by = gate.run(self._work)
                # From here on signals are only noted; but a person who presses Ctrl-C does not want to wait for evidence.
                failed = gate.run(lambda: self._diagnose(ended_by))
                if isinstance(failed, Exception):
                    log.error("collecting what the server tells failed", exc_info=failed)
                not_shelved = self._shelve()
                self._conclude(ended_by, not_shelved)
        finally:
            lock.release()
            if self.id_lock is not None:
                self.id_lock.release()
        return self.summary

    def _work(self) -> None:
        """Wake, check, report. Any exception may end it, at any point."""
        if not self.options.skip_changing_instance_state:
            with self._step("wake", "waking the server"):
                connection = self.connection or connect(
                    api_timeout=self.settings.api_seconds, **self.settings.cloud_arguments()
                )
                self.server = Server(
                    connection,
                    self.settings.server,
                    clock=self.clock,
                    on_change=self.watcher.server,
                    on_note=self.watcher.note,
                )
                self.server.look(self.settings.unshelve_seconds)
                self._lock_id(self.server)
                self._keep_to_the_budget(self.server)
                with self.deadline.named():
                    self.server.bring_to(ACTIVE, self.deadline.within(self.settings.unshelve_seconds))
        checker = Checker(
            self.settings.checker_base,
            self.settings.api_key.get_secret_value(),
            call_seconds=self.settings.api_seconds,
            clock=self.clock,
            on_note=self.watcher.note,
        )
        try:
            self._check(checker)
        finally:
            checker.close()

    def _lock_id(self, server: Server) -> None:
        """Lock the id too where the server was given by its name: another run may have been given the id.

        Raises RunActive, and makes sure that this run does not shelve the other's server.
        """
        if server.id is None or server.id == self.settings.server:
            return
        try:
            self.id_lock = ServerLock(self.settings.state_dir, server.id)
            self.id_lock.acquire()
        except RunActive:
            self.server = None
            raise

    def _keep_to_the_budget(self, server: Server) -> None:
        """Raise BudgetSpent when the run may not begin; otherwise set how long it may go on."""
        names = [self.settings.server, *([server.id] if server.id else [])]
        now, plan = self.clock.now(), self.settings.budget
        # This run holds the lock, so no other that is open lives.
        uptime.settle_dead(self.ledger, server, names, self.row, now, plan.rate)
        since = budget.month_of(now)[0]
        try:
            rows = [row for row in self.ledger.runs_since(names, since) if row["id"] != self.row]
        except LedgerError as error:
            if plan.day_units or plan.month_units:
                raise BudgetSpent(f"what was spent cannot be counted: {error}. The server was not woken") from error
            rows = []
        allowed = budget.allowance(plan, rows, now, reserve_seconds=budget.shelving_seconds(rows))
        self.deadline = Deadline(self.clock, allowed)

    def _note_workflow(self, workflow_id: str) -> None:
        """For the reaper, should this process die."""
        with suppress(LedgerError):
            self.ledger.note_workflow(self.row, workflow_id)

    def _check(self, checker: Checker) -> None:
        with self._step("ready", "waiting for the checker"), self.deadline.named():
            checker.wait_until_ready(self.deadline.within(self.settings.ready_seconds))
        with self._step("check", "checking"), self.deadline.named():
            self.deadline.within(self.settings.check_seconds)  # with nothing left, nothing is started
            self.summary.workflow_id = workflow_id = checker.start()
            self._note_workflow(workflow_id)
            try:
                status = checker.wait_for_end(
                    workflow_id,
                    self.deadline.within(self.settings.check_seconds),
                    self.settings.status_grace_seconds,
                    self.watcher.checking,
                )
            except BaseException:
                # Cut off: what was done until now is on the server alone, which is about to go away.
                self.report = checker.last_report(workflow_id)
                add_check(self.summary, checker.last.status, checker.last.progress, self.report)
                raise
        with self._step("report", "fetching the report"):
            try:
                self.report = checker.report(workflow_id)
            except CheckerError as error:
                self._warn(str(error))
        add_check(self.summary, status.status, status.progress, self.report)
        require_completed(workflow_id, status, self.report)

    def _diagnose(self, error: BaseException | None) -> None:
        """Collect what the server tells, before it goes away, where the checker failed on a server that is on."""
        target, seconds = self.settings.ssh, self.settings.diagnose_seconds
        if target is None or seconds <= 0 or not worth_a_diagnosis(error):
            return
        if self.server is not None and (not self.server.seen or self.server.seen[-1].status != "ACTIVE"):
            return
        with self._step("diagnose", "collecting what the server tells, before it is shelved"):
            path, fault = diagnose.collect_in_time(
                diagnose.Plan(target, self.settings.secrets, seconds),
                self.settings.state_dir / diagnose.FOLDER,
                diagnose.bundle_name(self.row, self.clock.now()),
                {"run": self.row, "reason": str(error), "workflow_id": self.summary.workflow_id},
            )
        if path is not None:
            self._warn(f"what the server told is in {path}")
        else:
            self._warn(f"what the server tells could not be collected: {fault}")

    def _shelve(self) -> str | None:
        """None, or why the server is not shelved. Nothing is raised: what follows must still be done."""
        server = self.server
        if server is None or not server.seen or self.options.skip_shelving_when_done:
            return None
        try:
            with self._step("shelve", "shelving the server"):
                server.bring_to(SHELVED, self.settings.shelve_seconds)
        except ServerMissing as error:
            self._warn(f"{error}: somebody deleted it during the run")
            return None  # what is not there costs nothing
        except CloudError as error:
            return str(error)
        except Exception as error:  # a defect here must not hide that the server may be on
            log.exception("shelving failed")
            return f"{type(error).__name__}: {error}"
        return None

    def _conclude(self, error: BaseException | None, not_shelved: str | None) -> None:
        now = self.clock.now()
        if self.server is not None:
            add_states(self.summary, self.server.seen, now, self.settings.service_units_per_hour)
        code, reason = _outcome(error, seen=self.server is not None and bool(self.server.seen))
        conclude(
            self.summary,
            code,
            reason,
            not_shelved=not_shelved,
            may_cost=self.server is not None and self.server.may_cost,
            run=self.row,
        )
        try:
            self.ledger.end(self.row, self.summary, now, self.report)
        except Exception as ledger_error:  # noqa: BLE001 - whatever it is, the alarm below must still be raised
            known = isinstance(ledger_error, LedgerError)
            why = str(ledger_error) if known else f"the history could not be written: {_told(ledger_error)}"
            self._warn(why)
            if self.summary.exit_code in (ExitCode.DONE, ExitCode.ITEMS_FAILED):
                finish(self.summary, ExitCode.HISTORY_NOT_WRITTEN, why)
        if self.summary.exit_code not in (ExitCode.DONE, ExitCode.ITEMS_FAILED, ExitCode.RUN_ACTIVE):
            notify.alarm(f"{self.summary.outcome}: {self.summary.reason}")
        told = self.summary.as_dict() | {"run": self.row}
        followup.after_run(self.ledger, self.settings.server, self.settings.telling, self.settings.budget, told, now)
        if isinstance(error, Exception) and not isinstance(error, SpamopsError):
            log.error("a defect ended the run", exc_info=error)
            if self.summary.exit_code == ExitCode.UNEXPECTED:
                raise error  # the caller shows where; the server is seen to and the row is written

    @contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        self.watcher.step(text)
        began = self.clock.monotonic()
        try:
            yield
        finally:
            self.summary.steps[name] = round(self.clock.monotonic() - began, 3)

    def _warn(self, text: str) -> None:
        self.summary.warnings.append(text)
        self.watcher.note(f"warning: {text}")


def worth_a_diagnosis(error: BaseException | None) -> bool:
    """Whether what ended a run may be explained by the server: not a signal, the cloud, the budget or another run."""
    if isinstance(error, SpamopsError):
        return isinstance(error, CheckerError)
    return isinstance(error, Exception)


def _outcome(error: BaseException | None, *, seen: bool) -> tuple[ExitCode, str | None]:
    if error is None:
        return ExitCode.DONE, None
    if isinstance(error, Interrupted):
        return error.exit_code, f"ended by signal {error.signum}" + (
            "" if seen else "; the server was not seen, look at it"
        )
    if isinstance(error, SpamopsError):
        return error.exit_code, str(error)
    return ExitCode.UNEXPECTED, _told(error)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
