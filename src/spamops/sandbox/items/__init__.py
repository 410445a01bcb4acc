"""Labelled items for the sandbox's CoMSES site: legitimate ones and spam, everything in them invented.

`legit.json` and `spam.json` hold templates, `special.json` hand-written cases (deleted, empty, long, hidden, injected,
subtle ...), `words.json` what fills their `{slots}`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from ..site_store import NewRecord
from .markdown import render

SPAM_SHARE = 0.35
"""Part of all items that is spam, special cases included. Real sites see anything from 5 to 90 %."""
SPECIAL_EVERY = 250
"""Every special case comes once in so many items."""
ENGLISH_SHARE = 0.6
LONG_CHARACTERS = 50_000
"""The longest description seen to come through the site whole."""
TYPES = ("job", "event", "codebase", "memberprofile")

_SLOT = re.compile(r"\{([a-z]+)\}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")

Template = Mapping[str, Any]


def labelled_items(count: int, seed: int) -> list[NewRecord]:
    """`count` items, mixed; the same for the same seed. Texts are distinct, save for empty and deleted content."""
    chooser = random.Random(seed)  # noqa: S311
    specials = _specials(count, chooser)
    spam_wanted = max(0, round(SPAM_SHARE * count) - sum(1 for template in specials if template["spam"]))
    rest = count - len(specials)
    items = [_special(template, _slots(chooser, serial, "en"), chooser) for serial, template in enumerate(specials)]
    for number in range(rest):
        serial = len(specials) + number
        content_type = TYPES[number % len(TYPES)]
        # Bresenham's way to spread the spam evenly, and so over all types.
        if (number + 1) * spam_wanted // rest > number * spam_wanted // rest:
            items.append(_spam(content_type, chooser, serial))
        else:
            items.append(_legit(content_type, chooser, serial))
    chooser.shuffle(items)
    return items


@cache
def _load(name: str) -> Any:
    return json.loads(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))


@cache
def _templates(name: str, content_type: str | None, english: bool) -> list[Template]:
    return [
        template
        for template in _load(name)
        if (template["lang"] == "en") == english and template.get("type") == content_type
    ]


def _specials(count: int, chooser: random.Random) -> list[Template]:
    every: list[Template] = _load("special.json")
    wanted = min(count, round(len(every) * count / SPECIAL_EVERY))
    whole, part = divmod(wanted, len(every))
    return every * whole + chooser.sample(every, part)


def _legit(content_type: str, chooser: random.Random, serial: int) -> NewRecord:
    template = chooser.choice(_templates("legit.json", content_type, chooser.random() < ENGLISH_SHARE))
    slots = _slots(chooser, serial, template["lang"])
    return NewRecord(content_type, _content(content_type, template, slots), False, f"legitimate, {template['lang']}")


def _spam(content_type: str, chooser: random.Random, serial: int) -> NewRecord:
    template = chooser.choice(_templates("spam.json", None, chooser.random() < ENGLISH_SHARE))
    slots = _slots(chooser, serial, template["lang"])
    if content_type == "memberprofile":
        slots |= {"person": f"{slots['brand']} {serial}", "unihost": slots["spamhost"]}
        template = {**template, "body": [template["title"], *template["body"]], "interests": [template["summary"]]}
    kind = f"{template['kind']}, {template['lang']}"
    return NewRecord(content_type, _content(content_type, template, slots), True, kind)


def _special(template: Template, slots: dict[str, str], chooser: random.Random) -> NewRecord:
    content_type = template["type"]
    if template.get("gone"):
        return NewRecord(content_type, {}, None, template["kind"], gone=True)
    if "raw" in template:
        content = {name: _fill(text, slots) for name, text in template["raw"].items()}
        if content_type == "memberprofile" and "without" not in template:
            content = {"affiliationsString": "", **content}
    else:
        if "long" in template:
            template = {**template, "body": _long(template, chooser)}
        content = _content(content_type, template, slots)
    return NewRecord(content_type, content, template["spam"], template["kind"])


def _content(content_type: str, template: Template, slots: dict[str, str]) -> dict[str, Any]:
    body = render([_fill(block, slots) for block in template["body"]])
    if content_type == "memberprofile":
        return _profile(template, slots, body)
    content = {"title": _fill(template["title"], slots), "description": body}
    if content_type != "codebase":
        content |= {"summary": _fill(template["summary"], slots), "externalUrl": _fill(template["url"], slots)}
    return content


def _profile(template: Template, slots: dict[str, str], bio: str) -> dict[str, Any]:
    user = _NOT_IN_NAMES.sub("_", slots["person"].lower()).strip("_")
    url = _fill(template["url"], slots)
    affiliated = "interests" in template and "degrees" in template
    return {
        "username": f"{user}_{slots['serial']}",
        "name": slots["person"],
        "email": f"{user}.{slots['serial']}@{slots['unihost']}",
        "bio": bio,
        "researchInterests": render([_fill(block, slots) for block in template.get("interests", [])]),
        "affiliationsString": f"{slots['uni']} https://{slots['unihost']} None" if affiliated else "",
        "degrees": list(template.get("degrees", [])),
        "personalUrl": url,
        "professionalUrl": "",
    }


def _long(template: Template, chooser: random.Random) -> Iterator[str]:
    """Legitimate paragraphs up to the length, with the hidden part where the template wants it."""
    paragraphs = [block for legit in _templates("legit.json", "codebase", True) for block in legit["body"]]
    blocks: list[str] = []
    length = 0
    while length < LONG_CHARACTERS:
        block = _fill(chooser.choice(paragraphs), _slots(chooser, len(blocks), "en"))
        blocks.append(block)
        length += len(block)
    if template["long"] != "plain":
        blocks.insert(len(blocks) // 2 if template["long"] == "middle" else len(blocks), template["hidden"])
    return iter(blocks)


def _slots(chooser: random.Random, serial: int, lang: str) -> dict[str, str]:
    words = _load("words.json")
    slots = {name: chooser.choice(pool) for name, pool in words.items() if isinstance(pool, list)}
    slots |= {name: chooser.choice(pool) for name, pool in words[lang].items()}
    at = words["uni"].index(slots["uni"])
    # A five-digit number of the item's own makes its text distinct.
    return slots | {"unihost": words["unihost"][at], "serial": f"{serial + 10_000}"}


def _fill(text: str, slots: Mapping[str, str]) -> str:
    """Slots that are not known stay as they are: braces are part of some texts."""
    return _SLOT.sub(lambda match: slots.get(match.group(1), match.group()), text)
