"""Logs as key=value lines on stderr. Never content, names, addresses or keys."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from types import TracebackType

_MAX_MESSAGE_CHARACTERS = 500
_FIELDS = "spamcheck_fields"


class KeyValueFormatter(logging.Formatter):
    """One line a record. Of an exception only its type and place are told: its text may quote what was checked."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a line end."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"time={stamp}.{int(record.msecs):03d}Z",
            f"level={record.levelname}",
            f"logger={record.name}",
            f"msg={_quoted(record.getMessage()[:_MAX_MESSAGE_CHARACTERS])}",
        ]
        parts += [f"{key}={_quoted(str(value))}" for key, value in getattr(record, _FIELDS, {}).items()]
        if record.exc_info and record.exc_info[1] is not None:
            parts += [f"error={type(record.exc_info[1]).__name__}", f"at={place(record.exc_info[2])}"]
        return " ".join(parts)


def configure(level: str) -> None:
    """Send everything from `level` on to stderr; libraries from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("spamcheck").setLevel(level)
    # The SDK warns of every failed try of an activity, with a traceback; the activities log what an operator needs.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    # It names every attempt to reach a Temporal that is down; `waiting for Temporal` says it once.
    logging.getLogger("temporal.core").setLevel(logging.ERROR)


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log `message` with fields."""
    logger.log(level, message, extra={_FIELDS: fields})


def place(traceback: TracebackType | None) -> str:
    """FILE:LINE where an exception was raised, or `unknown`."""
    if traceback is None:
        return "unknown"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


def _quoted(text: str) -> str:
    if text and not any(character in text for character in ' "=') and text.isprintable():
        return text
    return json.dumps(text)
