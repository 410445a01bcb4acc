"""How a server moves from state to state: Nova's sequences as lists of steps, with failures where they strike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .faults import Failure

NO_POWER, RUNNING, PAUSED, SHUTDOWN = 0, 1, 3, 4
"""Nova's power states, as `OS-EXT-STS:power_state` shows them (nova/objects/fields.py, InstancePowerState)."""

_STATUS_OF_VM_STATE = {
    "active": "ACTIVE",
    "building": "BUILD",
    "deleted": "DELETED",
    "error": "ERROR",
    "paused": "PAUSED",
    "shelved": "SHELVED",
    "shelved_offloaded": "SHELVED_OFFLOADED",
    "stopped": "SHUTOFF",
    "suspended": "SUSPENDED",
}
_STATUS_OF_ACTIVE_TASK = {"rebooting": "REBOOT", "rebooting_hard": "HARD_REBOOT"}


@dataclass(frozen=True)
class State:
    """A server's state in Nova's own terms; the status that clients see follows from it."""

    vm_state: str
    task_state: str | None
    power_state: int

    @property
    def status(self) -> str:
        """The `status` of the compute API."""
        if self.vm_state == "active" and self.task_state in _STATUS_OF_ACTIVE_TASK:
            return _STATUS_OF_ACTIVE_TASK[self.task_state]
        return _STATUS_OF_VM_STATE[self.vm_state]


_ACTIVE = State("active", None, RUNNING)
_OFFLOADED = State("shelved_offloaded", None, SHUTDOWN)

STATE_OF_STATUS = {
    "ACTIVE": _ACTIVE,
    "BUILD": State("building", "spawning", NO_POWER),
    "DELETED": State("deleted", None, NO_POWER),
    "ERROR": State("error", None, NO_POWER),
    "HARD_REBOOT": State("active", "rebooting_hard", RUNNING),
    "PAUSED": State("paused", None, PAUSED),
    "REBOOT": State("active", "rebooting", RUNNING),
    "SHELVED": State("shelved", None, SHUTDOWN),
    "SHELVED_OFFLOADED": _OFFLOADED,
    "SHUTOFF": State("stopped", None, SHUTDOWN),
    "SUSPENDED": State("suspended", None, SHUTDOWN),
}
"""The state that a status stands for when nothing else is said."""


@dataclass(frozen=True)
class Delays:
    """Seconds that a server spends in each state on its way. All 0: transitions are instant."""

    shelve: float = 0.0
    """in task_state shelving"""
    shelve_pending: float = 0.0
    """in task_state shelving_image_pending_upload"""
    shelve_upload: float = 0.0
    """in task_state shelving_image_uploading"""
    shelve_offload: float = 0.0
    """SHELVED, in task_state shelving_offloading"""
    unshelve_schedule: float = 0.0
    """in task_state unshelving"""
    unshelve_spawn: float = 0.0
    """in task_state spawning"""
    build: float = 0.0
    """BUILD"""
    start: float = 0.0
    stop: float = 0.0
    reboot: float = 0.0
    pause: float = 0.0
    """pausing and unpausing"""
    suspend: float = 0.0
    """suspending and resuming"""


@dataclass(frozen=True)
class Outcome:
    """How an event of the action log ended."""

    result: str
    details: str | None = None


@dataclass(frozen=True)
class Step:
    """One change: `after` seconds in the state before it, the server is in `state`.

    `ends` is the outcome of the event that was running, `begins` names the event that runs from here on, `fault` is what
    the server shows as its fault.
    """

    after: float
    state: State
    begins: str | None = None
    ends: Outcome | None = None
    fault: tuple[int, str] | None = None


SUCCESS = Outcome("Success")
_NO_VALID_HOST = Outcome("Error", "No valid host was found. There are not enough hosts available.")


@dataclass(frozen=True)
class Trouble:
    """What goes wrong on the way: `failure`, with the task_state for STUCK and the seconds for HOST_AWAY."""

    failure: Failure
    task_state: str | None = None
    seconds: float = 0.0


def shelve(start: State, delays: Delays, *, offload: bool, trouble: Trouble | None = None) -> list[Step]:
    """Steps of a shelve. Without `offload` the server stays SHELVED on its host (`shelved_offload_time` -1)."""

    def on_the_way(task_state: str) -> State:
        return State(start.vm_state, task_state, start.power_state)

    first = Step(0, on_the_way("shelving"), begins="compute_shelve_instance")
    if trouble is not None and trouble.failure is Failure.SNAPSHOT_FAILS:
        return [first, Step(delays.shelve, start, ends=Outcome("Error", "Image snapshot failed."))]
    steps = [
        first,
        Step(delays.shelve, on_the_way("shelving_image_pending_upload")),
        Step(delays.shelve_pending, on_the_way("shelving_image_uploading")),
    ]
    if offload:
        steps.append(Step(delays.shelve_upload, State("shelved", "shelving_offloading", SHUTDOWN)))
        steps.append(Step(delays.shelve_offload, _OFFLOADED, ends=SUCCESS))
    else:
        steps.append(Step(delays.shelve_upload, State("shelved", None, SHUTDOWN), ends=SUCCESS))
    return _until_stuck(steps, trouble)


def unshelve(start: State, delays: Delays, *, image_id: str = "", trouble: Trouble | None = None) -> list[Step]:
    """Steps of an unshelve, from SHELVED_OFFLOADED or from SHELVED on its host."""
    failure = trouble.failure if trouble else None
    extra = trouble.seconds if trouble and failure is Failure.HOST_AWAY else 0.0
    waiting = State(start.vm_state, "unshelving", start.power_state)
    spawning = State(start.vm_state, "spawning", start.power_state)
    if start.vm_state == "shelved":
        steps = [
            Step(0, waiting, begins="compute_start_instance"),
            Step(delays.unshelve_schedule + extra, _ACTIVE, ends=SUCCESS),
        ]
        return _until_stuck(steps, trouble)
    looked_up = Step(0, waiting, begins="get_image_info")
    if failure is Failure.IMAGE_GONE:
        message = f"Unshelve attempted but the image {image_id} cannot be found."
        gone = State("error", "unshelving", start.power_state)
        return [
            looked_up,
            Step(delays.unshelve_schedule, gone, ends=Outcome("Error", message), fault=(404, message)),
        ]
    scheduling = Step(0, waiting, begins="schedule_instances", ends=SUCCESS)
    if failure is Failure.NO_CAPACITY:
        return [looked_up, scheduling, Step(delays.unshelve_schedule, start, ends=_NO_VALID_HOST)]
    spawn = Step(delays.unshelve_schedule, spawning, begins="compute_unshelve_instance", ends=SUCCESS)
    if failure is Failure.SPAWN_FAILS:
        last = Step(delays.unshelve_spawn, start, ends=Outcome("Error", "Failed to spawn the instance."))
    elif failure is Failure.HOST_DIES_SPAWNING:
        # The event stays open: the process that would have ended it is gone.
        last = Step(delays.unshelve_spawn, State("error", None, start.power_state))
    else:
        last = Step(delays.unshelve_spawn + extra, _ACTIVE, ends=SUCCESS)
    return _until_stuck([looked_up, scheduling, spawn, last], trouble)


_SIMPLE = {
    "start": ("powering-on", _ACTIVE, "start"),
    "stop": ("powering-off", STATE_OF_STATUS["SHUTOFF"], "stop"),
    "reboot": ("rebooting", _ACTIVE, "reboot"),
    "reboot_hard": ("rebooting_hard", _ACTIVE, "reboot"),
    "pause": ("pausing", STATE_OF_STATUS["PAUSED"], "pause"),
    "unpause": ("unpausing", _ACTIVE, "pause"),
    "suspend": ("suspending", STATE_OF_STATUS["SUSPENDED"], "suspend"),
    "resume": ("resuming", _ACTIVE, "suspend"),
}
"""Actions of one step: task_state on the way, state at the end, and the delay's name."""


def simple(action: str, start: State, delays: Delays, trouble: Trouble | None = None) -> list[Step]:
    """Steps of the actions that have one task_state: start, stop, reboot, pause, suspend and their opposites."""
    task_state, end, delay = _SIMPLE[action]
    event = "compute_" + action.removesuffix("_hard") + "_instance"
    way = State(start.vm_state, task_state, start.power_state)
    return _until_stuck([Step(0, way, begins=event), Step(getattr(delays, delay), end, ends=SUCCESS)], trouble)


def rest_of(state: State, delays: Delays, *, offload: bool) -> list[Step]:
    """What follows for a server that is found in the middle of a transition; nothing where none is known."""
    if state.task_state is None:
        return []
    settled = State(state.vm_state, None, state.power_state)
    candidates = [
        [Step(0, STATE_OF_STATUS["BUILD"]), Step(delays.build, _ACTIVE)],
        shelve(_ACTIVE if state.vm_state == "shelved" else settled, delays, offload=True)
        if state.task_state == "shelving_offloading"
        else shelve(settled, delays, offload=offload),
        unshelve(settled, delays),
        *(simple(action, settled, delays) for action in _SIMPLE),
    ]
    for steps in candidates:
        places = [index for index, step in enumerate(steps) if step.state == state]
        if places:
            return [Step(step.after, step.state) for step in steps[places[-1] + 1 :]]
    return []


def passes_through(steps: Iterable[Step], task_state: str | None) -> bool:
    """Whether a transition ever has this task_state."""
    return any(step.state.task_state == task_state for step in steps)


def _until_stuck(steps: list[Step], trouble: Trouble | None) -> list[Step]:
    if trouble is None or trouble.failure is not Failure.STUCK:
        return steps
    places = [index for index, step in enumerate(steps) if step.state.task_state == trouble.task_state]
    return steps[: places[-1] + 1] if places else steps
