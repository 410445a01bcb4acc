"""The editor of `.env` files: one variable is set or removed, every other byte stays."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

COLLECTIONS = Path(__file__).resolve().parents[2] / ".collections"
sys.path.insert(0, str(COLLECTIONS))

from ansible_collections.comses.spamops.plugins.module_utils import dotenv_file  # noqa: E402
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused  # noqa: E402

NAME = "LLM_SPAM_CHECK_API_URL"
URL = "http://203.0.113.7:8001"

lines = st.sampled_from(
    [
        "",
        "   ",
        "# a comment with LLM_SPAM_CHECK_API_URL=old",
        "DB_USER=comses",
        "export SECRET='a|b&c$d#e'",
        'QUOTED="two words" # why',
        "PASSWORD=pa|ss&wo$rd#1",
        "EMPTY=",
        "NAME_ALONE",
        'MANY="first\nLLM_SPAM_CHECK_API_URL=not a variable\nlast"',
        "SPACED = value",
        "APOSTROPHE=don't",
        "  INDENTED=x",
        "not a line of such a file !",
        "LLM_SPAM_CHECK_API_URL_OLD=x",
        'ESCAPED="a \\" b"',
        "GRÜSSE=süß",
    ]
)
values = st.one_of(
    st.sampled_from(
        [URL, "", "00000000-0000-4000-8000-000000000000", "a b", "a|b&c$d#e", "it's", "100%", "a=b", "#", '"', "~x"]
    ),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
ends = st.sampled_from(["\n", "\r\n"])


@st.composite
def files(draw: st.DrawFn) -> str:
    text = "\n".join(draw(st.lists(lines, max_size=6))) + draw(st.sampled_from(["", "\n"]))
    text = draw(st.sampled_from(["", "", "\ufeff"])) + text
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


def readers_value(text: str, name: str) -> str | None:
    """What python-dotenv reads, interpolation included, as Compose and Django sites do."""
    return dotenv_values(stream=io.StringIO(text.removeprefix("\ufeff"))).get(name)


@settings(max_examples=500, deadline=None)
@given(files(), values)
def test_a_new_variable_comes_to_the_end_and_the_rest_stays(text: str, value: str) -> None:
    try:
        new = dotenv_file.with_values(text, {NAME: value})
    except Refused:
        assume("'" in value or "\\" in value)
        return
    assert new.startswith(text)
    added = new[len(text) :].lstrip("\r\n")
    assert added.startswith(f"{NAME}=")
    assert added.endswith("\n")
    assert readers_value(new, NAME) == value
    assert dotenv_file.with_values(new, {NAME: value}) == new, "a second run changes nothing"
    assert dotenv_file.without(new, [NAME]) in (text, text + "\n", text + "\r\n")


old_ways = st.sampled_from(
    [
        "{n}=old",
        "export {n}=old",
        "{n} = old",
        '{n}="old | & $X"',
        "{n}='old' # note",
        "  {n}=old # note",
        "{n}=",
        "{n}",
        "{n}= #",
    ]
)


@settings(max_examples=500, deadline=None)
@given(files(), old_ways, files(), values)
def test_a_changed_variable_keeps_its_place_its_export_and_its_comment(a: str, way: str, b: str, value: str) -> None:
    before = a if not a or a.endswith("\n") else a + "\n"
    line = way.format(n=NAME)
    text = before + line + "\n" + b.lstrip("\ufeff")
    try:
        new = dotenv_file.with_values(text, {NAME: value})
    except Refused:
        assume("'" in value or "\\" in value)
        return
    assert new.startswith(before)
    assert new.endswith("\n" + b.lstrip("\ufeff"))
    changed = new[len(before) : len(new) - len("\n" + b.lstrip("\ufeff"))]
    assert ("export " in changed) == ("export " in line)
    assert changed.endswith("# note") == line.endswith("# note")
    assert dotenv_file.value_of(new, NAME) == value
    assert dotenv_file.with_values(new, {NAME: value}) == new


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([URL, "a b", "a$b|c&d"]))
def test_whatever_the_file_it_is_refused_or_only_added_to(raw: bytes, value: str) -> None:
    text = dotenv_file.decoded(raw)
    assert dotenv_file.encoded(text) == raw
    try:
        new = dotenv_file.encoded(dotenv_file.with_values(text, {NAME: value}))
    except Refused:
        return
    assert new.startswith(raw)


@pytest.mark.parametrize("value", [URL, "a b", "a|b&c;d", "a$b", "$(false)", "`false`", "#x", "it's", 'say "x"', "a*b"])
def test_a_shell_reads_the_same_value(tmp_path: Path, value: str) -> None:
    path = tmp_path / ".env"
    path.write_text(dotenv_file.with_values("", {NAME: value}))
    shown = subprocess.run(
        ["sh", "-c", f'. "{path}"; printf %s "${NAME}"'], capture_output=True, text=True, check=True
    ).stdout
    assert shown == value


def test_a_variable_that_is_there_twice_is_set_twice() -> None:
    text = f"{NAME}=a\nX=1\nexport {NAME}='b'\n"
    assert dotenv_file.with_values(text, {NAME: URL}) == f"{NAME}={URL}\nX=1\nexport {NAME}='{URL}'\n"
    assert dotenv_file.without(text, [NAME]) == "X=1\n"


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ('A="open\nB=1\n', URL, "line 1 opens a quote"),
        ("A=1\rB=2\r", URL, "bare carriage returns"),
        (f"{NAME}: x\n", URL, "colon"),
        ("", "a\nb", "line end"),
        ("", "a'b$c", "no way to write"),
        ("", "it's \\", "no way to write"),
    ],
)
def test_what_readers_would_understand_differently_is_refused(text: str, value: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        dotenv_file.with_values(text, {NAME: value})


def test_a_name_that_no_shell_takes_is_refused() -> None:
    with pytest.raises(Refused, match="no name"):
        dotenv_file.with_values("", {"A-B": "1"})
