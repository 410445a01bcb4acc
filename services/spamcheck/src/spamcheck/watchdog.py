"""The idle watchdog: one pass, run every minute by a timer. A server that nobody needs shelves itself.

It is the net below the controller's own shelving, for when the controller died or somebody woke the server by hand. Busy is a
server with a workflow that a worker attends to, with a run that started or ended lately, or with somebody logged in. What
cannot be found out does not count as busy: without Temporal no check gets on, and a server that is left on costs money.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Protocol
from uuid import UUID

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from . import alarm, logs
from .journal import JOURNAL_FAULTS, Journal
from .logs import event
from .sessions import logged_in
from .settings import SettingsError, WatchdogSettings, load_watchdog
from .shelve import AlreadyChanging, Cloud, CloudFault
from .temporal import runtime

_log = logging.getLogger("spamcheck.watchdog")

TEMPORAL_SECONDS = 10.0
POLLED_SECONDS = 120.0
"""A worker asks Temporal for work at least once a minute; one that was silent for longer attends to nothing."""
REFUSED_SECONDS = 1800.0
"""So long Nova may answer that the server is in the middle of something: a shelving uploads an image. One that is locked, or whose
compute host is dead, says so for ever."""
REPEAT_SECONDS = 3600.0
"""Pause until the same failure raises an alarm again."""
MAX_WORKFLOWS = 100
"""Open workflows that are looked at. The checker has one at a time."""
BUSY_AT, TOLD_AT = "busy_at", "told_at"
"""What is remembered: when the server was last busy, and when an alarm of a failure was last sent."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has found. `busy`: why the server is needed now, None if it is not."""

    busy: str | None = None
    last_run: float | None = None
    """When a run last started or ended, in seconds since 1970; None if none is known."""


class Shelver(Protocol):
    """What is needed of the cloud; see `shelve.Cloud`."""

    def server_id(self) -> UUID:
        """Id of this server."""

    def log_in(self) -> tuple[str, str]:
        """Token and address of Nova."""

    def shelve(self, server: UUID, token: str, nova: str) -> None:
        """Ask for it."""


class Memory:
    """What one pass tells the next, as seconds since the boot by name; forgotten at a boot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot = _BOOT_ID.read_text(encoding="ascii").strip()

    def read(self, name: str) -> float | None:
        """None when it was not written since the boot, or cannot be read."""
        return self._all().get(name)

    def write(self, name: str, seconds: float) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._all() | {"boot": self._boot, name: seconds}), encoding="utf-8")
        part.replace(self._path)

    def _all(self) -> dict[str, float]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: float(kept[name]) for name in kept if name != "boot"} if kept["boot"] == self._boot else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def one_pass(
    settings: WatchdogSettings,
    look: Callable[[], Seen],
    cloud: Shelver,
    *,
    uptime: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> bool:
    """Look, remember, and shelve the server when it has been idle for long enough. Returns whether that was asked for.

    `uptime`: seconds since the boot. Raises CloudFault when the server should be shelved and is not.
    """
    memory = Memory(settings.watchdog_state_file)
    limit, grace = settings.watchdog_idle_minutes * 60, settings.watchdog_grace_minutes * 60
    known = memory.read(BUSY_AT)
    seen = look()
    busy_at = _busy_at(seen, known, uptime(), now())
    try:
        memory.write(BUSY_AT, busy_at)
    except OSError as error:
        # Without a memory every pass would be the first, and the server on for ever.
        event(_log, logging.ERROR, "cannot remember; idle since the boot", reason=error.strerror or "unknown")
        busy_at = busy_at if seen.busy else _busy_at(seen, 0.0, uptime(), now())
    idle = uptime() - busy_at
    if seen.busy or idle < limit or uptime() < grace:
        level = logging.INFO if seen.busy is None and known in {None, busy_at} else logging.DEBUG
        event(_log, level, "left on", busy=seen.busy or "no", idle_seconds=round(idle), limit_seconds=round(limit))
        return False
    server = cloud.server_id()
    token, nova = cloud.log_in()
    # All that took a while: a run may have been started, or somebody have logged in.
    again = look()
    if again.busy or uptime() - _busy_at(again, busy_at, uptime(), now()) < limit:
        event(_log, logging.INFO, "left on after all", busy=again.busy or "a run has just ended")
        return False
    try:
        cloud.shelve(server, token, nova)
    except AlreadyChanging as error:
        if idle >= limit + REFUSED_SECONDS:
            raise CloudFault(f"{error}, and that for more than {REFUSED_SECONDS / 60:.0f} minutes") from None
        event(_log, logging.WARNING, "not shelved now, the next pass tries again", reason=str(error))
        return False
    event(_log, logging.WARNING, "idle: the cloud was asked to shelve this server", idle_seconds=round(idle))
    minutes = round(idle / 60)
    _tell(
        settings,
        "The spam checker's server has shelved itself",
        f"Server {server} was on and idle for {minutes} minutes, and no controller had shelved it. Look for the reason: a run"
        " that was killed (spamops history on the controller), or somebody who woke the server by hand.",
        "warning",
    )
    return True


def not_shelved(settings: WatchdogSettings, reason: str, *, uptime: Callable[[], float] = time.monotonic) -> None:
    """Raise an alarm because the server should be shelved and is not; the same again after an hour. Raises nothing."""
    text = f"It is idle, costs money, and could not shelve itself: {reason}. It tries again every minute; shelve it by hand."
    _tell_hourly(settings, "The spam checker's server is NOT SHELVED", text, uptime)


def failed(settings: WatchdogSettings, error: Exception, *, uptime: Callable[[], float] = time.monotonic) -> None:
    """Raise an alarm because nobody knows whether the server is needed; the same again after an hour. Raises nothing."""
    text = (
        f"{type(error).__name__}: see journalctl -u spamcheck-watchdog on the server. It tries again every minute; until it"
        " can, the server does not shelve itself."
    )
    _tell_hourly(settings, "The idle watchdog of the spam checker's server fails", text, uptime)


def _tell_hourly(settings: WatchdogSettings, title: str, text: str, uptime: Callable[[], float]) -> None:
    memory = Memory(settings.watchdog_state_file)
    told = memory.read(TOLD_AT)
    if told is not None and uptime() - told < REPEAT_SECONDS:
        return
    if _tell(settings, title, text, "failure"):
        try:
            memory.write(TOLD_AT, uptime())
        except OSError:
            _log.debug("cannot remember the alarm: it will be repeated")


def _tell(settings: WatchdogSettings, title: str, text: str, kind: Literal["warning", "failure"]) -> bool:
    url = settings.watchdog_alarm_url
    return url is not None and alarm.tell(url.get_secret_value(), title, text, kind)


def _busy_at(seen: Seen, known: float | None, uptime: float, now: float) -> float:
    """When the server was last busy, in seconds since the boot. The first pass counts as busy."""
    if seen.busy or known is None:
        return uptime
    # A run that began and ended between two passes; by the clock of the day, which a boot may find wrong.
    age = float("inf") if seen.last_run is None else now - seen.last_run
    return min(uptime, max(known, uptime - age)) if age >= 0 else known


def look(settings: WatchdogSettings) -> Seen:
    """What this server is needed for, if anything."""
    try:
        people = logged_in()
    except OSError as error:
        event(_log, logging.WARNING, "taken as nobody", reason=str(error))
        people = 0
    busy = "somebody is logged in" if people else asyncio.run(_workflows(settings))
    return Seen(busy, _last_run(settings))


def _last_run(settings: WatchdogSettings) -> float | None:
    try:
        journal = Journal(settings.state_dir, read_only=True)
    except JOURNAL_FAULTS:
        return None  # none yet, or one that no run can be entered in either
    try:
        return journal.last_sign()
    except JOURNAL_FAULTS:
        return None
    finally:
        journal.close()


async def _workflows(settings: WatchdogSettings) -> str | None:
    """Why the workflows need this server, None if they do not, or if Temporal does not tell."""
    try:
        queues = await asyncio.wait_for(_open_queues(settings), TEMPORAL_SECONDS)
    except (RPCError, RuntimeError, OSError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        event(_log, logging.WARNING, "Temporal does not answer: counts as idle", reason=reason)
        return None
    if any(queues.values()):
        return "a check is working"
    if queues:
        event(_log, logging.WARNING, "a workflow is open, but no worker attends to it: counts as idle")
    return None


async def _open_queues(settings: WatchdogSettings) -> dict[str, bool]:
    """The task queues of open workflows, each with whether a worker polls it."""
    client = await Client.connect(settings.temporal_address, namespace=settings.temporal_namespace, runtime=runtime())
    found: dict[str, bool] = {}
    async for execution in client.list_workflows('ExecutionStatus = "Running"', limit=MAX_WORKFLOWS):
        queue = execution.task_queue
        if queue not in found:
            request = DescribeTaskQueueRequest(
                namespace=settings.temporal_namespace,
                task_queue=TaskQueue(name=queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            )
            told = await client.workflow_service.describe_task_queue(request)
            since = datetime.now(UTC) - timedelta(seconds=POLLED_SECONDS)
            found[queue] = any(poller.last_access_time.ToDatetime(UTC) >= since for poller in told.pollers)
    return found


def main() -> int:
    """One pass with the settings of the environment; returns the exit code."""
    try:
        settings = load_watchdog()
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- before there is a log
        return 2
    logs.configure(settings.log_level)
    try:
        with contextlib.closing(Cloud(settings)) as cloud:
            one_pass(settings, lambda: look(settings), cloud)
    except CloudFault as error:
        event(_log, logging.ERROR, "idle, but not shelved; the next pass tries again", reason=str(error))
        not_shelved(settings, str(error))
        return 3
    except Exception as error:  # noqa: BLE001 -- the last resort: a line in the log and an exit code
        _log.exception("the watchdog failed: %s", type(error).__name__)
        failed(settings, error)
        return 1
    return 0
