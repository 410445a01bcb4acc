"""An alarm from the server itself: one JSON object sent to an address that somebody watches."""

from __future__ import annotations

import logging
import ssl
from typing import Literal

import httpx

from .logs import event

_log = logging.getLogger("spamcheck.alarm")

SECONDS = 10.0
"""Limit of one alarm. The server is being shelved meanwhile, which takes Nova longer."""


def tell(url: str, title: str, message: str, kind: Literal["warning", "failure"]) -> bool:
    """Send an alarm, in the words of Apprise's json:// (title, message, type). Returns whether it was taken.

    Raises nothing: a broken receiver must not keep a server on. The address is not logged, as it may hold a token.
    """
    try:
        answer = httpx.post(
            url,
            json={"version": "1.0", "title": title, "message": message, "type": kind},
            timeout=SECONDS,
            follow_redirects=False,
            verify=ssl.create_default_context(),
            headers={"User-Agent": "spamcheck-watchdog"},
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        event(_log, logging.WARNING, "the alarm was not taken", reason=type(error).__name__)
        return False
    if not answer.is_success:
        event(_log, logging.WARNING, "the alarm was not taken", reason=f"HTTP {answer.status_code}")
    return answer.is_success
