"""Errors for the operator, and the exit codes of every command.

A message says what failed, what state things are in now, and what to do next. It never holds a secret or an item's text.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ends with. 130 and 143 are the shell's own numbers for SIGINT and SIGTERM (128 + signal)."""

    DONE = 0
    UNEXPECTED = 1
    FAULTY_SETTINGS = 2
    RUN_ACTIVE = 3
    SERVER_NOT_WOKEN = 4
    CHECKER_FAILED = 5
    ITEMS_FAILED = 6
    SERVER_NOT_SHELVED = 7
    HISTORY_NOT_WRITTEN = 8
    BUDGET_SPENT = 9
    ALARM_NOT_DELIVERED = 10
    NOT_READY = 11
    INTERRUPTED = 130
    TERMINATED = 143


EXIT_CODES: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.UNEXPECTED: "something unexpected: a defect, please report it",
    ExitCode.FAULTY_SETTINGS: "faulty settings or arguments; nothing was touched",
    ExitCode.RUN_ACTIVE: "another run of the same server is active; nothing was touched",
    ExitCode.SERVER_NOT_WOKEN: "the server could not be woken, or the cloud not be asked",
    ExitCode.CHECKER_FAILED: "the checker failed; the server is shelved, unless it was to be left on",
    ExitCode.ITEMS_FAILED: "done, but some items failed",
    ExitCode.SERVER_NOT_SHELVED: "THE SERVER IS NOT SHELVED and costs money: see to it now",
    ExitCode.HISTORY_NOT_WRITTEN: "done, but the history could not be written (or, to look back: read)",
    ExitCode.BUDGET_SPENT: "the budget is spent: the server was not woken, or the run was ended in time",
    ExitCode.ALARM_NOT_DELIVERED: "a notifier did not take the test message, or none is set (spamops notify)",
    ExitCode.NOT_READY: "something that a run needs is not as it should be (spamops doctor)",
    ExitCode.INTERRUPTED: "ended by SIGINT (Ctrl-C); a server that was seen is shelved, unless it was to be left on",
    ExitCode.TERMINATED: "ended by SIGTERM; a server that was seen is shelved, unless it was to be left on",
}
"""One line for each code, for --help and the documentation."""


class SpamopsError(Exception):
    """Base of all errors that are told to the operator."""

    exit_code = ExitCode.UNEXPECTED


class SettingsError(SpamopsError):
    """Every fault of the settings, in one message."""

    exit_code = ExitCode.FAULTY_SETTINGS


class LedgerError(SpamopsError):
    """The history cannot be read or written."""

    exit_code = ExitCode.HISTORY_NOT_WRITTEN


class BudgetSpent(SpamopsError):
    """The run may cost no more than what it has cost, or may not begin."""

    exit_code = ExitCode.BUDGET_SPENT


class RunActive(SpamopsError):
    """Another run holds the lock of this server."""

    exit_code = ExitCode.RUN_ACTIVE


class CloudError(SpamopsError):
    """The cloud refused, failed or took too long."""

    exit_code = ExitCode.SERVER_NOT_WOKEN


class CloudUnavailable(CloudError):
    """The cloud's API does not answer, or answers with errors of its own (5xx, 429)."""


class CloudRefused(CloudError):
    """The credential is wrong, expired, or not allowed to do this (401, 403, 404 of the credential)."""


class ServerMissing(CloudError):
    """No such server, or it was deleted."""


class ServerInError(CloudError):
    """Nova says ERROR: reported and left alone, because a person has to look."""


class ServerLocked(CloudError):
    """An admin locked the server."""


class NoCapacity(CloudError):
    """The cloud has no host free for the server now."""


class ActionFailed(CloudError):
    """Nova accepted the action and could not do it."""


class TooSlow(CloudError):
    """The server did not get there within the limit."""


class UnsuitableState(CloudError):
    """The server is in a state that no run can bring it out of (resize to confirm, rescue, …)."""


class CheckerError(SpamopsError):
    """The checker refused, failed, or did not end in time."""

    exit_code = ExitCode.CHECKER_FAILED


class SshError(SpamopsError):
    """The server cannot be logged in to, or the connection broke."""

    exit_code = ExitCode.SERVER_NOT_WOKEN


class Interrupted(BaseException):
    """A signal asked the run to end. Not an Exception, so that no handler of ordinary errors swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> ExitCode:
        """128 + the signal's number, as a shell would say; SIGHUP counts as SIGTERM."""
        return ExitCode.INTERRUPTED if self.signum == 2 else ExitCode.TERMINATED
