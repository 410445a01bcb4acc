"""All examinations side by side, each with a limit: one that hangs is told as such, and the others are not held up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpamopsError
from ..text import one_line
from . import cloud, controller, people, remote, schedule
from .findings import Finding, Level, Tell, fail
from .patient import Patient

DEFAULT_SECONDS = 20.0
"""For the whole pass."""


@dataclass(frozen=True)
class Examination:
    """Work that tells one finding under each of its names, in any order. It runs in a thread of its own."""

    names: tuple[str, ...]
    work: Callable[[Patient, Tell], None]


EXAMINATIONS = (
    Examination(("settings", "key", "secret files"), controller.settings_and_secrets),
    Examination(("credential", "server", "access rules", "action log", "quota"), cloud.examine),
    Examination(("clock",), cloud.clock),
    Examination(("checker", "worker", "temporal", "models"), remote.checker),
    Examination(("site",), remote.site),
    Examination(("ssh",), remote.ssh),
    Examination(("state folder", "history", "alarms", "budget"), controller.state),
    Examination(("timer",), schedule.timer),
    Examination(("notifiers", "metrics"), people.told),
)


def examine(
    config: Path | None = None,
    seconds: float = DEFAULT_SECONDS,
    examinations: tuple[Examination, ...] = EXAMINATIONS,
    patient: Patient | None = None,
) -> list[Finding]:
    """What was found within `seconds`, in a fixed order. Raises nothing."""
    seen = patient or Patient(config, seconds)
    found: dict[str, Finding] = {}
    begun = [(examination, _start(examination, seen, found)) for examination in examinations]
    deadline = time.monotonic() + seconds
    result = []
    for examination, thread in begun:
        thread.join(max(0.0, deadline - time.monotonic()))
        late = thread.is_alive()
        for name in examination.names:
            missing = (
                fail(
                    name,
                    f"no result within {seconds:g} s",
                    "try again, with more --seconds; if it stays so, something hangs",
                )
                if late
                else fail(name, "the examination ended without a result", "a defect: please report it")
            )
            result.append(found.get(name) or missing)
    return [_without_secrets(finding, seen) for finding in result]


def _start(examination: Examination, patient: Patient, found: dict[str, Finding]) -> threading.Thread:
    def tell(finding: Finding) -> None:
        found.setdefault(finding.name, finding)

    def work() -> None:
        try:
            examination.work(patient, tell)
        except Exception as error:  # noqa: BLE001 - one that fails must not take the others with it
            text = str(error) if isinstance(error, SpamopsError) else f"{type(error).__name__}: {error}"
            for name in examination.names:
                tell(
                    fail(
                        name, one_line(text), None if isinstance(error, SpamopsError) else "a defect: please report it"
                    )
                )

    thread = threading.Thread(target=work, daemon=True, name=f"doctor-{examination.names[0]}")
    thread.start()
    return thread


def _without_secrets(finding: Finding, patient: Patient) -> Finding:
    """The same; a secret that some library put into its words is taken out."""
    return Finding(
        finding.name,
        Level(finding.level),
        patient.harmless(finding.text),
        finding.advice and patient.harmless(finding.advice),
    )


def worst(findings: list[Finding]) -> Level:
    """The worst level among them; one that was skipped counts as ok."""
    for level in (Level.FAIL, Level.WARN):
        if any(finding.level is level for finding in findings):
            return level
    return Level.OK
