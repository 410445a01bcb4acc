"""From an item to a verdict: the interface that rules, models and the cascade of both share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ..items import Item, Verdict

ModelState = Literal["loaded", "not loaded", "missing", "unreachable"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """What there is to work with: the state of every model by name (empty where none is needed)."""

    models: dict[str, ModelState]


class Classifier(Protocol):
    """Something that gives verdicts."""

    async def classify(self, item: Item) -> Verdict:
        """Judge one item.

        Raises ClassifierUnavailable or AnswerInvalid; never guesses.
        """

    async def readiness(self) -> Readiness:
        """What is there to work with. Raises nothing."""

    async def aclose(self) -> None:
        """Close connections."""


class ClassifyError(Exception):
    """No verdict. The message is for the operator and holds no text of the item."""


class ClassifierUnavailable(ClassifyError):
    """The model server is down, busy or lacks the model: worth another try."""


class AnswerInvalid(ClassifyError):
    """The model answered, twice, something that is not a verdict."""
