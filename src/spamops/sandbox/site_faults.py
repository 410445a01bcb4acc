"""Faults that a person or a test orders from the sandbox's CoMSES site."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, get_args

Endpoint = Literal["batch", "update"]
FaultKind = Literal["500", "502", "503", "429", "hang", "cut_before", "cut_after", "garbage"]
"""`hang`: no answer (for some seconds, then a proper one). `cut_before`, `cut_after`: the connection is cut before or
after the request was carried out. `garbage`: carried out, but the answer is not JSON. The others are statuses, answered
before anything is done; all but 500 come as from a proxy before the site."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what happens, for how long (`hang` alone; None: until the caller gives up), Retry-After in seconds."""

    kind: FaultKind
    seconds: float | None = None
    retry_after_seconds: int | None = None


class SiteFaults:
    """Faults in the order they were ordered, each for the next N requests of its endpoint. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[Fault, int | None]]] = {"batch": [], "update": []}
        self._records: dict[int, Literal[404, 500]] = {}

    def order(
        self,
        kind: FaultKind,
        endpoint: Endpoint,
        times: int | None = 1,
        *,
        seconds: float | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        """Let the next `times` requests (None: all, until `clear`) to `endpoint` meet this fault."""
        if kind not in get_args(FaultKind):
            raise ValueError(f"no such fault: {kind!r}; there are {', '.join(get_args(FaultKind))}")
        with self._lock:
            self._waiting[endpoint].append((Fault(kind, seconds, retry_after_seconds), times))

    def record_always(self, record_id: int, status: Literal[404, 500]) -> None:
        """Let every update of this record fail with `status`; nothing is stored."""
        with self._lock:
            self._records[record_id] = status

    def clear(self) -> None:
        """Cancel every fault."""
        with self._lock:
            self._records.clear()
            for waiting in self._waiting.values():
                waiting.clear()

    def take(self, endpoint: Endpoint) -> Fault | None:
        """The fault of the request that just came in, if one was ordered."""
        with self._lock:
            waiting = self._waiting[endpoint]
            if not waiting:
                return None
            fault, times = waiting[0]
            if times is None:
                return fault
            if times <= 1:
                waiting.pop(0)
            else:
                waiting[0] = (fault, times - 1)
            return fault

    def of_record(self, record_id: int) -> Literal[404, 500] | None:
        """The status that updates of this record always meet, if one was ordered."""
        with self._lock:
            return self._records.get(record_id)
