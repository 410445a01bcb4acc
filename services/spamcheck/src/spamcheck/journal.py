"""What happened to each item of each run: one SQLite file that API and worker share.

Every call is one small transaction (well under a millisecond, counting 10,000 items a few), so it is made right where
it is needed, also on an event loop. WAL with synchronous=NORMAL: nothing is lost when a process is killed; after a power
cut the last moments may be, which is safe, because a verdict is only sent for an item that the site still schedules.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .items import Verdict
from .messages import Outcome, Ref, Summary

SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0
"""How long a transaction waits for another process's."""
API_BUSY_SECONDS = 1.0
"""The same in the API, where every caller waits meanwhile."""
PAGE_ROWS = 500
"""Rows that a report holds in memory at once."""
MAX_REASON_CHARACTERS = 500
MAX_NAMED_FAILURES = 1000
"""Ids that a summary names: it goes through Temporal, whose payloads are limited to 2 MB."""
_SECONDS_A_DAY = 86400
_LABEL = re.compile(r"[a-z_]{1,32}")


class JournalError(Exception):
    """The journal cannot be used. The message says why and what to do."""


JOURNAL_FAULTS = (JournalError, sqlite3.Error, LookupError, TypeError, ValueError)
"""What reading may raise while the file is damaged, locked or gone; the last three where rows have lost their form."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Times in seconds since 1970."""

    workflow_id: str
    started_at: float
    ended_at: float | None = None
    status: str = "RUNNING"
    confirmed: bool = False
    reason: str | None = None
    rounds: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Items of a run by what became of them."""

    found: int = 0
    spam: int = 0
    not_spam: int = 0
    failed: int = 0
    gone: int = 0
    superseded: int = 0
    in_progress: int = 0

    @property
    def checked(self) -> int:
        """Items whose verdict the site accepted."""
        return self.spam + self.not_spam

    @property
    def waiting(self) -> int:
        """Items found, but not begun."""
        settled = self.checked + self.failed + self.gone + self.superseded
        return self.found - settled - self.in_progress


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """The last sign of life of a worker. `age` in seconds."""

    age: float
    classifier: str
    models: dict[str, str]


class Journal:
    """The journal in `folder`, made when there is none unless it is opened `read_only`. One object a thread.

    Raises JournalError when the file cannot be opened or comes from a newer version.
    """

    def __init__(
        self,
        folder: Path,
        now: Callable[[], float] = time.time,
        *,
        busy_seconds: float = BUSY_SECONDS,
        read_only: bool = False,
    ) -> None:
        self.path = folder / "journal.db"
        self._now = now
        try:
            if not read_only:
                folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            # A report is read by a thread pool: one connection, used by one thread after another.
            self._db = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
                uri=True,
                timeout=busy_seconds,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.row_factory = sqlite3.Row
            if not read_only:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._make_schema()
            self._file = _identity(self.path)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal {self.path} cannot be used ({error}); set STATE_DIR") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def check(self) -> None:
        """Raises JournalError when the file was removed or replaced: SQLite itself would not notice."""
        try:
            same = _identity(self.path) == self._file
        except OSError:
            same = False
        if not same:
            raise JournalError(f"the file {self.path} was removed or replaced; restart API and worker")

    def check_writable(self) -> None:
        """Raises sqlite3.Error when nothing can be entered: locked for longer than the busy time, or read-only."""
        with self._transaction():
            pass

    # Runs

    def active(self) -> Run | None:
        """The run that is not known to have ended, the latest if there are several."""
        return self._one_run("status = 'RUNNING' ORDER BY started_at DESC")

    def run(self, workflow_id: str) -> Run | None:
        """A run by its id."""
        return self._one_run("workflow_id = ?", workflow_id)

    def begin_run(self, workflow_id: str) -> str:
        """Enter a run, unless one is active. Returns the id of the active one."""
        with self._transaction():
            active = self.active()
            if active is not None:
                return active.workflow_id
            self._db.execute("INSERT INTO runs (workflow_id, started_at) VALUES (?, ?)", (workflow_id, self._now()))
            return workflow_id

    def enter_run(self, workflow_id: str) -> None:
        """Enter a run that was started straight in Temporal, if the journal does not have it."""
        self._db.execute(
            "INSERT OR IGNORE INTO runs (workflow_id, started_at) VALUES (?, ?)", (workflow_id, self._now())
        )

    def end_run(self, workflow_id: str, status: str, reason: str | None) -> None:
        """Enter how a run ended, and settle what was still open: it is no longer scheduled, or was not reached."""
        with self._transaction():
            self._end_run(workflow_id, status, reason)

    def confirm_run(self, workflow_id: str, status: str, reason: str | None, ended_at: float | None) -> None:
        """Enter what Temporal says of an ended run. A reason that is known already is kept."""
        with self._transaction():
            run = self.run(workflow_id)
            if run is None:
                return
            if run.status != status:
                self._end_run(workflow_id, status, run.reason or reason)
            self._db.execute(
                "UPDATE runs SET confirmed = 1, ended_at = coalesce(?, ended_at) WHERE workflow_id = ?",
                (ended_at if run.ended_at is None else None, workflow_id),
            )

    def prune(self, days: int) -> int:
        """Remove one run that ended more than `days` ago, if there is one. Returns how many were removed (0 or 1)."""
        with self._transaction():
            old = self._db.execute(
                "SELECT workflow_id FROM runs WHERE ended_at < ? LIMIT 1", (self._now() - days * _SECONDS_A_DAY,)
            ).fetchone()
            if old is None:
                return 0
            self._db.execute("DELETE FROM runs WHERE workflow_id = ?", (old["workflow_id"],))
            return 1

    # Items

    def add_batch(self, workflow_id: str, round_number: int, batch: Iterable[Ref], item_attempts: int) -> list[Ref]:
        """Enter a batch; returns what of it is not settled in this run.

        An item that was superseded is taken up again when it is scheduled again, at most `item_attempts` times. So is
        one whose acceptance was only assumed.
        """
        new = []
        with self._transaction():
            seen = 0
            for ref in batch:
                seen += 1
                row = self._db.execute(
                    "INSERT INTO items (workflow_id, item_id, content_hash, content_type, last_round)"
                    " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET last_round = excluded.last_round"
                    " RETURNING state, times_superseded, assumed",
                    (workflow_id, ref.item_id, ref.content_hash, ref.content_type, round_number),
                ).fetchone()
                again = row["state"] == "superseded" and row["times_superseded"] < item_attempts
                assumed = row["state"] == "submitted" and row["assumed"]
                if row["state"] in {"found", "classifying", "sending"} or again or assumed:
                    new.append(ref)
            self._db.execute(
                "UPDATE runs SET rounds = max(rounds, ?), left_over = ? WHERE workflow_id = ?",
                (round_number, seen - len(new), workflow_id),
            )
        return new

    def state(self, workflow_id: str, item_id: str, content_hash: str) -> str | None:
        """The state of an item, None if it is not in the journal; `assumed` for one whose acceptance was only assumed."""
        row = self._db.execute(
            "SELECT state, assumed FROM items WHERE workflow_id = ? AND item_id = ? AND content_hash = ?",
            (workflow_id, item_id, content_hash),
        ).fetchone()
        if row is None:
            return None
        return "assumed" if row["assumed"] else str(row["state"])

    def classifying(self, workflow_id: str, item_id: str, content_hash: str) -> bool:
        """An item is taken up. False, and nothing entered, when the run has ended."""
        return self._set(workflow_id, item_id, content_hash, "state = 'classifying', assumed = 0", while_running=True)

    def classified(self, workflow_id: str, item_id: str, content_hash: str, started: float, ended: float) -> None:
        """A try to classify took from `started` to `ended`, with or without success."""
        with self._transaction():
            self._db.execute("INSERT INTO spans VALUES (?, ?, ?)", (workflow_id, started, ended))
            self._set(workflow_id, item_id, content_hash, "seconds = ?", ended - started)

    def sending(self, workflow_id: str, item_id: str, content_hash: str, verdict: Verdict) -> bool:
        """A verdict is about to be sent. A crash from here on leaves open whether the site has it.

        False, and nothing entered, when the run has ended: then it must not be sent.
        """
        return self._set(
            workflow_id,
            item_id,
            content_hash,
            "state = 'sending', is_spam = ?, confidence = ?, decided_by = ?, indicators = ?",
            verdict.is_spam,
            verdict.confidence,
            verdict.by,
            json.dumps(verdict.indicators),
            while_running=True,
        )

    def not_sent(self, workflow_id: str, item_id: str, content_hash: str) -> None:
        """The site answered that it did not take the verdict."""
        self._set(workflow_id, item_id, content_hash, "state = 'classifying'")

    def settle(
        self,
        workflow_id: str,
        item_id: str,
        content_hash: str,
        outcome: Outcome,
        *,
        reason: str | None = None,
        assumed: bool = False,
    ) -> None:
        """Enter what became of an item. Settling again, with the same outcome, changes nothing."""
        key = (workflow_id, item_id, content_hash)
        with self._transaction():
            row = self._db.execute(
                "SELECT state, content_type, is_spam, seconds FROM items"
                " WHERE workflow_id = ? AND item_id = ? AND content_hash = ?",
                key,
            ).fetchone()
            if row is None or row["state"] == outcome:
                return
            accepted = outcome in {"submitted", "gone"}
            self._set(
                *key,
                "state = ?, reason = ?, assumed = ?, times_superseded = times_superseded + ?,"
                " last_round = CASE WHEN ? THEN 0 ELSE last_round END",
                outcome,
                None if reason is None else reason[:MAX_REASON_CHARACTERS],
                assumed,
                outcome == "superseded",
                accepted,
            )
            self._count(outcome, row)

    # Reading

    def counts(self, workflow_id: str) -> Counts:
        """Items of a run by what became of them."""
        found = spam = not_spam = in_progress = 0
        ends = dict.fromkeys(("failed", "gone", "superseded"), 0)
        for state, is_spam, number in self._db.execute(
            "SELECT state, is_spam, count(*) FROM items WHERE workflow_id = ? GROUP BY state, is_spam", (workflow_id,)
        ):
            found += number
            if state == "submitted":
                spam, not_spam = (spam + number, not_spam) if is_spam else (spam, not_spam + number)
            elif state in ends:
                ends[state] += number
            elif state != "found":
                in_progress += number
        return Counts(found=found, spam=spam, not_spam=not_spam, in_progress=in_progress, **ends)

    def by_type(self, workflow_id: str) -> dict[str, dict[str, int]]:
        """Items by content type and `spam`, `not_spam`, `failed`."""
        types: dict[str, dict[str, int]] = {}
        for content_type, state, is_spam, number in self._db.execute(
            "SELECT content_type, state, is_spam, count(*) FROM items"
            " WHERE workflow_id = ? AND state IN ('submitted', 'failed') GROUP BY content_type, state, is_spam",
            (workflow_id,),
        ):
            row = types.setdefault(content_type, {"spam": 0, "not_spam": 0, "failed": 0})
            name = "failed" if state == "failed" else "spam" if is_spam else "not_spam"
            row[name] += number
        return types

    def classify_seconds(self, workflow_id: str) -> float:
        """Length of the time in which at least one item was being classified, in seconds."""
        total, until = 0.0, float("-inf")
        for started, ended in self._db.execute(
            "SELECT started, ended FROM spans WHERE workflow_id = ? ORDER BY started, ended", (workflow_id,)
        ):
            total += max(0.0, ended - max(started, until))
            until = max(until, ended)
        return total

    def settled_rows(self, workflow_id: str, state: Outcome) -> Iterator[dict[str, Any]]:
        """Items of a run in one state, read page by page, so that neither memory nor a lock is held for long."""
        after = ("", "")
        while True:
            rows = self._db.execute(
                "SELECT * FROM items WHERE workflow_id = ? AND (item_id, content_hash) > (?, ?) AND +state = ?"
                " ORDER BY item_id, content_hash LIMIT ?",
                (workflow_id, *after, state, PAGE_ROWS),
            ).fetchall()
            yield from (dict(row) for row in rows)
            if len(rows) < PAGE_ROWS:
                return
            after = (rows[-1]["item_id"], rows[-1]["content_hash"])

    def reasons(self, workflow_id: str) -> list[tuple[str, int]]:
        """Reasons for which items were set aside, with how often, the most frequent first; five at most."""
        return [
            (row["reason"], row["times"])
            for row in self._db.execute(
                "SELECT reason, count(*) AS times FROM items WHERE workflow_id = ? AND state = 'failed'"
                " GROUP BY reason ORDER BY times DESC, reason LIMIT 5",
                (workflow_id,),
            )
        ]

    def summary(self, workflow_id: str) -> Summary:
        """The end of a run in numbers.

        Raises JournalError when the run is not in the journal.
        """
        run, counts = self.run(workflow_id), self.counts(workflow_id)
        if run is None:
            raise JournalError(f"the journal holds no run {workflow_id}")
        failed = self._db.execute(
            "SELECT DISTINCT item_id FROM items WHERE workflow_id = ? AND state = 'failed' ORDER BY item_id LIMIT ?",
            (workflow_id, MAX_NAMED_FAILURES),
        )
        return Summary(
            status=run.status,
            reason=run.reason,
            rounds=run.rounds,
            found=counts.found,
            checked=counts.checked,
            spam=counts.spam,
            not_spam=counts.not_spam,
            failed=counts.failed,
            gone=counts.gone,
            superseded=counts.superseded,
            left=run.left,
            failed_ids=[row["item_id"] for row in failed],
        )

    def totals(self) -> Iterator[tuple[str, str, str, float]]:
        """What was ever counted: name, content type, label, amount."""
        for row in self._db.execute("SELECT name, content_type, label, amount FROM totals"):
            yield row["name"], row["content_type"], row["label"], row["amount"]

    def last_end(self) -> float | None:
        """When the latest run ended, in seconds since 1970."""
        row = self._db.execute("SELECT max(ended_at) AS at FROM runs").fetchone()
        return None if row["at"] is None else float(row["at"])

    def last_sign(self) -> float | None:
        """When a run last started or ended, in seconds since 1970."""
        row = self._db.execute("SELECT max(max(started_at, coalesce(ended_at, 0))) AS at FROM runs").fetchone()
        return None if row["at"] is None else float(row["at"])

    # Workers

    def beat(self, identity: str, classifier: str, models: Mapping[str, str]) -> None:
        """A worker is alive. Workers that were silent for a day are forgotten."""
        now = self._now()
        with self._transaction():
            self._db.execute(
                "INSERT INTO workers VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET beat_at = excluded.beat_at,"
                " classifier = excluded.classifier, models = excluded.models",
                (identity, now, classifier, json.dumps(dict(models))),
            )
            self._db.execute("DELETE FROM workers WHERE beat_at < ?", (now - _SECONDS_A_DAY,))

    def leave(self, identity: str) -> None:
        """A worker ends."""
        self._db.execute("DELETE FROM workers WHERE identity = ?", (identity,))

    def worker(self) -> WorkerSeen | None:
        """The worker that was last seen."""
        row = self._db.execute("SELECT * FROM workers ORDER BY beat_at DESC LIMIT 1").fetchone()
        if row is None:
            return None
        return WorkerSeen(max(0.0, self._now() - row["beat_at"]), row["classifier"], json.loads(row["models"]))

    # Inside

    def _make_schema(self) -> None:
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise JournalError(f"the journal {self.path} was written by a newer version ({version}) of the checker")
            if version == SCHEMA_VERSION:
                return
            script = resources.files(__package__).joinpath("schema.sql").read_text(encoding="utf-8")
            without_comments = re.sub(r"--.*", "", script)
            for statement in filter(str.strip, without_comments.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _one_run(self, where: str, *values: object) -> Run | None:
        row = self._db.execute(f"SELECT * FROM runs WHERE {where} LIMIT 1", values).fetchone()  # noqa: S608 -- fixed texts
        if row is None:
            return None
        return Run(
            workflow_id=row["workflow_id"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            status=row["status"],
            confirmed=bool(row["confirmed"]),
            reason=row["reason"],
            rounds=row["rounds"],
            left=row["left_over"],
        )

    def _end_run(self, workflow_id: str, status: str, reason: str | None) -> None:
        run = self.run(workflow_id)
        if run is None:
            return
        # After a whole run: found in one batch and in no later one, so edited, or a person decided. Else: not reached.
        self._db.execute(
            "UPDATE items SET state = ? WHERE workflow_id = ? AND state IN ('found', 'classifying', 'sending')",
            ("superseded" if status == "COMPLETED" else "found", workflow_id),
        )
        left = self._db.execute(
            "SELECT count(*) AS number FROM items WHERE workflow_id = ? AND last_round = ? AND last_round > 0",
            (workflow_id, run.rounds),
        ).fetchone()["number"]
        self._db.execute(
            "UPDATE runs SET status = ?, reason = ?, ended_at = coalesce(ended_at, ?), left_over = ?"
            " WHERE workflow_id = ?",
            (status, reason, self._now(), left, workflow_id),
        )
        if run.status == "RUNNING":
            self._add("runs", "", status, 1)

    def _set(
        self,
        workflow_id: str,
        item_id: str,
        content_hash: str,
        assignments: str,
        *values: object,
        while_running: bool = False,
    ) -> bool:
        """Change one item. Returns whether there was one to change."""
        condition = " AND (SELECT status FROM runs WHERE workflow_id = items.workflow_id) = 'RUNNING'"
        cursor = self._db.execute(
            f"UPDATE items SET {assignments} WHERE workflow_id = ? AND item_id = ? AND content_hash = ?"  # noqa: S608 -- fixed texts
            + (condition if while_running else ""),
            (*values, workflow_id, item_id, content_hash),
        )
        return cursor.rowcount == 1

    def _count(self, outcome: Outcome, row: sqlite3.Row) -> None:
        # A label's values must be few, whatever a site calls its types.
        content_type = row["content_type"] if _LABEL.fullmatch(row["content_type"]) else "other"
        if outcome == "submitted":
            self._add("checked", content_type, "spam" if row["is_spam"] else "not_spam", 1)
            self._add("classify_seconds", content_type, "sum", row["seconds"] or 0.0)
            self._add("classify_seconds", content_type, "count", 1)
        else:
            self._add(outcome, content_type, "", 1)

    def _add(self, name: str, content_type: str, label: str, amount: float) -> None:
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            (name, content_type, label, amount),
        )


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another of the same name."""
    status = path.stat()
    return status.st_dev, status.st_ino
