"""The process that hands messages to Apprise. Addresses and messages come as JSON on stdin; the number of each address that
took all of them goes to stdout as soon as that is known."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import Any


def main() -> None:
    """Send everything, each address in a thread of its own: one that hangs holds up no other."""
    orders = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)  # what libraries log of a request may hold its address
    import apprise

    asset = apprise.AppriseAsset(app_id="spamops", app_desc="spamops", app_url="", async_mode=False)
    said = threading.Lock()

    def work(number: int, url: str) -> None:
        if _deliver(apprise, asset, url, orders["messages"]):
            with said:
                os.write(1, f"{number}\n".encode())

    threads = [
        threading.Thread(target=work, args=(number, url), daemon=True) for number, url in enumerate(orders["urls"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # no clean-up that a library left behind can hang


def _deliver(apprise: Any, asset: Any, url: str, messages: list[dict[str, str]]) -> bool:
    try:
        notifier = apprise.Apprise(asset=asset)
        if not notifier.add(url):
            return False
        results = [
            notifier.notify(
                title=message["title"],
                body=message["body"],
                notify_type=message["kind"],
                body_format=apprise.NotifyFormat.TEXT,
            )
            for message in messages
        ]
    except Exception:  # noqa: BLE001 - its words may hold the address; that it failed is all that is told
        return False
    return all(results)


if __name__ == "__main__":
    main()
