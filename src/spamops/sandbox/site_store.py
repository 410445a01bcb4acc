"""What the sandbox's CoMSES site remembers: moderation records with their content, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEDULED = "scheduled_for_check"
STATUSES = frozenset({SCHEDULED, "spam_likely", "not_spam_likely", "spam", "not_spam", "unreviewed"})
DELIVERED_TYPES = frozenset({"job", "event", "codebase", "memberprofile"})
"""Records of other types are never delivered, but take up places in the batch."""
BATCH_PLACES = 100

_BLANK: dict[str, dict[str, Any]] = {
    "job": {"title": "", "summary": "", "description": "", "externalUrl": ""},
    "event": {"title": "", "summary": "", "description": "", "externalUrl": ""},
    "codebase": {"title": "", "description": ""},
    "memberprofile": {"bio": "", "researchInterests": "", "degrees": [], "personalUrl": "", "professionalUrl": ""},
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, content_type TEXT NOT NULL, object_id INTEGER NOT NULL,
    content TEXT NOT NULL, status TEXT NOT NULL, method TEXT NOT NULL, details TEXT NOT NULL,
    label INTEGER, kind TEXT NOT NULL, unreadable INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS by_status ON record (status, position);
"""


class UnreadableContent(Exception):
    """One record's content cannot be written out: the whole batch fails."""


class UnreadableDetails(Exception):
    """The record's stored details are not an object: every update of it fails."""


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to store, its content in the form the site delivers it.

    `label` is the truth: True spam, False not spam, None where neither can be said (deleted content). It is never
    served. `kind` names what the item is an example of. `object_id` is the content's own id (None: the record's).
    """

    content_type: str
    content: Mapping[str, Any]
    label: bool | None = None
    kind: str = ""
    gone: bool = False
    object_id: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What the site holds about one record's check."""

    status: str
    detection_method: str
    detection_details: Any


class SiteStore:
    """The records, in `path` (kept and used again) or in memory. Every method may be called from any thread.

    A record's place in the order is where it was last written: a record written again moves to the end.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        # A stand-in may lose its data with the machine's power; it must be quick.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        self._position: int = self._db.execute("SELECT COALESCE(MAX(position), 0) FROM record").fetchone()[0]

    def close(self) -> None:
        """Close the database; what was in memory is gone."""
        with self._lock:
            self._db.close()

    def add(
        self,
        content_type: str = "job",
        content: Mapping[str, Any] | None = None,
        *,
        record_id: int | None = None,
        object_id: int | None = None,
        label: bool | None = None,
        kind: str = "",
        status: str = SCHEDULED,
        details: Any = None,
        gone: bool = False,
        unreadable: bool = False,
    ) -> int:
        """Store one record and return its id. `content` is filled up with blanks for what the type needs.

        `details` are those of another detector (anything JSON; not an object: updates will fail). `gone`: the content
        is deleted. `unreadable`: the content breaks every batch that it is in.
        """
        _check(status)
        new = NewRecord(content_type, content or {}, label, kind, gone, object_id)
        with self._lock:
            number = record_id if record_id is not None else self._next_id()
            self._insert([(number, new)], status, {} if details is None else details, unreadable)
        return number

    def add_all(self, records: Iterable[NewRecord]) -> list[int]:
        """Store many scheduled records at once and return their ids."""
        with self._lock:
            numbered = list(enumerate(records, start=self._next_id()))
            self._insert(numbered, SCHEDULED, {}, unreadable=False)
        return [number for number, _ in numbered]

    def edit(self, record_id: int, *, label: bool | None = None, **fields: Any) -> None:
        """A user edits the content: the same record is scheduled again, its details are cleared.

        `label`: the truth about the new text, where it differs. Raises KeyError for an unknown id.
        """
        with self._lock:
            content = {**self.content(record_id), **fields}
            self._write(
                record_id, "content = ?, status = ?, method = '', details = '{}'", json.dumps(content), SCHEDULED
            )
            if label is not None:
                self._db.execute("UPDATE record SET label = ? WHERE id = ?", (label, record_id))

    def moderator_decides(self, record_id: int, is_spam: bool) -> None:
        """A person confirms: status `spam` or `not_spam`. Raises KeyError for an unknown id."""
        with self._lock:
            self._write(record_id, "status = ?", "spam" if is_spam else "not_spam")

    def delete_content(self, record_id: int) -> None:
        """The content goes, the record stays as it is and where it is. Raises KeyError for an unknown id."""
        with self._lock:
            content_type, *_ = self._row(record_id, "content_type, status")
            content = json.dumps(_content(NewRecord(content_type, {}, gone=True), 0))
            self._db.execute("UPDATE record SET content = ?, label = NULL WHERE id = ?", (content, record_id))

    def delete_record(self, record_id: int) -> None:
        """The record goes as well: an update of it is answered with 404."""
        with self._lock:
            self._db.execute("DELETE FROM record WHERE id = ?", (record_id,))

    def set_unreadable(self, record_id: int, unreadable: bool = True) -> None:
        """Make a record's content break every batch that it is in, or repair it. Raises KeyError for an unknown id."""
        with self._lock:
            self._row(record_id, "id")
            self._db.execute("UPDATE record SET unreadable = ? WHERE id = ?", (unreadable, record_id))

    def update(self, record_id: int, is_spam: bool, verdict: Mapping[str, Any]) -> None:
        """Take a verdict, whatever the record's present status; other detectors' details are kept beside it.

        Raises KeyError for an unknown id, UnreadableDetails for one that no update can get through to.
        """
        with self._lock:
            details = json.loads(self._row(record_id, "details")[0])
            if not isinstance(details, dict):
                raise UnreadableDetails
            status = "spam_likely" if is_spam else "not_spam_likely"
            text = json.dumps({**details, **verdict})
            self._write(record_id, "status = ?, method = 'LLM', details = ?", status, text)

    def batch(self) -> list[dict[str, Any]]:
        """The first 100 scheduled records in the form they are delivered, those of other types left out.

        Raises UnreadableContent where one of them cannot be written out.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT id, content_type, object_id, content, unreadable FROM record WHERE status = ?"
                " ORDER BY position LIMIT ?",
                (SCHEDULED, BATCH_PLACES),
            ).fetchall()
        delivered = [row for row in rows if row[1] in DELIVERED_TYPES]
        if any(row[4] for row in delivered):
            raise UnreadableContent
        return [
            {"id": row[0], "contentType": row[1], "objectId": row[2], "contentObject": json.loads(row[3])}
            for row in delivered
        ]

    def content(self, record_id: int) -> dict[str, Any]:
        """The content as delivered. Raises KeyError for an unknown id."""
        with self._lock:
            content: dict[str, Any] = json.loads(self._row(record_id, "content")[0])
        return content

    def stored(self, record_id: int) -> Stored:
        """Status and verdict of a record. Raises KeyError for an unknown id."""
        with self._lock:
            status, method, details = self._row(record_id, "status, method, details")
        return Stored(status, method, json.loads(details))

    def label(self, record_id: int) -> bool | None:
        """The truth about a record's content. Raises KeyError for an unknown id."""
        with self._lock:
            label = self._row(record_id, "label")[0]
        return None if label is None else bool(label)

    def kind(self, record_id: int) -> str:
        """What the item is an example of. Raises KeyError for an unknown id."""
        with self._lock:
            return str(self._row(record_id, "kind")[0])

    def labels(self) -> dict[int, bool | None]:
        """The truth about every record, by id."""
        with self._lock:
            rows = self._db.execute("SELECT id, label FROM record ORDER BY id").fetchall()
        return {number: None if label is None else bool(label) for number, label in rows}

    def scheduled(self) -> list[int]:
        """Ids of every scheduled record of a delivered type, in order, beyond the first 100 as well."""
        marks = ", ".join("?" * len(DELIVERED_TYPES))
        query = f"SELECT id FROM record WHERE status = ? AND content_type IN ({marks}) ORDER BY position"  # noqa: S608
        with self._lock:
            return [row[0] for row in self._db.execute(query, (SCHEDULED, *sorted(DELIVERED_TYPES)))]

    def counts(self) -> dict[str, int]:
        """Records by status, each status named."""
        with self._lock:
            rows = dict(self._db.execute("SELECT status, COUNT(*) FROM record GROUP BY status").fetchall())
        return {status: rows.get(status, 0) for status in sorted(STATUSES)}

    def _next_id(self) -> int:
        highest: int = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM record").fetchone()[0]
        return highest + 1

    def _row(self, record_id: int, columns: str) -> tuple[Any, ...]:
        try:
            row = self._db.execute(f"SELECT {columns} FROM record WHERE id = ?", (record_id,)).fetchone()  # noqa: S608
        except OverflowError:  # beyond SQLite's 64 bits: no record has such an id
            row = None
        if row is None:
            raise KeyError(record_id)
        return tuple(row)

    def _write(self, record_id: int, change: str, *values: Any) -> None:
        """Change a record, which moves it to the end of the order."""
        self._row(record_id, "id")
        self._position += 1
        query = f"UPDATE record SET {change}, position = ? WHERE id = ?"  # noqa: S608
        self._db.execute(query, (*values, self._position, record_id))

    def _insert(self, numbered: list[tuple[int, NewRecord]], status: str, details: Any, unreadable: bool) -> None:
        rows = []
        for number, new in numbered:
            self._position += 1
            object_id = number if new.object_id is None else new.object_id
            content = json.dumps(_content(new, object_id))
            place = (number, self._position, new.content_type, object_id, content)
            rows.append((*place, status, "", json.dumps(details), new.label, new.kind, unreadable))
        self._db.execute("BEGIN")
        try:
            self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _content(new: NewRecord, object_id: int) -> dict[str, Any]:
    blank = _BLANK.get(new.content_type, {})
    if new.gone:
        return dict(blank)
    return {"id": object_id, **blank, **new.content}


def _check(status: str) -> None:
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {', '.join(sorted(STATUSES))}")
