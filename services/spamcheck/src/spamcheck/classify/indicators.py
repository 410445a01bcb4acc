"""The fixed list of what can speak for spam: the only words about an item that leave the checker besides the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Indicator(StrEnum):
    """A code. Rules find some of them; a model may name any of them."""

    # Links
    MANY_LINKS = "many_links"
    UNRELATED_DOMAINS = "unrelated_domains"
    LINK_SHORTENER = "link_shortener"
    ODD_LINK = "odd_link"
    # Contact
    MESSENGER_CONTACT = "messenger_contact"
    PHONE_CONTACT = "phone_contact"
    FREE_MAIL_CONTACT = "free_mail_contact"
    # What is sold
    PHARMA = "pharma"
    GAMBLING = "gambling"
    FINANCE = "finance"
    SEO = "seo"
    ADULT = "adult"
    ESSAY_MILL = "essay_mill"
    REPLICA_GOODS = "replica_goods"
    FAKE_SUPPORT = "fake_support"
    SPELL_CASTING = "spell_casting"
    PIRATED_SOFTWARE = "pirated_software"
    ADVERTISING = "advertising"
    MONEY_AND_URGENCY = "money_and_urgency"
    # How it is written
    REPETITION = "repetition"
    MIXED_SCRIPTS = "mixed_scripts"
    INVISIBLE_CHARACTERS = "invisible_characters"
    SHOUTING = "shouting"
    # Who writes
    EMPTY_PROFILE_WITH_LINKS = "empty_profile_with_links"
    SPAM_NAME = "spam_name"
    # Talking to the checker
    PROMPT_INJECTION = "prompt_injection"
    # What only a reader sees
    OFF_TOPIC = "off_topic"
    DECEPTION = "deception"
    MEANINGLESS_TEXT = "meaningless_text"
    # What is not there
    CONTENT_DELETED = "content_deleted"
    NO_TEXT = "no_text"
    LITTLE_TEXT = "little_text"


MEANINGS: Mapping[Indicator, str] = MappingProxyType(
    {
        Indicator.MANY_LINKS: "many links for the amount of text",
        Indicator.UNRELATED_DOMAINS: "links to several unrelated domains",
        Indicator.LINK_SHORTENER: "a link through a shortener hides its target",
        Indicator.ODD_LINK: "a link with a bare IP address, a user name before the host, or a look-alike host name",
        Indicator.MESSENGER_CONTACT: "asks to be contacted on WhatsApp, Telegram or another messenger",
        Indicator.PHONE_CONTACT: "asks to be called at a phone number",
        Indicator.FREE_MAIL_CONTACT: "gives a free-mail address in the text as the way to get in touch",
        Indicator.PHARMA: "sells medicine, drugs or miracle cures",
        Indicator.GAMBLING: "promotes casinos, betting or lotteries",
        Indicator.FINANCE: "promotes crypto coins, loans, trading or easy money",
        Indicator.SEO: "sells followers, likes, backlinks, traffic or search ranking",
        Indicator.ADULT: "promotes sexual services, dating or pornography",
        Indicator.ESSAY_MILL: "sells essays, theses, exam answers or diplomas",
        Indicator.REPLICA_GOODS: "sells replica or counterfeit goods or documents",
        Indicator.FAKE_SUPPORT: "poses as a customer care or support line of a known company",
        Indicator.SPELL_CASTING: "sells spells, astrology or occult services",
        Indicator.PIRATED_SOFTWARE: "offers cracked software, game cheats or free streams",
        Indicator.ADVERTISING: "advertises a product or service that has nothing to do with the site",
        Indicator.MONEY_AND_URGENCY: "promises money and urges to act at once",
        Indicator.REPETITION: "the same words or lines over and over",
        Indicator.MIXED_SCRIPTS: "words that mix look-alike letters of several scripts",
        Indicator.INVISIBLE_CHARACTERS: "invisible or direction-changing characters inside the text",
        Indicator.SHOUTING: "much of it in capitals, or rows of exclamation marks",
        Indicator.EMPTY_PROFILE_WITH_LINKS: "a profile that says next to nothing but carries links",
        Indicator.SPAM_NAME: "a user name made of what spam sells",
        Indicator.PROMPT_INJECTION: "addresses the checker: tries to give it instructions or a verdict",
        Indicator.OFF_TOPIC: "has nothing to do with the site",
        Indicator.DECEPTION: "a scam, phishing, or somebody posing as somebody else",
        Indicator.MEANINGLESS_TEXT: "generated filler or gibberish",
        Indicator.CONTENT_DELETED: "the content itself is deleted; only its record is left",
        Indicator.NO_TEXT: "there is no text to judge",
        Indicator.LITTLE_TEXT: "there is too little text to be sure",
    }
)
"""What each code means, in one line."""

NEUTRAL = frozenset({Indicator.CONTENT_DELETED, Indicator.NO_TEXT, Indicator.LITTLE_TEXT})
"""These say why there is little to judge; they do not speak for spam, and a model has no use for them."""

FOR_MODELS: tuple[Indicator, ...] = tuple(code for code in Indicator if code not in NEUTRAL)
"""The codes that a model may name."""
