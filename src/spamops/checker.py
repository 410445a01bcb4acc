"""The checker's HTTP API: wait until it is ready, start a check, wait for its end, fetch the report.

Works with any checker that answers /ok, /process-comses-spam and /status; long polls (`wait`), `progress` and /report are
used where the checker has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from .clock import Clock, RealClock
from .errors import CheckerError
from .limits import API_SECONDS, CHECK_SECONDS, READY_SECONDS, STATUS_GRACE_SECONDS
from .text import one_line

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELED", "TERMINATED", "TIMED_OUT"})
"""Temporal's statuses that a workflow does not leave."""
GOING_ON = frozenset({"RUNNING", "CONTINUED_AS_NEW", "PAUSED"})

LONG_POLL_SECONDS = 2.0
"""What one status call waits at the checker: short enough that progress is seen, and the end is seen at once."""
PLAIN_POLL_SECONDS = 2.0
"""Pause between status calls to a checker without long polls."""
READY_POLL_SECONDS = 0.25
LEAST_CALL_SECONDS = 0.5
LAST_REPORT_SECONDS = 5.0
START_TRIES = 4
REPORT_TRIES = 4
RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class WorkflowStatus:
    """One status answer. `progress` is empty where the checker tells none."""

    status: str
    reason: str | None = None
    progress: dict[str, int] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the workflow will not change any more."""
        return self.status in TERMINAL


class _Verdict(BaseModel):
    """What the history keeps of a verdict; a checker may tell more, and that goes no further."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    item_id: str
    content_type: str
    content_hash: str
    is_spam: bool
    confidence: float | None = None
    by: str | None = None
    indicators: list[str] = []
    seconds: float | None = None


class _Failure(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    item_id: str
    content_type: str
    content_hash: str
    reason: str | None = None


class _Report(BaseModel):
    """The form of /report, so that one of another form is found here and not while the history is written."""

    model_config = ConfigDict(extra="allow")

    checked: int
    spam: int
    not_spam: int
    failed: int
    by_type: dict[str, dict[str, int]] = {}
    verdicts: list[_Verdict] = []
    failures: list[_Failure] = []


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
        self._base = base_url.rstrip("/")
        self._clock = clock or RealClock()
        self._note = on_note or (lambda _: None)
        self._call_seconds = call_seconds
        self.last = WorkflowStatus("RUNNING")
        self._client = httpx.Client(
            headers={"X-API-Key": api_key, "Accept": "application/json"},
            timeout=httpx.Timeout(call_seconds, connect=min(5.0, call_seconds)),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

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
            answer = self._client.get(
                f"{self._base}/ok", timeout=max(LEAST_CALL_SECONDS, min(limit, self._call_seconds))
            )
        except httpx.HTTPError as error:
            return _transport(error)
        if answer.status_code == 401:
            raise CheckerError(
                f"the checker at {self._base} refused the key (401): the key here and the one on the server differ"
            )
        body = _json_object(answer)
        if answer.status_code == 200 and body is not None and body.get("status") == "ok":
            return None
        if answer.status_code == 503 and body is not None:
            reasons = body.get("reasons")
            return one_line("; ".join(map(str, reasons))) if isinstance(reasons, list) else "it answers 503"
        return f"/ok answered {answer.status_code}, not the checker's own answer"

    def start(self) -> str:
        """Start a check, or join the one that is active; the workflow's id.

        Raises CheckerError.
        """
        for attempt in range(1, START_TRIES + 1):
            try:
                answer = self._client.post(f"{self._base}/process-comses-spam")
            except httpx.HTTPError as error:
                evidence = _transport(error)
            else:
                body = _json_object(answer)
                workflow_id = (body or {}).get("workflow_id")
                if answer.is_success and isinstance(workflow_id, str) and workflow_id:
                    return workflow_id
                evidence = f"{answer.status_code} {_excerpt(answer)}"
                if 400 <= answer.status_code < 500 and answer.status_code != 429:
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
            answer = self._client.get(f"{self._base}/status", params=parameters)
        except httpx.HTTPError as error:
            raise CheckerError(_transport(error)) from None
        body = _json_object(answer)
        if answer.status_code != 200 or body is None:
            raise CheckerError(f"{answer.status_code} {_excerpt(answer)}")
        status = str(body.get("status") or "").upper()
        if status not in TERMINAL | GOING_ON:
            raise CheckerError(f"a status that Temporal does not have: {_excerpt(answer)}")
        progress = body.get("progress")
        counts = {str(k): v for k, v in progress.items() if isinstance(v, int)} if isinstance(progress, dict) else {}
        reason = body.get("reason")
        self.last = WorkflowStatus(status, one_line(str(reason)) if reason else None, counts)
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
                answer = self._client.get(
                    f"{self._base}/report",
                    params={"workflow_id": workflow_id},
                    timeout=min(limit, self._call_seconds),
                )
            except httpx.HTTPError as error:
                evidence = _transport(error)
            else:
                if answer.status_code == 404:
                    return None
                body = _json_object(answer)
                if answer.status_code == 200 and body is not None:
                    return _checked_report(workflow_id, body)
                evidence = f"{answer.status_code} {_excerpt(answer)}"
            if attempt < tries:
                self._clock.sleep(RETRY_SECONDS)
        raise CheckerError(f"the report of {workflow_id} could not be fetched: {evidence}")


def _checked_report(workflow_id: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return _Report.model_validate(body).model_dump()
    except ValidationError as error:
        places = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors()[:3])
        raise CheckerError(f"the report of {workflow_id} has not the form of a report ({places})") from None


def _json_object(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) else None


def _transport(error: httpx.HTTPError) -> str:
    """What went wrong on the way, in few words; never the request, which carries the key."""
    if isinstance(error, httpx.ConnectError):
        return "no connection (refused, or the address is not reached)"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return f"the connection broke ({type(error).__name__})"


def _excerpt(answer: httpx.Response) -> str:
    return one_line(answer.text, 200) or "(empty)"
