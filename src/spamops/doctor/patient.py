"""What the examinations share: the settings, or why there are none, and what the cloud said of the server."""

from __future__ import annotations

import threading
from pathlib import Path

from .. import settings
from ..cloud import Observed
from ..errors import SettingsError
from ..settings import Settings
from ..text import harmless_line

CALL_SECONDS = 8.0
"""Of a single call to the cloud, the checker or the site: less than a run's, because a person waits."""


class Patient:
    """One controller with its server. `seconds` is the limit of the pass."""

    def __init__(self, config: Path | None, seconds: float) -> None:
        self.config = settings.find_config(config, _environ())
        self.seconds = seconds
        self.settings: Settings | None = None
        self.fault: str | None = None
        try:
            self.settings = settings.load(config)
        except SettingsError as error:
            self.fault = str(error)
        self._seen: Observed | None = None
        self._looked = threading.Event()

    @property
    def call_seconds(self) -> float:
        """Limit of a single call."""
        own = self.settings.api_seconds if self.settings else CALL_SECONDS
        return min(CALL_SECONDS, own, max(0.5, self.seconds * 0.6))

    def looked(self, seen: Observed | None) -> None:
        """The cloud told the server's state, or could not (None)."""
        self._seen = seen
        self._looked.set()

    def server(self) -> Observed | None:
        """The server's state, waited for; None when the cloud could not tell it."""
        self._looked.wait(self.seconds)
        return self._seen

    def harmless(self, text: str) -> str:
        """The text, fit for a terminal, without a secret's value."""
        for secret in self.settings.secrets if self.settings else ():
            text = text.replace(secret, "(secret)")
        return "\n".join(harmless_line(line) for line in text.splitlines())


def _environ() -> dict[str, str]:
    import os

    return dict(os.environ)
