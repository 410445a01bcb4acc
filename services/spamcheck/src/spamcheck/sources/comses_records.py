"""From one answer of CoMSES's batch endpoint to items. No network here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..items import Item, content_hash
from .base import SiteFaulty
from .html import clean, html_to_text, links_in_text, once

HTML_FIELDS = frozenset({"description", "bio", "researchInterests"})
"""Rendered from Markdown by the site. Every other field is as its author typed it, markup included."""
ADDRESS_FIELDS = frozenset({"externalUrl", "personalUrl", "professionalUrl"})
"""The whole value is one address, whatever its form."""


def items(answer: Any) -> list[Item]:
    """Every record of a batch, in its order.

    Raises SiteFaulty where the batch is not a list, or a record has no id and so no verdict could name it.
    """
    if not isinstance(answer, list):
        raise SiteFaulty(f"the site's batch is not a list of records but JSON of another kind ({_kind(answer)})")
    return [_item(record, position) for position, record in enumerate(answer, start=1)]


def _item(record: Any, position: int) -> Item:
    if not isinstance(record, dict):
        raise SiteFaulty(f"record {position} of the site's batch is not an object ({_kind(record)})")
    record_id = record.get("id")
    if isinstance(record_id, bool) or not isinstance(record_id, int | str) or not str(record_id).strip():
        raise SiteFaulty(f"record {position} of the site's batch has no usable id")
    content_type = record.get("contentType")
    content = record.get("contentObject")
    known_type = clean(content_type) if isinstance(content_type, str) and content_type else "unknown"
    fields, links = _texts(content if isinstance(content, dict) else {"content": content})
    return Item(
        id=clean(str(record_id)),
        content_type=known_type,
        content_hash=content_hash([content_type, content]),
        fields=fields,
        links=links,
        # Deleted content comes without an id of its own; a profile whose user is gone still has one.
        gone=content is None or (isinstance(content, dict) and content.get("id") is None),
    )


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
