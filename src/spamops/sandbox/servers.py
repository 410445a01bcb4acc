"""The servers of the embedded cloud: what state they are in at any time, their history and their action log."""

from __future__ import annotations

import copy
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..clock import Clock
from . import transitions
from .faults import Failure, ServerFault
from .transitions import STATE_OF_STATUS, Delays, Outcome, State, Step, Trouble

PowerHook = Callable[[str, bool], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSpec:
    """A server as the cloud is told to have it.

    `task_state` None means the one that belongs to the status (REBOOT and BUILD have one). A server in the middle of a
    transition goes on with it, unless it is `stuck`. `locked` means locked by an administrator.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "spamcheck"
    status: str = "SHELVED_OFFLOADED"
    locked: bool = False
    task_state: str | None = None
    stuck: bool = False

    @property
    def state(self) -> State:
        """The state that this server starts in. Raises KeyError for a status that is not known here."""
        state = STATE_OF_STATUS[self.status]
        return state if self.task_state is None else replace(state, task_state=self.task_state)


class NoSuchServer(Exception):
    """404: the id is unknown or the server was deleted."""


class Conflict(Exception):
    """409: the action is not possible now; the message is Nova's."""


class LostRace(Exception):
    """500: another action changed the task_state at the same time."""


@dataclass
class Event:
    """One event of an action; times are seconds since the epoch."""

    name: str
    start: float
    finish: float | None = None
    outcome: Outcome | None = None


@dataclass
class Action:
    """One entry of a server's action log; `start` and `updated` are seconds since the epoch."""

    name: str
    request_id: str
    start: float
    updated: float
    message: str | None = None
    events: list[Event] = field(default_factory=list)


@dataclass
class Server:
    """A server as it is now. Times are seconds since the epoch, except for `due` (seconds of the monotonic clock)."""

    id: str
    name: str
    state: State
    created: float
    locked_by: str | None = None
    fault: tuple[int, str, float] | None = None
    image_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    history: list[tuple[float, State]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    steps: deque[Step] = field(default_factory=deque)
    due: float = 0.0
    powered: bool = False
    hook_running: bool = False

    @property
    def updated(self) -> float:
        """When the state last changed."""
        return self.history[-1][0]


_ALLOWED_VM_STATES = {
    "shelve": ("active", "stopped", "paused", "suspended"),
    "unshelve": ("shelved", "shelved_offloaded"),
    "start": ("stopped",),
    "stop": ("active", "error"),
    "reboot": ("active",),
    "reboot_hard": ("active", "stopped", "paused", "suspended", "error"),
    "pause": ("active",),
    "unpause": ("paused",),
    "suspend": ("active",),
    "resume": ("suspended",),
}
"""Where Nova accepts each action (the decorators of nova/compute/api.py)."""

_FAILURES_OF_UNSHELVE = {
    Failure.NO_CAPACITY,
    Failure.SPAWN_FAILS,
    Failure.IMAGE_GONE,
    Failure.HOST_DIES_SPAWNING,
    Failure.HOST_AWAY,
}


class Fleet:
    """Every server of the cloud. State is worked out from the clock whenever somebody looks; safe for many threads.

    `on_power` is called with (server id, True) before ACTIVE can be seen and with (server id, False) once it no longer
    can, outside every lock, one call at a time for each server. What it raises is logged.
    """

    def __init__(
        self,
        specs: Sequence[ServerSpec],
        *,
        clock: Clock,
        delays: Delays,
        shelved_offload: bool,
        on_power: PowerHook | None,
    ) -> None:
        self._clock = clock
        self._delays = delays
        self._offload = shelved_offload
        self._on_power = on_power
        self._changed = threading.Condition(threading.RLock())
        self._ticker: threading.Thread | None = None
        self._ticking = False
        self._faults: list[ServerFault] = []
        self._servers: dict[str, Server] = {}
        for spec in specs:
            self._add(spec)

    # What the API asks

    def get(self, server_id: str) -> Server:
        """The server as it is now, a copy. Raises NoSuchServer."""
        self.advance()
        with self._changed:
            return copy.deepcopy(self._existing(server_id))

    def all(self) -> list[Server]:
        """Copies of every server that was not deleted, the newest first."""
        self.advance()
        with self._changed:
            present = [server for server in self._servers.values() if server.state.vm_state != "deleted"]
            return copy.deepcopy(present[::-1])

    def act(self, server_id: str, action: str, request_id: str = "") -> None:
        """Begin an action (shelve, unshelve, start, stop, reboot, reboot_hard, pause, unpause, suspend, resume, lock,
        unlock): the new task_state shows at once. Raises NoSuchServer, Conflict, LostRace.
        """
        self.advance()
        with self._changed:
            server = self._existing(server_id)
            if action in ("lock", "unlock"):
                server.locked_by = "owner" if action == "lock" else None
                self._log_action(server, action, request_id)
                return
            self._refuse_if_impossible(server, action)
            steps = self._plan(server, action)
            self._log_action(server, action.removesuffix("_hard"), request_id)
            self._set_steps(server, steps)
            self._apply_next(server, self._clock.monotonic())
            left_active = self._tell_power(server)
            self._changed.notify_all()
        if left_active:
            self._finish_hook(server, powered=False)

    def order(self, fault: ServerFault) -> None:
        """Let a coming action fail."""
        if fault.failure is Failure.STUCK and fault.task_state is None:
            raise ValueError("a fault STUCK needs the task_state in which the server stays")
        with self._changed:
            self._faults.append(fault)

    def orders(self) -> list[ServerFault]:
        """The faults that have not struck yet."""
        with self._changed:
            return list(self._faults)

    def forget_orders(self) -> None:
        """Take back every fault that has not struck yet."""
        with self._changed:
            self._faults.clear()

    # What tests and the demo ask

    def add(self, spec: ServerSpec) -> None:
        """One more server."""
        with self._changed:
            self._add(spec)
            self._changed.notify_all()

    def force(self, server_id: str, status: str, task_state: str | None = None) -> None:
        """Put a server into a state, as an administrator or an accident may; DELETED makes it unknown to clients."""
        state = replace(STATE_OF_STATUS[status], task_state=task_state)
        fault = (500, "The instance is in a state that its host cannot leave.") if status == "ERROR" else None
        with self._changed:
            server = self._existing(server_id)
            self._set_steps(server, [Step(0, state, fault=fault)])
            self._changed.notify_all()
        self._advance(with_hooks=True)

    def history(self, server_id: str) -> list[tuple[float, str, str | None]]:
        """(seconds since the epoch, status, task_state) of every change so far, deleted servers included."""
        self.advance()
        with self._changed:
            return [(at, state.status, state.task_state) for at, state in self._servers[server_id].history]

    def active_seconds(self, server_id: str) -> float:
        """Seconds that the server has spent in vm_state active: what a cloud bills in full, a reboot included."""
        self.advance()
        with self._changed:
            history = self._servers[server_id].history
            ends = [at for at, _ in history[1:]] + [self._clock.now().timestamp()]
            spans = zip(history, ends, strict=True)
            return sum(end - at for (at, state), end in spans if state.vm_state == "active")

    # Time

    def announce(self) -> None:
        """Call the hook for the servers that are ACTIVE from the start."""
        with self._changed:
            on = [server.id for server in self._servers.values() if server.powered]
        for server_id in on:
            self._call_hook(server_id, powered=True)

    def advance(self) -> None:
        """Do what is due. While the ticker runs it does the steps that call the hook, so that no request waits for it."""
        self._advance(with_hooks=not self._ticking)

    def start_ticker(self) -> None:
        """Do every step on time from a thread, without anybody asking. For clocks that move by themselves."""
        if self._ticker is None:
            self._ticking = True
            self._ticker = threading.Thread(target=self._tick, daemon=True, name="sandbox-cloud-ticker")
            self._ticker.start()

    def stop_ticker(self) -> None:
        """End that thread."""
        if self._ticker is not None:
            with self._changed:
                self._ticking = False
                self._changed.notify_all()
            self._ticker.join(timeout=5)
            self._ticker = None

    def _tick(self) -> None:
        while self._ticking:
            self._advance(with_hooks=True)
            with self._changed:
                waiting = [server.due for server in self._servers.values() if server.steps and not server.hook_running]
                seconds = min(waiting) - self._clock.monotonic() if waiting else None
                if self._ticking and (seconds is None or seconds > 0):
                    self._changed.wait(seconds)

    def _advance(self, *, with_hooks: bool) -> None:
        while True:
            with self._changed:
                server = self._next_due(with_hooks=with_hooks)
                if server is None:
                    return
                step, begun = server.steps[0], self._clock.monotonic()
                if not self._calls_hook(server, step):
                    self._apply_next(server, server.due)
                    continue
                server.hook_running = True
            if step.state.status == "ACTIVE":
                self._call_hook(server.id, powered=True)
            with self._changed:
                if server.steps and server.steps[0] is step:
                    self._apply_next(server, server.due + self._clock.monotonic() - begun)
                    now_on = server.state.status == "ACTIVE"
                else:  # forced elsewhere while the hook ran
                    now_on = False
                server.powered = now_on
            self._finish_hook(server, powered=now_on)

    def _next_due(self, *, with_hooks: bool) -> Server | None:
        now = self._clock.monotonic()
        for server in self._servers.values():
            due = server.steps and not server.hook_running and server.due <= now
            if due and (with_hooks or not self._calls_hook(server, server.steps[0])):
                return server
        return None

    def _calls_hook(self, server: Server, step: Step) -> bool:
        return self._on_power is not None and (step.state.status == "ACTIVE") != server.powered

    def _tell_power(self, server: Server) -> bool:
        """Note that the server has just left ACTIVE by an action; the caller then calls the hook outside the lock."""
        left = self._on_power is not None and server.powered and server.state.status != "ACTIVE"
        if left:
            server.powered = False
            server.hook_running = True
        return left

    def _finish_hook(self, server: Server, *, powered: bool) -> None:
        if not powered:
            self._call_hook(server.id, powered=False)
        with self._changed:
            server.hook_running = False
            self._changed.notify_all()

    def _call_hook(self, server_id: str, *, powered: bool) -> None:
        if self._on_power is None:
            return
        try:
            self._on_power(server_id, powered)
        except Exception:  # noqa: BLE001 - whatever the hook does, the cloud goes on
            _log.exception("power hook failed server=%s powered=%s", server_id, powered)

    # Changes; the lock is held

    def _add(self, spec: ServerSpec) -> None:
        if spec.id in self._servers:
            raise ValueError(f"two servers with the id {spec.id}")
        now = self._clock.now().timestamp()
        server = Server(id=spec.id, name=spec.name, state=spec.state, created=now)
        server.locked_by = "admin" if spec.locked else None
        server.history.append((now, spec.state))
        server.powered = spec.state.status == "ACTIVE"
        created = Action("create", _new_request_id(), now, now)
        created.events.append(Event("compute__do_build_and_run_instance", now, now, transitions.SUCCESS))
        server.actions.append(created)
        if spec.state.vm_state == "error":
            server.fault = (500, "Build of instance aborted", now)
        self._servers[spec.id] = server
        if not spec.stuck:
            self._set_steps(server, transitions.rest_of(spec.state, self._delays, offload=self._offload))

    def _existing(self, server_id: str) -> Server:
        server = self._servers.get(server_id)
        if server is None or server.state.vm_state == "deleted":
            raise NoSuchServer(f"Instance {server_id} could not be found.")
        return server

    def _refuse_if_impossible(self, server: Server, action: str) -> None:
        state = server.state
        shown = action.removesuffix("_hard")
        if server.locked_by is not None:
            raise Conflict(f"Instance {server.id} is locked")
        if action == "start" and state.vm_state == "shelved_offloaded":
            raise Conflict(f"Instance {server.id} is not ready")
        if state.vm_state not in _ALLOWED_VM_STATES[action]:
            raise Conflict(f"Cannot '{shown}' instance {server.id} while it is in vm_state {state.vm_state}")
        if state.task_state is not None:
            if action == "unshelve" and self._take_fault(server, {Failure.LOST_RACE}, []):
                raise LostRace("nova.exception.UnexpectedTaskStateError")
            raise Conflict(f"Cannot '{shown}' instance {server.id} while it is in task_state {state.task_state}")

    def _plan(self, server: Server, action: str) -> list[Step]:
        def steps(trouble: Trouble | None) -> list[Step]:
            if action == "shelve":
                return transitions.shelve(server.state, self._delays, offload=self._offload, trouble=trouble)
            if action == "unshelve":
                return transitions.unshelve(server.state, self._delays, image_id=server.image_id, trouble=trouble)
            return transitions.simple(action, server.state, self._delays, trouble)

        failures = {Failure.STUCK}
        if action == "unshelve" and server.state.vm_state == "shelved_offloaded":
            failures |= _FAILURES_OF_UNSHELVE
        elif action == "shelve":
            failures |= {Failure.SNAPSHOT_FAILS}
        return steps(self._take_fault(server, failures, steps(None)))

    def _take_fault(self, server: Server, failures: set[Failure], steps: Iterable[Step]) -> Trouble | None:
        steps = list(steps)
        for index, fault in enumerate(self._faults):
            if fault.failure not in failures or fault.server_id not in (None, server.id):
                continue
            if fault.failure is Failure.STUCK and not transitions.passes_through(steps, fault.task_state):
                continue
            if fault.times is not None:
                left = replace(fault, times=fault.times - 1)
                self._faults[index : index + 1] = [left] if left.times else []
            return Trouble(fault.failure, fault.task_state, fault.seconds)
        return None

    def _set_steps(self, server: Server, steps: Iterable[Step]) -> None:
        server.steps = deque(steps)
        if server.steps:
            server.due = self._clock.monotonic() + server.steps[0].after

    def _apply_next(self, server: Server, at: float) -> None:
        """Take the first step, as of `at` (seconds of the monotonic clock)."""
        step = server.steps.popleft()
        when = self._clock.now().timestamp() - (self._clock.monotonic() - at)
        when = max(when, server.updated)  # two clocks are read: their jitter must not turn the history around
        if step.state != server.state:
            server.state = step.state
            server.history.append((when, step.state))
        if self._on_power is None:
            server.powered = step.state.status == "ACTIVE"
        self._write_log(server, step, when)
        server.fault = (*step.fault, when) if step.fault else server.fault if step.state.vm_state == "error" else None
        if server.steps:
            server.due = at + server.steps[0].after

    def _write_log(self, server: Server, step: Step, when: float) -> None:
        action = server.actions[-1]
        if step.ends is not None and action.events and action.events[-1].outcome is None:
            event = action.events[-1]
            event.finish, event.outcome = when, step.ends
            action.updated = when
            if step.ends.result == "Error":
                action.message = "Error"
        if step.begins is not None:
            action.events.append(Event(step.begins, when))
            action.updated = when

    def _log_action(self, server: Server, name: str, request_id: str) -> None:
        now = self._clock.now().timestamp()
        server.actions.append(Action(name, request_id or _new_request_id(), now, now))


def _new_request_id() -> str:
    return f"req-{uuid.uuid4()}"
