"""The reaper: a server that is on although nobody looks after it is asked what it is doing, and shelved unless it works.

Controllers do not know of each other's locks, which are files of one machine. So a server is left alone while a run of this
controller holds its lock, for a grace time after anybody did anything to it (Nova's action log tells), while Nova has a task
of it in hand, and while its checker works; the last two within a limit, after which money counts for more.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from . import followup, limits, notify, uptime, work
from .alarms import Desk, Kind
from .budget import Budget
from .clock import Clock, RealClock
from .cloud import FREE_STATUSES, PASSING, SHELVED, TASK_LEADS_TO, Observed, Server, connect
from .errors import CloudError, ExitCode, LedgerError, RunActive, ServerMissing, SettingsError
from .ledger import Ledger
from .lock import ServerLock, held_since, require_free
from .settings import Settings
from .summary import Summary, add_states, finish
from .telling import Telling
from .work import Doing

log = logging.getLogger(__name__)

Known = TypeVar("Known")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Action(StrEnum):
    """What the reaper did, or (with `would_`) would have done."""

    NOTHING = "nothing"  # the server costs nothing
    LEFT_ALONE = "left_alone"
    WOULD_SHELVE = "would_shelve"
    SHELVED = "shelved"
    FAILED = "failed"


@dataclass(frozen=True)
class Plan:
    """What a reaper has to know. Times in seconds; `rate` of the budget in service units an hour."""

    server: str
    ledger: Ledger
    checker_url: str
    api_key: str = field(repr=False)
    cloud_arguments: dict[str, Any] = field(repr=False)
    grace_seconds: float = limits.REAP_GRACE_SECONDS
    working_seconds: float = limits.REAP_WORKING_SECONDS
    shelve_seconds: float = limits.SHELVE_SECONDS
    api_seconds: float = limits.API_SECONDS
    patience_seconds: float = limits.STATUS_GRACE_SECONDS
    budget: Budget = field(default_factory=Budget)
    telling: Telling = field(default_factory=Telling)


@dataclass
class Reaped:
    """What came of it. `unattended_seconds` is how long nobody had done anything to the server; `service_units` what that
    cost, None without a rate; `woken_by` Nova's id of the user who last did something; `settled` the runs that were closed
    because their controller died."""

    server: str
    action: Action = Action.NOTHING
    reason: str = ""
    exit_code: int = int(ExitCode.DONE)
    server_id: str | None = None
    status_before: str | None = None
    status_after: str | None = None
    doing: str | None = None
    unattended_seconds: float | None = None
    active_seconds: float = 0.0
    service_units: float | None = None
    woken_by: str | None = None
    run: int | None = None
    settled: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Decision:
    shelve: bool
    reason: str
    doing: Doing | None = None
    since: datetime | None = None
    woken_by: str | None = None
    stuck: bool = False
    """A run of this controller has held the server for too long, and its checker does not work."""


def plan_of(settings: Settings) -> Plan:
    """The reaper's plan from a controller's settings."""
    return Plan(
        server=settings.server,
        ledger=Ledger(settings.state_dir),
        checker_url=settings.checker_base,
        api_key=settings.api_key.get_secret_value(),
        cloud_arguments={"api_timeout": settings.api_seconds, **settings.cloud_arguments()},
        grace_seconds=settings.reap_grace_seconds,
        working_seconds=settings.reap_working_seconds,
        shelve_seconds=settings.shelve_seconds,
        api_seconds=settings.api_seconds,
        patience_seconds=settings.status_grace_seconds,
        budget=settings.budget,
        telling=settings.telling,
    )


def reap(plan: Plan, *, dry_run: bool = False, clock: Clock | None = None, connection: Any | None = None) -> Reaped:
    """Look once, and shelve what nobody uses. With `dry_run` nothing is changed, kept or told.

    Raises nothing for what the cloud or the checker does: that is in `exit_code` and `reason`, and raises an alarm.
    """
    return _Reaper(plan, dry_run, clock or RealClock(), connection).run()


class _Reaper:
    def __init__(self, plan: Plan, dry_run: bool, clock: Clock, connection: Any | None) -> None:
        self._plan = plan
        self._dry_run = dry_run
        self._clock = clock
        self._connection = connection
        self._desk = Desk(plan.ledger, plan.server, plan.telling)
        self._result = Reaped(plan.server)
        self._server: Server | None = None
        self._history_fault: str | None = None

    def run(self) -> Reaped:
        looked = False
        try:
            self._reap()
            looked = True
        except CloudError as error:  # it could not be looked at
            self._end(Action.FAILED, str(error), ExitCode.SERVER_NOT_WOKEN)
            self._alarm(Kind.NOT_SEEN, str(error))
            # A name may be missing because the project is the wrong one; an id that was seen there is gone.
            if isinstance(error, ServerMissing) and UUID.fullmatch(self._plan.server) and not self._dry_run:
                self._desk.gone(self._clock.now())
        except LedgerError as error:
            looked = True
            self._end(Action.FAILED, str(error), ExitCode.HISTORY_NOT_WRITTEN)
            notify.alarm(f"reap: {error}")
        except Exception as error:  # a server may be on, and nobody else looks
            log.exception("the reaper failed")
            self._end(Action.FAILED, f"the reaper failed: {type(error).__name__}: {error}", ExitCode.UNEXPECTED)
            self._alarm(Kind.NOT_SEEN, self._result.reason)
        if self._history_fault and self._result.exit_code == ExitCode.DONE:
            self._end(
                self._result.action, f"{self._result.reason}; {self._history_fault}", ExitCode.HISTORY_NOT_WRITTEN
            )
        if not self._dry_run:
            if looked and self._server is not None and self._server.seen:
                self._desk.saw(self._server.seen[-1].status, self._clock.now())
            followup.finish(self._desk, self._plan.budget, self._clock.now())
        return self._result

    def _known(self, look: Callable[[], Known], otherwise: Known) -> Known:
        """What the history tells. A server is not left on because nothing can be read there, or written."""
        try:
            return look()
        except LedgerError as error:
            if self._history_fault is None:
                notify.alarm(f"reap: {error}")
            self._history_fault = str(error)
            return otherwise

    def _reap(self) -> None:
        connection = self._connection or connect(**self._plan.cloud_arguments)
        self._server = server = Server(connection, self._plan.server, clock=self._clock)
        now = server.look()
        self._result.server_id = server.id
        self._result.status_before = self._result.status_after = now.status
        decision = self._decide(server, now)
        if decision.shelve and not self._dry_run:
            with self._locks(server) as held:
                if held is not None:
                    self._end(Action.LEFT_ALONE, held)
                    return
                # Somebody may have come since: what counts is what is seen with the lock in hand.
                decision = self._decide(server, server.look(), locked=True)
                if decision.shelve:
                    self._note(decision)
                    self._shelve(server, decision)
                    return
        self._note(decision)
        if decision.shelve:
            self._end(Action.WOULD_SHELVE, decision.reason)
        elif self._result.status_before in FREE_STATUSES:
            self._settle_asleep(server)
            self._end(Action.NOTHING, decision.reason)
        else:
            self._end(Action.LEFT_ALONE, decision.reason)
            if now.status == "ERROR":
                self._result.exit_code = int(ExitCode.SERVER_NOT_WOKEN)
                self._alarm(Kind.IN_ERROR, decision.reason)
            if decision.stuck:
                self._result.exit_code = int(ExitCode.SERVER_NOT_SHELVED)
                self._alarm(Kind.NOT_SHELVED, decision.reason)

    def _decide(self, server: Server, now: Observed, *, locked: bool = False) -> _Decision:
        if now.status in FREE_STATUSES:
            return _Decision(False, f"the server is {now}: it costs nothing")
        if now.status == "ERROR":
            return _Decision(False, "the server is in ERROR: it is left alone, a person has to look at it")
        if not locked:
            try:
                for name in self._names(server):
                    require_free(self._plan.ledger.path.parent, name)
            except RunActive as error:
                return self._held(server, now, error)
        actions = uptime.actions_of(server)
        touched = uptime.touched_at(actions, server.changed_at)
        ended = self._known(lambda: self._plan.ledger.last_end(self._names(server), checks_only=True), None)
        since = max((at for at in (touched, ended) if at is not None), default=None)
        waited = 0.0 if since is None else max(0.0, (self._clock.now() - since).total_seconds())
        by = actions[-1].user_id if actions else None
        told = f"{waited:.0f} s without a run"
        if since is not None and waited < self._plan.grace_seconds:
            return _Decision(False, f"{told}: within the grace time of {self._plan.grace_seconds:g} s", None, since, by)
        too_long = waited >= self._plan.working_seconds
        if (now.task_state or now.status in PASSING) and not too_long:
            leads = TASK_LEADS_TO.get(now.task_state or "", "")
            words = "it is being shelved" if leads in FREE_STATUSES else "Nova has a task of it in hand"
            return _Decision(False, f"the server is {now}: {words}", None, since, by)
        doing, evidence = self._ask(server, now)
        patient = doing in (Doing.WORKING, Doing.UNKNOWN)
        if patient and not too_long:
            return _Decision(
                False, f"{told}, but {evidence}: left until {self._plan.working_seconds:g} s", doing, since, by
            )
        limit = f", and that for more than {self._plan.working_seconds:g} s" if patient else ""
        return _Decision(True, f"the server is {now}, {told}, {doing}: {evidence}{limit}", doing, since, by)

    def _held(self, server: Server, now: Observed, error: RunActive) -> _Decision:
        """A live run keeps its server. One that was stopped (Ctrl-Z) or cannot write to its terminal (Ctrl-S) lives too, and
        for ever: a person has to see to that."""
        reason = f"a run is active here: {error}"
        since = min(
            (at for name in self._names(server) if (at := held_since(self._plan.ledger.path.parent, name)) is not None),
            default=None,
        )
        if since is None or (self._clock.now() - since).total_seconds() < self._plan.working_seconds:
            return _Decision(False, reason)
        doing, evidence = self._ask(server, now)
        if doing is Doing.WORKING:
            return _Decision(False, f"{reason}; {evidence}", doing, since)
        text = (
            f"{reason}. It has kept the server for more than {self._plan.working_seconds:g} s, and {evidence}: was it"
            " suspended? Let it go on (fg), or end it (kill): it shelves the server then"
        )
        return _Decision(False, text, doing, since, stuck=True)

    def _open_runs(self, server: Server) -> list[dict[str, Any]]:
        return self._known(lambda: self._plan.ledger.open_runs(self._names(server)), [])

    def _ask(self, server: Server, now: Observed) -> tuple[Doing, str]:
        if now.status != "ACTIVE":
            return Doing.IDLE, f"a server that is {now.status} cannot work"
        known = [run["workflow_id"] for run in self._open_runs(server) if run["workflow_id"]]
        told = work.ask(
            self._plan.checker_url,
            self._plan.api_key,
            known,
            clock=self._clock,
            call_seconds=self._plan.api_seconds,
            patience=self._plan.patience_seconds,
        )
        return told.doing, told.evidence

    def _shelve(self, server: Server, decision: _Decision) -> None:
        plan, ledger = self._plan, self._plan.ledger
        began = self._clock.now()
        dead = self._open_runs(server)
        since = decision.since or began
        if dead:
            since = min(datetime.fromisoformat(row["started_at"]) for row in dead)
            self._result.run = dead[-1]["id"]
        else:
            # What the server cost while nobody looked belongs into the history, once, and counts for the budget.
            counted = self._known(lambda: ledger.last_end(self._names(server)), None)
            since = start = since if counted is None else max(since, counted)
            self._result.run = self._known(lambda: ledger.begin(plan.server, "reap", start, plan.budget.rate), None)
            dead = self._open_runs(server)
        states = uptime.states_since(uptime.actions_of(server), since, server.seen[-1], server.changed_at)
        before = len(server.seen)
        fault: str | None = None
        try:
            server.bring_to(SHELVED, plan.shelve_seconds)
        except ServerMissing:
            pass  # what is not there costs nothing
        except CloudError as error:
            fault = str(error)
        except Exception as error:  # whatever it is, a person has to know that the server is on
            log.exception("shelving failed")
            fault = f"{type(error).__name__}: {error}"
        end = self._clock.now()
        states += server.seen[before:]
        self._result.status_after = states[-1].status
        summary = Summary(server=plan.server)
        add_states(summary, states, end, plan.budget.rate)
        self._result.active_seconds, self._result.service_units = summary.active_seconds, summary.service_units
        cost = "" if summary.service_units is None else f", {summary.service_units:.3g} service units"
        text = f"{decision.reason}; it was on for {summary.active_seconds:.0f} s{cost} since {since:%Y-%m-%d %H:%M} UTC"
        if fault is None:
            self._end(Action.SHELVED, text)
            self._alarm(Kind.REAPED, text)
        else:
            self._end(
                Action.FAILED,
                f"{fault}. Shelve it now: openstack server shelve {plan.server}",
                ExitCode.SERVER_NOT_SHELVED,
            )
            self._alarm(Kind.NOT_SHELVED, f"the reaper could not shelve it: {fault}; {text}")
        self._write_ends(dead, states, end, fault, decision)

    def _write_ends(
        self, dead: list[dict[str, Any]], states: list[Observed], end: datetime, fault: str | None, decision: _Decision
    ) -> None:
        plan = self._plan
        own = [row for row in dead if row["started_by"] == "reap"]
        others = [row for row in dead if row["started_by"] != "reap"]
        try:
            self._result.settled = uptime.settle(
                plan.ledger, others, states, end, plan.budget.rate, reason=f"{uptime.DIED}; reaped: {decision.reason}"
            )
            for row in own:
                summary = Summary(server=plan.server, run=row["id"])
                add_states(summary, states, end, plan.budget.rate)
                code = ExitCode.DONE if fault is None else ExitCode.SERVER_NOT_SHELVED
                finish(summary, code, fault or f"reaped: {decision.reason}")
                plan.ledger.end(row["id"], summary, end)
        except LedgerError as error:
            notify.alarm(f"reap: {error}")
            if fault is None:
                self._end(self._result.action, f"{self._result.reason}; {error}", ExitCode.HISTORY_NOT_WRITTEN)

    def _settle_asleep(self, server: Server) -> None:
        """Close what dead controllers left open, once the server sleeps. The lock is not taken for nothing: a run that begins
        now would be refused."""
        if self._dry_run or not self._plan.ledger.open_runs(self._names(server)):
            return
        with self._locks(server) as held:
            if held is None:
                self._result.settled = uptime.settle_dead(
                    self._plan.ledger, server, self._names(server), 0, self._clock.now(), self._plan.budget.rate
                )
        for run in self._result.settled:
            self._result.run = run
            self._alarm(Kind.CHECK_FAILED, f"run {run}: {uptime.DIED}; the server is {server.seen[-1].status}")

    @contextlib.contextmanager
    def _locks(self, server: Server) -> Iterator[str | None]:
        """The locks of the server's name and id; what is yielded tells who else holds one, None for nobody."""
        with contextlib.ExitStack() as stack:
            held: str | None = None
            try:
                for name in self._names(server):
                    lock = ServerLock(self._plan.ledger.path.parent, name)
                    lock.acquire()
                    stack.callback(lock.release)
            except RunActive as error:
                held = f"a run is active here: {error}"
            except SettingsError as error:  # a lock that nobody can take protects nobody
                self._history_fault = str(error)
            yield held

    def _names(self, server: Server) -> list[str]:
        return list(dict.fromkeys(name for name in (self._plan.server, server.id) if name))

    def _note(self, decision: _Decision) -> None:
        self._result.doing = None if decision.doing is None else str(decision.doing)
        self._result.woken_by = decision.woken_by
        if decision.since is not None:
            self._result.unattended_seconds = round((self._clock.now() - decision.since).total_seconds(), 1)

    def _end(self, action: Action, reason: str, code: ExitCode = ExitCode.DONE) -> None:
        self._result.action, self._result.reason, self._result.exit_code = action, reason, int(code)

    def _alarm(self, kind: Kind, text: str) -> None:
        if not self._dry_run:
            notify.alarm(f"reap: {kind}: {text}")
            again = kind is Kind.CHECK_FAILED  # each run that failed is told, as by the run itself
            self._desk.open(kind, text, self._clock.now(), run=self._result.run, again=again)
