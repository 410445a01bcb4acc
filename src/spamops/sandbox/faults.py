"""Faults to order from the embedded cloud: servers that fail on their way, and calls that are answered badly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Failure(Enum):
    """What can happen to a server after its action was accepted, or to the call itself."""

    NO_CAPACITY = "unshelve: no valid host; back to SHELVED_OFFLOADED, event schedule_instances Error"
    SPAWN_FAILS = "unshelve: the host cannot spawn; back to SHELVED_OFFLOADED, event compute_unshelve_instance Error"
    IMAGE_GONE = "unshelve: the shelved image is gone; ERROR, task_state stays unshelving, with a fault"
    HOST_DIES_SPAWNING = "unshelve: the compute service is killed while spawning; ERROR"
    HOST_AWAY = "unshelve: accepted, done once the compute service is back, `seconds` later"
    SNAPSHOT_FAILS = "shelve: no snapshot; back to ACTIVE, event compute_shelve_instance Error"
    STUCK = "any action: stays in `task_state` for good"
    LOST_RACE = "unshelve while unshelving: 500 UnexpectedTaskStateError in place of the usual 409"


@dataclass(frozen=True)
class ServerFault:
    """A failure of the next `times` actions that it fits (None: of all).

    `server_id` None means any server. STUCK needs `task_state`; HOST_AWAY takes `seconds`.
    """

    failure: Failure
    times: int | None = 1
    server_id: str | None = None
    task_state: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class HttpFault:
    """A bad answer to the next `times` requests (None: to all) whose method and path match.

    `method` and `path` are regular expressions (`path` is searched in the whole path, such as
    `/compute/v2.1/servers/ID/action`); `action` asks for this action's name in the body. `skip` lets that many
    matching requests pass first; `after_seconds` and `for_seconds` bound the fault in time, by the cloud's clock,
    counted from the order.

    What happens, in this order: tokens are revoked (`revoke_tokens`), the request is carried out (`accepted`), the
    cloud is silent for `hang_seconds` (of real time; a client that leaves ends it), then the connection is cut (`cut`)
    or `status`, `headers` and `body` are answered; with neither, the request gets its true answer.
    """

    method: str = ".*"
    path: str = ""
    action: str | None = None
    times: int | None = 1
    skip: int = 0
    after_seconds: float = 0.0
    for_seconds: float | None = None
    revoke_tokens: bool = False
    accepted: bool = False
    hang_seconds: float = 0.0
    cut: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes | Mapping[str, Any] = ""

    def matches(self, method: str, path: str, action: str | None) -> bool:
        """Whether this request is meant."""
        fits = re.fullmatch(self.method, method) is not None and re.search(self.path, path) is not None
        return fits and self.action in (None, action)

    @property
    def content(self) -> tuple[bytes, str]:
        """Body and content type of the answer."""
        if isinstance(self.body, Mapping):
            return json.dumps(self.body).encode(), "application/json"
        raw = self.body.encode() if isinstance(self.body, str) else self.body
        return raw, "text/html; charset=UTF-8" if raw.lstrip().startswith(b"<") else "application/json"


Fault = ServerFault | HttpFault


# Ready-made HTTP faults, with the answers that a real cloud gives.

_UNEXPECTED = "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible."


def compute_fault(kind: str = "oslo_messaging.exceptions.MessagingTimeout") -> dict[str, Any]:
    """The body of Nova's 500, naming an exception class."""
    return {"computeFault": {"code": 500, "message": f"{_UNEXPECTED}\n<class '{kind}'>"}}


SERVICE_UNAVAILABLE_HTML = (
    "<html><head><title>503 Service Unavailable</title></head>"
    "<body><h1>Service Unavailable</h1><p>The server is temporarily unable to service your request.</p></body></html>"
)
"""What a web server in front of a cloud's API answers when the service behind it is down."""


def internal_error(times: int | None = 1, *, path: str = "/compute/v2.1/servers", accepted: bool = False) -> HttpFault:
    """500 computeFault: a service behind Nova's API is down."""
    return HttpFault(path=path, times=times, status=500, body=compute_fault(), accepted=accepted)


def unavailable(times: int | None = 1, *, path: str = "/compute/", hang_seconds: float = 0.0) -> HttpFault:
    """503 with an HTML page, sometimes after a while."""
    return HttpFault(path=path, times=times, status=503, body=SERVICE_UNAVAILABLE_HTML, hang_seconds=hang_seconds)


def too_many_requests(retry_after: int, times: int | None = 1, *, path: str = "/compute/v2.1/servers") -> HttpFault:
    """429 with Retry-After in seconds."""
    body = {"overLimit": {"code": 429, "message": "This request was rate-limited.", "retryAfter": str(retry_after)}}
    return HttpFault(path=path, times=times, status=429, headers={"Retry-After": str(retry_after)}, body=body)


def cut(times: int | None = 1, *, path: str = "/compute/v2.1/servers", accepted: bool = False) -> HttpFault:
    """The connection ends without an answer; with `accepted` only after the request was carried out."""
    return HttpFault(path=path, times=times, cut=True, accepted=accepted)


def silent_broker(seconds: float, times: int | None = 1) -> HttpFault:
    """An action's call hangs although Nova has begun with it."""
    return HttpFault(
        method="POST",
        path="/action$",
        times=times,
        hang_seconds=seconds,
        accepted=True,
        status=500,
        body=compute_fault(),
    )


def garbage(times: int | None = 1, *, path: str = "/compute/v2.1/servers") -> HttpFault:
    """200 with something that is not JSON."""
    return HttpFault(path=path, times=times, status=200, body='{"server": {"id": ')


def revoked_token(*, skip: int = 0, after_seconds: float = 0.0) -> HttpFault:
    """Every token is revoked before the next call of the compute service: 401, and a new login works."""
    return HttpFault(path="/compute/v2.1/servers", skip=skip, after_seconds=after_seconds, revoke_tokens=True)
