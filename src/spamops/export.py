"""The history as a table for other programs: CSV, JSON or Parquet.

Spreadsheets take a cell that begins with = + - @ (or a blank that hides one) for a formula. In CSV such text gets an
apostrophe in front (OWASP, "CSV Injection"), and quotes around every text; JSON and Parquet hold it as it is.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import IO, Any

from .errors import SettingsError
from .ledger import Ledger

FORMATS = ("csv", "json", "parquet")
TABLES: dict[str, dict[str, type]] = {
    "runs": {
        "run_id": int, "server": str, "started_by": str, "started_at": str, "ended_at": str, "outcome": str, "exit_code": int,
        "reason": str, "workflow_id": str, "workflow_status": str, "checked": int, "spam": int, "not_spam": int, "failed": int,
        "active_seconds": float, "classify_seconds": float, "overhead_seconds": float, "service_units_per_hour": float,
        "service_units": float,
    },
    "verdicts": {
        "run_id": int, "server": str, "started_at": str, "item_id": str, "content_type": str, "content_hash": str,
        "is_spam": bool, "confidence": float, "decided_by": str, "indicators": list, "seconds": float, "failure": str,
    },
    "feedback": {
        "item_id": str, "content_type": str, "decided_at": str, "is_spam": bool, "imported_at": str, "run_id": int,
        "verdict_at": str, "verdict_is_spam": bool, "verdict_confidence": float, "verdict_by": str,
    },
}  # fmt: skip
"""Columns of each table. Times are ISO 8601 in UTC, durations seconds; is_spam is empty where an item failed."""
_FROM = {
    "runs": ("SELECT *, id AS run_id FROM runs t", "started_at", "id"),
    "verdicts": ("SELECT t.*, r.server, r.started_at FROM verdicts t JOIN runs r ON r.id = t.run_id", "r.started_at", "t.rowid"),
    "feedback": ("SELECT * FROM feedback t", "imported_at", "t.decided_at, t.item_id"),
}  # fmt: skip
_FORMULAS = "=+-@＝＋－＠"
ROWS_AT_ONCE = 5000


def rows(ledger: Ledger, table: str, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a table, oldest first; `since` limits them by when the run began (or the decision was imported).

    Raises LedgerError.
    """
    if not ledger.path.exists():
        return
    select, time, order = _FROM[table]
    columns = TABLES[table]
    with ledger.transaction() as db:
        query = f"{select} WHERE {time} >= ? ORDER BY {order}"
        for row in db.execute(query, ("" if since is None else since.isoformat(timespec="milliseconds"),)):
            yield {name: _value(row[name], kind) for name, kind in columns.items()}


def write(
    ledger: Ledger, file: IO[bytes], form: str, tables: Iterable[str], now: datetime, days: int | None = None
) -> dict[str, int]:
    """Write tables into a file; how many rows of each. Only JSON holds more than one.

    Raises LedgerError, OSError, and SettingsError where Parquet is wanted and pyarrow is not there.
    """
    since = None if days is None else now - timedelta(days=days)
    given = {table: _Counted(rows(ledger, table, since)) for table in tables}
    if form == "json":
        _write_json(file, given)
    else:
        ((table, lines),) = given.items()
        (_write_csv if form == "csv" else _write_parquet)(file, TABLES[table], lines)
    return {table: counted.count for table, counted in given.items()}


class _Counted:
    """Rows that are counted as they pass."""

    def __init__(self, lines: Iterator[dict[str, Any]]) -> None:
        self._lines = lines
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            self.count += 1
            yield line


def _value(value: Any, kind: type) -> Any:
    if kind is list:
        return json.loads(value) if value else []
    return None if value is None else kind(value)


def _write_json(file: IO[bytes], tables: dict[str, _Counted]) -> None:
    """One object: a list of rows a table."""
    lead = "{"
    for table, lines in tables.items():
        file.write(f"{lead}{json.dumps(table)}: [".encode())
        between = "\n"
        for line in lines:
            file.write(f"{between}{json.dumps(line)}".encode())
            between = ",\n"
        file.write(b"]")
        lead = ",\n"
    file.write(b"}\n")


def _write_csv(file: IO[bytes], columns: dict[str, type], lines: Iterable[dict[str, Any]]) -> None:
    """RFC 4180, UTF-8; lists with a blank between the words."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(columns)
        for line in lines:
            writer.writerow([_cell(value) for value in line.values()])
    finally:
        text.detach()  # the file stays open: it is the caller's


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, str):
        value = "".join(character if character.isprintable() else " " for character in value)
        return f"'{value}" if value.lstrip()[:1] in tuple(_FORMULAS) else value
    return value


def _write_parquet(file: IO[bytes], columns: dict[str, type], lines: Iterable[dict[str, Any]]) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SettingsError(
            "Parquet needs the package pyarrow, which is not there: pip install 'spamops[parquet]', or export csv or json"
        ) from error
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), list: pa.list_(pa.string())}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    with pq.ParquetWriter(file, schema) as writer:
        some: list[dict[str, Any]] = []
        for line in lines:
            some.append(line)
            if len(some) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(some, schema))
                some = []
        writer.write_table(pa.Table.from_pylist(some, schema))
