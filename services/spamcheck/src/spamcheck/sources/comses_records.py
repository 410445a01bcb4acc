"""From one answer of CoMSES's batch endpoint to items. No network here."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ..items import Item, content_hash
from ..logs import event, place
from .base import SiteFaulty
from .html import clean, html_to_text, links_in_text, once

_log = logging.getLogger(__name__)

MAX_DEPTH = 64
"""Lists and objects inside each other. The site's own records have three; reading deeper ones exhausts the stack."""
MAX_ID_CHARACTERS = 100
_POSITIONS_TOLD = 10

HTML_FIELDS = frozenset({"description", "bio", "researchInterests"})
"""Rendered from Markdown by the site. Every other field is as its author typed it, markup included."""
ADDRESS_FIELDS = frozenset({"externalUrl", "personalUrl", "professionalUrl"})
"""The whole value is one address, whatever its form."""


class Unreadable(Exception):
    """The content cannot be turned into text. The message says why, without content."""


class BatchReader:
    """Turns batches into items, one by one, for a thread that gives others their turn.

    Parsing markup is slow, and a batch is read again and again while few of its records change: those of the latest
    batch that come again unchanged are not parsed anew.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[str, str], Item] = {}
        self._skipped: list[int] = []
        self._read_one = False

    def items(self, answer: Any) -> Iterator[Item]:
        """Every record of a batch, in its order. One without a usable id is left out: no verdict could name it.

        Raises SiteFaulty where the batch is not a list, or where no record has a usable id and none ever had: then this is
        not the site that we know. Later it is what is left when everything else is done.
        """
        if not isinstance(answer, list):
            raise SiteFaulty(f"the site's batch is not a list of records but JSON of another kind ({_kind(answer)})")
        skipped = [position for position, record in enumerate(answer, start=1) if _id(record) is None]
        if skipped and len(skipped) == len(answer) and not self._read_one:
            raise SiteFaulty(f"none of the {len(answer)} records of the site's batch is an object with a usable id")
        if skipped and skipped != self._skipped:
            told = ", ".join(map(str, skipped[:_POSITIONS_TOLD])) + (", ..." if skipped[_POSITIONS_TOLD:] else "")
            event(_log, logging.WARNING, "records without a usable id left out", count=len(skipped), positions=told)
        self._skipped = skipped
        self._read_one = self._read_one or len(skipped) < len(answer)
        before, self._known = self._known, {}
        for record in answer:
            record_id = _id(record)
            if record_id is not None:
                item = _item(record_id, record, before)
                self._known[item.id, item.content_hash] = item
                yield item


def items(answer: Any) -> list[Item]:
    """All items of one batch. Raises SiteFaulty as BatchReader does."""
    return list(BatchReader().items(answer))


def _id(record: Any) -> str | None:
    """The record's id as text; None where it has none that a verdict could name."""
    record_id = record.get("id") if isinstance(record, dict) else None
    if isinstance(record_id, bool) or not isinstance(record_id, int | str):
        return None
    if isinstance(record_id, int) and abs(record_id) >= 10**MAX_ID_CHARACTERS:
        return None
    text = clean(str(record_id))
    return text if text.strip() and len(text) <= MAX_ID_CHARACTERS else None


def _item(item_id: str, record: dict[str, Any], known: dict[tuple[str, str], Item]) -> Item:
    """The record as an item; one whose content cannot be read says so, and holds nothing that could be judged."""
    content_type = record.get("contentType")
    content = record.get("contentObject")
    known_type = clean(content_type) if isinstance(content_type, str) and content_type else "unknown"
    # Of a record that has not even a fingerprint all versions are alike.
    fingerprint = "unreadable"
    try:
        if _is_deep(record):
            raise Unreadable(f"lists or objects inside each other more than {MAX_DEPTH} deep")
        fingerprint = content_hash([content_type, content])
        if item := known.get((item_id, fingerprint)):
            return item
        fields, links = _texts(content if isinstance(content, dict) else {"content": content})
    except Exception as error:  # noqa: BLE001 -- whatever it is, it must not take the other records along
        reason = str(error) if isinstance(error, Unreadable) else f"unexpected {type(error).__name__}"
        event(_log, logging.WARNING, "unreadable record", item=item_id, reason=reason, at=place(error.__traceback__))
        return Item(item_id, known_type, fingerprint, unreadable=reason)
    return Item(
        id=item_id,
        content_type=known_type,
        content_hash=fingerprint,
        fields=fields,
        links=links,
        # Deleted content comes without an id of its own; a profile whose user is gone still has one.
        gone=content is None or (isinstance(content, dict) and content.get("id") is None),
    )


def _is_deep(value: Any) -> bool:
    """Whether lists and objects stand more than MAX_DEPTH deep inside each other. A loop: the stack is what is at risk."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return any(isinstance(value, dict | list) for value in level)


def _texts(content: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Plain text by field name, blank ones left out, and every link.

    Fields and types that the contract does not know are read as well: their text is part of what a visitor sees.
    """
    fields: dict[str, str] = {}
    links: list[str] = []
    for name, value in content.items():
        if name == "id":
            continue
        raw = clean(_as_text(value)).strip()
        if name in HTML_FIELDS:
            plain = html_to_text(raw)
            text = plain.text
            links += plain.links
        else:
            text = raw
            links += _raw_links(name, raw)
        if text:
            fields[clean(name)] = text
    return fields, once(links)


def _raw_links(name: str, raw: str) -> Iterable[str]:
    if name in ADDRESS_FIELDS:
        return [raw]
    if name == "email":
        return []
    inside = html_to_text(raw).links if "<" in raw else ()
    return [*links_in_text(raw), *inside]


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, list):
        return ", ".join(text for text in map(_as_text, value) if text.strip())
    return json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
