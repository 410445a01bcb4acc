"""Alarms: what a person has to see to."""

from __future__ import annotations

import logging

log = logging.getLogger("spamops.alarm")


def alarm(text: str) -> None:
    """Raise the alarm in the log, at the highest level, so that journald, cron's mail or AWX carry it to a person.

    Raises nothing: a broken notifier never breaks a run.
    """
    log.critical("ALARM %s", text)
