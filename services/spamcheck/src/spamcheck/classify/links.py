"""What the links of an item say: how many, to how many owners, through shorteners, to messengers. Nothing is fetched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import tldextract

# The bundled snapshot of the Public Suffix List, private part included: somebody.github.io is its own owner.
_SUFFIXES = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)

_WEB_ADDRESS = re.compile(r"(?:https?://|\bwww\.)[^\s<>\"'`\]\[{}|\\^]+", re.IGNORECASE)
_AFTER_AT = re.compile(r"(?<=[\w.+-])@([\w-]+(?:\.[\w-]+)*)")
_END_PUNCTUATION = ".,;:!?)*_~…。，、）»”’"

EXPECTED_DOMAINS = frozenset(
    """
    comses.net openabm.org doi.org orcid.org arxiv.org zenodo.org osf.io ssrn.com jstor.org jasss.org researchgate.net
    semanticscholar.org github.com gitlab.com bitbucket.org codeberg.org sourceforge.net python.org r-project.org
    julialang.org pypi.org readthedocs.io anaconda.org repast.github.io docker.com google.com youtube.com youtu.be
    vimeo.com wikipedia.org wikidata.org linkedin.com zoom.us eventbrite.com easychair.org sciencedirect.com
    elsevier.com springer.com springernature.com nature.com science.org wiley.com tandfonline.com sagepub.com mdpi.com
    plos.org frontiersin.org academia.edu europa.eu nih.gov nsf.gov nasa.gov un.org worldbank.org mpg.de cnrs.fr
    csiro.au
    """.split()
)
"""Registered domains that scientists link to all the time: not counted. Nor do they speak for an item."""

_ACADEMIC_SUFFIX_STARTS = ("edu", "ac")
"""Public suffixes such as edu, edu.au, ac.uk are given to universities only. The suffix is compared, never the address."""

SHORTENERS = frozenset(
    """
    bit.ly tinyurl.com goo.gl is.gd v.gd ow.ly cutt.ly rb.gy shorturl.at t.ly rebrand.ly buff.ly tiny.cc t.co bl.ink
    short.io s.id shorte.st adf.ly clck.ru vk.cc surl.li tr.ee linktr.ee soo.gd u.to n9.cl qr.ae bc.vc ouo.io cutt.us
    shrtco.de urlz.fr dwz.cn t.cn
    """.split()
)
MESSENGERS = frozenset(
    """
    wa.me whatsapp.com t.me telegram.me telegram.org line.me lin.ee signal.me viber.com kakao.com m.me zalo.me wechat.com
    """.split()
)
FREE_MAIL = frozenset(
    """
    gmail.com googlemail.com yahoo.com hotmail.com outlook.com live.com msn.com aol.com icloud.com gmx.com gmx.de
    web.de mail.com mail.ru yandex.ru yandex.com bk.ru inbox.ru list.ru proton.me protonmail.com tutanota.com tuta.io
    zoho.com zohomail.com qq.com 163.com 126.com sina.com naver.com rediffmail.com
    """.split()
)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """Counts over the distinct addresses of an item."""

    counted: int
    """addresses that are neither expected nor academic"""
    owners: int
    """registered domains behind those"""
    shorteners: int
    messengers: int
    odd: int
    """bare IP address, user name before the host, look-alike (punycode) host, or not an address at all"""
    names: str
    """host names and paths of the counted ones, for the lexicon"""


@lru_cache(maxsize=4096)
def _registration(host: str) -> tuple[str, str]:
    """Registered domain and public suffix of a host name, both in lower case."""
    parts = _SUFFIXES.extract_str(host)
    suffix = parts.suffix.lower()
    return (f"{parts.domain}.{suffix}".lower() if parts.domain and suffix else ""), suffix


def registered_domain(host: str) -> str:
    """The part of a host name that somebody registered (`a.b.co.uk` gives `b.co.uk`); empty for IP and local names."""
    return _registration(host)[0]


def is_expected(host: str) -> bool:
    """Whether a well-known scientific site or a university has this host, by registered domain or public suffix."""
    domain, suffix = _registration(host)
    return domain in EXPECTED_DOMAINS or suffix.split(".")[0] in _ACADEMIC_SUFFIX_STARTS


def free_mail_addresses(text: str) -> int:
    """How many e-mail addresses of free mail providers stand in the text."""
    return sum(1 for match in _AFTER_AT.finditer(text) if registered_domain(match[1].lower()) in FREE_MAIL)


def all_links(known: Iterable[str], text: str) -> list[str]:
    """The addresses the source found, and those that stand in the text, once each and in order."""
    in_text = (address.rstrip(_END_PUNCTUATION) for address in _WEB_ADDRESS.findall(text))
    return list(dict.fromkeys(link for link in (*known, *in_text) if link.strip()))


def examine(links: Iterable[str]) -> LinkFacts:
    """Count what the addresses tell. Mail addresses and phone numbers (`mailto:`, `tel:`) are no links."""
    counted: set[str] = set()
    owners: set[str] = set()
    shorteners = messengers = odd = 0
    for link in links:
        if link.lower().startswith(("mailto:", "tel:")):
            continue
        host, path, is_odd = _parts(link)
        odd += is_odd
        domain = registered_domain(host)
        shorteners += domain in SHORTENERS
        messengers += domain in MESSENGERS
        if is_odd or not is_expected(host):
            counted.add(f"{host.removeprefix('www.')}{path.rstrip('/')}".lower())
            owners.add(domain or host)
    return LinkFacts(len(counted), len(owners), shorteners, messengers, odd, "\n".join(sorted(counted)))


def _parts(link: str) -> tuple[str, str, bool]:
    """Host, path, and whether the address is odd."""
    try:
        address = urlsplit(link if "://" in link else f"//{link}", scheme="http")
        host = (address.hostname or "").rstrip(".")
    except ValueError:
        return "", "", True
    is_odd = not host or address.username is not None or "xn--" in host or _is_ip_address(host)
    return host, address.path, is_odd


def _is_ip_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
