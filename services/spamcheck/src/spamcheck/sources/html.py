"""From markup to what a reader sees, with every link kept. Never raises, whatever the markup."""

from __future__ import annotations

import bisect
import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag
from bs4.builder import ParserRejectedMarkup
from bs4.element import PageElement
from linkify_it import LinkifyIt  # type: ignore[import-untyped]

TARGETS = ("href", "src", "srcset", "action", "formaction", "data", "poster", "cite", "background", "xlink:href")
"""Attributes that name an address, as the HTML standard's index of attributes lists them (type: URL)."""

ALSO_SPAM_TLDS = (
    *("app", "bet", "bid", "blog", "buzz", "casino", "cash", "click", "cloud", "club", "cyou", "date", "dev"),
    *("download", "fun", "icu", "life", "link", "live", "loan", "lol", "men", "monster", "mom", "network", "news"),
    *("one", "online", "page", "party", "poker", "porn", "quest", "review", "rest", "sale", "science", "sex", "site"),
    *("space", "store", "stream", "studio", "tech", "today", "top", "trade", "vip", "website", "wiki", "win", "work"),
    *("world", "xyz", "zone"),
)
"""Top-level domains that make an address of a bare `name.tld`, beside linkify-it's own (two letters and old ones)."""

BLOCKS = frozenset(
    "address article aside blockquote body br center dd details dialog div dl dt fieldset figcaption figure footer form"
    " h1 h2 h3 h4 h5 h6 head header hr html iframe li main nav object ol option p pre section select summary table"
    " tbody td textarea tfoot th thead title tr ul video".split()
)
"""Elements that begin and end a line."""

_AUTOLINK = re.compile(r"<((?:https?|ftp)://[^\s<>\"']+)>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_BLANKS = re.compile(r"[^\S\n]+")
_EMPTY_LINES = re.compile(r"\s*\n\s*\n\s*|[^\S\n]*\n[^\S\n]*")
# linkify-it wants a boundary before an address and knows no IPv6: letters glued to the front must not hide a link.
_ANY_ADDRESS = re.compile(r"(?:https?|ftp)://[^\s<>\"'`\u3000-\u303f\uff00-\uffef\u2018-\u201f]+", re.IGNORECASE)
_MAY_HOLD_ADDRESS = re.compile("[.:/]")
_TRAILING = ".,;:!?)]}*_"

# linkify-it takes the square of a word's length (brackets in an address) and of the number of links in a text.
# Symbols such as | and = count as letters there: many host names glued together by them take longer still.
_LONGEST_WORD = 256
_SHORT_WORD = 64
_MOST_DOTS = 8
_LONGEST_PIECE = 1024
_WORD = re.compile(r"\S+")
# For longer words: every scheme begins an address, and a host name ends in a known top-level domain. Linear.
_NEXT_ADDRESS = re.compile(
    r"(?:https?|ftp)://(?:(?!(?:https?|ftp)://)[^\s<>\"'`\u3000-\u303f\uff00-\uffef\u2018-\u201f])+", re.IGNORECASE
)
_BARE_ADDRESS = re.compile(
    r"(?<![\w.@:/-])(?:[\w-]{1,63}\.)+(?P<tld>[\w-]{2,63})(?![\w-])(?:[/?#][^\s<>\"'`|()\[\]{}]*)?"
)

_linkify = LinkifyIt(options={"fuzzy_email": False})
_linkify.tlds(list(ALSO_SPAM_TLDS), True)
_TLD = re.compile(_linkify.re["src_tlds"], re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlainText:
    """Text without tags, and every address of the markup: attributes' targets and bare ones, in order, once each."""

    text: str
    links: tuple[str, ...]


def html_to_text(markup: str) -> PlainText:
    """Turn HTML into text. A link whose text does not show its target gets it behind it, in round brackets.

    Comments, scripts and styles are kept as text too: what hides in them is evidence. A lone surrogate or a NUL
    becomes U+FFFD.
    """
    markup = _prepare(clean(markup))
    if "<" not in markup:
        text = html.unescape(markup)
        return PlainText(_tidy(text), links_in_text(text))
    try:
        soup = BeautifulSoup(markup, "html.parser", on_duplicate_attribute=_keep_both)
    except (ParserRejectedMarkup, AssertionError, RecursionError, ValueError):
        # The standard parser may give up on broken markup. Cutting the tags out is then the best that is left.
        return PlainText(_tidy(html.unescape(_TAG.sub(" ", markup))), links_in_text(html.unescape(markup)))
    pieces: list[str] = []
    found: list[str] = []
    for piece, links in _walk(soup):
        pieces.append(piece)
        found.extend(links)
    return PlainText(_tidy("".join(pieces)), once(found))


def links_in_text(text: str) -> tuple[str, ...]:
    """Every address in plain text, in order, once each: with a scheme, or bare with a known top-level domain."""
    text = clean(text)
    if not _MAY_HOLD_ADDRESS.search(text):
        return ()
    found: dict[int, str] = {}
    end = 0
    spans = [(match.start(), match.end(), match.group()) for match in _ANY_ADDRESS.finditer(text)]
    covered: list[tuple[int, int]] = []
    for first, last, url in _addresses(text):
        found[first] = url
        covered.append((first, last))
    position = 0
    for start, stop, address in spans:
        while position < len(covered) and covered[position][1] <= start:
            position += 1
        if start < end or (position < len(covered) and covered[position][0] <= start):
            continue
        end = stop
        found[start] = address.rstrip(_TRAILING) or address
    return once(found[start] for start in sorted(found))


def _addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and address of what linkify-it finds, or what stands for it in overlong words; in order."""
    begin = end = 0
    for word in _WORD.finditer(text):
        is_long = _is_costly(word.group())
        if is_long or word.end() - begin > _LONGEST_PIECE:
            yield from _linkified(text[begin:end], begin)
            begin = word.start()
        if is_long:
            yield from _in_long_word(word.group(), begin)
            begin = word.end()
        end = word.end()
    yield from _linkified(text[begin:end], begin)


def _is_costly(word: str) -> bool:
    length = len(word)
    return length > _LONGEST_WORD or (length > _SHORT_WORD and word.count(".") > _MOST_DOTS)


def _linkified(piece: str, offset: int) -> Iterator[tuple[int, int, str]]:
    if _MAY_HOLD_ADDRESS.search(piece):
        for match in _linkify.match(piece) or []:
            yield offset + match.index, offset + match.last_index, match.url


def _in_long_word(word: str, offset: int) -> Iterator[tuple[int, int, str]]:
    full = [(match.start(), match.end(), match.group()) for match in _NEXT_ADDRESS.finditer(word)]
    starts = [start for start, _, _ in full]
    bare: list[tuple[int, int, str]] = []
    for match in _BARE_ADDRESS.finditer(word):
        before = bisect.bisect_right(starts, match.start()) - 1
        if _TLD.fullmatch(match["tld"]) and (before < 0 or full[before][1] <= match.start()):
            bare.append((match.start(), match.end(), f"http://{match.group()}"))
    for start, end, address in sorted(full + bare):
        yield offset + start, offset + end, address.rstrip(_TRAILING) or address


def clean(text: str) -> str:
    """The same text where it can be stored and sent everywhere: no NUL, no lone surrogate (U+FFFD instead)."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def once(links: Iterable[str]) -> tuple[str, ...]:
    """The links in order, blank ones left out, each one once."""
    return tuple(dict.fromkeys(link for link in links if link.strip()))


def _prepare(markup: str) -> str:
    """The markup with nothing in it that hides text, or that costs the parser time in the square of its length.

    Comments are opened up, declarations become text, and so does what comes after the last `>`: no tag can end there.
    """
    markup = markup.replace("<!--", " ").replace("-->", " ").replace("<!", "&lt;!").replace("<?", "&lt;?")
    end = markup.rfind(">") + 1
    return _AUTOLINK.sub(r" \1 ", markup[:end] + markup[end:].replace("<", "&lt;"))


def _walk(soup: BeautifulSoup) -> Iterator[tuple[str, Iterable[str]]]:
    """Text and links in the order of the markup. A loop, not recursion: hostile markup nests as deep as it likes."""
    open_elements: list[tuple[Iterator[PageElement], str]] = [(iter(soup.contents), "")]
    while open_elements:
        children, ending = open_elements[-1]
        child = next(children, None)
        if child is None:
            open_elements.pop()
            yield ending, ()
        elif isinstance(child, Tag):
            targets = _targets(child)
            edge = "\n" if child.name in BLOCKS else ""
            yield edge + ("- " if child.name == "li" else "") + _alternative(child), targets
            shown = "" if len(child.contents) != 1 or isinstance(child.contents[0], Tag) else str(child.contents[0])
            unseen = "".join(f" ({target})" for target in targets if target not in shown)
            open_elements.append((iter(child.contents), unseen + edge))
        else:
            text = str(child)
            yield _TAG.sub(" ", text) if _is_code(child) else text, links_in_text(text)


def _is_code(string: PageElement) -> bool:
    """Whether this is the inside of a script, style or template, where the parser sees no tags."""
    return string.parent is not None and string.parent.name in {
        "script",
        "style",
        "textarea",
        "title",
        "xmp",
        "noscript",
    }


def _targets(tag: Tag) -> list[str]:
    targets: list[str] = []
    for name in TARGETS:
        value = tag.attrs.get(name)
        if not value:
            continue
        for one in str(value).split(_BETWEEN):
            # Browsers drop line breaks and tabs inside an address, and blanks around it.
            address = re.sub(r"[\t\r\n]", "", one).strip()
            targets += (
                [part.split()[0] for part in address.split(", ") if part.strip()] if name == "srcset" else [address]
            )
    return list(once(targets))


_BETWEEN = "\ufffd\n\ufffd"


def _keep_both(attributes: dict[str, str], name: str, value: str | None) -> None:
    """A second attribute of the same name is ignored by browsers; here it is kept, as a place to hide a link."""
    attributes[name] = f"{attributes[name] or ''}{_BETWEEN}{value or ''}"


def _alternative(tag: Tag) -> str:
    text = tag.attrs.get("alt") if tag.name in {"img", "area", "input"} else None
    return f" [{text}] " if text else ""


def _tidy(text: str) -> str:
    """Runs of blanks become one; at most one empty line in a row."""
    text = _BLANKS.sub(" ", text.replace("\r", "\n"))
    return _EMPTY_LINES.sub(lambda match: "\n\n" if match.group().count("\n") > 1 else "\n", text).strip()
