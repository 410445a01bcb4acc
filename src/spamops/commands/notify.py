"""`spamops notify`."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta

from .. import alarms, notify, settings
from ..errors import ExitCode
from ..ledger import Ledger
from .base import Commands, positive

ADVICE = (
    f"no notifier is set: put Apprise's addresses into a file {settings.SECRET_FILES['notify_urls']} in secrets_dir"
)


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add("notify", "send a test message, or a digest, to all notifiers", _notify)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--test", action="store_true", help="a message that says that it is a test")
    what.add_argument("--digest", type=positive, metavar="DAYS", help="what happened in so many days")


def _notify(options: argparse.Namespace) -> int:
    chosen = settings.load(options.config)
    telling = chosen.telling
    if options.test:
        message = notify.Message(
            f"spamops: {notify.harmless(chosen.server, 80)}: a test",
            "This is a test. Nothing is wrong, nothing is to be done.",
        )
    else:
        now = datetime.now(UTC)
        since = now - timedelta(days=min(options.digest, 3650))
        message = alarms.digest(Ledger(chosen.state_dir), [chosen.server], since, now)
    deliveries = notify.send(telling.urls, [message], telling.seconds)
    delivered = bool(deliveries) and all(delivery.delivered for delivery in deliveries)
    if options.json:
        told = [{"notifier": delivery.label, "delivered": delivery.delivered} for delivery in deliveries]
        print(json.dumps({"deliveries": told, "title": message.title, "body": message.body}))
    else:
        print(f"{message.title}\n{message.body}")
        for delivery in deliveries:
            print(f"{delivery.label}: {'delivered' if delivery.delivered else 'NOT delivered'}")
    if not deliveries:
        print(f"spamops: {ADVICE}", file=sys.stderr)
    return int(ExitCode.DONE if delivered else ExitCode.ALARM_NOT_DELIVERED)
