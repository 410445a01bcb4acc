# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Pull a model and see it through: a stalled pull is taken up again, an error in the middle of the answer is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils.ollama_api import Ollama, OllamaError, Silent, Stream

PAUSE_SECONDS = 2.0
"""Between two tries: Ollama takes a moment to let go of a pull whose client has gone, and joining it would end with it."""
HINTS = {
    "file does not exist": "the registry has no such model: see its name and tag",
    "no space left": "the disk of the models is full",
    "insecure protocol": "set insecure for a registry without TLS",
    "http response to https": "set insecure for a registry without TLS",
    "look like a tls handshake": "set insecure for a registry without TLS",
    "unauthorized": "the registry wants a login, which is not supported",
    "newer version of ollama": "this model needs a newer Ollama",
    "no location header": "Ollama wants the registry to redirect blobs to another host name; put such a front before it",
}
"""Errors that another try does not mend, and what to do."""


@dataclass(frozen=True)
class Limits:
    """`stall`: seconds without a further byte; `total`: seconds for everything; `retries`: tries without progress in a row."""

    stall: float
    total: float
    retries: int


@dataclass
class Progress:
    """How far a pull has come. Sizes in bytes."""

    totals: dict[str, int] = field(default_factory=dict)
    completed: dict[str, int] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    statuses: list[str] = field(default_factory=list)
    attempts: int = 0
    lacking: frozenset[str] | None = None

    @property
    def bytes_total(self) -> int:
        """Size of all layers named so far."""
        return sum(self.totals.values())

    @property
    def bytes_completed(self) -> int:
        """What the store has of them."""
        return sum(self.completed.values())

    @property
    def bytes_pulled(self) -> int:
        """What came in meanwhile: the layers that were `lacking` before, where that is known.

        Otherwise what was added since a layer was first named, which misses what came in before that.
        """
        if self.lacking is not None:
            return sum(self.completed.get(digest, 0) for digest in self.lacking)
        return sum(max(0, self.completed[digest] - self.held[digest]) for digest in self.completed)

    def note(self, line: dict[str, Any]) -> None:
        """Enter a line of the answer."""
        status, digest = str(line.get("status", "")), line.get("digest")
        if status and (not self.statuses or self.statuses[-1] != status):
            self.statuses.append(status)
        if isinstance(digest, str) and digest:
            completed = int(line.get("completed") or 0)
            self.totals[digest] = int(line.get("total") or 0)
            self.held.setdefault(digest, completed)
            self.completed[digest] = max(completed, self.completed.get(digest, 0))

    def facts(self) -> dict[str, Any]:
        """For the module's result."""
        layers = [
            {"digest": digest, "total": total, "completed": self.completed[digest]}
            for digest, total in self.totals.items()
        ]
        return {"bytes": self.bytes_pulled, "layers": layers, "attempts": self.attempts, "statuses": self.statuses}


def pull(
    server: Ollama,
    reference: str,
    insecure: bool,
    limits: Limits,
    make_sure_of_room: Callable[[], None],
    progress: Progress,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Pull until it is done. Raises OllamaError; what has come in stays in the store, and the next pull goes on there."""
    deadline = monotonic() + limits.total
    in_vain = 0
    while True:
        progress.attempts += 1
        before = progress.bytes_completed
        try:
            _attempt(server, reference, insecure, limits, make_sure_of_room, progress, deadline, monotonic)
        except _Passing as fault:
            in_vain = 0 if progress.bytes_completed > before else in_vain + 1
            reason = str(fault)
        else:
            return
        if in_vain > limits.retries or monotonic() + PAUSE_SECONDS >= deadline:
            raise OllamaError(
                f"the pull of {reference} was given up after {progress.attempts} tries: {reason};"
                f" {progress.bytes_completed} of {progress.bytes_total} bytes known of are there, and the next run goes on"
                " from them"
            )
        sleep(PAUSE_SECONDS)


class _Passing(Exception):
    """Worth another try."""


def _attempt(
    server: Ollama,
    reference: str,
    insecure: bool,
    limits: Limits,
    make_sure_of_room: Callable[[], None],
    progress: Progress,
    deadline: float,
    monotonic: Callable[[], float],
) -> None:
    body = {"model": reference, "insecure": insecure, "stream": True}
    best, since = progress.bytes_completed, monotonic()
    try:
        with server.stream("/api/pull", body, limits.stall) as stream:
            for line in stream:
                _raise_for_error(reference, line)
                known = len(progress.totals)
                progress.note(line)
                if len(progress.totals) > known:
                    make_sure_of_room()
                now = monotonic()
                if now >= deadline:
                    raise _Passing("the time is up")
                if line.get("status") == "success":
                    return
                if _is_local_work(line):
                    # Hashing some gigabytes takes a while, in which the server says nothing.
                    _wait_for_the_disk(stream, deadline - now)
                    since = now
                elif progress.bytes_completed > best:
                    best, since = progress.bytes_completed, now
                elif now - since > limits.stall:
                    raise _Passing(f"no byte came in for {limits.stall:g} s")
    except Silent as fault:
        raise _Passing(str(fault)) from None
    raise _Passing("Ollama's answer ended before the end of the pull")


def _wait_for_the_disk(stream: Stream, seconds: float) -> None:
    stream.be_patient(max(1.0, seconds))


def _is_local_work(line: dict[str, Any]) -> bool:
    return str(line.get("status", "")).startswith(("verifying", "writing", "removing"))


def _raise_for_error(reference: str, line: dict[str, Any]) -> None:
    if "error" not in line:
        return
    said = str(line["error"])
    for words, hint in HINTS.items():
        if words in said.lower():
            raise OllamaError(f"Ollama could not pull {reference}: {said} ({hint})")
    raise _Passing(f"Ollama said: {said}")
