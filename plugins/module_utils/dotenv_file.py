# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Set and remove single variables in a `.env` file, and leave every other byte as it is. Read as python-dotenv and Docker
Compose read such files: `export`, quotes over several lines, comments behind values. Python 3.8 and the standard library alone.
"""

from __future__ import annotations

import re

from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEAD = re.compile(r"(?P<indent>[ \t]*)(?P<export>export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P<gap>[ \t]*)")
_SAFE = re.compile(r"[A-Za-z0-9_./:@%+,=^-]*")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}


class _Setting:
    """One assignment: offsets of its first line's start, of its value, and of the end of its last line (line end included).
    `value` is what it stands for, or None where that depends on other variables or there is no `=`."""

    def __init__(self, name, start, value_start, value_end, end, value, quote, has_equals):
        self.name = name
        self.start = start
        self.value_start = value_start
        self.value_end = value_end
        self.end = end
        self.value = value
        self.quote = quote
        self.has_equals = has_equals


def decoded(raw):
    """Text of the bytes; whatever is not UTF-8 comes out again as it went in."""
    return raw.decode("utf-8", "surrogateescape")


def encoded(text):
    """Bytes of the text."""
    return text.encode("utf-8", "surrogateescape")


def settings_of(text):
    """Every assignment, in order.

    Raises Refused where a quote is never closed, or lines end in bare carriage returns.
    """
    if re.search("\r(?!\n)", text):
        raise Refused("the file has bare carriage returns as line ends: convert it to \\n first")
    found, position = [], 1 if text.startswith("\ufeff") else 0
    while position < len(text):
        line_end = text.find("\n", position)
        line_end = len(text) if line_end < 0 else line_end
        head = _HEAD.match(text, position, line_end)
        if head is None:
            position = line_end + 1
            continue
        after = head.end()
        sign = text[after : after + 1]
        if sign == "=":
            setting = _assignment(text, head, after + 1, line_end)
            found.append(setting)
            position = max(setting.end, position + 1)
            continue
        stripped = text[after:line_end].rstrip("\r")
        if not stripped or stripped.startswith("#"):  # a name alone: taken from the shell
            found.append(
                _Setting(
                    head.group("name"), position, head.end("name"), head.end("name"), line_end + 1, None, "", False
                )
            )
        elif sign == ":":
            found.append(_Setting(head.group("name"), position, -1, -1, line_end + 1, None, "", False))
        position = line_end + 1
    return found


def value_of(text, name):
    """The value that counts (the last one), or None where there is none or it depends on other variables."""
    values = [setting.value for setting in settings_of(text) if setting.name == name]
    return values[-1] if values else None


def with_values(text, values):
    """The text with every variable set. A variable that is there several times is set everywhere: readers differ about which
    one counts.

    Raises Refused.
    """
    for name, value in values.items():
        if not NAME.fullmatch(name):
            raise Refused(f"{name!r} is no name of a variable")
        text = _with_value(text, name, value)
    return text


def without(text, names):
    """The text without the lines of these variables.

    Raises Refused.
    """
    for setting in reversed(settings_of(text)):
        if setting.name in names:
            text = text[: setting.start] + text[setting.end :]
    return text


def _with_value(text, name, value):
    there = [setting for setting in settings_of(text) if setting.name == name]
    for setting in reversed(there):
        if setting.value_start < 0:
            raise Refused(f"{name} is written with a colon, which not every reader takes: write it with =")
        if setting.value == value:
            continue
        written = _written(name, value, setting.quote)
        if not setting.has_equals:
            written = "=" + written
        text = text[: setting.value_start] + written + text[setting.value_end :]
    if not there:
        ending = "\r\n" if "\r\n" in text and "\n" not in text.replace("\r\n", "") else "\n"
        gap = ending if text.strip("\ufeff") and not text.endswith("\n") else ""
        text += gap + name + "=" + _written(name, value, "") + ending
    found = [setting.value for setting in settings_of(text) if setting.name == name]
    if not found or any(one != value for one in found):
        raise Refused(f"{name} could not be set so that it is read back the same; nothing was changed")
    return text


def _written(name, value, quote):
    """The value as it is written, readable for python-dotenv, Docker Compose and a shell alike; in the quotes that were there
    where that can be."""
    if re.search("[\0\r\n]", value):
        raise Refused(f"the value of {name} has a line end or a NUL in it")
    if _SAFE.fullmatch(value):
        return quote + value + quote
    if "'" not in value and "\\" not in value:
        return "'" + value + "'"
    if not re.search(r"[$`\\!]", value):
        return '"' + value.replace('"', '\\"') + '"'
    raise Refused(
        f"the value of {name} has a quote or backslash beside signs that readers of such files understand differently: there is no"
        " way to write it that all take"
    )


def _assignment(text, head, start, line_end):
    while start < line_end and text[start] in " \t":
        start += 1
    begin, name = head.start(), head.group("name")
    first = text[start : start + 1]
    if first in ("'", '"'):
        close = _closing(text, start, first)
        if close is None:
            line = text.count("\n", 0, start) + 1
            raise Refused(f"line {line} opens a quote that never closes: mend it first")
        end = text.find("\n", close)
        end = len(text) if end < 0 else end
        rest = text[close + 1 : end].strip()
        if not rest or rest.startswith("#"):
            value = _unquoted(text[start + 1 : close], first)
            return _Setting(name, begin, start, close + 1, end + 1, value, first, True)
        # Quoted and more behind it, as in a shell: only the whole can be replaced.
        return _Setting(name, begin, start, start + len(text[start:end].rstrip()), end + 1, None, "", True)
    raw = text[start:line_end]
    comment = re.search(r"(?:^|\s)#", raw)
    value = (raw[: comment.start()] if comment else raw).rstrip()
    known = None if "$" in value or "\\" in value else value
    return _Setting(name, begin, start, start + len(value), line_end + 1, known, "", True)


def _closing(text, start, quote):
    position = start + 1
    while position < len(text):
        if text[position] == "\\" and text[position + 1 : position + 2]:
            position += 2
            continue
        if text[position] == quote:
            return position
        position += 1
    return None


def _unquoted(inner, quote):
    """What a quoted value stands for; None where readers differ."""
    if quote == "'":
        return None if "\\" in inner else inner
    if re.search(r"[$`]", inner) or re.search(r"\\[^\"]", inner):
        return None
    return inner.replace('\\"', '"')
