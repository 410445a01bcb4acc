# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Which texts are no secrets, and how two are compared without showing them. Python 3.8 and the standard library alone."""

from __future__ import annotations

import hashlib
import re

WELL_KNOWN = frozenset(
    [
        "unconfigured",  # what the CoMSES site falls back to when its key file is missing or empty
        "changeme",
        "example-key",
        "secret",
        "password",
        "placeholder",
        "todo",
        "none",
        "null",
        "undefined",
    ]
)
_PLACEHOLDER = re.compile(
    r"change.?me|place.?holder|example|unconfigured|your[-_ ]|replace|<[^>]*>|\{\{.*\}\}|\$\{.*\}|^(.)\1*$",
    re.IGNORECASE,
)
FINGERPRINT_CHARACTERS = 12


def fault_of(text, least):
    """Why this is no usable secret, in words that do not show it; None where it is one. `least` is a number of characters."""
    text = text.strip()
    if not text:
        return "is empty"
    if text.lower() in WELL_KNOWN:
        return "is a word that everybody knows"
    if len(text) < least:
        return f"has {len(text)} characters, {least} or more are needed"
    if _PLACEHOLDER.search(text):
        return "looks like a placeholder that nobody has replaced"
    if not text.isascii() or not text.isprintable() or " " in text:
        return "has other characters than printable ASCII, or blanks inside: it travels in an HTTP header"
    return None


def fingerprint(text):
    """A short digest, the same for the same secret, from which a strong one cannot be found."""
    return hashlib.sha256(b"spamops fingerprint\0" + text.strip().encode("utf-8")).hexdigest()[:FINGERPRINT_CHARACTERS]
