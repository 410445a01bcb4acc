"""What the cloud's API answers when something is wrong: its faults in the operator's words, and which are worth another try."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from keystoneauth1 import exceptions as keystone_errors
from openstack import exceptions as sdk_errors

from .clock import Clock
from .errors import CloudError, CloudRefused, CloudUnavailable
from .text import one_line

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
"""Pause after an answer that calls for another try; doubled each time."""

REFUSALS_BELIEVED = 3
"""So many 401 in a row are believed; Keystone answers one or two while it restarts."""


class Retry:
    """Which faults of the API are worth another try, and after how long."""

    def __init__(self, clock: Clock, deadline: float, note: Callable[[str], None]) -> None:
        self._clock = clock
        self._deadline = deadline
        self._note = note
        self.reset()

    def reset(self) -> None:
        self._refusals = 0
        self._next = FIRST_RETRY_SECONDS

    def pause(self, seconds: float | None = None) -> None:
        """Sleep, doubling each time; never past the deadline."""
        wanted = self._next if seconds is None else seconds
        self._next = min(LONGEST_RETRY_SECONDS, self._next * 2)
        self._clock.sleep(max(0.0, min(wanted, self._deadline - self._clock.monotonic())))

    def after(self, error: Exception, doing: str) -> None:
        """Return when the call may be tried again.

        Raises the fault under its own name when another try would not help, or the deadline has passed.
        """
        named = name_fault(error, doing)
        if isinstance(named, CloudRefused) and status_of(error) == 401:
            self._refusals += 1
            if self._refusals >= REFUSALS_BELIEVED:
                raise named from error
        elif not isinstance(named, CloudUnavailable):
            raise named from error
        if self._clock.monotonic() >= self._deadline:
            raise named from error
        self._note(f"{named}; trying again")
        self.pause(_retry_after(error))


def name_fault(error: Exception, doing: str) -> CloudError:
    """The fault in the operator's words. Unknown kinds of exceptions are raised as they are: they are defects."""
    if isinstance(error, CloudError):
        return error
    status = status_of(error)
    words = words_of(error)
    call = _call_of(error) if status == 401 else None
    if call is not None:
        # A credential that is wrong, expired or deleted fails earlier, at its login: the SDK logs in anew before it gives up.
        method, path = call
        return CloudRefused(
            f"the cloud refused a call while {doing} (401): {words}. The credential can log in, so its access rules do not allow"
            f" this call. The rule that it lacks: service compute, method {method}, path {path}. Rules cannot be changed: make"
            " a new credential with those in docs/website.md; they name the server's id, so name the server by its id too"
        )
    if status == 401:
        return CloudRefused(
            f"the cloud refused the credential while {doing} (401): {words}. The application credential is wrong, expired or"
            " deleted, or its access rules do not allow this call"
        )
    if status == 403 and "quota" in words.lower():
        return CloudError(
            f"the project's quota does not allow this while {doing} (403): {words}. Free some, or ask for more"
        )
    if status == 403:
        return CloudRefused(
            f"the credential is not allowed to do this while {doing} (403): {words}. Roles member and reader are needed"
        )
    if status == 404:
        return CloudRefused(
            f"the cloud does not know the credential or the address while {doing} (404): {words}. Make a new application"
            " credential, and check auth_url"
        )
    if isinstance(error, keystone_errors.ConnectionError) or (
        status is not None and (status >= 500 or status in (408, 429))
    ):
        return CloudUnavailable(f"the cloud does not answer as it should while {doing}: {words}")
    if isinstance(error, keystone_errors.ClientException | sdk_errors.SDKException):
        # Garbage instead of JSON, a proxy's page: passes, as a rule.
        if isinstance(error, sdk_errors.HttpException) and status is not None:
            return CloudError(f"the cloud refused a call while {doing} ({status}): {words}")
        return CloudUnavailable(f"the cloud gave an answer that cannot be read while {doing}: {words}")
    if isinstance(error, ValueError | TypeError | AttributeError | LookupError):
        # What the SDK stumbles over when the answer is not JSON, or JSON of another form. Worth another try: giving up on a
        # server that is on costs money.
        return CloudUnavailable(f"the cloud gave an answer that cannot be read while {doing} ({type(error).__name__})")
    raise error


def status_of(error: BaseException) -> int | None:
    for name in ("http_status", "status_code"):
        value = getattr(error, name, None)
        if isinstance(value, int) and value:
            return value
    return None


def _call_of(error: Exception) -> tuple[str, str] | None:
    """Method and path of the refused call, as an access rule names them; None for a login, or where nothing tells."""
    request = getattr(getattr(error, "response", None), "request", None)
    method, path = str(getattr(request, "method", "")), urlsplit(str(getattr(request, "url", ""))).path
    version = re.search(r"/v2(\.\d+)?/.*", path)
    return (method, version.group()) if method and version else None


def brief(error: Exception) -> str:
    """The error's own words, or the access rule that it is about."""
    call = _call_of(error) if status_of(error) == 401 else None
    return f"no access rule allows {call[0]} {call[1]}" if call else words_of(error)


def _retry_after(error: Exception) -> float | None:
    """Seconds that the answer's Retry-After asks for, at most a minute; None when there is none."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(60.0, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return None


def words_of(error: Exception) -> str:
    """The error's own text, or its details where it has some."""
    text = str(getattr(error, "details", None) or getattr(error, "message", None) or error)
    return one_line(text)
