"""Cut a text that is too long for one prompt into windows, so that a model sees all of it and knows what it does not see.

The first window is an overview: head, tail and as many of the links as fit, the gap marked with the number of
characters left out. The windows after it show everything the overview left out, piece by piece, each with the start
of the text for orientation and with marked gaps. Pieces overlap, so that nothing is torn apart at a seam.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HEAD_SHARE, TAIL_SHARE, LINKS_SHARE = 0.4, 0.25, 0.3
"""Parts of the budget in the overview; the rest is for the markers."""
ORIENTATION_SHARE = 0.1
OVERLAP_CHARACTERS = 120

_WORDS = re.compile(r"[A-Za-z ]")
_TWO_BYTES = re.compile("[\x80-\u07ff]")
_THREE_BYTES = re.compile("[\u0800-\uffff]")
_FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")


def tokens(text: str) -> float:
    """A cautious estimate of the tokens of a text for byte-pair vocabularies such as Llama's.

    ASCII letters and blanks 0.4 a character (English has 4 characters a token; names and typing errors fewer), digits
    and punctuation 1, characters of two UTF-8 bytes 1, of three 1.5, of four 4. A text that beats the estimate is
    noticed from the server's own count and cut finer, see ollama.py.
    """
    letters = len(_WORDS.findall(text))
    two, three, four = (len(kind.findall(text)) for kind in (_TWO_BYTES, _THREE_BYTES, _FOUR_BYTES))
    return 0.4 * letters + (len(text) - letters - three - four) + 1.5 * three + 4 * four - 0 * two


def split(text: str, links: str, budget: float) -> list[str]:
    """The windows of a text and its list of links (a line each), none above `budget` estimated tokens; at least one."""
    listed = f"\n\n[links]\n{links}" if links else ""
    if tokens(text) + tokens(listed) <= budget:
        return [text + listed]
    shown_links, other_links = _take(listed, LINKS_SHARE * budget)
    room = budget - tokens(shown_links) - (1 - HEAD_SHARE - TAIL_SHARE - LINKS_SHARE) * budget
    if tokens(text) <= room:
        head, middle, tail = text, "", ""
    else:
        head, rest = _take(text, room * HEAD_SHARE / (HEAD_SHARE + TAIL_SHARE))
        reversed_tail, reversed_middle = _take(rest[::-1], room * TAIL_SHARE / (HEAD_SHARE + TAIL_SHARE))
        middle, tail = reversed_middle[::-1], reversed_tail[::-1]
    overview = head + left_out(len(middle)) + tail + shown_links + left_out(len(other_links))
    windows = [overview]
    start, _ = _take(text, ORIENTATION_SHARE * budget)
    piece_budget = (1 - 2 * ORIENTATION_SHARE) * budget
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
        piece, rest = _take(text[offset:], budget) if offset else _take(text, budget)
        yield offset, piece
        if not rest:
            return
        offset += max(1, len(piece) - OVERLAP_CHARACTERS)


def _take(text: str, budget: float) -> tuple[str, str]:
    """The longest start of the text (found by halving) whose estimate is within the budget, and the rest."""
    # No character costs less than 0.4, so nothing beyond this can fit.
    low, high = 0, min(len(text), int(budget / 0.4))
    while low < high:
        middle = (low + high + 1) // 2
        if tokens(text[:middle]) <= budget:
            low = middle
        else:
            high = middle - 1
    return text[:low], text[low:]
