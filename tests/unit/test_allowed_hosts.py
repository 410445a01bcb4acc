"""The editor of ALLOWED_HOSTS: whatever the settings file, others' entries, comments and code come out byte for byte."""

from __future__ import annotations

import ast
import io
import string
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

COLLECTIONS = Path(__file__).resolve().parents[2] / ".collections"
sys.path.insert(0, str(COLLECTIONS))

from ansible_collections.comses.spamops.plugins.module_utils import allowed_hosts  # noqa: E402
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused, checked_hosts  # noqa: E402

OURS = ["203.0.113.7", "checker.example.net", "[2001:db8::7]", "198.51.100.9"]
OTHERS = [".comses.net", "localhost", "127.0.0.1", "www.example.org", "WWW.Example.ORG", "server", "a" * 63 + ".org"]


def edit(text: str, hosts: list[str], state: str = "present", variable: str = "ALLOWED_HOSTS") -> str:
    result: str = allowed_hosts.edit_settings(text, variable, hosts, state).text
    return result


def evaluated(text: str) -> list[str]:
    """What the file makes of the list, by running it."""
    scope: dict[str, Any] = {}
    exec(compile(text, "settings", "exec"), scope)
    assert isinstance(scope["ALLOWED_HOSTS"], list | tuple)
    return list(scope["ALLOWED_HOSTS"])


# Files

blanks = st.sampled_from(["", " ", "  ", "\t"])
comments = st.sampled_from(["", "", "  # ours?", " # [a, 'b']", "#,", "  # naïve ☃"])
quotes = st.sampled_from(["'", '"', "u'", 'r"', "'''"])
other_lines = st.sampled_from(
    [
        "import os",
        "DEBUG = False",
        '"""A docstring with ALLOWED_HOSTS = [\'x\']\n  in it."""',
        "# ALLOWED_HOSTS = ['old']",
        "INSTALLED_APPS = [\n    'a',  # first\n    'b',\n]",
        "SECRET_KEY = 'ß☃[,]#'",
        "def f(ALLOWED_HOSTS):\n    ALLOWED_HOSTS = ['inner']\n    return ALLOWED_HOSTS",
        "X = (1,\n     2)",
        "",
        "if DEBUG_ := False:\n    pass",
        "\x0c",
    ]
)


def written(value: str, quote: str) -> str:
    return quote + value + quote.lstrip("ur")


@st.composite
def lists(draw: st.DrawFn, values: list[str]) -> str:
    """A list or tuple as people write them."""
    tuple_ = draw(st.booleans())
    bare = tuple_ and len(values) > 0 and draw(st.booleans())
    many_lines = not bare and draw(st.booleans())
    parts = []
    for index, value in enumerate(values):
        entry = written(value, draw(quotes))
        if draw(st.integers(0, 9)) == 0:
            entry = f"({entry})"
        last = index == len(values) - 1
        comma = not last or draw(st.booleans()) or (tuple_ and len(values) == 1)
        text = draw(blanks) + entry + draw(blanks) + ("," if comma else "")
        if many_lines:
            text = (
                draw(st.sampled_from(["", "\n    # about the next\n", "\n\n"])) + "    " + text + draw(comments) + "\n"
            )
        elif not bare and draw(st.integers(0, 5)) == 0:
            text += draw(comments) + "\n      "
        parts.append(text)
    inner = "".join(parts)
    if bare:
        return inner.strip()
    if many_lines:
        inner = draw(comments) + "\n" + inner + draw(st.sampled_from(["", "    # the end\n", "\n"]))
    elif not values:
        inner = draw(st.sampled_from(["", " ", "\n", "\n    # nobody\n", "  # nobody\n  "]))
    return ("({})" if tuple_ else "[{}]").format(inner)


@st.composite
def files(draw: st.DrawFn, least: int = 0) -> tuple[str, list[str]]:
    """A settings file, and what it makes of the list."""
    values = draw(st.lists(st.sampled_from(OTHERS), min_size=least, max_size=5))
    before = draw(st.lists(other_lines, max_size=4))
    head = draw(
        st.sampled_from(["ALLOWED_HOSTS = ", "ALLOWED_HOSTS=", "ALLOWED_HOSTS: list = ", "Y = 1; ALLOWED_HOSTS = "])
    )
    split = draw(st.integers(0, len(values)))
    first = draw(lists(values[:split]))
    statement = head + first
    if draw(st.booleans()):
        # `list += tuple` is fine, `tuple += list` is not, as when Django itself runs it.
        second = draw(lists(values[split:]))
        assume(second[:1] in "[(" and first[:1] == second[:1] == "[")
        statement += draw(comments) + "\n" + draw(other_lines) + "\nALLOWED_HOSTS += " + second
    else:
        values = values[:split]
    statement += draw(st.sampled_from(["", "  # after", "; Z = 2"]))
    text = "\n".join([*before, statement, *draw(st.lists(other_lines, max_size=3))]) + draw(st.sampled_from(["", "\n"]))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return text, values


def comments_of(text: str) -> list[str]:
    """Every comment but our own, in order."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return [comment for comment in found if "(spamops keeps this line)" not in comment]


def others_of(text: str) -> list[str]:
    """The file's syntax tree without the list's strings, one text a statement."""
    tree = ast.parse(text)
    for node in tree.body:
        named = isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and "ALLOWED_HOSTS" in {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load)
        }
        if named:
            assert isinstance(node.value, ast.List | ast.Tuple)
            node.value.elts = []
    return [ast.dump(node) for node in tree.body]


def ends_of(text: str) -> set[str]:
    return {"\r\n" if line.endswith("\r\n") else "\n" for line in text.splitlines(keepends=True) if line[-1] in "\r\n"}


ours = st.lists(st.sampled_from(OURS), min_size=1, max_size=3, unique=True)


@settings(max_examples=400, deadline=None)
@given(files(), ours)
def test_an_address_is_let_in_and_nothing_else_is_touched(file: tuple[str, list[str]], hosts: list[str]) -> None:
    text, values = file
    new = edit(text, hosts)
    assert sorted(evaluated(new)) == sorted(values + hosts)
    assert [value for value in evaluated(new) if value not in hosts] == values
    assert comments_of(new) == comments_of(text)
    assert others_of(new) == others_of(text)
    if len(ends_of(text)) == 1:
        assert ends_of(new) == ends_of(text)
    assert edit(new, hosts) == new, "a second run changes nothing"


@settings(max_examples=300, deadline=None)
@given(files(), ours)
def test_taking_back_what_was_put_there_gives_the_file_as_it_was(file: tuple[str, list[str]], hosts: list[str]) -> None:
    text, values = file
    back = edit(edit(text, hosts), [], "absent")
    assert evaluated(back) == values
    assert comments_of(back) == comments_of(text)
    assert others_of(back) == others_of(text)
    if values and "\\" not in text:
        # What may stay behind is a comma after the last entry, and brackets around a tuple that had none.
        def plain(whole: str) -> str:
            return "".join(sign for sign in whole if sign not in "(), \t\r\n")

        assert plain(back) == plain(text)


@settings(max_examples=300, deadline=None)
@given(files(), ours, ours)
def test_an_old_address_of_ours_goes_when_a_new_one_comes(
    file: tuple[str, list[str]], old: list[str], new: list[str]
) -> None:
    text, values = file
    moved = edit(edit(text, old), new)
    assert sorted(evaluated(moved)) == sorted(values + new)
    assert comments_of(moved) == comments_of(text)
    assert edit(moved, new) == moved


@settings(max_examples=300, deadline=None)
@given(files(least=1), st.data())
def test_what_is_taken_out_is_gone_and_the_rest_stays(file: tuple[str, list[str]], data: st.DataObject) -> None:
    text, values = file
    assume(values)
    gone = data.draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
    lower = {value.lower() for value in gone}
    new = edit(text, checked_hosts(gone), "absent")
    assert evaluated(new) == [value for value in values if value.lower() not in lower]
    assert comments_of(new) == comments_of(text)
    assert others_of(new) == others_of(text)
    assert edit(new, checked_hosts(gone), "absent") == new


@settings(max_examples=300, deadline=None)
@given(files(), ours, st.lists(st.sampled_from(OTHERS), max_size=2))
def test_exact_leaves_nothing_else(file: tuple[str, list[str]], hosts: list[str], kept: list[str]) -> None:
    text, _ = file
    wanted = checked_hosts([*kept, *hosts])
    new = edit(text, wanted, "exact")
    assert sorted(value.lower() for value in evaluated(new)) == sorted(wanted)
    assert comments_of(new) == comments_of(text)
    assert others_of(new) == others_of(text)
    assert edit(new, wanted, "exact") == new


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.printable + "ß☃", max_size=200), ours)
def test_garbage_is_refused_or_edited_but_never_broken(junk: str, hosts: list[str]) -> None:
    for text in (junk, f"{junk}\nALLOWED_HOSTS = []\n", f"ALLOWED_HOSTS = [{junk}]\n"):
        try:
            new = edit(text, hosts)
        except Refused:
            continue
        compile(new, "settings", "exec")
        assert edit(new, hosts) == new


# What people write

EDITED = [
    ("ALLOWED_HOSTS = []\n", 'ALLOWED_HOSTS = ["203.0.113.7"]\n'),
    ("ALLOWED_HOSTS = ['.comses.net']\n", "ALLOWED_HOSTS = ['.comses.net', '203.0.113.7']\n"),
    ('ALLOWED_HOSTS = (".comses.net",)\n', 'ALLOWED_HOSTS = (".comses.net", "203.0.113.7",)\n'),
    ("ALLOWED_HOSTS = ()\n", 'ALLOWED_HOSTS = ("203.0.113.7",)\n'),
    ('ALLOWED_HOSTS = ".comses.net",\n', 'ALLOWED_HOSTS = (".comses.net", "203.0.113.7",)\n'),
    (
        'ALLOWED_HOSTS = [\n    "a.org",  # the site\n    # the end\n]\n',
        'ALLOWED_HOSTS = [\n    "a.org",  # the site\n    "203.0.113.7",\n    # the end\n]\n',
    ),
    (
        'ALLOWED_HOSTS = [\n    "a.org"  # the site\n]\n',
        'ALLOWED_HOSTS = [\n    "a.org",  # the site\n    "203.0.113.7"\n]\n',
    ),
    ("ALLOWED_HOSTS = [\n]\n", 'ALLOWED_HOSTS = [\n    "203.0.113.7",\n]\n'),
    (
        'from .base import *\nALLOWED_HOSTS += ["a.org"]\n',
        'from .base import *\nALLOWED_HOSTS += ["a.org", "203.0.113.7"]\n',
    ),
    (
        'import os\nALLOWED_HOSTS = ["a.org", os.environ["H"], *MORE]\n',
        'import os\nALLOWED_HOSTS = ["a.org", os.environ["H"], *MORE, "203.0.113.7"]\n',
    ),
    ('ALLOWED_HOSTS = BASE + ["a.org"]\n', 'ALLOWED_HOSTS = BASE + ["a.org", "203.0.113.7"]\n'),
    ('ALLOWED_HOSTS = ["a"]\nALLOWED_HOSTS = ["b"]\n', 'ALLOWED_HOSTS = ["a"]\nALLOWED_HOSTS = ["b", "203.0.113.7"]\n'),
    ('ALLOWED_HOSTS = [f"{A}, {B}"]\n', 'ALLOWED_HOSTS = [f"{A}, {B}", "203.0.113.7"]\n'),
]
MARK = "# spamops added: 203.0.113.7 (spamops keeps this line)"


@pytest.mark.parametrize(("before", "after"), EDITED)
def test_the_list_keeps_its_style(before: str, after: str) -> None:
    lines = edit(before, ["203.0.113.7"]).split("\n")
    assert lines.count(MARK) == 1
    assert "\n".join(line for line in lines if line != MARK) == after


REFUSED = [
    ("ALLOWED_HOSTS = env.list('HOSTS')", "from a call \\(env.list\\(...\\)\\).*environment variable"),
    ("ALLOWED_HOSTS = os.environ['H'].split(',')", "from a call"),
    ("ALLOWED_HOSTS = '*'", "no list"),
    ("ALLOWED_HOSTS = {'a'}", "cannot be edited with certainty"),
    ("ALLOWED_HOSTS = ['a'] if DEBUG else []", "cannot be edited with certainty"),
    ("ALLOWED_HOSTS = [h for h in ()]", "cannot be edited with certainty"),
    ("if DEBUG:\n    ALLOWED_HOSTS = ['a']", "under a condition"),
    ("ALLOWED_HOSTS = []\ntry:\n    from x import ALLOWED_HOSTS\nexcept ImportError:\n    pass", "under a condition"),
    ("ALLOWED_HOSTS = []\nALLOWED_HOSTS.append('a')", "in place"),
    ("ALLOWED_HOSTS = ['a']\nALLOWED_HOSTS[0] = 'b'", "in place"),
    ("ALLOWED_HOSTS = OTHER = []", "several names"),
    ("ALLOWED_HOSTS, B = [], []", "together with other names"),
    ("ALLOWED_HOSTS = []\ndef f():\n    global ALLOWED_HOSTS\n    ALLOWED_HOSTS = []", "within a function"),
    ("HOSTS = []", "nothing in this file sets"),
    ("ALLOWED_HOSTS = BASE", "not a list or tuple that is written out"),
    ("ALLOWED_HOSTS = [", "cannot parse"),
    ("ALLOWED_HOSTS = []\rX = 1\r", "bare carriage returns"),
    ("ALLOWED_HOSTS *= 2", "another operator"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_the_file_does_not_show_with_certainty_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        edit(text, ["203.0.113.7"])


@pytest.mark.parametrize("state", ["absent", "exact"])
def test_nothing_is_promised_of_entries_that_are_not_written_out(state: str) -> None:
    for text in (
        "ALLOWED_HOSTS = ['a', *MORE]",
        "from .base import *\nALLOWED_HOSTS += ['a']",
        "ALLOWED_HOSTS = ['a'] + B",
    ):
        with pytest.raises(Refused, match="not written out"):
            edit(text, ["a"], state)


def test_a_refusal_shows_no_secret_of_the_settings() -> None:
    with pytest.raises(Refused) as caught:
        edit("ALLOWED_HOSTS = env('H', default='s3cret-word')", ["203.0.113.7"])
    assert "s3cret" not in str(caught.value)


def test_what_others_put_there_stays_though_it_is_what_we_want_too() -> None:
    text = 'ALLOWED_HOSTS = ["203.0.113.7"]\n'
    assert edit(text, ["203.0.113.7"]) == text, "it was there before us and is not ours"
    assert evaluated(edit(text, ["198.51.100.9"])) == ["203.0.113.7", "198.51.100.9"]


def test_a_later_import_of_everything_is_warned_of() -> None:
    text = "ALLOWED_HOSTS = []\ntry:\n    from .local import *\nexcept ImportError:\n    pass\n"
    result = allowed_hosts.edit_settings(text, "ALLOWED_HOSTS", ["203.0.113.7"], "present")
    assert "line 3 imports everything" in result.warnings[0]


# Names


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("http://a.org", "scheme"),
        ("a.org/path", "path"),
        ("a.org:8000", "port"),
        ("[2001:db8::7]:80", "port"),
        ("2001:db8::7", "without brackets"),
        ("[fe80::1%eth0]", "zone|not an IPv6"),
        ("[2001:db8::7", "closing bracket"),
        ("my_host.org", "underscore"),
        ("*", "allow_wildcard"),
        ("*.a.org", "wildcard"),
        ("user@a.org", "user"),
        ("a.org.", "dot"),
        (".", "dot alone"),
        ("-a.org", "faulty part"),
        ("a..org", "faulty part"),
        ("bücher.example", "punycode"),
        ("300.1.1.1", "IPv4"),
        ("1.2.3", "IPv4"),
        ("a b.org", "faulty part"),
        ("a'b", "faulty part"),
        ("a" * 64 + ".org", "faulty part"),
        (".".join(["a" * 60] * 5), "longer"),
    ],
)
def test_a_name_that_django_cannot_match_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        checked_hosts([name])


def test_names_come_out_as_django_compares_them() -> None:
    assert checked_hosts(["A.org", "a.ORG", " b.org ", ".c.org", "[2001:DB8::7]"]) == [
        "a.org",
        "b.org",
        ".c.org",
        "[2001:db8::7]",
    ]
    assert checked_hosts(["*"], allow_wildcard=True) == ["*"]


# An overlay, and the environment


def test_an_overlay_extends_the_sites_settings_and_is_replaced_whole() -> None:
    first = allowed_hosts.edit_overlay(None, "ALLOWED_HOSTS", ["203.0.113.7"], "present", "core.settings.production")
    assert "from core.settings.production import *" in first.text
    assert '[*_SITE_HOSTS, "203.0.113.7"]' in first.text
    again = allowed_hosts.edit_overlay(
        first.text, "ALLOWED_HOSTS", ["203.0.113.7"], "present", "core.settings.production"
    )
    assert again.text == first.text
    moved = allowed_hosts.edit_overlay(first.text, "ALLOWED_HOSTS", ["a.org"], "present", "core.settings.production")
    assert (moved.before, moved.after) == (["203.0.113.7"], ["a.org"])
    gone = allowed_hosts.edit_overlay(moved.text, "ALLOWED_HOSTS", [], "absent", "core.settings.production")
    assert "[*_SITE_HOSTS]" in gone.text, "the site names this module: it must go on working"


def test_somebody_elses_file_is_not_taken_for_an_overlay() -> None:
    with pytest.raises(Refused, match="not one that spamops wrote"):
        allowed_hosts.edit_overlay("DEBUG = True\n", "ALLOWED_HOSTS", ["a.org"], "present", "core.settings")


pieces = st.lists(st.sampled_from([*OTHERS, " padded.org ", "${HOST}"]), max_size=4)


@settings(max_examples=200, deadline=None)
@given(pieces, ours)
def test_in_the_environment_too_others_pieces_stay(others: list[str], hosts: list[str]) -> None:
    text = f"A=1\nALLOWED_HOSTS='{','.join(others)}' # c\nB='x'"
    result, raw = allowed_hosts.edit_env(text, "ALLOWED_HOSTS", hosts, "present", "spamops", ",")
    new = raw.decode()
    assert result.owned_after == hosts
    kept = [line for line in new.split("\n") if not line.startswith(("ALLOWED", "# spamops"))]
    assert kept == ["A=1", "B='x'"]
    line = next(line for line in new.split("\n") if line.startswith("ALLOWED"))
    assert line.endswith(" # c")
    assert line.split("'")[1].split(",")[: len(others)] == (others or hosts[:0])
    assert allowed_hosts.edit_env(new, "ALLOWED_HOSTS", hosts, "present", "spamops", ",")[1] == raw
    back = allowed_hosts.edit_env(new, "ALLOWED_HOSTS", [], "absent", "spamops", ",")[1].decode()
    assert back == text


def test_a_list_in_json_is_no_list_of_pieces() -> None:
    with pytest.raises(Refused, match="JSON"):
        allowed_hosts.edit_env("ALLOWED_HOSTS='[\"a\"]'\n", "ALLOWED_HOSTS", ["b"], "present", "spamops", ",")
