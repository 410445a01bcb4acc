"""One run a server: a file lock of the kernel, which a dead process does not hold."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import RunActive, SettingsError


def lock_path(state_dir: Path, server: str) -> Path:
    """The lock file of a server. The name is made of the server's, with a digest, so that no character matters."""
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", server)[:40]
    return state_dir / "locks" / f"{readable}-{hashlib.sha256(server.encode()).hexdigest()[:8]}.lock"


class ServerLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(self, state_dir: Path, server: str) -> None:
        self._path = lock_path(state_dir, server)
        self._server = server
        self._descriptor: int | None = None

    def acquire(self, pid: int | None = None) -> None:
        """Take the lock; `pid` names the process that the run belongs to (this one by default).

        Raises RunActive that names the holder, SettingsError when the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"state_dir {self._path.parent.parent} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunActive(
                f"another run of {self._server} is active ({_told(self._path)}); nothing was touched"
            ) from None
        text = json.dumps({"pid": pid or os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds without the note
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(state_dir: Path, server: str) -> dict[str, Any] | None:
    """Who holds the lock (`pid`, `since`), or None. Takes nothing and changes nothing.

    Raises nothing: a lock that cannot be looked at counts as free.
    """
    path = lock_path(state_dir, server)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _told(path: Path) -> str:
    value = _read(path)
    return f"process {value['pid']} since {value['since']}" if {"pid", "since"} <= value.keys() else "process unknown"
