"""Alarms: what is wrong now, kept in the history so that every process (a run, a guard, the reaper) knows what was told.

An alarm is raised, told, repeated while it costs money, and ends with an all-clear. What each means and what to do about
it stands in docs/alarms.md, in a section of its name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from . import notify
from .cloud import FREE_STATUSES
from .errors import ExitCode, LedgerError
from .ledger import Ledger
from .notify import Message, harmless
from .telling import Telling

log = logging.getLogger(__name__)

STATE_MARK = "server_state"
DIGEST_MARK = "digest"
OTHER = "something else"


class Kind(StrEnum):
    """What is wrong."""

    NOT_SHELVED = "server_not_shelved"
    IN_ERROR = "server_in_error"
    NOT_SEEN = "server_not_seen"
    CHECK_FAILED = "check_failed"
    REAPED = "server_reaped"


TITLES: dict[str, str] = {
    Kind.NOT_SHELVED: "THE SERVER IS NOT SHELVED and costs money",
    Kind.IN_ERROR: "the server is in ERROR",
    Kind.NOT_SEEN: "the server's state cannot be seen, it may cost money",
    Kind.CHECK_FAILED: "the check failed",
    Kind.REAPED: "the reaper shelved a server that nobody used",
}
REPEATED = frozenset({Kind.NOT_SHELVED, Kind.IN_ERROR, Kind.NOT_SEEN})
"""Kinds that are told again until they are resolved. A failed check is told at each failure."""
ONCE = frozenset({Kind.REAPED})
"""Kinds that are no state: told once, and over."""
FAILED_RUNS_THAT_TELL = frozenset(ExitCode) - {ExitCode.DONE, ExitCode.ITEMS_FAILED, ExitCode.RUN_ACTIVE}


@dataclass(frozen=True)
class Desk:
    """Where alarms of one server are raised, and who is told. Nothing here raises: an alarm that cannot be kept in the
    history is told all the same, without being remembered."""

    ledger: Ledger
    server: str
    telling: Telling

    def after_run(self, summary: Mapping[str, Any], at: datetime) -> None:
        """Raise and close what a run's end means. Tells nobody yet."""
        code, run = ExitCode(summary["exit_code"]), summary.get("run")
        status = summary.get("server_status_after")
        self.saw(status, at)
        text = f"run {run or '?'}: {summary['outcome']}: {summary.get('reason') or 'no reason given'}"
        if code == ExitCode.SERVER_NOT_SHELVED:
            self.open(Kind.NOT_SHELVED, text, at, run=run, again=True)
        elif code in FAILED_RUNS_THAT_TELL:
            self.open(Kind.CHECK_FAILED, text, at, run=run, again=True)
        elif code in (ExitCode.DONE, ExitCode.ITEMS_FAILED):
            counts = f"{summary.get('checked') or 0} checked, {summary.get('failed') or 0} failed"
            self.close(Kind.CHECK_FAILED, f"the first success after a failure, run {run or '?'}: {counts}", at)

    def saw(self, status: str | None, at: datetime) -> None:
        """The server was seen in this status; None for not at all."""
        if status is None:
            return
        self._safely(lambda: self.ledger.mark(self.server, STATE_MARK, at, status))
        self.close(Kind.NOT_SEEN, f"the server is seen again: {status}", at)
        if status != "ERROR":
            self.close(Kind.IN_ERROR, f"the server is {status}", at)
        if status in FREE_STATUSES:
            self.close(Kind.NOT_SHELVED, f"the server is {status}, it costs nothing now", at)

    def gone(self, at: datetime) -> None:
        """No server of this id is found any more. That it cannot be seen stays an alarm: the settings name it."""
        for kind in (Kind.NOT_SHELVED, Kind.IN_ERROR):
            self.close(kind, "the cloud finds no server of this id any more", at)

    def open(self, kind: Kind, text: str, at: datetime, *, run: int | None = None, again: bool = False) -> None:
        """Raise an alarm. One that is open already is told again after its pause, or at the next chance with `again`."""
        if not self._safely(lambda: self.ledger.raise_alarm(self.server, kind, harmless(text), run, at, again=again)):
            notify.send(self.telling.urls, [_opened(kind, self.server, text)], self.telling.seconds)
        elif kind in ONCE:
            self.close(kind, "", at)

    def close(self, kind: Kind, text: str, at: datetime) -> None:
        """The reason of an alarm is gone."""
        self._safely(lambda: self.ledger.close_alarm(self.server, kind, harmless(text), at))

    def tell(self, at: datetime) -> None:
        """Tell what is due: new alarms, repeats, all-clears, a digest. Takes `telling.seconds` at most."""
        due: list[dict[str, Any]] = []
        repeat = dict.fromkeys((str(kind) for kind in REPEATED), self.telling.repeat_seconds)
        if not self._safely(lambda: due.extend(self.ledger.claim_alarms(self.server, at, repeat))):
            return
        messages = [_message(row) for row in due]
        for row, message in zip(due, messages, strict=True):
            if row["told_at"] is not None or not self.telling.urls:
                log.warning("%s: %s", message.title, message.body)  # a run's own first alarm is in the log already
        digest = self._digest_due(at)
        if digest is not None:
            messages.append(digest)
        if not messages or not self.telling.urls:
            return
        taken = any(delivery.delivered for delivery in notify.send(self.telling.urls, messages, self.telling.seconds))
        if not taken:
            self._safely(lambda: self.ledger.unclaim_alarms(due))
        elif digest is not None:
            self._safely(lambda: self.ledger.mark(self.server, DIGEST_MARK, at, "sent"))

    def _digest_due(self, at: datetime) -> Message | None:
        if not self.telling.digest_days or not self.telling.urls:
            return None
        pause = timedelta(days=self.telling.digest_days)
        found: list[Message] = []

        def look() -> None:
            last = self.ledger.marked(self.server, DIGEST_MARK)
            if last is None:  # the first period begins now
                self.ledger.mark(self.server, DIGEST_MARK, at, "begun")
            elif at - last[0] >= pause:
                found.append(digest(self.ledger, [self.server], last[0], at))

        self._safely(look)
        return found[0] if found else None

    def _safely(self, work: Any) -> bool:
        try:
            work()
        except LedgerError as error:
            log.warning("the alarms could not be kept: %s", error)
            return False
        return True


def digest(ledger: Ledger, servers: list[str], since: datetime, at: datetime) -> Message:
    """What happened since then, in figures.

    Raises LedgerError.
    """
    runs = ledger.runs_since(servers, since)
    total = {
        name: sum(run.get(name) or 0 for run in runs)
        for name in ("checked", "spam", "not_spam", "failed", "active_seconds", "service_units")
    }
    failed = sum(1 for run in runs if run["exit_code"] not in (None, ExitCode.DONE, ExitCode.ITEMS_FAILED))
    body = (
        f"{len(runs)} runs, {failed} of them failed. {total['checked']} items checked: {total['spam']} spam,"
        f" {total['not_spam']} not spam; {total['failed']} items failed."
        f" The server was on for {total['active_seconds'] / 3600:.2f} h, {total['service_units']:.2f} service units."
        f" Alarms open now: {len(ledger.open_alarms(servers[0]))}."
    )
    return Message(f"spamops: {servers[0]}: from {since:%Y-%m-%d} to {at:%Y-%m-%d}", body, "info")


def _message(row: Mapping[str, Any]) -> Message:
    kind, server = str(row["kind"]), str(row["server"])
    if row["closed_text"]:
        times = f" (it was raised {row['times']} times)" if row["times"] > 1 else ""
        return Message(
            f"spamops: {harmless(server, 80)}: all clear: {kind}",
            f"{row['closed_text']}{times}. The alarm was: {row['text']}",
            "success",
        )
    repeated = f" Open since {row['opened_at'][:16]}Z." if row["told_at"] is not None else ""
    message = _opened(kind, server, str(row["text"]))
    return Message(message.title, message.body + repeated, message.kind)


def _opened(kind: str, server: str, text: str) -> Message:
    title = f"spamops: {harmless(server, 80)}: {TITLES.get(kind, OTHER)}"
    return Message(
        title, f"{harmless(text)} What to do: docs/alarms.md, {kind}.", "warning" if kind in ONCE else "failure"
    )
