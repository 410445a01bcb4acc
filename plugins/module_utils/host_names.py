# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which texts Django takes as an allowed host. Runs on managed hosts: Python 3.8 and the standard library alone."""

from __future__ import annotations

import ipaddress
import re


class Refused(Exception):
    """What was asked for cannot be done safely; the message says why and what to do. Nothing was changed."""


_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MOST_CHARACTERS = 253


def checked_hosts(names, allow_wildcard=False):
    """The names in lower case, each once, in their order.

    Raises Refused that names every faulty one with its reason.
    """
    found, faults = [], []
    for name in names:
        reason = fault_of(name, allow_wildcard)
        if reason:
            faults.append(f"{name!r} {reason}")
        elif name.strip().lower() not in found:
            found.append(name.strip().lower())
    if faults:
        raise Refused("not a host name that Django can match: " + "; ".join(faults))
    return found


def fault_of(name, allow_wildcard=False):
    """Why this is no entry for ALLOWED_HOSTS, or None. Django compares the Host header without its port, in lower case, and
    takes letters, digits, dots and hyphens alone, or an IPv6 address in brackets (django.http.request.validate_host)."""
    text = name.strip().lower() if isinstance(name, str) else ""
    if not text:
        return "is empty"
    if text == "*":
        return None if allow_wildcard else "lets every host in: allow_wildcard must be true for that"
    for sign, reason in (
        ("://", "has a scheme: leave it out"),
        ("@", "has a user: leave it out"),
        ("/", "has a path: leave it out"),
        ("_", "has an underscore, which Django refuses in every Host header"),
        ("*", "has a wildcard in it: write .example.org for a domain with its subdomains"),
    ):
        if sign in text:
            return reason
    if text.startswith("["):
        return _fault_of_ipv6(text)
    if text.count(":") > 1:
        return f"is an IPv6 address without brackets: write [{text}]"
    if ":" in text:
        return "has a port: leave it out, ports do not matter"
    return _fault_of_name(text[1:] if text.startswith(".") else text)


def _fault_of_ipv6(text):
    address, bracket, rest = text[1:].partition("]")
    if not bracket:
        return "has no closing bracket"
    if rest:
        return "has a port: leave it out, ports do not matter"
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return "is not an IPv6 address"
    return "has a zone: leave it out" if "%" in address else None


def _fault_of_name(text):
    if not text:
        return "is a dot alone"
    if text.endswith("."):
        return "ends in a dot: leave it out"
    if not text.isascii():
        return "has letters beyond ASCII: write its punycode form (xn--...)"
    if len(text) > _MOST_CHARACTERS:
        return f"is longer than {_MOST_CHARACTERS} characters"
    labels = text.split(".")
    wrong = [label for label in labels if not _LABEL.fullmatch(label)]
    if wrong:
        return f"has a faulty part {wrong[0]!r}: letters, digits and inner hyphens, 63 at most"
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return "is not an IPv4 address"
    return None
