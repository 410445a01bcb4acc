"""Who is logged in, as systemd-logind and utmp know it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable

WHO_SECONDS = 10
_PERSONS = frozenset({b"user", b"user-early", b"user-incomplete"})
"""Classes of sessions behind which there is a person or a program that works for one; not greeters and managers."""


def logged_in() -> int:
    """Sessions that are open now.

    Both are asked: without libpam-systemd logind knows of no session, and a session without a terminal (Ansible, scp) is not
    in utmp. Raises OSError when neither can tell.
    """
    found = [count for count in (_logind(), _utmp()) if count is not None]
    if not found:
        raise OSError("neither logind nor who(1) can tell who is logged in")
    return max(found)


def _logind() -> int | None:
    """Open sessions by sd-login(3), which reads files and needs no bus; None without that library."""
    try:
        library = ctypes.CDLL("libsystemd.so.0")
        ids = ctypes.POINTER(ctypes.c_char_p)()
        count = library.sd_get_sessions(ctypes.byref(ids))
    except (OSError, AttributeError):
        return None
    if count < 0:
        return None
    # What the library hands over is not freed: the process ends after one look.
    return sum(
        _told(library.sd_session_get_class, ids[number]) in _PERSONS
        and _told(library.sd_session_get_state, ids[number]) != b"closing"
        for number in range(count)
    )


def _told(call: Callable[..., int], session: bytes | None) -> bytes | None:
    value = ctypes.c_char_p()
    return value.value if call(session, ctypes.byref(value)) >= 0 else None


def _utmp() -> int | None:
    """Lines of who(1); None where it cannot be run."""
    try:
        done = subprocess.run(["who"], capture_output=True, timeout=WHO_SECONDS, check=True)  # noqa: S607 -- the system's own
    except (OSError, subprocess.SubprocessError):
        return None
    return len(done.stdout.splitlines())
