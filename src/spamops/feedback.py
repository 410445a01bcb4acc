"""What moderators decided: read from CSV, kept beside the verdict that each decision is about, for good.

A file is taken whole or not at all, and may be taken as often as one likes. The history learns an item's id and the
decision, nothing of the item and nothing of the moderator.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

from .errors import SettingsError
from .ledger import Ledger
from .text import one_line

MOST_BYTES = 50_000_000
"""Of a file: a million decisions. More is another file, by mistake."""
FAULTS_SHOWN = 20
ID_CHARACTERS = 200
"""As many as the history keeps of an item's id."""

COLUMNS = {
    "item_id": ("item_id", "item", "id"),
    "decision": ("decision", "status", "is_spam"),
    "content_type": ("content_type", "type"),
    "decided_at": ("decided_at", "date"),
}
"""Names of columns that are understood, by what they mean. The first two are needed."""
DECISIONS = {
    "spam": True, "true": True, "t": True, "yes": True, "1": True,
    "not_spam": False, "not spam": False, "ham": False, "false": False, "f": False, "no": False, "0": False,
}  # fmt: skip
MACHINE_WORDS = frozenset({"spam_likely", "not_spam_likely"})
"""What the CoMSES site calls an item that only the machine has judged."""


@dataclass(frozen=True)
class Decision:
    """One row. `decided_at` is a day or a time in UTC as ISO 8601, "" where it was not told; so is `content_type`."""

    item_id: str
    is_spam: bool
    content_type: str = ""
    decided_at: str = ""


@dataclass(frozen=True)
class Imported:
    """What a file brought; `without_verdict` counts its decisions about items that the history has no verdict of."""

    rows: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    without_verdict: int = 0

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


def read(file: BinaryIO, now: datetime) -> list[Decision]:
    """The decisions in a CSV file: UTF-8, a comma between columns, names of columns in the first row.

    Raises SettingsError, which names every faulty row by its line.
    """
    data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise SettingsError(f"the file has more than {MOST_BYTES:,} bytes; nothing was imported")
    faults: list[str] = []
    found: dict[tuple[str, str], tuple[int, Decision]] = {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(f"line {line} is not UTF-8; nothing was imported") from None
    rows = _rows(text, faults)
    names = next(rows, None)
    if names is None:
        raise SettingsError(_told(faults or ["the file is empty; its first row has to name the columns"]))
    columns = _columns(names[1], faults)
    if not faults:
        for line, row in rows:
            if not any(cell.strip() for cell in row):
                continue
            decision = _decision(row, columns, now, line, faults)
            if decision is None:
                continue
            key = (decision.item_id, decision.decided_at)
            before = found.setdefault(key, (line, decision))
            if before[1] != decision:
                faults.append(f"line {line} says something else of the same item than line {before[0]}")
    if faults:
        raise SettingsError(_told(faults))
    return [decision for _, decision in found.values()]


def store(ledger: Ledger, decisions: list[Decision], now: datetime) -> Imported:
    """Put decisions into the history, each with the verdict that it is about. What is there already stays as it is.

    Raises LedgerError; then nothing was stored.
    """
    counts = Counter[str]()
    with ledger.transaction() as db:
        db.execute("BEGIN IMMEDIATE")
        for decision in decisions:
            counts[_store(db, decision, now)] += 1
        match(db)
        for decision in decisions:
            row = db.execute(f"SELECT run_id {_WHERE}", _key(decision)).fetchone()
            counts["without_verdict"] += row["run_id"] is None
    return Imported(len(decisions), **counts)


_WHERE = "FROM feedback WHERE item_id = ? AND decided_at = ?"


def _key(decision: Decision) -> tuple[str, str]:
    return decision.item_id, decision.decided_at


def _store(db: sqlite3.Connection, decision: Decision, now: datetime) -> str:
    """Whether it is new, changed or unchanged. One that is changed goes on being about the verdict that it was about, which
    may be gone from the history."""
    row = db.execute(f"SELECT is_spam, content_type {_WHERE}", _key(decision)).fetchone()
    at = now.isoformat(timespec="milliseconds")
    if row is None:
        db.execute(
            "INSERT INTO feedback (item_id, decided_at, content_type, is_spam, imported_at) VALUES (?, ?, ?, ?, ?)",
            (*_key(decision), decision.content_type, int(decision.is_spam), at),
        )
        return "new"
    kind = decision.content_type or row["content_type"]
    if (bool(row["is_spam"]), row["content_type"]) == (decision.is_spam, kind):
        return "unchanged"
    db.execute(
        "UPDATE feedback SET is_spam = ?, content_type = ?, imported_at = ? WHERE item_id = ? AND decided_at = ?",
        (int(decision.is_spam), kind, at, *_key(decision)),
    )
    return "changed"


def match(db: sqlite3.Connection) -> None:
    """Copy, beside each decision that has none yet, the verdict that it is about: the item's last one from a run that began
    before the decision."""
    for row in db.execute("SELECT item_id, decided_at, content_type FROM feedback WHERE run_id IS NULL").fetchall():
        verdict = db.execute(
            "SELECT v.run_id, r.started_at, v.is_spam, v.confidence, v.decided_by, v.content_type FROM verdicts v"
            " JOIN runs r ON r.id = v.run_id WHERE v.item_id = :item AND v.is_spam IS NOT NULL"
            " AND (:type = '' OR v.content_type = :type) AND (:until = '' OR r.started_at <= :until)"
            " ORDER BY r.started_at DESC, v.rowid DESC LIMIT 1",
            {"item": row["item_id"], "type": row["content_type"], "until": _end_of(row["decided_at"])},
        ).fetchone()
        if verdict is not None:
            db.execute(
                "UPDATE feedback SET run_id = ?, verdict_at = ?, verdict_is_spam = ?, verdict_confidence = ?,"
                " verdict_by = ?, content_type = ? WHERE item_id = ? AND decided_at = ?",
                (*verdict, row["item_id"], row["decided_at"]),
            )


def all_of(ledger: Ledger) -> list[dict[str, Any]]:
    """Every decision, oldest first.

    Raises LedgerError.
    """
    if not ledger.path.exists():
        return []
    with ledger.transaction() as db:
        rows = db.execute("SELECT * FROM feedback ORDER BY decided_at, item_id").fetchall()
    return [dict(row) for row in rows]


def _rows(text: str, faults: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line that each begins in; ends at the first that cannot be read."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        faults.append(f"line {line} is not CSV: {error}")


def _columns(names: list[str], faults: list[str]) -> dict[str, int]:
    """Where each column is."""
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        meaning = next((key for key, known in COLUMNS.items() if name.strip().lower() in known), None)
        if meaning is None:
            known = ", ".join(word for words in COLUMNS.values() for word in words)
            faults.append(f"line 1: a column {one_line(name, 40)!r} is not known; known are {known}")
        elif meaning in found:
            faults.append(f"line 1: there are two columns for {meaning}")
        else:
            found[meaning] = place
    faults += [f"line 1: there is no column {name}" for name in ("item_id", "decision") if name not in found]
    found["all"] = len(names)
    return found


def _decision(row: list[str], columns: dict[str, int], now: datetime, line: int, faults: list[str]) -> Decision | None:
    if len(row) != columns["all"]:
        faults.append(f"line {line} has {len(row)} columns, the first line has {columns['all']}")
        return None
    cells = {name: row[place].strip() for name, place in columns.items() if name != "all"}
    before = len(faults)
    item, kind, word = cells["item_id"], cells.get("content_type", ""), cells["decision"].lower()
    if not item:
        faults.append(f"line {line} names no item")
    elif not _plain(item):
        faults.append(f"line {line}: {one_line(item, 40)!r} is no item's id: too long, or not printable")
    if not _plain(kind):
        faults.append(f"line {line}: {one_line(kind, 40)!r} is no type: too long, or not printable")
    if word in MACHINE_WORDS:
        faults.append(f"line {line}: {word} is what the machine says; only a moderator's decision is feedback")
    elif word not in DECISIONS:
        faults.append(f"line {line}: {one_line(word, 40)!r} is no decision; say spam or not_spam")
    at = _time(cells.get("decided_at", ""), now)
    if at is None:
        given = one_line(cells["decided_at"], 40)
        faults.append(f"line {line}: {given!r} is no day or time of the past, such as 2026-03-01 or 2026-03-01T10:00Z")
    if len(faults) > before or at is None:
        return None
    return Decision(item, DECISIONS[word], kind, at)


def _plain(text: str) -> bool:
    return len(text) <= ID_CHARACTERS and text.isprintable()


def _time(text: str, now: datetime) -> str | None:
    """A day as it is, a time in UTC (one without a zone is taken as UTC), "" for ""; None for anything else."""
    if not text:
        return ""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        day = _parsed(text)
        return text if day is not None and day <= now else None
    # As PostgreSQL writes it: a blank in the middle, +00 at the end.
    if not re.match(r"\d{4}-\d{2}-\d{2}[T ]\d", text, re.ASCII):
        return None
    at = _parsed(text)
    if at is None or at > now + timedelta(days=1):
        return None
    return at.isoformat(timespec="milliseconds")


def _parsed(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _end_of(decided_at: str) -> str:
    """Until when a run may have begun, to be compared with the history's times: a day lasts until its end."""
    return f"{decided_at}T23:59:59.999+00:00" if len(decided_at) == 10 else decided_at


def _told(faults: list[str]) -> str:
    more = len(faults) - FAULTS_SHOWN
    lines = faults[:FAULTS_SHOWN] + ([f"… and {more} more"] if more > 0 else [])
    return "\n  ".join(["the file is faulty; nothing was imported:", *lines])
