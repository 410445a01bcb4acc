"""How the CoMSES site reads an update: names, coercion and refusals, as recorded from the running site."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

TRUE_WORDS = frozenset({"t", "y", "yes", "true", "on", "1"})
FALSE_WORDS = frozenset({"f", "n", "no", "false", "off", "0"})

REQUIRED = "This field is required."
NULL = "This field may not be null."
BLANK = "This field may not be blank."
MAX_NUMBER_CHARACTERS = 1000

_CAPITAL = re.compile(r"(?<=[a-z0-9])([A-Z])")
_INTEGER = re.compile(r"\s*[+-]?\d+(?:\.0*)?\s*")
_SURROGATE = re.compile("[\ud800-\udfff]")

_MISSING: Any = object()


class Refused(Exception):
    """The update is refused with `status` and the JSON `body`."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


class NotStorable(Exception):
    """The database would refuse the value: the site answers 500."""


class _Fault(Exception):
    """One field is faulty; `detail` is its part of the answer."""

    def __init__(self, detail: Any) -> None:
        super().__init__(str(detail))
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Update:
    """An update that passed, with what is stored of it."""

    record_id: int
    is_spam: bool
    verdict: dict[str, Any]


def read(content_type: str, body: bytes) -> Update:
    """Make an update of a request's body.

    Raises Refused as the site refuses it, NotStorable for a confidence that is not finite.
    """
    media_type = content_type.split(";")[0].strip().lower()
    form = media_type == "application/x-www-form-urlencoded"
    if form:
        data: Any = _form(body)
    elif not body:
        data = {}
    elif media_type == "application/json":
        data = _snake_case(_parse(body))
    else:
        raise Refused(415, {"detail": f'Unsupported media type "{content_type}" in request.'})
    if data is None:
        raise Refused(400, {"nonFieldErrors": ["No data provided"]})
    if not isinstance(data, dict):
        name = type(data).__name__
        raise Refused(400, {"nonFieldErrors": [f"Invalid data. Expected a dictionary, but got {name}."]})
    return _validate(data, missing_is_spam=False if form else _MISSING)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, {"detail": f"JSON parse error - {error}"}) from None


def _form(body: bytes) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
        key = _snake(name)
        if key == "spam_indicators":
            data.setdefault(key, []).append(value)
        elif value or key in {"id", "is_spam"}:
            data[key] = value
    return data


def _snake_case(data: Any) -> Any:
    """Names in snake_case; of a name given twice the later one is left."""
    return {_snake(name): value for name, value in data.items()} if isinstance(data, dict) else data


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda match: "_" + match.group(1).lower(), name)


def _validate(data: dict[str, Any], missing_is_spam: Any) -> Update:
    faults: dict[str, Any] = {}
    values: dict[str, Any] = {}
    fields: tuple[tuple[str, str, Callable[[Any], Any], Any], ...] = (
        ("id", "id", _integer, _MISSING),
        ("is_spam", "isSpam", _boolean, missing_is_spam),
        ("spam_indicators", "spamIndicators", _texts, []),
        ("reasoning", "reasoning", _text, ""),
        ("confidence", "confidence", _number, None),
    )
    for name, answered_as, coerce, default in fields:
        value = data.get(name, _MISSING)
        try:
            if value is _MISSING:
                if default is _MISSING:
                    raise _Fault([REQUIRED])
                values[name] = default
            elif value is None:
                raise _Fault([NULL])
            else:
                values[name] = coerce(value)
        except _Fault as fault:
            faults[answered_as] = fault.detail
    if faults:
        raise Refused(400, faults)
    confidence = values["confidence"]
    if confidence is not None and not math.isfinite(confidence):
        raise NotStorable
    return Update(
        values["id"],
        values["is_spam"],
        {name: values[name] for name in ("spam_indicators", "reasoning", "confidence")},
    )


def _integer(value: Any) -> int:
    text = str(value)
    if isinstance(value, str) and len(value) > MAX_NUMBER_CHARACTERS:
        raise _Fault(["String value too large."])
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not _INTEGER.fullmatch(text):
        raise _Fault(["A valid integer is required."])
    return int(text.split(".")[0])


def _boolean(value: Any) -> bool:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in TRUE_WORDS:
        return True
    if isinstance(value, str) and value.lower() in FALSE_WORDS:
        return False
    raise _Fault(["Must be a valid boolean."])


def _number(value: Any) -> float:
    if isinstance(value, str) and len(value) > MAX_NUMBER_CHARACTERS:
        raise _Fault(["String value too large."])
    try:
        return float(value)
    except OverflowError:
        raise NotStorable from None
    except (TypeError, ValueError):
        raise _Fault(["A valid number is required."]) from None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Fault(["Not a valid string."])
    text = str(value).strip()
    if not text:
        raise _Fault([BLANK])
    faults = []
    if "\0" in text:
        faults.append("Null characters are not allowed.")
    if surrogate := _SURROGATE.search(text):
        faults.append(f"Surrogate characters are not allowed: U+{ord(surrogate.group()):X}.")
    if faults:
        raise _Fault(faults)
    return text


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise _Fault([f'Expected a list of items but got type "{type(value).__name__}".'])
    texts: list[str] = []
    faults: dict[str, Any] = {}
    for position, entry in enumerate(value):
        try:
            if entry is None:
                raise _Fault([NULL])
            texts.append(_text(entry))
        except _Fault as fault:
            faults[str(position)] = fault.detail
    if faults:
        raise _Fault(faults)
    return texts
