"""What happened: a row a run, a row a verdict, in SQLite. Ids, hashes, counts and times; no texts, no names, no keys."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .errors import LedgerError
from .summary import Summary

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server TEXT NOT NULL,
    started_by TEXT NOT NULL,          -- command | playbook
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
                raise LedgerError(f"the history {self.path} has lost run {run}: was the file removed during the run?")
            if changed and report is not None:
                db.executemany(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _verdict_rows(run, report)
                )

    def is_open(self, run: int) -> bool:
        """Whether the run's row waits for its end.

        Raises LedgerError.
        """
        with self._open() as db:
            row = db.execute("SELECT ended_at FROM runs WHERE id = ?", (run,)).fetchone()
        return row is not None and row["ended_at"] is None

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
        if version == 0:
            # One transaction: two processes that come at the same time make one schema.
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in SCHEMA.split(";"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.commit()


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
