"""What happened: a row a run, a row a verdict, a row an alarm, in SQLite. Ids, hashes, counts and times; no texts, no names,
no keys."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import LedgerError
from .summary import Summary

_RUNS_AND_VERDICTS = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server TEXT NOT NULL,
    started_by TEXT NOT NULL,          -- command | playbook | reap
    started_at TEXT NOT NULL,          -- ISO 8601, UTC
    ended_at TEXT,                     -- NULL while it runs, or when the controller died
    outcome TEXT,                      -- name of the exit code, in lower case
    exit_code INTEGER,
    reason TEXT,
    workflow_id TEXT,
    workflow_status TEXT,
    checked INTEGER, spam INTEGER, not_spam INTEGER, failed INTEGER,
    active_seconds REAL, classify_seconds REAL, overhead_seconds REAL,
    service_units_per_hour REAL, service_units REAL,
    details TEXT                       -- JSON: states, steps, counts by type, warnings
);
CREATE TABLE verdicts (
    run_id INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    item_id TEXT NOT NULL,
    content_type TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    is_spam INTEGER,                   -- NULL: the item failed
    confidence REAL,                   -- 0 to 1
    decided_by TEXT,                   -- rules | ollama/MODEL
    indicators TEXT,                   -- JSON list of names from a fixed list
    seconds REAL,
    failure TEXT,                      -- why there is no verdict
    PRIMARY KEY (run_id, item_id, content_hash)
);
CREATE INDEX verdicts_by_item ON verdicts(item_id);
"""
_ALARMS_AND_MARKS = """
ALTER TABLE runs ADD COLUMN deadline_at TEXT;
ALTER TABLE runs ADD COLUMN deadline_reason TEXT;
CREATE TABLE alarms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    run_id INTEGER,
    opened_at TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1,  -- how often it was raised
    due INTEGER NOT NULL DEFAULT 1,    -- whether it is to be told at the next chance
    told_at TEXT,                      -- when it was last told
    closed_at TEXT,                    -- NULL while it is open
    closed_text TEXT,
    closed_told_at TEXT                -- when the all-clear was delivered, or that none is needed
);
CREATE INDEX alarms_open ON alarms(server, kind, closed_at);
CREATE TABLE marks (                   -- what was last seen or done: server_state, digest
    server TEXT NOT NULL,
    name TEXT NOT NULL,
    at TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (server, name)
);
"""
_FEEDBACK = """
CREATE TABLE feedback (                -- what moderators decided, kept for good
    item_id TEXT NOT NULL,
    decided_at TEXT NOT NULL,          -- ISO 8601, a day or a time in UTC, empty where it was not told
    content_type TEXT NOT NULL,        -- empty where it was not told
    is_spam INTEGER NOT NULL,
    imported_at TEXT NOT NULL,
    run_id INTEGER,                    -- the verdict that it is about, copied: verdict rows are removed some day
    verdict_at TEXT,
    verdict_is_spam INTEGER,
    verdict_confidence REAL,
    verdict_by TEXT,
    PRIMARY KEY (item_id, decided_at)
);
"""
MIGRATIONS = (_RUNS_AND_VERDICTS, _ALARMS_AND_MARKS, _FEEDBACK)
"""What leads from each version of the schema to the next. Never changed, only added to; no semicolons in comments."""
SCHEMA_VERSION = len(MIGRATIONS)
_SUMMARY_COLUMNS = (
    "outcome exit_code reason workflow_id workflow_status checked spam not_spam failed active_seconds classify_seconds"
    " overhead_seconds service_units"
).split()
_DETAILS = (
    "server_status_before server_status_after server_states server_timeline rounds superseded left by_type steps warnings"
).split()


class Ledger:
    """The history in `state_dir`/ledger.db. Every method opens the file anew: runs are rare, and a crash loses nothing."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "ledger.db"

    def begin(self, server: str, started_by: str, at: datetime, rate: float | None) -> int:
        """Open the row of a run; its number.

        Raises LedgerError.
        """
        with self._open() as db:
            cursor = db.execute(
                "INSERT INTO runs (server, started_by, started_at, service_units_per_hour) VALUES (?, ?, ?, ?)",
                (server, started_by, _text(at), rate),
            )
            return int(cursor.lastrowid or 0)

    def note_workflow(self, run: int, workflow_id: str) -> None:
        """Note the workflow of a run that goes on, for whoever finds the server should this process die.

        Raises LedgerError.
        """
        with self._open() as db:
            db.execute("UPDATE runs SET workflow_id = ? WHERE id = ? AND ended_at IS NULL", (workflow_id, run))

    def set_deadline(self, run: int, at: datetime, reason: str) -> None:
        """Note when the run's waking and checking have to end, for its other processes.

        Raises LedgerError.
        """
        with self._open() as db:
            db.execute("UPDATE runs SET deadline_at = ?, deadline_reason = ? WHERE id = ?", (_text(at), reason, run))

    def deadline(self, run: int) -> tuple[datetime, str] | None:
        """When the run's waking and checking have to end, and why; None for no limit.

        Raises LedgerError.
        """
        with self._open() as db:
            row = db.execute("SELECT deadline_at, deadline_reason FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None or row["deadline_at"] is None:
            return None
        return datetime.fromisoformat(row["deadline_at"]), str(row["deadline_reason"])

    def end(
        self, run: int, summary: Summary, at: datetime, report: Mapping[str, Any] | None = None, *, reopen: bool = False
    ) -> None:
        """Close the row of a run, with its verdicts. A row that is closed is left as it is, unless `reopen`.

        Raises LedgerError, also when the row is gone (somebody removed the file during the run).
        """
        values = summary.as_dict()
        assignments = ", ".join(f"{name} = :{name}" for name in _SUMMARY_COLUMNS)
        with self._open() as db:
            changed = db.execute(
                f"UPDATE runs SET ended_at = :at, details = :details, {assignments} WHERE id = :run AND (:reopen OR ended_at IS NULL)",  # noqa: S608
                {name: values[name] for name in _SUMMARY_COLUMNS}
                | {
                    "at": _text(at),
                    "run": run,
                    "reopen": reopen,
                    "details": json.dumps({name: values[name] for name in _DETAILS}),
                },
            ).rowcount
            if not changed and db.execute("SELECT 1 FROM runs WHERE id = ?", (run,)).fetchone() is None:
                raise self._lost(run)
            if changed and report is not None:
                db.executemany(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _verdict_rows(run, report)
                )

    def is_open(self, run: int) -> bool:
        """Whether the run's row waits for its end.

        Raises LedgerError, also when the row is gone (somebody removed the file during the run): then nobody knows.
        """
        with self._open() as db:
            row = db.execute("SELECT ended_at FROM runs WHERE id = ?", (run,)).fetchone()
        if row is None:
            raise self._lost(run)
        return row["ended_at"] is None

    def _lost(self, run: int) -> LedgerError:
        return LedgerError(f"the history {self.path} has lost run {run}: was the file removed during the run?")

    def open_runs(self, servers: Iterable[str]) -> list[dict[str, Any]]:
        """Runs of these servers that wait for their end, oldest first. A server may go by its name and its id.

        Raises LedgerError.
        """
        return self._runs_where("ended_at IS NULL", servers)

    def runs_since(self, servers: Iterable[str], at: datetime) -> list[dict[str, Any]]:
        """Runs of these servers that ended at that time or later, or are not ended, oldest first.

        Raises LedgerError.
        """
        return self._runs_where("(ended_at IS NULL OR ended_at >= ?)", servers, _text(at))

    def last_end(self, servers: Iterable[str], *, checks_only: bool = False) -> datetime | None:
        """When a run of these servers ended last; with `checks_only` of those that a controller ended in good order.

        Raises LedgerError.
        """
        condition = "ended_at IS NOT NULL"
        if checks_only:
            condition += " AND started_by != 'reap' AND exit_code NOT IN (7, 143)"
        ends = [run["ended_at"] for run in self._runs_where(condition, servers)]
        return datetime.fromisoformat(max(ends)) if ends else None

    def _runs_where(self, condition: str, servers: Iterable[str], *values: str) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        names = [str(server) for server in servers]
        marks = ", ".join("?" * len(names))
        with self._open() as db:
            rows = db.execute(
                f"SELECT * FROM runs WHERE {condition} AND server IN ({marks}) ORDER BY id",  # noqa: S608
                (*values, *names),
            ).fetchall()
        return [_run(row) for row in rows]

    def raise_alarm(self, server: str, kind: str, text: str, run: int | None, at: datetime, *, again: bool) -> None:
        """Open an alarm, or note that it was raised once more; with `again` it is told once more at once.

        Raises LedgerError.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute(
                "SELECT id FROM alarms WHERE server = ? AND kind = ? AND closed_at IS NULL", (server, kind)
            ).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO alarms (server, kind, text, run_id, opened_at) VALUES (?, ?, ?, ?, ?)",
                    (server, kind, text, run, _text(at)),
                )
            else:
                db.execute(
                    "UPDATE alarms SET text = ?, run_id = ?, times = times + 1, due = MAX(due, ?) WHERE id = ?",
                    (text, run, int(again), row["id"]),
                )

    def close_alarm(self, server: str, kind: str, text: str, at: datetime) -> bool:
        """Close an alarm where it is open; whether it was. `text` is what the all-clear says; "" for none, as for a thing
        that happened once.

        Raises LedgerError.
        """
        if not self.path.exists():
            return False
        with self._open() as db:
            # Nobody who was not told of it needs an all-clear.
            changed = db.execute(
                "UPDATE alarms SET closed_at = :at, closed_text = :text,"
                " closed_told_at = CASE WHEN :text = '' OR told_at IS NULL THEN :at ELSE NULL END"
                " WHERE server = :server AND kind = :kind AND closed_at IS NULL",
                {"at": _text(at), "text": text, "server": server, "kind": kind},
            ).rowcount
        return changed > 0

    def open_alarms(self, server: str) -> list[dict[str, Any]]:
        """Alarms that are open, oldest first.

        Raises LedgerError.
        """
        if not self.path.exists():
            return []
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM alarms WHERE server = ? AND closed_at IS NULL ORDER BY id", (server,)
            ).fetchall()
        return [dict(row) for row in rows]

    def claim_alarms(self, server: str, at: datetime, repeat: Mapping[str, float]) -> list[dict[str, Any]]:
        """What has to be told now, marked as told, so that no other process tells it too: alarms that were not told yet,
        open ones of the kinds in `repeat` that were told so many seconds ago, and all-clears.

        Raises LedgerError.
        """
        if not self.path.exists():
            return []
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            due = [
                dict(row)
                for row in db.execute("SELECT * FROM alarms WHERE server = ? ORDER BY id", (server,))
                if _is_due(row, at, repeat)
            ]
            for row in due:
                # One that happened once is closed from the beginning: its all-clear is marked as told.
                told = "closed_told_at" if row["closed_at"] is not None and row["closed_text"] else "told_at"
                db.execute(f"UPDATE alarms SET {told} = ?, due = 0 WHERE id = ?", (_text(at), row["id"]))  # noqa: S608
        return due

    def unclaim_alarms(self, alarms: Iterable[Mapping[str, Any]]) -> None:
        """Put back what `claim_alarms` gave and nobody took, so that the next who comes tells it.

        Raises LedgerError.
        """
        with self._open() as db:
            for row in alarms:
                db.execute(
                    "UPDATE alarms SET due = ?, told_at = ?, closed_told_at = ? WHERE id = ?",
                    (row["due"], row["told_at"], row["closed_told_at"], row["id"]),
                )

    def mark(self, server: str, name: str, at: datetime, value: str) -> None:
        """Note what was last seen or done.

        Raises LedgerError.
        """
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", (server, name, _text(at), value))

    def marked(self, server: str, name: str) -> tuple[datetime, str] | None:
        """What was noted, and when; None for nothing.

        Raises LedgerError.
        """
        if not self.path.exists():
            return None
        with self._open() as db:
            row = db.execute("SELECT at, value FROM marks WHERE server = ? AND name = ?", (server, name)).fetchone()
        return None if row is None else (datetime.fromisoformat(row["at"]), str(row["value"]))

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest runs, newest first.

        Raises LedgerError.
        """
        if not self.path.exists():
            return []
        with self._open() as db:
            rows = db.execute("SELECT * FROM runs ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [_run(row) for row in rows]

    def run(self, run: int) -> dict[str, Any] | None:
        """One run with its verdicts, or None.

        Raises LedgerError.
        """
        if not self.path.exists():
            return None
        with self._open() as db:
            row = db.execute("SELECT * FROM runs WHERE id = ?", (run,)).fetchone()
            if row is None:
                return None
            verdicts = db.execute(
                "SELECT * FROM verdicts WHERE run_id = ? ORDER BY content_type, length(item_id), item_id", (run,)
            ).fetchall()
        return _run(row) | {"verdicts": [_verdict(v) for v in verdicts]}

    def transaction(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """The database, for reads and writes that belong together; committed at the end, rolled back by an exception.

        Raises LedgerError.
        """
        return self._open()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"the history {self.path} cannot be opened: {error}") from error
        try:
            with contextlib.closing(db), db:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA foreign_keys = ON")
                self._migrate(db)
                yield db
        except sqlite3.Error as error:
            raise LedgerError(f"the history {self.path} cannot be read or written: {error}") from error

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"the history {self.path} was written by a newer version of spamops (schema {version}, this one knows"
                f" {SCHEMA_VERSION}): upgrade spamops"
            )
        if version < SCHEMA_VERSION:
            # One transaction: two processes that come at the same time make one schema.
            db.execute("BEGIN IMMEDIATE")
            for migration in MIGRATIONS[db.execute("PRAGMA user_version").fetchone()[0] :]:
                for statement in migration.split(";"):
                    if statement.strip():
                        db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.commit()


def _is_due(row: sqlite3.Row, at: datetime, repeat: Mapping[str, float]) -> bool:
    if row["closed_at"] is not None:
        happened_once = not row["closed_text"]
        return bool(row["due"]) if happened_once else row["closed_told_at"] is None
    if row["due"]:
        return True
    pause = repeat.get(row["kind"])
    return (
        pause is not None
        and row["told_at"] is not None
        and (at - datetime.fromisoformat(row["told_at"])).total_seconds() >= pause
    )


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _verdict_rows(run: int, report: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for v in report.get("verdicts") or []:
        yield (
            run,
            str(v["item_id"]),
            str(v["content_type"]),
            str(v["content_hash"]),
            int(bool(v["is_spam"])),
            v.get("confidence"),
            v.get("by"),
            json.dumps(v.get("indicators") or []),
            v.get("seconds"),
            None,
        )
    for f in report.get("failures") or []:
        yield (
            run, str(f["item_id"]), str(f["content_type"]), str(f["content_hash"]), None, None, None, "[]", None, f.get("reason"),
        )  # fmt: skip


def _run(row: sqlite3.Row) -> dict[str, Any]:
    values = dict(row)
    details = values.pop("details")
    return values | (json.loads(details) if details else {})


def _verdict(row: sqlite3.Row) -> dict[str, Any]:
    values = dict(row)
    del values["run_id"]
    values["is_spam"] = None if values["is_spam"] is None else bool(values["is_spam"])
    values["indicators"] = json.loads(values["indicators"])
    return values
