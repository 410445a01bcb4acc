# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Edit a site's allowed hosts: in a Python settings file, in a settings module of one's own, or in a variable of a `.env` file.
Python 3.8 and the standard library alone."""

from __future__ import annotations

import ast
import io
import re
import tokenize

from ansible_collections.comses.spamops.plugins.module_utils import dotenv_file
from ansible_collections.comses.spamops.plugins.module_utils.host_changes import (
    MARKER_NOTE,
    Result,
    Wanted,
    listed,
    marker,
    marker_pattern,
)
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused
from ansible_collections.comses.spamops.plugins.module_utils.settings_list import OVERLAY, SettingsList


def edit_settings(text, variable, hosts, state, owner="spamops"):
    """The text with the hosts present, absent, or alone in the list (`exact`). Hosts must have been checked.

    Raises Refused where the list cannot be found, understood or edited with certainty.
    """
    if re.search("\r(?!\n)", text):
        raise Refused("the file has bare carriage returns as line ends: convert it to \\n or \\r\\n first")
    first = SettingsList(text, variable, owner)
    settings = first
    wanted = Wanted([value.lower() for value in settings.values], settings.owned, hosts, state)
    if settings.opaque and (state == "exact" or (state == "absent" and hosts)):
        raise Refused(
            f"line {settings.opaque[0].lineno}: a part of {variable} is not written out there ({settings.opaque_words()}), "
            f"so that nobody can say from this file what is in it;"
            f" only state=present, or absent without hosts, can be done. {OVERLAY}"
        )
    for value in wanted.removed:
        settings = SettingsList(settings.without(value), variable, owner)
    for value in wanted.added:
        settings = SettingsList(settings.with_one_more(value), variable, owner)
    if settings.owned != wanted.owned:
        settings = SettingsList(settings.with_marker(wanted.owned), variable, owner)
    _verify(first, settings, wanted)
    return Result(
        settings.text,
        first.values,
        settings.values,
        first.owned,
        settings.owned,
        first.shown(),
        settings.shown(),
        first.warnings,
    )


def _verify(first, last, wanted):
    """Refuse a result that does not compile, has other entries than wanted, or differs anywhere else."""
    try:
        compile(last.text, "settings", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise Refused(f"the changed file would not compile ({error}); nothing was changed. {OVERLAY}") from None
    if _comments(first.text) != _comments(last.text):
        raise Refused("a comment would have been lost; nothing was changed. " + OVERLAY)
    same_entries = sorted(value.lower() for value in last.values) == sorted(wanted.entries)
    if not same_entries or last.owned != wanted.owned or _skeleton(first) != _skeleton(last):
        raise Refused("the change could not be made without touching something else; nothing was changed. " + OVERLAY)


def _comments(text):
    """Every comment but those that mark what is ours, in order; None where the text cannot be split into tokens."""
    try:
        found = [one for one in tokenize.generate_tokens(io.StringIO(text).readline) if one.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        return None
    return [one.string for one in found if MARKER_NOTE not in one.string]


def _skeleton(settings):
    """The file's syntax tree without the strings in the lists in question, for comparing."""
    statements = {id(statement) for statement in settings.statements}
    parts = []
    for node in settings.tree.body:
        if id(node) not in statements:
            parts.append(ast.dump(node))
            continue
        for inner in ast.walk(node.value):
            if isinstance(inner, (ast.List, ast.Tuple)):
                inner.elts = [e for e in inner.elts if not (isinstance(e, ast.Constant) and isinstance(e.value, str))]
        parts.append(ast.dump(node))
    return parts


# A settings module of one's own

_OVERLAY_HEADER = "# Written by spamops (comses.spamops.django_allowed_hosts): what is changed here by hand is lost.\n"


def edit_overlay(text, variable, hosts, state, extends):
    """The text of a settings module that extends another one (`extends`, a dotted name) and adds our hosts to its list; with
    `exact` it replaces the list. `text` is what is there now (None: nothing).

    Raises Refused where the file is somebody else's.
    """
    before = []
    if text is not None:
        if not text.startswith(_OVERLAY_HEADER):
            raise Refused("the file is not one that spamops wrote, and is left alone: give the overlay another path")
        before = _overlay_hosts(text)
    after = ([host for host in before if host not in hosts] if hosts else []) if state == "absent" else list(hosts)
    new = _overlay_text(variable, after, extends, alone=state == "exact")
    compile(new, "settings", "exec", dont_inherit=True)
    return Result(new, before, after, before, after, text or "", new, [])


def _overlay_text(variable, hosts, extends, alone):
    lines = [
        _OVERLAY_HEADER.rstrip("\n"),
        f"# The site's own settings, and {variable} with the checker's address. Named in DJANGO_SETTINGS_MODULE.",
        f"from {extends} import *  # noqa: F401,F403",
    ]
    entries = [f'"{host}"' for host in hosts]
    if not alone:
        lines.append(f"from {extends} import {variable} as _SITE_HOSTS")
        entries.insert(0, "*_SITE_HOSTS")
    return "\n".join([*lines, "", "{} = [{}]".format(variable, ", ".join(entries)), ""])


def _overlay_hosts(text):
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise Refused(f"the file is damaged ({error}): remove it and run again") from None
    found = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            found = [e.value for e in node.value.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    return found


# A variable of the environment


def edit_value(value, hosts, state, owned, separator=","):
    """A variable's value with the hosts in it: the new value, and which are ours. Others' pieces stay as they are, blanks
    included.

    Raises Refused where the value is no such list.
    """
    pieces = value.split(separator) if value.strip() else []
    if value.strip().startswith(("[", "(", "{")) and re.search("[\"']", value):
        raise Refused(f"the value looks like JSON or Python, not like names with {separator!r} between them")
    names = [piece.strip().lower() for piece in pieces]
    if state in ("exact", "absent") and any("$" in name for name in names) and hosts:
        raise Refused("the value takes a part from another variable ($): only state=present can be done")
    wanted = Wanted([name for name in names if name], owned, hosts, state)
    for host in wanted.removed:
        index = len(names) - 1 - names[::-1].index(host)
        del names[index]
        del pieces[index]
    if pieces and not pieces[-1].strip():
        pieces[-1:] = [*wanted.added, pieces[-1]] if wanted.added else [pieces[-1]]
    else:
        pieces += wanted.added
    return separator.join(pieces), wanted.owned


def edit_env(text, variable, hosts, state, owner, separator):
    """A `.env` file's text with the hosts in one variable: the result, and the new file's bytes.

    Raises Refused.
    """
    settings = [setting for setting in dotenv_file.settings_of(text) if setting.name == variable]
    if len(settings) > 1:
        raise Refused(f"{variable} is set {len(settings)} times: leave one of them")
    value = dotenv_file.value_of(text, variable)
    if settings and value is None:
        raise Refused(f"the value of {variable} depends on other variables or on its reader: write it out")
    owned = _env_marker(text, settings, owner)[1]
    new_value, new_owned = edit_value(value or "", hosts, state, owned, separator)
    new = text
    if new_value != (value or ""):
        new = dotenv_file.with_values(text, {variable: new_value})
    if new_owned != owned:
        new = _with_env_marker(new, variable, owner, new_owned)
    parts = [[one.strip() for one in each.split(separator) if one.strip()] for each in (value or "", new_value)]
    shown = [_env_shown(each, variable, owner) for each in (text, new)]
    result = Result(new, parts[0], parts[1], owned, new_owned, shown[0], shown[1], [])
    return result, dotenv_file.encoded(new)


def _env_marker(text, settings, owner):
    """Offsets of the marker's line above the variable (None: there is none), and whose hosts it names."""
    if not settings or settings[0].start == 0:
        return None, []
    end = settings[0].start
    start = text.rfind("\n", 0, end - 1) + 1
    match = marker_pattern(owner).fullmatch(text[start:end])
    return ((start, end), listed(match)) if match else (None, [])


def _with_env_marker(text, variable, owner, owned):
    settings = [setting for setting in dotenv_file.settings_of(text) if setting.name == variable]
    place = _env_marker(text, settings, owner)[0]
    start, end = place or (settings[0].start, settings[0].start)
    ending = "\r\n" if text[: settings[0].end].endswith("\r\n") else "\n"
    return text[:start] + (marker(owner, owned) + ending if owned else "") + text[end:]


def _env_shown(text, variable, owner):
    settings = [setting for setting in dotenv_file.settings_of(text) if setting.name == variable]
    if not settings:
        return ""
    place = _env_marker(text, settings, owner)[0]
    return text[place[0] if place else settings[0].start : settings[0].end].replace("\r", "")


def decoded(raw):
    """Text, encoding and byte order mark of a Python file, as Python reads it.

    Raises Refused.
    """
    try:
        encoding, _dummy = tokenize.detect_encoding(io.BytesIO(raw).readline)
        mark = b""
        if encoding == "utf-8-sig":
            encoding, mark = "utf-8", b"\xef\xbb\xbf"
        text = raw[len(mark) :].decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise Refused(f"the file is not in the encoding that it claims ({type(error).__name__})") from None
    if mark + text.encode(encoding) != raw:
        raise Refused(f"the file's encoding {encoding} does not come out as it went in")
    return text, encoding, mark
