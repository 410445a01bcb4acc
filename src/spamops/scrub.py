"""Text without secrets and personal data, for a bundle that leaves the house.

Known secrets go by their value, in every form in which they usually appear; the rest goes by its look: what stands behind a
telling name (password=, "token":, Authorization:), keys and tokens of known forms, any long random word, texts of items and
prompts, e-mail addresses, and public IP addresses. An IP address becomes a label that is the same throughout one bundle, so
that two lines can still be seen to speak of the same host; private and loopback addresses, UUIDs and the digests of models
stay. Better one word too many is removed than one too few.
"""

from __future__ import annotations

import base64
import html
import ipaddress
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, urlsplit

LEAST_SECRET_CHARACTERS = 6
"""A known secret that is shorter is no secret, and would take half of every line with it."""
LEAST_RANDOM_CHARACTERS = 24
CHANGES_OF_RANDOM = 0.3
"""Share of places in a word where the kind of character changes (small, capital, digit): about 0.6 in random base64, 0.45 in
random hexadecimal digits, below 0.2 in words and paths."""
CHANGES_OF_MIXED = 0.4
"""The same, where nothing but that tells."""
LONGEST_NAME = 16

_TELLING_NAMES = (
    r"(?:[\w.-]{0,40}(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|apikey|private[_-]?key|access[_-]?key"
    r"|payload[_-]?key|encryption[_-]?key|credential|signature|x-amz-[\w-]{1,40}|pwd)[\w.-]{0,40}"
    r"|(?:pgpassword|cookie|set-cookie|session(?:id|_id)?|csrf\w{0,20}|jwt|bearer|sig|key|auth))"
)
_TEXT_NAMES = (
    r"(?:prompt|content|messages?_?content|text|body|title|bio|description|reasoning|response|images|system_prompt)"
)
_QUOTED = r'"(?:[^"\\\n]|\\.){0,100000}"?|\'(?:[^\'\\\n]|\\.){0,100000}\'?'
_ESCAPED = r'\\"(?:[^"\\\n]|\\\\.){0,100000}\\?"?'  # JSON inside of JSON, or inside of a quoted word of a log line

_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY|CERTIFICATE)[A-Z ]{0,20}-----.*?(?:-----END [A-Z0-9 ]{0,60}-----|\Z)",
    re.S,
)
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|x-[\w-]{0,30}(?:key|token|secret)|cookie|set-cookie)(\\?[\"']?\s{0,4}[:=]\s{0,4})([^\n]+)"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)(\s{1,4})([A-Za-z0-9._~+/=-]{6,})")
_NAMED = re.compile(
    rf"(?i)(?<![\w])({_TELLING_NAMES})(\\?[\"']?\s{{0,4}}(?:=>|[:=])\s{{0,4}})({_ESCAPED}|{_QUOTED}|[^\s,;&\"'\\]+)"
)
_OPTION = re.compile(rf"(?i)(?<!\S)(--?{_TELLING_NAMES})(\s{{1,4}})([^\s-]\S*)")
_TEXTS = re.compile(rf"(?i)(?<![\w])({_TEXT_NAMES})(\\?[\"']?\s{{0,4}}[:=]\s{{0,4}})({_ESCAPED}|{_QUOTED}|[^\n]+)")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,30}://)[^\s/@\"'<>]{1,500}@")
_HOOK = re.compile(
    r"(?i)(https?://(?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks|[\w.-]{1,100}\.webhook\.office\.com)/)\S+"
)
_KNOWN_FORMS = re.compile(
    r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?|\bgAAAA[\w=-]{20,}|\b(?:gh[pousr]|github_pat|glpat|hf|sk|pk|rk|xox[abprs])[_-][\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|\bssh-(?:rsa|ed25519|dss) [A-Za-z0-9+/=]{20,}|\becdsa-sha2-\S+ [A-Za-z0-9+/=]{20,}"
)
_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_KEPT = re.compile(rf"{_UUID}|sha256[:-][0-9a-f]{{12,64}}|check-spam-[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]{{6}}")
_WORD = re.compile(
    rf"(?<![\w-])(?P<kept>{_KEPT.pattern})(?![\w-])"
    rf"|SHA256:[A-Za-z0-9+/]{{43}}|[A-Za-z0-9+/_=-]{{{LEAST_RANDOM_CHARACTERS},}}"
)
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.!#$&*+/=?^{|}~'-]{1,64}(?:@|%40|\s?\[at\]\s?|\s?\(at\)\s?)((?:[\w-]{1,63}\.){1,8}[^\W\d_][\w-]{1,62})"
)
_UNIT_ENDINGS = frozenset("service socket slice target mount timer scope path device swap".split())
_IP4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]{0,45}:[0-9A-Fa-f:]{0,45}:)[0-9A-Fa-f:]{2,45}(?:\.\d{1,3}){0,3}(?![\w:])")
_MAC = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])")
_CONTROLS = re.compile(r"\x1b\[[0-?]{0,50}[ -/]{0,10}[@-~]|\x1b\][^\x07\x1b\n]{0,1000}(?:\x07|\x1b\\)?")


class Scrubber:
    """Removes from texts; one for each bundle, because its labels belong to it. `removed` counts what went, by kind.

    `secrets` are values that must not appear; `own_hosts` are addresses that are no personal data, by the label to show.
    """

    def __init__(self, secrets: Iterable[str] = (), own_hosts: dict[str, str] | None = None) -> None:
        self.removed: Counter[str] = Counter()
        forms = {form for secret in secrets for form in _forms(secret)}
        alternatives = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._known = re.compile(alternatives, re.IGNORECASE) if alternatives else None
        self._labels: dict[str, str] = {}
        for host, label in (own_hosts or {}).items():
            self._labels[_canonical(host) or host] = label

    def __call__(self, text: str) -> str:
        """The text without them, and without anything that a terminal would act on."""
        # First what could stand in the middle of a secret and hide it from all that follows.
        text = _CONTROLS.sub("", text.replace("\r\n", "\n"))
        text = "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)
        if self._known is not None:
            text = self._known.sub(lambda _: self._gone("secret"), text)
        text = _PEM.sub(lambda _: self._gone("key"), text)
        text = _HEADER.sub(lambda found: f"{found[1]}{found[2]}{self._gone('secret')}", text)
        text = _SCHEME.sub(lambda found: f"{found[1]}{found[2]}{self._gone('secret')}", text)
        text = _HOOK.sub(lambda found: f"{found[1]}{self._gone('secret')}", text)
        text = _USERINFO.sub(lambda found: f"{found[1]}{self._gone('secret')}@", text)
        text = _TEXTS.sub(lambda found: f"{found[1]}{found[2]}{self._gone('text')}", text)
        text = _NAMED.sub(self._named, text)
        text = _OPTION.sub(lambda found: f"{found[1]}{found[2]}{self._gone('secret')}", text)
        text = _KNOWN_FORMS.sub(lambda _: self._gone("key"), text)
        text = _EMAIL.sub(self._email, text)
        text = _MAC.sub(lambda _: self._gone("mac"), text)
        text = _WORD.sub(self._word, text)
        text = _IP6.sub(self._address, text)
        return _IP4.sub(self._address, text)

    def _gone(self, kind: str) -> str:
        self.removed[kind] += 1
        return f"[{kind} removed]"

    def _named(self, found: re.Match[str]) -> str:
        if "removed]" in found[3] or found[3].startswith("["):
            return found[0]
        return f"{found[1]}{found[2]}{self._gone('secret')}"

    def _email(self, found: re.Match[str]) -> str:
        return found[0] if found[1].rpartition(".")[2] in _UNIT_ENDINGS else self._gone("email")

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        path, _, last = word.rpartition("/")
        if found["kept"] or (_KEPT.fullmatch(last) and not (path and looks_random(path))):
            return word
        return self._gone("key") if looks_random(word) else word

    def _address(self, found: re.Match[str]) -> str:
        canonical = _canonical(found[0])
        if canonical is None:
            return found[0]
        if canonical not in self._labels:
            address = ipaddress.ip_address(canonical)
            if not address.is_global:
                return found[0]
            self._labels[canonical] = f"[ip {len(self._labels) + 1}]"
        self.removed["ip"] += 1
        return self._labels[canonical]


def looks_random(word: str) -> bool:
    """Whether a word of LEAST_RANDOM_CHARACTERS or more looks like a key and not like a name or a path."""
    if _HEX.search(word):
        return True
    kinds = [_kind(character) for character in word]
    share = sum(a != b for a, b in itertools.pairwise(kinds)) / max(1, len(kinds) - 1)
    letters, digits = {"a", "A"} & set(kinds), "0" in kinds
    if max(map(len, word.split("/"))) < LONGEST_NAME:
        # A path of short names, as a rule; base64 with many slashes mixes all kinds.
        return digits and len(letters) == 2 and share >= CHANGES_OF_MIXED
    return (digits and bool(letters) and share >= CHANGES_OF_RANDOM) or (
        len(letters) == 2 and share >= CHANGES_OF_MIXED
    )


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    if character.isalpha():
        return "a" if character.islower() else "A"
    return "-"


def _canonical(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _forms(secret: str) -> set[str]:
    """The secret as it may stand in a log: as it is, quoted for addresses, JSON and HTML, in base64, and the parts of an
    address that are secrets by themselves."""
    secret = secret.strip()
    plain = {secret, unquote(secret)}
    if "://" in secret:
        # Of a notifier's address every part is a secret, but for the scheme and the names of well-known hosts.
        parts = urlsplit(secret)
        plain |= {unquote(parts.password or ""), unquote(parts.username or "")}
        plain |= {secret.partition("://")[2]}
        plain |= {
            part for part in re.split(r"[/?&=@:]", secret.partition("://")[2]) if len(part) >= 8 and "." not in part
        }
    found = set()
    for text in plain:
        if len(text) < LEAST_SECRET_CHARACTERS:
            continue
        encoded = text.encode()
        found |= {
            text,
            quote(text, safe=""),
            quote_plus(text),
            json.dumps(text)[1:-1],
            html.escape(text),
            repr(text)[1:-1],
        }
        found |= {base64.b64encode(encoded).decode().rstrip("="), encoded.hex()}
        found |= {base64.urlsafe_b64encode(encoded).decode().rstrip("=")}
    return found
