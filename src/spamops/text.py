"""Text that came from elsewhere, made fit for a log line or a terminal."""

from __future__ import annotations


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line, at most `limit` characters, without anything that a terminal would act on."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(visible.split())[:limit]


def harmless_line(text: str, limit: int = 4000) -> str:
    """One line as it was, blanks and all, at most `limit` characters, without anything that a terminal would act on."""
    return "".join(character if character.isprintable() else " " for character in text[:limit])
