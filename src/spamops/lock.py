"""One run a server: a file lock of the kernel, which a dead process does not hold."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import RunActive, SettingsError

LOOK_TRIES = 5
LOOK_SECONDS = 0.02


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
        if not _locked(descriptor):
            os.close(descriptor)
            raise _run_active(self._server, self._path)
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


def require_free(state_dir: Path, server: str) -> None:
    """Return when nobody holds the lock now. Takes nothing and changes nothing.

    Raises RunActive that names the holder.
    """
    if holder(state_dir, server) is not None:
        raise _run_active(server, lock_path(state_dir, server))


def held_since(state_dir: Path, server: str) -> datetime | None:
    """When the lock was taken that somebody holds now; None when nobody does, or it is not known."""
    try:
        return datetime.fromisoformat(str((holder(state_dir, server) or {})["since"]))
    except (KeyError, ValueError):
        return None


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
        # Shared, so that two who look at the same time do not take each other for a run.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)
    return None


def _locked(descriptor: int) -> bool:
    """Whether the lock could be had. Tried for a moment: somebody who only looks (`holder`) holds it for an instant."""
    for _ in range(LOOK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        else:
            return True
    return False


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _run_active(server: str, path: Path) -> RunActive:
    return RunActive(f"another run of {server} is active ({_told(path)}); nothing was touched")


def _told(path: Path) -> str:
    value = _read(path)
    return f"process {value['pid']} since {value['since']}" if {"pid", "since"} <= value.keys() else "process unknown"
