"""Cut a text that is too long for one prompt into windows, so that a model sees all of it and knows what it does not see.

The first window is an overview: head, tail and as many of the links as fit, the gap marked with the number of
characters left out. The windows after it show everything the overview left out, piece by piece, each with the start
of the text for orientation and with marked gaps. Pieces overlap, so that nothing is torn apart at a seam.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LINKS_SHARE = 0.25
"""The most of the overview's budget that links get; head and tail share the rest."""
HEAD_SHARE = 0.6
ORIENTATION_SHARE = 0.1
OVERLAP_CHARACTERS = 120

MARKERS_TOKENS = 70
"""Room for two markers of a gap."""
LEAST_BUDGET = 256
"""Estimated tokens; below it, markers and orientation would leave no room for the text."""

_LINKS_HEADING = "\n\n[links]\n"
_CHEAP = re.compile(r"[A-Za-z ]")
_THREE_BYTES = re.compile("[\u0800-\uffff]")
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")
_LEAST_COST = 0.4


def tokens(text: str) -> float:
    """A cautious estimate of the tokens of a text for byte-pair vocabularies such as Llama's.

    ASCII letters and blanks 0.4 a character (plain English has 0.25), characters of three UTF-8 bytes 1.5, of four 4,
    ends of lines 3 (the prompt marks every line), all others 1. A text that beats the estimate is noticed from the
    server's own count and cut finer (see ollama.py).
    """
    cheap, three, four = (len(kind.findall(text)) for kind in (_CHEAP, _THREE_BYTES, _FOUR_BYTES))
    others = len(text) - cheap - three - four
    return _LEAST_COST * cheap + others + 1.5 * three + 4 * four + 2 * text.count("\n")


def split(text: str, links: str, budget: float) -> list[str]:
    """The windows of a text and its list of links (a line each), none above `budget` estimated tokens; at least one.

    Raises ValueError for a budget below LEAST_BUDGET.
    """
    if budget < LEAST_BUDGET:
        raise ValueError(f"{budget:.0f} tokens are no room for a text: {LEAST_BUDGET} at least")
    listed = f"{_LINKS_HEADING}{links}" if links else ""
    if tokens(text) + tokens(listed) <= budget:
        return [text + listed]
    shown_links, other_links = _take(listed, LINKS_SHARE * budget)
    if other_links:
        # No link is torn apart, but for one that is too long for the overview by itself.
        last_line = max(len(_LINKS_HEADING), shown_links.rfind("\n"))
        shown_links, other_links = shown_links[:last_line], shown_links[last_line:] + other_links
    room = budget - tokens(shown_links) - MARKERS_TOKENS
    if tokens(text) <= room:
        head, middle, tail = text, "", ""
    else:
        head, rest = _take(text, room * HEAD_SHARE)
        reversed_tail, reversed_middle = _take(rest[::-1], room * (1 - HEAD_SHARE))
        middle, tail = reversed_middle[::-1], reversed_tail[::-1]
    overview = head + left_out(len(middle)) + tail + shown_links + left_out(len(other_links))
    windows = [overview]
    start, _ = _take(text, ORIENTATION_SHARE * budget)
    piece_budget = (1 - ORIENTATION_SHARE) * budget - MARKERS_TOKENS
    if middle:
        # From before the seam with the head to after the seam with the tail.
        seam_head, seam_tail = head[-OVERLAP_CHARACTERS:], tail[:OVERLAP_CHARACTERS]
        begin = len(head) - len(seam_head)
        for offset, piece in _pieces(seam_head + middle + seam_tail, piece_budget):
            before = left_out(max(0, begin + offset - len(start)))
            after = left_out(len(text) - begin - offset - len(piece))
            windows.append(start + before + piece + after)
    windows.extend(start + left_out(len(text) - len(start)) + piece for _, piece in _pieces(other_links, piece_budget))
    return windows


def left_out(characters: int) -> str:
    """The marker of a gap."""
    return f"\n[... {characters} characters left out ...]\n" if characters > 0 else ""


def _pieces(text: str, budget: float) -> Iterator[tuple[int, str]]:
    """Overlapping pieces with their offsets."""
    offset = 0
    while offset < len(text):
        piece, _ = _take(text[offset : offset + int(budget / _LEAST_COST)], budget)
        yield offset, piece
        if offset + len(piece) >= len(text):
            return
        offset += len(piece) - min(OVERLAP_CHARACTERS, len(piece) // 4)


def _take(text: str, budget: float) -> tuple[str, str]:
    """The longest start of the text (found by halving) whose estimate is within the budget, and the rest."""
    low, high = 0, min(len(text), int(budget / _LEAST_COST))
    while low < high:
        middle = (low + high + 1) // 2
        if tokens(text[:middle]) <= budget:
            low = middle
        else:
            high = middle - 1
    return text[:low], text[low:]
