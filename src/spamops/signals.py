"""Signals end a run early, but never its clean-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .errors import Interrupted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SUSPENDING = signal.SIGTSTP
"""Ctrl-Z. A run that sleeps in the background keeps its server on for ever."""


class SignalGate:
    """While open, the first signal raises Interrupted in the main thread; before and after, signals are only noted. Ctrl-Z is
    without effect.

    Used as a context manager it takes the handlers over and puts the former ones back. Outside the main thread, where
    Python delivers no signals, it does nothing.
    """

    def __init__(self, on_ignored: Callable[[], None] | None = None) -> None:
        self._on_ignored = on_ignored or (lambda: None)
        self._open = False
        self._former: dict[int, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> SignalGate:
        """Take the handlers over; the gate is still closed."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in ENDING}
            # A handler and not SIG_IGN, which programs that are started would inherit.
            self._former[SUSPENDING] = signal.signal(SUSPENDING, lambda _number, _frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the former handlers back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def run(self, work: Callable[[], None]) -> BaseException | None:
        """Do the work with the gate open; whatever ended it early, returned, not raised.

        Two layers of `try`, because the one signal that is raised may arrive between the end of the work and the closing
        of the gate; the handler raises once at most.
        """
        error: BaseException | None = None
        try:
            try:
                self._open = True
                if self.received is not None:  # it came before the gate was open
                    self._open = False
                    raise Interrupted(self.received)
                work()
                self._open = False
            except BaseException as caught:  # noqa: BLE001 - handed to the caller, who cleans up and then decides
                error = caught
                self._open = False
        except Interrupted as late:
            error = late
        return error

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = self.received is None
        if first:
            self.received = number
        if self._open:
            self._open = False
            raise Interrupted(number)
        if not first:
            self._on_ignored()
