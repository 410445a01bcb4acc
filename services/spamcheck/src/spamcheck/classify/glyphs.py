"""What a reader sees of a text: invisible characters taken out, look-alike letters counted and put back. Linear in length."""

from __future__ import annotations

import re
import unicodedata

# Zero-width spaces and joiners of nothing, fillers, bidirectional embeddings, overrides and isolates (Unicode Standard,
# chapter 23), tag characters and the second range of variation selectors, which can carry a hidden text.
_HIDDEN = re.compile("[\u115f\u1160\u180e\u200b\u202a-\u202e\u2060-\u2069\u3164\ufeff\uffa0\U000e0000-\U000e01ef]")
# Fair in Persian, Indic scripts and emoji; between Latin letters they only hide a word.
_JOINED_LATIN = re.compile("(?<=[A-Za-z])[\u200c\u200d]+(?=[A-Za-z])")
# Harmless, but in the way of comparing words: soft hyphen, direction marks, variation selectors, control characters.
_IGNORED = re.compile("[\u00ad\u200e\u200f\ufe00-\ufe0f\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAG_LETTERS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}

_CYRILLIC_TWINS = str.maketrans("АВЕЅІЈКМНОРСТУХаеорсухіјѕһԁԛԝ", "ABESIJKMHOPCTYXaeopcyxijshdqw")
_GREEK_TWINS = str.maketrans("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοριυνκ", "ABEZHIKMNOPTYXaopiuvk")
_TWINS = _CYRILLIC_TWINS | _GREEK_TWINS

_LATIN = re.compile("[A-Za-zÀ-ɏ]")
_TWIN = re.compile("[" + "".join(map(chr, _TWINS)) + "]")
_WORD = re.compile("[^\\W_]+")
# Mathematical and enclosed letters in a row: a word dressed up. Single ones are mathematics.
_DRESSED_WORD = re.compile("[\U0001d400-\U0001d7ff\u24b6-\u24e9\U0001f130-\U0001f189]{4,}")

_MOST_MARKS = 8
"""Marks on one letter. Vietnamese, Hebrew, Tibetan and the phonetic alphabet need up to five; more hide a text."""


def _is_mark(character: str) -> bool:
    """Whether normalization sorts the character after a letter, or makes it into nothing but such characters."""
    return all(
        unicodedata.combining(part) or unicodedata.category(part) in {"Mn", "Me"}
        for part in unicodedata.normalize("NFKD", character)
    )


# Beyond, there are ideographs and, hidden as such already, variation selectors.
_MARK = f"[{''.join(filter(_is_mark, map(chr, range(0x300, 0x20000))))}]"
_PILED_MARKS = re.compile(f"({_MARK}{{{_MOST_MARKS}}}){_MARK}+")

_MOST_GROWTH = 2
"""NFKC may turn one character into 18 (U+FDFA); a text that would grow more than this is left as it is."""


def hidden_characters(text: str) -> int:
    """How many characters of the text are invisible or change its direction, or pile up, beyond what languages need."""
    return len(_HIDDEN.findall(text)) + len(_JOINED_LATIN.findall(text)) + len(text) - len(without_piles(text))


def disguised_words(text: str) -> int:
    """How many words hold look-alike letters of another script, or are written in mathematical letters."""
    mixed = sum(map(_is_mixed, _WORD.findall(text))) if _TWIN.search(text) else 0
    return mixed + len(_DRESSED_WORD.findall(text))


def without_piles(text: str) -> str:
    """The text with at most _MOST_MARKS combining marks in a row.

    Normalization sorts such a row in the square of its length, so this comes before it, always.
    """
    return text if text.isascii() else _PILED_MARKS.sub(r"\1", text)


def reveal(text: str) -> str:
    """The text as it is meant to be read: compatibility forms unified, hidden characters out, hidden texts shown.

    Words and their order stay. Characters that no output can hold (lone surrogates) become question marks.
    """
    shown = _IGNORED.sub("", _JOINED_LATIN.sub("", text.translate(_TAG_LETTERS)))
    shown = _HIDDEN.sub("", shown).encode("utf-8", "replace").decode("utf-8")
    shown = without_piles(shown)
    unified = unicodedata.normalize("NFKC", shown)
    return unified if len(unified) <= _MOST_GROWTH * len(shown) else shown


def untwin(text: str) -> str:
    """The text with look-alike letters replaced by the Latin ones they stand for, in words that mix scripts."""
    if not _TWIN.search(text):
        return text
    return _WORD.sub(lambda match: match[0].translate(_TWINS) if _is_mixed(match[0]) else match[0], text)


def _is_mixed(word: str) -> bool:
    # Two letters are a symbol with an index (Δt), not a word.
    return len(word) > 2 and _LATIN.search(word) is not None and _TWIN.search(word) is not None
