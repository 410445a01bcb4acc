"""The one answer a model may give: its JSON schema, and the check that it is one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .indicators import FOR_MODELS, Indicator

MAX_INDICATORS = 8
MAX_REASONING_CHARACTERS = 600
MAX_ANSWER_TOKENS = 400
"""An answer that is longer is cut by the server and refused here. Eight indicators and a paragraph need about 200."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    # Ollama's grammar keeps this order: the model names what it sees before it decides.
    "properties": {
        "indicators": {
            "type": "array",
            "items": {"type": "string", "enum": [str(code) for code in FOR_MODELS]},
            "maxItems": MAX_INDICATORS,
        },
        "reasoning": {"type": "string", "maxLength": MAX_REASONING_CHARACTERS},
        "is_spam": {"type": "boolean"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["indicators", "reasoning", "is_spam", "confidence"],
    "additionalProperties": False,
}
"""Sent as `format`. The server turns it into a grammar, which knows no ranges: 5e15 came back as a confidence."""


class Answer(BaseModel):
    """What the model says of one window of an item."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    is_spam: bool
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    indicators: Annotated[tuple[Indicator, ...], Field(max_length=2 * MAX_INDICATORS)]
    reasoning: str


class NotAnAnswer(Exception):
    """The text is no valid answer. The message names the faults by field, and holds nothing of the text."""


def parse(content: str) -> Answer:
    """Check the text of an answer. Raises NotAnAnswer."""
    try:
        answer = Answer.model_validate_json(content)
    except ValidationError as error:
        raise NotAnAnswer("; ".join(dict.fromkeys(_fault(fault) for fault in error.errors()))) from None
    if not set(answer.indicators) <= set(FOR_MODELS):
        raise NotAnAnswer("indicators: one of them is not in the list")
    return answer


def _fault(fault: Any) -> str:
    field = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "json_invalid":
        return "it is not JSON"
    if fault["type"] == "extra_forbidden":
        return "it has a field that was not asked for"
    return f"{field or 'answer'}: {_WORDS.get(fault['type'], 'has the wrong type')}"


_WORDS = {
    "missing": "is missing",
    "bool_type": "must be true or false, without quotes",
    "float_type": "must be a number from 0 to 1",
    "greater_than_equal": "must be a number from 0 to 1",
    "less_than_equal": "must be a number from 0 to 1",
    "finite_number": "must be a number from 0 to 1",
    "enum": "one of them is not in the list",
    "too_long": "too many",
}
