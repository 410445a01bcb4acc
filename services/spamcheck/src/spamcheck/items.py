"""The words of the checker: what is checked, and what comes of it. Plain data; no platform, model or Temporal here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_REASONING_CHARACTERS = 4000
"""Longer reasonings are cut: a moderator reads a paragraph, and a model that rambles must not fill the site's database."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to check, as plain text.

    `id` is what a verdict names (on CoMSES the moderation record's id). `fields` holds the text by field name, HTML
    already turned to text, empty fields left out. `links` holds every address found, markup's targets included, in
    order and once each. `content_hash` tells one version of the text from another. `gone` is true where the content
    itself was deleted and only the record is left. `unreadable` says, in words without content, why the content could not
    be turned into text: nothing may judge such an item.
    """

    id: str
    content_type: str
    content_hash: str
    fields: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    gone: bool = False
    unreadable: str = ""

    @property
    def characters(self) -> int:
        """Length of all text, in characters."""
        return sum(len(text) for text in self.fields.values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a classifier says of one item.

    `confidence` is from 0 to 1, in the verdict as given (0.9 with is_spam false: quite sure that it is not spam).
    `indicators` are names from a fixed list, never text of the item. `reasoning` is for the site's moderators only.
    `by` names who decided: `rules`, or `ollama/MODEL`.
    """

    is_spam: bool
    confidence: float
    by: str
    indicators: tuple[str, ...] = ()
    reasoning: str = ""

    def __post_init__(self) -> None:
        """Keep only what every site accepts.

        Raises ValueError for a confidence that is not finite: no verdict by accident.
        """
        if not math.isfinite(self.confidence):
            raise ValueError(f"confidence is {self.confidence}: not a finite number")
        object.__setattr__(self, "confidence", min(1.0, max(0.0, float(self.confidence))))
        # NUL and lone surrogates are refused by PostgreSQL and by JSON readers.
        clean = self.reasoning.replace("\0", "").encode("utf-8", "replace").decode("utf-8").strip()
        object.__setattr__(self, "reasoning", clean[:MAX_REASONING_CHARACTERS].strip())
        object.__setattr__(self, "indicators", tuple(dict.fromkeys(i for i in self.indicators if i.strip())))


def content_hash(content: Any) -> str:
    """A short fingerprint (64 bits, hexadecimal) of JSON content: equal content gives equal text on every machine."""
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]
