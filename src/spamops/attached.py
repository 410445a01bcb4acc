"""Work that belongs to a run and stops when the run is over: what Ansible leaves running when it is ended by force."""

from __future__ import annotations

import contextlib
from pathlib import Path

from .budget import Allowance, Deadline
from .clock import RealClock
from .errors import LedgerError, SpamopsError
from .ledger import Ledger


class RunOver(SpamopsError):
    """The run that this work belongs to was ended elsewhere."""


class RunClock(RealClock):
    """The machine's clock, which raises RunOver instead of sleeping on when the run was ended. Without a run it is a plain
    clock."""

    def __init__(self, state_dir: Path, run: int | None) -> None:
        self._ledger = Ledger(state_dir)
        self._run = run

    def check(self) -> None:
        """Raise RunOver when the run was ended. A history that cannot be read stops nothing."""
        if self._run is None:
            return
        try:
            is_open = self._ledger.is_open(self._run)
        except LedgerError:
            return
        if not is_open:
            raise RunOver(f"run {self._run} was ended elsewhere (interrupted): stopped")

    def deadline(self) -> Deadline:
        """When the run's waking and checking have to end, by its budget. A history that cannot be read sets none."""
        found = None
        if self._run is not None:
            with contextlib.suppress(LedgerError):
                found = self._ledger.deadline(self._run)
        if found is None:
            return Deadline(self, Allowance(None))
        at, why = found
        return Deadline(self, Allowance((at - self.now()).total_seconds(), why))

    def note_workflow(self, workflow_id: str) -> None:
        """Note which workflow the run waits for, for the reaper. A history that cannot be written stops nothing."""
        if self._run is not None:
            with contextlib.suppress(LedgerError):
                self._ledger.note_workflow(self._run, workflow_id)

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`."""
        self.check()
        super().sleep(seconds)
        self.check()
