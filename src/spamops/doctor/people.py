"""Who is told: notifiers and metrics."""

from __future__ import annotations

import logging
import os
import time

from .. import notify
from ..settings import Settings
from .controller import NO_SETTINGS
from .findings import Finding, Tell, ok, skipped, warn
from .patient import Patient

STALE_SECONDS = 8 * 86400.0


def told(patient: Patient, tell: Tell) -> None:
    """Whether somebody hears of it when something goes wrong."""
    chosen = patient.settings
    if chosen is None:
        tell(skipped("notifiers", NO_SETTINGS))
        tell(skipped("metrics", NO_SETTINGS))
        return
    tell(_metrics(chosen))
    tell(_notifiers(chosen))


def _notifiers(chosen: Settings) -> Finding:
    name = "notifiers"
    urls = chosen.telling.urls
    if not urls:
        return warn(
            name, "none: an alarm is in the log alone", "put Apprise's addresses into a secret file; docs/alarms.md"
        )
    import apprise  # late: it takes a while

    # Its words of an address that it cannot read hold the address, which holds secrets.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    unread = [notify.label_of(url) for url in urls if not _readable(apprise, url)]
    if unread:
        return warn(
            name, f"Apprise cannot use {', '.join(unread)}", "compare it with Apprise's documentation of that service"
        )
    labels = ", ".join(map(notify.label_of, urls))
    return ok(name, f"{len(urls)} ({labels}); whether they deliver, tells: spamops notify --test")


def _readable(apprise: object, url: str) -> bool:
    try:
        return apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - an address that breaks its reader is one that cannot be used
        return False


def _metrics(chosen: Settings) -> Finding:
    name = "metrics"
    path = chosen.metrics_textfile
    if path is None:
        return skipped(name, "metrics_textfile is not set")
    if not path.parent.is_dir():
        return warn(name, f"{path.parent} is not there", "install node_exporter's collector, or unset metrics_textfile")
    if not os.access(path.parent, os.W_OK):
        return warn(name, f"{path.parent} cannot be written by this user", "let the user of the runs write there")
    if path.exists() and time.time() - path.stat().st_mtime > STALE_SECONDS:
        return warn(name, f"{path} is older than a week", "see whether runs and the reaper still come")
    return ok(name, str(path))
