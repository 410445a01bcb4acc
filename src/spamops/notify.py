"""Messages to people, by Apprise: Slack, e-mail, Matrix, webhooks and the rest.

Apprise runs in a process of its own, which is ended when its time is up: a notifier that hangs, crashes or never ends its
answer delays its caller by no more than that, and never breaks it. The addresses hold secrets: they go to that process
through a pipe, and nothing that comes from it is shown but which of them took the messages.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .text import one_line

log = logging.getLogger("spamops.notify")
_alarm_log = logging.getLogger("spamops.alarm")

TEXT_CHARACTERS = 700
_HARMLESS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;/+-_()%#='\"?")
"""What a message may hold. No character that a chat or a mail program would act on: no mark-up, no mentions."""


@dataclass(frozen=True)
class Message:
    """What a person reads. `kind` is Apprise's: info, success, warning or failure."""

    title: str
    body: str
    kind: str = "info"


@dataclass(frozen=True)
class Delivery:
    """Whether an address took every message. `label` says which it is, without its secrets."""

    label: str
    delivered: bool


def alarm(text: str) -> None:
    """Raise the alarm in the log, at the highest level, so that journald, cron's mail or AWX carry it to a person.

    Raises nothing: a broken log never breaks a run.
    """
    _alarm_log.critical("ALARM %s", text)


def harmless(text: str, limit: int = TEXT_CHARACTERS) -> str:
    """Text that came from elsewhere, fit for a message: one line, nothing that is acted on, no address that can be clicked."""
    line = one_line(text, limit * 2).replace("://", ": //")
    return "".join(character if character in _HARMLESS else "?" for character in line)[:limit]


def label_of(url: str) -> str:
    """What an address is called in logs: its scheme, and a digest to tell two of them apart."""
    scheme = url.partition("://")[0] if "://" in url else "?"
    return f"{harmless(scheme, 20)}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def send(urls: Sequence[str], messages: Sequence[Message], seconds: float) -> list[Delivery]:
    """Send every message to every address, within `seconds` for all of them together; who took them. Raises nothing."""
    if not urls or not messages:
        return []
    try:
        taken = _taken(urls, messages, seconds)
    except Exception as error:  # noqa: BLE001 - whatever it is, a run goes on
        log.warning("the notifiers could not be started: %s", type(error).__name__)
        taken = set()
    deliveries = [Delivery(label_of(url), number in taken) for number, url in enumerate(urls)]
    for delivery in deliveries:
        if not delivery.delivered:
            log.warning("the notifier %s did not take the message within %g s", delivery.label, seconds)
    return deliveries


def _taken(urls: Sequence[str], messages: Sequence[Message], seconds: float) -> set[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "spamops.notify_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the run, not for what tells of it
    )
    orders = json.dumps({"urls": list(urls), "messages": [asdict(message) for message in messages]}).encode()
    try:
        output, _ = process.communicate(orders, timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        output, _ = process.communicate()  # what was said until then
    return {int(line) for line in output.split() if line.isdigit()}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with all that it started: a child that holds the pipe would be waited for."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
