"""A run's report as JSON, written piece by piece: it may hold ten thousand verdicts."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .journal import Journal, Run

CHUNK_CHARACTERS = 64 * 1024


def stream(folder: Path, workflow_id: str, known: Run | None = None) -> Iterator[bytes] | None:
    """The report of a run, None if the journal in `folder` does not hold it. The first chunk is read at once.

    `known`: the run as Temporal knows it. A journal that could not be written (disk full) may still call it RUNNING.

    Raises JOURNAL_FAULTS, here or while the rest is read. Opens the journal anew: it is read in other threads.
    """
    chunks = _read(folder, workflow_id, known)
    first = next(chunks, None)
    return None if first is None else itertools.chain((first,), chunks)


def _read(folder: Path, workflow_id: str, known: Run | None) -> Iterator[bytes]:
    journal = Journal(folder, read_only=True)
    try:
        run = journal.run(workflow_id)
        if run is None:
            return
        if run.status == "RUNNING" and known is not None and known.status != "RUNNING":
            run = dataclasses.replace(run, status=known.status, reason=known.reason, ended_at=known.ended_at)
        yield from _chunks(_pieces(journal, run))
    finally:
        journal.close()


def _pieces(journal: Journal, run: Run) -> Iterator[str]:
    yield json.dumps(_head(journal, run))[:-1]
    yield ', "verdicts": ['
    yield from _listed(_verdict(row) for row in journal.settled_rows(run.workflow_id, "submitted"))
    yield '], "failures": ['
    yield from _listed(_failure(row) for row in journal.settled_rows(run.workflow_id, "failed"))
    yield "]}\n"


def _head(journal: Journal, run: Run) -> dict[str, Any]:
    counts = journal.counts(run.workflow_id)
    return {
        "workflow_id": run.workflow_id,
        "status": run.status,
        "reason": run.reason,
        "started_at": _iso(run.started_at),
        "ended_at": None if run.ended_at is None else _iso(run.ended_at),
        "rounds": run.rounds,
        "checked": counts.checked,
        "spam": counts.spam,
        "not_spam": counts.not_spam,
        "failed": counts.failed,
        "gone": counts.gone,
        "superseded": counts.superseded,
        "left": run.left,
        "classify_seconds": round(journal.classify_seconds(run.workflow_id), 3),
        "by_type": journal.by_type(run.workflow_id),
    }


def _verdict(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "item_id": row["item_id"],
        "content_type": row["content_type"],
        "content_hash": row["content_hash"],
        "is_spam": bool(row["is_spam"]),
        "confidence": row["confidence"],
        "by": row["decided_by"],
        "indicators": json.loads(row["indicators"]),
        "seconds": round(row["seconds"] or 0.0, 3),
    }


def _failure(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("item_id", "content_type", "content_hash", "reason")}


def _listed(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    separator = ""
    for row in rows:
        yield separator + json.dumps(row)
        separator = ", "


def _chunks(pieces: Iterator[str]) -> Iterator[bytes]:
    """Small pieces gathered: every chunk costs a change of thread."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK_CHARACTERS:
            yield "".join(held).encode()
            held, size = [], 0
    if held:
        yield "".join(held).encode()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
