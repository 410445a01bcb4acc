"""Classification: from an item to a verdict."""

from __future__ import annotations

from ..settings import Settings
from .base import Classifier
from .cascade import CascadeClassifier
from .rules import RulesClassifier


def build(settings: Settings) -> Classifier:
    """The classifier that the settings name. Raises ValueError when the context length is too small for any text."""
    if settings.classifier == "rules":
        return RulesClassifier(settings.rules_threshold)
    return CascadeClassifier(settings)
