"""Find phrases of the lexicon in a text: word by word, or as they are where a script has no blanks. Linear in length."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

from . import glyphs

Group = TypeVar("Group", bound=Hashable)

_WORD = re.compile(r"[^\W_]+")
_ACCENT = re.compile("[\u0300-\u036f]")
# Scripts without blanks between words, with prefixes, or whose vowel signs Python does not count as letters.
_SEARCHED_AS_IS = re.compile("[\u0590-\u06ff\u0900-\u0dff\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_INDEX_CHARACTERS = 3
_SPELT_OUT = 4
"""From so many single letters in a row on, they are read as one word (v-i-a-g-r-a)."""


def fold(text: str) -> str:
    """The text for comparing: no case, no accents."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFD", glyphs.without_piles(text.casefold()))
    # What stood between accents may now stand in a row.
    return unicodedata.normalize("NFC", glyphs.without_piles(_ACCENT.sub("", apart)))


def words(folded: str) -> list[str]:
    """Letters and digits between everything else; single letters in a row are given once more as one word."""
    plain = _WORD.findall(folded)
    spelt_out = list(_spelt_out(plain))
    return plain + spelt_out if spelt_out else plain


def _spelt_out(plain: list[str]) -> Iterator[str]:
    run: list[str] = []
    for word in [*plain, ""]:
        if len(word) == 1:
            run.append(word)
            continue
        if len(run) >= _SPELT_OUT:
            yield "".join(run)
        run = []


class Phrases(Generic[Group]):
    """Groups of phrases, ready to be looked for all at once."""

    def __init__(self, groups: Mapping[Group, str]) -> None:
        """Take comma-separated phrases by group; `*` at the end of a word stands for any ending."""
        self._as_is: list[tuple[str, Group]] = []
        self._by_start: dict[str, list[tuple[tuple[str, ...], Group]]] = {}
        for group, text in groups.items():
            for phrase in filter(None, (" ".join(part.split()) for part in text.split(","))):
                if _SEARCHED_AS_IS.search(phrase):
                    self._as_is.append((fold(phrase), group))
                    continue
                pattern = tuple(fold(phrase).split())
                if pattern[0].endswith("*") and len(pattern[0]) <= _INDEX_CHARACTERS:
                    raise ValueError(f"'{phrase}': a stem needs {_INDEX_CHARACTERS} letters or more")
                self._by_start.setdefault(pattern[0][:_INDEX_CHARACTERS], []).append((pattern, group))

    def found(self, folded: str, words_of_it: list[str]) -> dict[Group, int]:
        """How many different phrases of each group stand in the text; groups without any are left out."""
        hits = {(phrase, group) for phrase, group in self._as_is if phrase in folded}
        by_start = self._by_start
        for position, word in enumerate(words_of_it):
            for pattern, group in by_start.get(word[:_INDEX_CHARACTERS], ()):
                if _stands_at(pattern, words_of_it, position):
                    hits.add((" ".join(pattern), group))
        return Counter(group for _, group in hits)


def _stands_at(pattern: tuple[str, ...], text: list[str], position: int) -> bool:
    if position + len(pattern) > len(text):
        return False
    for offset, wanted in enumerate(pattern):
        word = text[position + offset]
        if wanted[-1] == "*":
            if not word.startswith(wanted[:-1]):
                return False
        elif word != wanted:
            return False
    return True
