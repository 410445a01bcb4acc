"""The checker's HTTP API: wait until it is ready, start a check, wait for its end, fetch the report.

Works with any checker that answers /ok, /process-comses-spam and /status; long polls (`wait`), `progress` and /report are
used where the checker has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .checker_http import REPORT_BYTES, CallFailed, CheckerHttp
from .clock import Clock, RealClock
from .errors import CheckerError
from .limits import API_SECONDS, CHECK_SECONDS, READY_SECONDS, STATUS_GRACE_SECONDS
from .text import one_line

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"})
"""Temporal's statuses that a workflow does not leave."""
WORKFLOW_ID = re.compile(r"[!-~]{1,200}")
GOING_ON = frozenset({"RUNNING", "CONTINUED_AS_NEW", "PAUSED"})

LONG_POLL_SECONDS = 2.0
"""What one status call waits at the checker: short enough that progress is seen, and the end is seen at once."""
PLAIN_POLL_SECONDS = 2.0
"""Pause between status calls to a checker without long polls."""
READY_POLL_SECONDS = 0.25
LEAST_CALL_SECONDS = 0.5
LAST_REPORT_SECONDS = 5.0
LEAST_SILENCE_SECONDS = 30.0
"""A worker that is restarted is silent for some seconds."""
START_TRIES = 4
REPORT_TRIES = 4
RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class WorkflowStatus:
    """One status answer. `progress` is empty where the checker tells none; `worker_silent_seconds` is how long its worker has
    given no sign of life, where it tells that."""

    status: str
    reason: str | None = None
    progress: dict[str, int] = field(default_factory=dict)
    worker_silent_seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the workflow will not change any more."""
        return self.status in TERMINAL


MOST = 1_000_000_000
Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Line = Annotated[str, AfterValidator(lambda text: one_line(text, 200))]
"""Text of a checker is shown on terminals and kept: one line, nothing that a terminal would act on."""


class _Verdict(BaseModel):
    """What the history keeps of a verdict; a checker may tell more, and that goes no further."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    item_id: Line
    content_type: Line
    content_hash: Line
    is_spam: bool
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    by: Line | None = None
    indicators: list[Line] = []
    seconds: Seconds | None = None


class _Failure(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    item_id: Line
    content_type: Line
    content_hash: Line
    reason: Line | None = None


class _Report(BaseModel):
    """The form of /report, so that one of another form is found here and not while the history is written."""

    workflow_id: Line = ""
    status: Line = ""
    reason: Line | None = None
    started_at: Line | None = None
    ended_at: Line | None = None
    rounds: Count = 0
    checked: Count
    spam: Count
    not_spam: Count
    failed: Count
    gone: Count = 0
    superseded: Count = 0
    left: Count = 0
    classify_seconds: Seconds | None = None
    by_type: dict[Line, dict[Line, Count]] = {}
    verdicts: list[_Verdict] = []
    failures: list[_Failure] = []

    @model_validator(mode="after")
    def _adds_up(self) -> _Report:
        if self.checked != self.spam + self.not_spam:
            raise ValueError(f"{self.checked} checked are not {self.spam} spam and {self.not_spam} not spam")
        return self


class Checker:
    """A client of one checker. The key goes into the header and nowhere else."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        call_seconds: float = API_SECONDS,
        clock: Clock | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self._http = CheckerHttp(base_url, api_key)
        self._base = self._http.base
        self._clock = clock or RealClock()
        self._note = on_note or (lambda _: None)
        self._call_seconds = call_seconds
        self.last = WorkflowStatus("RUNNING")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_until_ready(self, limit: float = READY_SECONDS) -> None:
        """Return when /ok says so.

        Raises CheckerError after `limit` seconds, or at once where waiting does not help (401, another service).
        """
        deadline = self._clock.monotonic() + limit
        told = ""
        while True:
            evidence = self.readiness(deadline - self._clock.monotonic())
            if evidence is None:
                return
            if evidence != told:
                told = evidence
                self._note(f"waiting for the checker: {evidence}")
            if self._clock.monotonic() >= deadline:
                raise CheckerError(f"the checker at {self._base} was not ready within {limit:g} s; at last: {evidence}")
            self._clock.sleep(READY_POLL_SECONDS)

    def readiness(self, limit: float = API_SECONDS) -> str | None:
        """None when the checker is ready, otherwise why it is not; asked for at most `limit` seconds.

        Raises CheckerError where waiting does not help.
        """
        try:
            answer = self._http.call("GET", "/ok", seconds=max(LEAST_CALL_SECONDS, min(limit, self._call_seconds)))
        except CallFailed as error:
            return str(error)
        if answer.status == 401:
            raise CheckerError(
                f"the checker at {self._base} refused the key (401): the key here and the one on the server differ"
            )
        body = answer.json_object()
        if answer.status == 200 and body is not None and body.get("status") == "ok":
            return None
        if answer.status == 503 and body is not None:
            reasons = body.get("reasons")
            return one_line("; ".join(map(str, reasons))) if isinstance(reasons, list) else "it answers 503"
        return f"/ok answered {answer.status}, not the checker's own answer"

    def start(self) -> str:
        """Start a check, or join the one that is active; the workflow's id.

        Raises CheckerError.
        """
        for attempt in range(1, START_TRIES + 1):
            try:
                answer = self._http.call("POST", "/process-comses-spam", seconds=self._call_seconds)
            except CallFailed as error:
                evidence = str(error)
            else:
                workflow_id = (answer.json_object() or {}).get("workflow_id")
                if answer.ok and isinstance(workflow_id, str) and WORKFLOW_ID.fullmatch(workflow_id):
                    return workflow_id
                evidence = answer.excerpt()
                if 400 <= answer.status < 500 and answer.status != 429:
                    break
            if attempt < START_TRIES:
                self._note(f"starting the check: {evidence}; trying again")
                self._clock.sleep(RETRY_SECONDS * attempt)
        raise CheckerError(f"the checker at {self._base} did not start a check: {evidence}")

    def status(self, workflow_id: str, wait: float = 0.0) -> WorkflowStatus:
        """One status answer, asked to wait up to `wait` seconds for the end.

        Raises CheckerError for anything that is not a status answer.
        """
        parameters = {"workflow_id": workflow_id} | ({"wait": f"{wait:g}"} if wait > 0 else {})
        try:
            answer = self._http.call("GET", "/status", params=parameters, seconds=self._call_seconds + wait)
        except CallFailed as error:
            raise CheckerError(str(error)) from None
        body = answer.json_object()
        if answer.status != 200 or body is None:
            raise CheckerError(answer.excerpt())
        status = str(body.get("status") or "").upper()
        if status not in TERMINAL | GOING_ON:
            raise CheckerError(f"a status that Temporal does not have: {answer.excerpt()}")
        progress = body.get("progress")
        counts = (
            {one_line(k): v for k, v in progress.items() if type(v) is int and 0 <= v <= MOST}
            if isinstance(progress, dict)
            else {}
        )
        reason = body.get("reason")
        told = body.get("worker_silent_seconds")
        silent = float(told) if isinstance(told, int | float) and 0 <= told <= MOST else 0.0
        self.last = WorkflowStatus(status, one_line(str(reason)) if reason else None, counts, silent)
        return self.last

    def wait_for_end(
        self,
        workflow_id: str,
        limit: float = CHECK_SECONDS,
        grace: float = STATUS_GRACE_SECONDS,
        on_progress: Callable[[WorkflowStatus], None] | None = None,
    ) -> WorkflowStatus:
        """Any terminal status. Failing and garbled answers are put up with for `grace` seconds in a row.

        Raises CheckerError when they last longer, or the end does not come within `limit` seconds.
        """
        deadline = self._clock.monotonic() + limit
        failing_since: float | None = None
        while True:
            asked_at = self._clock.monotonic()
            wait = max(0.0, min(LONG_POLL_SECONDS, deadline - asked_at))
            try:
                status = self.status(workflow_id, wait)
            except CheckerError as error:
                now = self._clock.monotonic()
                if failing_since is None:
                    failing_since = asked_at
                    self._note(f"asking for the status: {error}; trying again for {grace:g} s")
                if now - failing_since >= grace:
                    raise CheckerError(
                        f"the status of {workflow_id} could not be had for {now - failing_since:.0f} s; at last: {error}"
                    ) from None
            else:
                failing_since = None
                if on_progress:
                    on_progress(status)
                if status.ended:
                    return status
                if status.worker_silent_seconds > max(grace, LEAST_SILENCE_SECONDS):
                    raise CheckerError(
                        f"the check {workflow_id} does not go on: the checker's worker has given no sign of life for"
                        f" {status.worker_silent_seconds:.0f} s. Look at its log on the server"
                    )
            now = self._clock.monotonic()
            if now >= deadline:
                raise CheckerError(f"the check {workflow_id} did not end within {limit:g} s")
            # A checker with long polls has waited already; any other is asked again after a pause.
            self._clock.sleep(max(0.0, min(PLAIN_POLL_SECONDS - (now - asked_at), deadline - now)))

    def last_report(self, workflow_id: str) -> dict[str, Any] | None:
        """What the checker can tell of a run that is being cut off: one quick try. Raises no Exception."""
        try:
            return self.report(workflow_id, tries=1, limit=LAST_REPORT_SECONDS)
        except CheckerError as error:
            self._note(f"{error}")
            return None

    def report(
        self, workflow_id: str, *, tries: int = REPORT_TRIES, limit: float = API_SECONDS
    ) -> dict[str, Any] | None:
        """The run's report; None where the checker has none to give (an extension). `limit` of a call, in seconds.

        Raises CheckerError.
        """
        for attempt in range(1, tries + 1):
            try:
                answer = self._http.call(
                    "GET",
                    "/report",
                    params={"workflow_id": workflow_id},
                    seconds=min(limit, self._call_seconds),
                    most_bytes=REPORT_BYTES,
                )
            except CallFailed as error:
                evidence = str(error)
            else:
                if answer.status == 404:
                    return None
                body = answer.json_object()
                if answer.status == 200 and body is not None:
                    return _checked_report(workflow_id, body)
                evidence = answer.excerpt()
            if attempt < tries:
                self._clock.sleep(RETRY_SECONDS)
        raise CheckerError(f"the report of {workflow_id} could not be fetched: {evidence}")


def _checked_report(workflow_id: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return _Report.model_validate(body).model_dump()
    except ValidationError as error:
        places = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors()[:3])
        raise CheckerError(f"the report of {workflow_id} has not the form of a report ({places})") from None
