"""Signals end the work, never the clean-up."""

from __future__ import annotations

import os
import signal

import pytest

from spamops.errors import ExitCode, Interrupted
from spamops.signals import ENDING, SignalGate


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGHUP, ExitCode.TERMINATED)]
)  # fmt: skip
def test_a_signal_ends_the_work(number: signal.Signals, code: ExitCode) -> None:
    reached = []

    def work() -> None:
        os.kill(os.getpid(), number)
        reached.append("after")

    with SignalGate() as gate:
        error = gate.run(work)
    assert isinstance(error, Interrupted)
    assert error.exit_code == code
    assert reached == []


def test_signals_during_the_clean_up_are_only_noted() -> None:
    told = []
    with SignalGate(lambda: told.append("wait")) as gate:
        error = gate.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
        for number in ENDING:
            os.kill(os.getpid(), number)
    assert isinstance(error, Interrupted)
    assert error.signum == signal.SIGTERM
    assert told == ["wait"] * 3


def test_a_run_cannot_be_suspended() -> None:
    former = signal.getsignal(signal.SIGTSTP)
    reached = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTSTP)  # with the usual handler this process stops here
        reached.append("after")

    with SignalGate() as gate:
        assert gate.run(work) is None
    assert reached == ["after"]
    assert signal.getsignal(signal.SIGTSTP) is former


def test_a_signal_before_the_work_is_not_lost() -> None:
    reached = []
    with SignalGate() as gate:
        os.kill(os.getpid(), signal.SIGTERM)
        error = gate.run(lambda: reached.append("work"))
    assert isinstance(error, Interrupted)
    assert reached == []


def test_a_signal_while_the_work_handles_its_own_fault_is_not_lost() -> None:
    def work() -> None:
        try:
            raise ValueError("a fault")
        except ValueError:
            os.kill(os.getpid(), signal.SIGTERM)

    with SignalGate() as gate:
        assert isinstance(gate.run(work), Interrupted)


def test_no_handler_of_ordinary_errors_swallows_a_signal() -> None:
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Exception:  # noqa: BLE001 - as a library may do
            pytest.fail("swallowed")

    with SignalGate() as gate:
        assert isinstance(gate.run(work), Interrupted)


def test_what_the_work_raised_is_handed_back() -> None:
    fault = ValueError("a fault")

    def work() -> None:
        raise fault

    with SignalGate() as gate:
        assert gate.run(work) is fault
        assert gate.run(lambda: None) is None


def test_the_former_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with SignalGate():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before
