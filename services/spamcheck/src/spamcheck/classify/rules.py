"""Judge an item without a model: named indicators with weights, one score, and a verdict that anybody can recompute.

Score: every indicator found has a weight from 0 to 1, and the score is what remains of doubt taken from 1:

    score = 1 - (1 - weight_1) * (1 - weight_2) * ...

From the threshold on (a setting, 0.5 by default) the item is spam. The confidence grows from 0.5 at the threshold in a
straight line to MOST_CONFIDENCE at score 1 (spam) or at score 0 (not spam). Little text to judge keeps "not spam" at
0.6, none at all at 0.5. No single weight of a way of writing decides alone; several together do.

Everything here is linear in the length of the text, and all of the text is looked at.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..items import Item, Verdict
from . import glyphs, lexicon, links, phrases
from .base import Readiness
from .indicators import Indicator

NAME = "rules"
MOST_CONFIDENCE = 0.95
"""Rules are never certain."""
LITTLE_TEXT_CONFIDENCE = 0.6
NO_TEXT_CONFIDENCE = 0.5
LITTLE_TEXT_WORDS = 8
"""Below so many words, and without links, nobody can be sure that something is not spam."""
LONG_CHARACTERS = 50_000
SHORT_TEXT_WORDS = 60
WORDS_FOR_A_WEAK_ONE = 150

_Kind = Literal["strong", "weak", "earnings", "urgency"]
_PHRASES: phrases.Phrases[tuple[Indicator, _Kind]] = phrases.Phrases(
    {(code, "strong"): family.strong for code, family in lexicon.FAMILIES.items()}
    | {(code, "weak"): family.weak for code, family in lexicon.FAMILIES.items()}
    | {
        (Indicator.MONEY_AND_URGENCY, "earnings"): lexicon.EARNINGS,
        (Indicator.MONEY_AND_URGENCY, "urgency"): lexicon.URGENCY,
    }
)
_NAME_PARTS = frozenset(part.strip() for part in lexicon.NAME_PARTS.split(","))
_LONG_NAME_PARTS = tuple(sorted(part for part in _NAME_PARTS if len(part) >= 6))
_INJECTION = tuple(re.compile(pattern) for pattern in lexicon.INJECTION)

_BLANKS = re.compile(r"\s+")
_NAME_SEPARATORS = re.compile(r"[\W_]+")
_MESSENGER = re.compile(
    r"\b(?:whats ?app|telegram|wechat|viber|kakaotalk|snapchat|skype|zalo|line id|ватсап|телеграм)\b[^\n]{0,40}?(?:\+?\d[\d ().-]{6}|@\w{4})"
    r"|(?:微信|加微|电报|飞机|카톡|텔레그램|ライン|واتساب|تليجرام)[^\n]{0,20}?[\w@+]{4}"
)
_PHONE = re.compile(
    r"(?:\bcall|\bphone|\btel|\bcontact|\bhelpline|\bmobile|\bdial|\bring|☎|📞|📲|\bllama|\bligue|\bappelez|\bзвоните|\bтел|电话|연락처)"
    r"[^\n\d]{0,30}\+?\d(?:[ ().-]{0,2}\d){7}"
)
_LINE_ENDS = re.compile(r"[\n.!?。！？]+")
_CAPITAL_WORD = re.compile(r"\b[A-ZА-ЯÀ-Þ]{3,}\b")
_CASED_WORD = re.compile(r"\b[A-Za-zА-Яа-яÀ-ÿ]{3,}\b")
_EXCLAMATIONS = re.compile(r"[!！]{3}")

# Fields that say who writes rather than what: not text that tells something, and the account's address is not bait.
_NAME_FIELDS = frozenset({"username", "name", "email"})
_PROFILE_TEXTS = frozenset({"bio", "researchinterests", "affiliationsstring", "affiliations", "degrees"})
_ADDRESS_FIELDS = frozenset({"externalurl", "personalurl", "professionalurl", "url", "website", "homepage"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One indicator with the weight it has in this item (0 to 1)."""

    indicator: Indicator
    weight: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules found in an item: indicators and their score (0 to 1), no text."""

    findings: tuple[Finding, ...]
    score: float

    @property
    def indicators(self) -> tuple[Indicator, ...]:
        """The indicators found, in the catalogue's order."""
        return tuple(finding.indicator for finding in self.findings)


class RulesClassifier:
    """The classifier that needs nothing but the text."""

    def __init__(self, threshold: float = 0.5) -> None:
        """Say spam from this score on."""
        self._threshold = threshold

    async def classify(self, item: Item) -> Verdict:
        """Judge one item. Raises nothing."""
        return verdict(await examine_aside(item), self._threshold)

    async def readiness(self) -> Readiness:
        """No model is needed."""
        return Readiness(models={})

    async def aclose(self) -> None:
        """Nothing to close."""


def has_content(item: Item) -> bool:
    """Whether there is anything to judge: some text, or a link."""
    return not item.gone and (bool(item.links) or any(text.strip() for text in item.fields.values()))


def verdict(evidence: Evidence, threshold: float) -> Verdict:
    """What the rules alone say."""
    found = evidence.indicators
    is_spam = evidence.score >= threshold
    room = MOST_CONFIDENCE - 0.5
    if is_spam:
        confidence = 0.5 + room * (evidence.score - threshold) / (1 - threshold)
    else:
        confidence = 0.5 + room * (threshold - evidence.score) / threshold
        if Indicator.NO_TEXT in found:
            confidence = min(confidence, NO_TEXT_CONFIDENCE)
        elif Indicator.LITTLE_TEXT in found:
            confidence = min(confidence, LITTLE_TEXT_CONFIDENCE)
    weights = ", ".join(f"{finding.indicator} {finding.weight:.2f}" for finding in evidence.findings) or "nothing found"
    return Verdict(
        is_spam=is_spam,
        confidence=round(confidence, 3),
        by=NAME,
        indicators=found,
        reasoning=f"Rules only, no model. Score {evidence.score:.2f}, spam from {threshold:.2f} on: {weights}.",
    )


def examine(item: Item) -> Evidence:
    """Look for every indicator in the whole item."""
    if item.gone:
        return Evidence((Finding(Indicator.CONTENT_DELETED, 0.0),), 0.0)
    if not has_content(item):
        return Evidence((Finding(Indicator.NO_TEXT, 0.0),), 0.0)
    weights: dict[Indicator, float] = {}
    for indicator, weight in _findings(item):
        weights[indicator] = max(weight, weights.get(indicator, 0.0))
    doubt = 1.0
    for weight in weights.values():
        doubt *= 1 - weight
    findings = tuple(Finding(code, round(weights[code], 3)) for code in Indicator if code in weights)
    return Evidence(findings, round(1 - doubt, 4))


async def examine_aside(item: Item) -> Evidence:
    """The same for callers that must not be held up: a long text (half a second a million characters) in a thread."""
    if item.characters < LONG_CHARACTERS:
        return examine(item)
    return await asyncio.to_thread(examine, item)


def _findings(item: Item) -> Iterator[tuple[Indicator, float]]:
    by_field = {name.replace("_", "").lower(): text for name, text in item.fields.items()}
    told = glyphs.reveal(
        "\n".join(text for name, text in by_field.items() if name not in _NAME_FIELDS | _ADDRESS_FIELDS)
    )
    raw = "\n".join(item.fields.values())
    shown = glyphs.reveal(raw)
    lowered = _BLANKS.sub(_one_blank, glyphs.untwin(shown)).lower()
    folded = phrases.fold(lowered)
    words = phrases.words(folded)
    facts = links.examine(links.all_links(item.links, told))
    told_words = len(told.split())

    yield from _of_links(facts, told_words)
    yield from _of_families(folded, words, facts.names)
    yield from _of_contacts(lowered, told, facts)
    yield from _of_writing(raw, shown, folded, words)
    yield from _of_author(by_field, facts, item.content_type)
    if told_words < LITTLE_TEXT_WORDS and not facts.counted:
        yield Indicator.LITTLE_TEXT, 0.0
    talking = sum(1 for pattern in _INJECTION if pattern.search(lowered))
    if talking:
        yield Indicator.PROMPT_INJECTION, _by_count(talking, (0.4, 0.6, 0.75))


def _one_blank(blanks: re.Match[str]) -> str:
    return "\n" if "\n" in blanks[0] else " "


def _by_count(count: int, weights: tuple[float, ...]) -> float:
    """The weight for 1, 2, 3 ... of a thing; the last one for all that is more."""
    return weights[min(count, len(weights)) - 1]


def _of_links(facts: links.LinkFacts, words: int) -> Iterator[tuple[Indicator, float]]:
    if facts.counted >= 8 and words < 10 * facts.counted:
        yield Indicator.MANY_LINKS, 0.45
    elif facts.counted >= 3 and words < 15 * facts.counted:
        yield Indicator.MANY_LINKS, 0.25
    # A programme or a call may name a dozen hosts; what tells is how little is said about each.
    if facts.owners >= 3 and words < 40 * facts.owners:
        yield Indicator.UNRELATED_DOMAINS, 0.4 if facts.owners >= 10 else 0.25 if facts.owners >= 5 else 0.15
    if facts.shorteners:
        yield Indicator.LINK_SHORTENER, _by_count(facts.shorteners, (0.2, 0.3))
    if facts.odd:
        yield Indicator.ODD_LINK, _by_count(facts.odd, (0.25, 0.35))


def _of_families(folded: str, words: list[str], names: str) -> Iterator[tuple[Indicator, float]]:
    # Host names and paths count as text: buy-cheap-pills.example says what it sells.
    names = phrases.fold(names)
    all_words = [*words, "\n", *phrases.words(names)] if names else words
    found = _PHRASES.found(f"{folded}\n{names}", all_words)
    # In a short text one such phrase is what the text is about; in a long one it may be an example.
    one = 0.5 if len(words) <= SHORT_TEXT_WORDS else 0.4
    vague = {code: found.get((code, "weak"), 0) for code in lexicon.FAMILIES}
    vaguest = max(vague, key=lambda code: vague[code])
    for code in lexicon.FAMILIES:
        certain = found.get((code, "strong"), 0)
        weight = _by_count(certain, (one, 0.62, 0.78, 0.85, 0.9)) if certain else 0.0
        # Weak words count when they are dense, and fully in one family only: a topic touches on several.
        if vague[code] >= 2 and len(words) <= WORDS_FOR_A_WEAK_ONE * vague[code]:
            hint = (0.3 if vague[code] >= 4 else 0.2) if code is vaguest else 0.05
            weight = 1 - (1 - weight) * (1 - hint)
        if weight:
            yield code, weight
    money = Indicator.MONEY_AND_URGENCY
    if found.get((money, "earnings")) and found.get((money, "urgency")):
        yield money, 0.35


def _of_contacts(lowered: str, told: str, facts: links.LinkFacts) -> Iterator[tuple[Indicator, float]]:
    messengers = len(_MESSENGER.findall(lowered)) + facts.messengers
    if messengers:
        yield Indicator.MESSENGER_CONTACT, _by_count(messengers, (0.25, 0.35))
    phones = len(_PHONE.findall(lowered))
    if phones:
        yield Indicator.PHONE_CONTACT, _by_count(phones, (0.15, 0.25, 0.35))
    mails = links.free_mail_addresses(told)
    if mails:
        yield Indicator.FREE_MAIL_CONTACT, _by_count(mails, (0.15, 0.25))


def _of_writing(raw: str, shown: str, folded: str, words: list[str]) -> Iterator[tuple[Indicator, float]]:
    if _repeats_lines(folded) or _repeats_words(words):
        yield Indicator.REPETITION, 0.3
    disguised = glyphs.disguised_words(raw)
    if disguised:
        yield Indicator.MIXED_SCRIPTS, _by_count(disguised, (0.15, 0.3, 0.4, 0.5))
    hidden = glyphs.hidden_characters(raw)
    if hidden:
        yield Indicator.INVISIBLE_CHARACTERS, 0.3 if hidden >= 10 else 0.15
    capitals = len(_CAPITAL_WORD.findall(shown))
    if (capitals >= 5 and capitals > 0.4 * len(_CASED_WORD.findall(shown))) or _EXCLAMATIONS.search(shown):
        yield Indicator.SHOUTING, 0.15


def _repeats_lines(folded: str) -> bool:
    """Whether most lines or sentences of some length stand there three times or more."""
    lines = [line for part in _LINE_ENDS.split(folded) if len(line := part.strip()) >= 15]
    repeated = sum(count for count in Counter(lines).values() if count >= 3)
    return repeated > len(lines) / 2


def _repeats_words(words: list[str]) -> bool:
    """Whether the same three words in a row make up a fifth of the text or more, at least six times."""
    if len(words) < 18:
        return False
    times = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0][1]
    return times >= 6 and 3 * times >= 0.2 * len(words)


def _of_author(
    by_field: dict[str, str], facts: links.LinkFacts, content_type: str
) -> Iterator[tuple[Indicator, float]]:
    if content_type == "memberprofile" or "username" in by_field:
        told = sum(len(by_field.get(name, "").split()) for name in _PROFILE_TEXTS)
        if facts.counted and told < 5:
            yield Indicator.EMPTY_PROFILE_WITH_LINKS, _by_count(facts.counted, (0.25, 0.4))
    spam_names = max((_spam_parts(by_field.get(name, "")) for name in ("username", "name", "email")), default=0)
    if spam_names:
        yield Indicator.SPAM_NAME, _by_count(spam_names, (0.3, 0.45, 0.55))


def _spam_parts(name: str) -> int:
    """How many parts of the name (of an address: what stands before the @) are words that spam sells."""
    own = phrases.fold(name).split("@")[0]
    parts = set(_NAME_SEPARATORS.split(own)) & _NAME_PARTS
    return len(parts | {part for part in _LONG_NAME_PARTS if part in own})
