"""Text that came from elsewhere, made fit for a log line or a terminal."""

from __future__ import annotations


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line, at most `limit` characters, without anything that a terminal would act on."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split())[:limit]
