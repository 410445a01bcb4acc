"""Where items come from and where verdicts go: `base` is the interface, beside it one file a platform."""

from __future__ import annotations

from ..settings import Settings
from .base import Source
from .comses import ComsesSource


def build(settings: Settings) -> Source:
    """The source that the settings name. CoMSES is the only platform so far."""
    key = settings.comses_api_key or settings.api_key
    return ComsesSource(
        str(settings.comses_url), key.get_secret_value(), settings.site_timeout_seconds, settings.comses_host
    )
