"""The server's life: the only place that knows Nova's states.

States, answers and races are those observed on a real Nova: an unshelve that fails falls back to SHELVED_OFFLOADED and a
shelve that fails back to ACTIVE, both without a fault on the server, so the instance action log is read; a lost answer
may have been an accepted one, so the server is read before anything is repeated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import openstack
from keystoneauth1 import exceptions as keystone_errors
from openstack import exceptions as sdk_errors

from .clock import Clock, RealClock
from .cloud_faults import Retry, brief, name_fault, status_of, words_of
from .errors import (
    ActionFailed,
    CloudError,
    CloudRefused,
    CloudUnavailable,
    NoCapacity,
    ServerInError,
    ServerLocked,
    ServerMissing,
    TooSlow,
    UnsuitableState,
)
from .limits import API_SECONDS
from .text import one_line

T = TypeVar("T")

FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 3.0
POLL_GROWTH = 1.5
"""A look at the server every 0.1 s at first, then ever more slowly: a quick cloud costs no paid waiting, a slow one no load."""


FALLBACK_GRACE_SECONDS = 5.0
"""How long an accepted action may leave the server as it was, with nothing in the action log, before it counts as failed."""

LATE_SECONDS = 5.0
"""How long Nova may take to begin with an action whose answer never came (a lost connection, a signal while it was asked).
A server that was asked so is believed to be shelved only after that: otherwise it may wake behind a run that has ended."""

ACTION_TRIES = 3
"""How often an action that wakes the server, that Nova accepted and failed, is asked for. Lack of capacity is retried until
the limit, and so is every failure of shelving: giving up early costs money, trying again does not."""

FREE_STATUSES = frozenset({"SHELVED", "SHELVED_OFFLOADED", "DELETED", "SOFT_DELETED"})
"""Statuses that the cloud does not bill (Jetstream2's documentation: SHELVED 0 %)."""


@dataclass(frozen=True)
class Observed:
    """What the server was seen to be. `at` is the time of day in UTC."""

    at: datetime
    status: str
    task_state: str | None

    def __str__(self) -> str:
        """As operators write it: `ACTIVE`, or `ACTIVE (shelving)`."""
        return self.status + (f" ({self.task_state})" if self.task_state else "")


@dataclass(frozen=True)
class LoggedAction:
    """An entry of Nova's action log. `at` is when it was asked for, in UTC by the cloud's clock; `user_id` by whom."""

    name: str
    at: datetime
    user_id: str
    failed: bool


@dataclass(frozen=True)
class Goal:
    """Where a server is to be brought, and Nova's action from each settled status. `end` is what it becomes as a rule."""

    name: str
    end: str
    reached: frozenset[str]
    actions: Mapping[str, str]


ACTIVE = Goal(
    "active",
    "ACTIVE",
    frozenset({"ACTIVE"}),
    {
        "SHELVED": "unshelve",
        "SHELVED_OFFLOADED": "unshelve",
        "SHUTOFF": "start",
        "PAUSED": "unpause",
        "SUSPENDED": "resume",
    },
)
SHELVED = Goal(
    "shelved",
    "SHELVED_OFFLOADED",
    # SHELVED with no task is the end on clouds that never offload; while Nova offloads it has a task_state.
    frozenset({"SHELVED", "SHELVED_OFFLOADED"}),
    {"ACTIVE": "shelve", "SHUTOFF": "shelve", "PAUSED": "shelve", "SUSPENDED": "shelve"},
)
GOALS = {goal.name: goal for goal in (ACTIVE, SHELVED)}

PASSING = frozenset(
    {"BUILD", "REBOOT", "HARD_REBOOT", "REBUILD", "MIGRATING", "PASSWORD", "RESIZE", "REVERT_RESIZE", "UNKNOWN"}
)
"""Statuses that Nova leaves by itself, also with an empty task_state. UNKNOWN: its host does not report; often passing."""

TASK_LEADS_TO = {
    "unshelving": "ACTIVE",
    "spawning": "ACTIVE",
    "powering-on": "ACTIVE",
    "unpausing": "ACTIVE",
    "resuming": "ACTIVE",
    "powering-off": "SHUTOFF",
    "pausing": "PAUSED",
    "suspending": "SUSPENDED",
    "shelving": "SHELVED_OFFLOADED",
    "shelving_image_pending_upload": "SHELVED_OFFLOADED",
    "shelving_image_uploading": "SHELVED_OFFLOADED",
    "shelving_offloading": "SHELVED_OFFLOADED",
}
"""Where a task that Nova has in hand leads, for predictions; any other leads to ACTIVE (building, rebooting, …)."""


def connect(**arguments: Any) -> Any:
    """A connection of openstacksdk, from the arguments of `openstack.connect`, clouds.yaml and OS_*.

    A whole credential given here (`auth`, and no `cloud`) is not mixed with what clouds.yaml or the environment say of
    another cloud. Raises CloudRefused where there is nothing to log in with. Nothing is sent yet.
    """
    arguments.setdefault("api_timeout", API_SECONDS)
    look_around = "auth" not in arguments or "cloud" in arguments
    try:
        return openstack.connect(
            app_name="spamops", load_yaml_config=look_around, load_envvars=look_around, **arguments
        )
    except (sdk_errors.ConfigException, sdk_errors.SDKException, keystone_errors.ClientException, TypeError) as error:
        raise CloudRefused(
            f"no way to log in to the cloud: {words_of(error).rstrip('.')}. Name a cloud of clouds.yaml, set OS_*, or give an"
            " application credential and auth_url"
        ) from error


class Server:
    """One server, looked at and moved. Every change seen is kept in `seen` and handed to `on_change`; `before_action` is
    called before anything is asked of Nova, and stops it by raising."""

    def __init__(
        self,
        connection: Any,
        name_or_id: str,
        *,
        clock: Clock | None = None,
        on_change: Callable[[Observed], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        before_action: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self.name_or_id = name_or_id
        self.id: str | None = None
        self._clock = clock or RealClock()
        self._on_change = on_change or (lambda _: None)
        self._on_note = on_note or (lambda _: None)
        self._before_action = before_action or (lambda: None)
        self.seen: list[Observed] = []
        self.changed_at: datetime | None = None
        self.asked = False
        self._unanswered_at: float | None = None

    @property
    def may_cost(self) -> bool:
        """Whether the server may be running, for all that is known: it was seen in a status that is paid for, or was asked
        to do something. One that was in ERROR when it was first seen, and left alone, is neither."""
        return self.asked or any(seen.status not in FREE_STATUSES | {"ERROR"} for seen in self.seen)

    def look(self, limit: float = 60.0) -> Observed:
        """The server's state now; faults of the API are put up with for `limit` seconds.

        Raises ServerMissing, CloudRefused, CloudUnavailable.
        """
        return self._look(self._clock.monotonic() + limit)

    def actions(self) -> list[LoggedAction]:
        """What Nova logged of the server, oldest first; asked for once, after the server was looked at.

        Raises CloudError, also where an access rule of the credential forbids it.
        """
        try:
            entries = list(self._compute.server_actions(self.id))
        except Exception as error:
            raise name_fault(error, "reading the action log") from error
        found = []
        for entry in entries:
            at = _time(entry.start_time)
            if at is not None:
                failed = str(entry.message or "").lower() == "error"
                found.append(LoggedAction(str(entry.action), at, str(entry.user_id or ""), failed))
        return sorted(found, key=lambda entry: entry.at)

    def bring_to(self, goal: Goal, limit: float) -> Observed:
        """Bring the server to the goal from whatever state it is in, within `limit` seconds.

        Raises a CloudError that says what stood in the way and what state the server is in. Calls nothing but GET when
        the goal is reached already.
        """
        started = self._clock.monotonic()
        return _Move(self, goal, started + limit, limit, self._clock, self._on_note).run()

    def planned(self, goal: Goal) -> str | None:
        """The action that `bring_to` would ask for, judged by the state that was seen last; None where there is nothing to
        ask. Calls nothing.

        Raises a CloudError where no action leads to the goal.
        """
        now = self.seen[-1]
        self.check_way(goal, now)
        if now.task_state or now.status in PASSING:
            status = TASK_LEADS_TO.get(now.task_state or "", "ACTIVE")
        else:
            status = now.status
        return None if status in goal.reached else goal.actions.get(status)

    def ask(self, action: str) -> Observed:
        """Ask Nova for one action, once; the state right after it.

        Raises the CloudError that names the refusal.
        """
        try:
            self._act(action)
        except Exception as error:
            raise name_fault(error, f"asking for {action}") from error
        return self.look()

    def check_way(self, goal: Goal, now: Observed) -> None:
        """Return when some way may lead from here to the goal.

        Raises ServerInError, ServerMissing, UnsuitableState.
        """
        if now.status == "ERROR":
            fault = one_line(str((self._fault or {}).get("message") or ""))
            raise ServerInError(
                f"the server is in ERROR{f': {fault}' if fault else ''}. It was left alone. Look at it with 'openstack server"
                " show', repair it (often: openstack server set --state active, or rebuild), then run again"
            )
        if now.status in ("DELETED", "SOFT_DELETED"):
            raise ServerMissing("the server was deleted")
        if now.task_state or now.status in PASSING or now.status in goal.actions or now.status in goal.reached:
            return
        raise UnsuitableState(
            f"the server is {now}: no check run can bring it to {goal.name} from there. Finish what was begun"
            " (confirm the resize, unrescue, …), then run again"
        )

    @property
    def _compute(self) -> Any:
        """The SDK's client of Nova, without its own second try: openstacksdk before 4.15 repeats a call at once when the
        connection breaks, also one that Nova may have accepted, and doubles every time limit so."""
        compute = self._connection.compute
        if not isinstance(compute.request, functools.partial):
            compute.request = functools.partial(compute.request, connect_retries=0)
        return compute

    # What follows is shared with _Move: one look, one action, one read of the action log, each with its faults named.

    def _look(self, deadline: float) -> Observed:
        retry = Retry(self._clock, deadline, self._on_note)
        while True:
            try:
                server = self._get()
            except Exception as error:  # noqa: BLE001 - named, or raised again, in Retry
                retry.after(error, "looking at the server")
                continue
            self._fault = server.fault
            self.changed_at = _time(server.updated_at)
            return self._saw(str(server.status).upper(), server.task_state or None)

    def _saw(self, status: str, task_state: str | None) -> Observed:
        observed = Observed(self._clock.now(), status, task_state)
        last = self.seen[-1] if self.seen else None
        if last is None or (last.status, last.task_state) != (observed.status, observed.task_state):
            self.seen.append(observed)
            self._on_change(observed)
        return observed

    def _get(self) -> Any:
        compute = self._compute
        if self.id is None:
            self.id = self._find(compute)
        try:
            server = compute.get_server(self.id)
        except sdk_errors.NotFoundException as error:
            if "itemNotFound" not in str(getattr(error.response, "text", "")):
                # A proxy's 404, not Nova's: a server is not believed to be gone by hearsay.
                raise CloudUnavailable("404 for the server, but not in Nova's words") from error
            self._saw("DELETED", None)
            raise ServerMissing(f"the server {self.name_or_id} no longer exists in this project") from None
        if not server.status:
            raise CloudUnavailable("the cloud described the server without a status")
        return server

    def _find(self, compute: Any) -> str:
        try:
            return str(compute.get_server(self.name_or_id).id)
        except (sdk_errors.NotFoundException, sdk_errors.BadRequestException):
            pass  # not an id: a name
        try:
            server = compute.find_server(self.name_or_id, ignore_missing=True)
        except sdk_errors.NotFoundException:
            server = None
        except sdk_errors.DuplicateResource:
            raise ServerMissing(f"several servers are called {self.name_or_id}: give the id of the one meant") from None
        if server is None:
            raise ServerMissing(
                f"no server {self.name_or_id} in this project: check the id or name, the region, and which project the"
                " credential belongs to"
            )
        return str(server.id)

    def _act(self, action: str) -> None:
        self._before_action()
        self.asked = True
        compute = self._compute
        try:
            getattr(compute, f"{action}_server")(self.id)
        except BaseException as error:
            refused = 400 <= (status_of(error) or 0) < 500
            self._unanswered_at = None if refused else self._clock.monotonic()
            raise
        self._unanswered_at = None

    @property
    def _in_doubt(self) -> bool:
        """Whether Nova may still begin with an action whose answer never came."""
        return self._unanswered_at is not None and self._clock.monotonic() - self._unanswered_at < LATE_SECONDS

    def _failed_event(self, action: str) -> str | None:
        """The event that failed in the newest log entry of `action`; '' when it is there and failed without naming one;
        None when nothing says that it failed."""
        compute = self._compute
        entries = sorted(compute.server_actions(self.id), key=lambda entry: str(entry.start_time))
        newest = next((entry for entry in reversed(entries) if entry.action == action), None)
        if newest is None:
            return None
        detail = compute.get_server_action(newest.request_id, self.id)
        events = detail.events or []
        failed = [event["event"] for event in events if str(event.get("result") or "").lower() == "error"]
        if failed:
            return str(failed[0])
        return "" if str(detail.message or "").lower() == "error" else None


def _time(text: Any) -> datetime | None:
    """A time as Nova writes it: ISO 8601, in UTC whether it says so or not."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


class _Move:
    """One way to a goal: looks, acts, and looks again until the goal, a dead end, or the deadline."""

    def __init__(
        self, server: Server, goal: Goal, deadline: float, limit: float, clock: Clock, note: Callable[[str], None]
    ) -> None:
        self._server = server
        self._goal = goal
        self._deadline = deadline
        self._limit = limit
        self._clock = clock
        self._note = note
        self._retry = Retry(clock, deadline, note)
        self._failure_retry = Retry(clock, deadline, note)
        self._hindrance = ""
        self._accepted: str | None = None  # the action that Nova took and that has not moved the server yet
        self._accepted_at = 0.0
        self._moved = False
        self._failures: dict[str, int] = {}
        self._last_failure: CloudError | None = None

    def run(self) -> Observed:
        pause = FIRST_POLL_SECONDS
        before: tuple[str, str | None] | None = None
        while True:
            now = self._server._look(self._deadline)
            if self._arrived(now):
                return now
            if (now.status, now.task_state) != before:
                before, pause = (now.status, now.task_state), FIRST_POLL_SECONDS
            self._server.check_way(self._goal, now)
            action = None if now.task_state or now.status in PASSING else self._goal.actions.get(now.status)
            if action is not None and self._may_ask(action):
                self._ask(action)
                pause = FIRST_POLL_SECONDS
            elif action is None:
                self._moved = self._moved or self._accepted is not None
            if self._clock.monotonic() >= self._deadline:
                raise self._too_slow(now)
            self._clock.sleep(pause)
            pause = min(LONGEST_POLL_SECONDS, pause * POLL_GROWTH)

    def _arrived(self, now: Observed) -> bool:
        there = now.status in self._goal.reached and now.task_state is None
        return there and not (self._goal is SHELVED and self._server._in_doubt)

    def _may_ask(self, action: str) -> bool:
        """Whether to ask Nova now. A server that sits where it was after an accepted action has fallen back: that is
        looked up in the action log and counted."""
        if (
            self._accepted != action
        ):  # nothing was asked yet, or the server has moved on to where something else is needed
            return True
        failure = self._failure_of(action)
        if failure is None:
            return False
        self._accepted, self._moved = None, False
        count = self._failures[type(failure).__name__] = self._failures.get(type(failure).__name__, 0) + 1
        self._last_failure = failure
        if self._goal is not SHELVED and not isinstance(failure, NoCapacity) and count >= ACTION_TRIES:
            raise failure
        self._note(f"{failure} (try {count}); trying again")
        self._failure_retry.pause()
        return self._clock.monotonic() < self._deadline

    def _failure_of(self, action: str) -> CloudError | None:
        try:
            event = self._server._failed_event(action)
        except Exception as error:  # noqa: BLE001 - the log is evidence, not needed: an access rule may forbid it
            event = None
            evidence = f"the action log could not be read ({brief(error)})"
        else:
            evidence = "the action log does not say why" if not event else f"event {event}"
        waited = self._clock.monotonic() - self._accepted_at
        if event is None and not self._moved and waited < FALLBACK_GRACE_SECONDS:
            return None
        if event == "schedule_instances" or (event and "schedule" in event):
            return NoCapacity(
                "the cloud has no host free for the server now (no valid host): it stays SHELVED_OFFLOADED"
            )
        where = self._server.seen[-1]
        return ActionFailed(f"Nova accepted '{action}' and failed: the server is {where} again; {evidence}")

    def _ask(self, action: str) -> None:
        try:
            self._server._act(action)
        except Exception as error:  # noqa: BLE001 - named, or raised again, in Retry
            if isinstance(error, sdk_errors.ConflictException):
                if "locked" in words_of(error).lower():
                    raise ServerLocked(
                        "the server is locked by an admin of the cloud: ask them to unlock it (openstack server unlock)"
                    ) from None
                # Somebody else was quicker, or the state moved on between look and action: look again.
                refusal = f"Nova refuses to {action} the server (409): {words_of(error)}"
                self._hindrance = f"; {refusal}"
                self._note(f"{refusal}; looking again")
                self._retry.pause()
                return
            # A lost answer may have been an accepted one: the loop looks before it asks again.
            self._hindrance = f"; at last: {name_fault(error, f'asking for {action}')}"
            self._retry.after(error, f"asking for {action}")
            return
        self._retry.reset()
        self._hindrance = ""
        self._accepted, self._accepted_at, self._moved = action, self._clock.monotonic(), False

    def _too_slow(self, now: Observed) -> CloudError:
        if self._last_failure is not None and self._accepted is None:
            return self._last_failure
        if self._last_failure is not None:
            why = f"; before that: {self._last_failure}"
        elif now.task_state:
            why = f"; only an admin of the cloud can reset a stuck task_state ({now.task_state})"
        else:
            why = self._hindrance
        return TooSlow(f"the server is still {now} after {self._limit:g} s, not {self._goal.name}{why}")
