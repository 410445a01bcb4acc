"""What a server that nobody of this controller looks after is doing: asked of its checker, before anybody shelves it.

One failing answer proves nothing, and a server that works must not be shelved for it. So a checker counts as away only
when it gave no answer for as long as a run would put up with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.parser import text_string_to_metric_families

from .checker import TERMINAL, WORKFLOW_ID
from .checker_http import CallFailed, CheckerHttp
from .clock import Clock
from .text import one_line

PAUSE_SECONDS = 5.0
ACTIVE_METRIC = "spamcheck_run_active"
PART_METRIC = "spamcheck_up"
SILENCE_SECONDS = 30.0
"""A worker that is restarted is silent for some seconds."""


class Doing(StrEnum):
    """What it does, as far as can be told."""

    WORKING = "working"
    IDLE = "idle"
    UNREACHABLE = "unreachable"
    STALLED = "stalled"
    UNKNOWN = "unknown"


FINAL = frozenset({Doing.WORKING, Doing.IDLE, Doing.UNKNOWN})
"""What is believed at once. The others may pass."""


@dataclass(frozen=True)
class Told:
    """What it does, and the evidence for it, fit for a message."""

    doing: Doing
    evidence: str


def ask(
    base_url: str, api_key: str, workflow_ids: Sequence[str], *, clock: Clock, call_seconds: float, patience: float
) -> Told:
    """Ask the checker until it says something definite, or for `patience` seconds. `workflow_ids` are those that this
    controller knows of, for a checker without metrics. Raises nothing for whatever it answers."""
    http = CheckerHttp(base_url, api_key)
    deadline = clock.monotonic() + patience
    try:
        while True:
            told = _ask_once(http, workflow_ids, call_seconds)
            if told.doing in FINAL or clock.monotonic() >= deadline:
                return told
            clock.sleep(min(PAUSE_SECONDS, max(0.0, deadline - clock.monotonic())))
    finally:
        http.close()


def _ask_once(http: CheckerHttp, workflow_ids: Sequence[str], seconds: float) -> Told:
    try:
        answer = http.call("GET", "/metrics", seconds=seconds)
    except CallFailed as error:
        return Told(Doing.UNREACHABLE, str(error))
    if answer.status in (401, 403):
        return Told(Doing.UNKNOWN, f"the checker refuses the key ({answer.status})")
    if answer.status >= 500 or answer.status == 429:
        return Told(Doing.UNREACHABLE, f"the checker answers {answer.status}")
    if answer.status == 200:
        told = _by_metrics(answer.content)
        if told is not None:
            return told
    return _by_status(http, workflow_ids, seconds)


def _by_metrics(content: bytes) -> Told | None:
    active: float | None = None
    worker_up = True
    try:
        for family in text_string_to_metric_families(content.decode("utf-8")):
            for sample in family.samples:
                if sample.name == ACTIVE_METRIC:
                    active = sample.value
                elif sample.name == PART_METRIC and sample.labels.get("part") == "worker":
                    worker_up = sample.value == 1
    except (ValueError, KeyError, IndexError):
        return None
    if active is None:
        return None
    if active != 1:
        return Told(Doing.IDLE, "the checker has no active check")
    if not worker_up:
        return Told(Doing.STALLED, "a check is active, but the checker's worker gives no sign of life")
    return Told(Doing.WORKING, "the checker has an active check")


def _by_status(http: CheckerHttp, workflow_ids: Sequence[str], seconds: float) -> Told:
    """The same of a checker without metrics: only what it says of the checks that are known here."""
    for workflow_id in workflow_ids:
        if not WORKFLOW_ID.fullmatch(workflow_id):
            continue
        try:
            answer = http.call("GET", "/status", params={"workflow_id": workflow_id}, seconds=seconds)
        except CallFailed as error:
            return Told(Doing.UNREACHABLE, str(error))
        body = answer.json_object() or {}
        status = one_line(str(body.get("status") or "").upper(), 40)
        silent = body.get("worker_silent_seconds")
        if answer.status >= 500:
            return Told(Doing.UNREACHABLE, f"the checker answers {answer.status}")
        if answer.status != 200 or not status:
            continue
        if status in TERMINAL:
            return Told(Doing.IDLE, f"the check of the dead run is {status}")
        if isinstance(silent, int | float) and silent > SILENCE_SECONDS:
            return Told(Doing.STALLED, f"the check is {status}, but the checker's worker gives no sign of life")
        return Told(Doing.WORKING, f"the check of the dead run is {status}")
    return Told(Doing.UNKNOWN, "the checker answers, but does not tell whether it works")
