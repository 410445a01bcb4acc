"""HTML to text: nothing that a reader or a browser would follow may get lost, and nothing may raise."""

from __future__ import annotations

import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spamcheck.sources.html import TARGETS, clean, html_to_text, links_in_text

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>&"), max_size=20)
_PIECES = """< > & </ <!-- --> <![CDATA[ ]]> <?xml <! " ' = <a|href <a|href=x> </a> <script> </script> <p> <br/> &lt;
&#x110000; &#0; &#xD800; http://a.example <textarea> <math><mi//xlink:href=x> <![if <table><td> text \u202e"""
MARKUP_PIECES = st.sampled_from(
    [*(piece.replace("|", " ") for piece in _PIECES.split()), "\0", "\ud800", "\udc00", " ", "\n"]
)
ADDRESS = st.from_regex(r"https?://[a-z]{1,8}\.example/[A-Za-z0-9_/]{0,12}", fullmatch=True)


@given(st.text() | st.lists(MARKUP_PIECES, max_size=40).map("".join))
def test_no_markup_whatever_stops_a_batch(markup: str) -> None:
    plain = html_to_text(markup)

    plain.text.encode("utf-8")
    assert "\0" not in plain.text
    assert len(set(plain.links)) == len(plain.links)


@given(
    TEXT, st.lists(st.tuples(st.sampled_from(TARGETS), ADDRESS, TEXT), max_size=6), st.sampled_from(["a", "IMG", "x"])
)
def test_target_of_every_attribute_is_found_and_no_tag_is_left(
    before: str, links: list[tuple[str, str, str]], tag: str
) -> None:
    markup = html.escape(before) + "".join(
        f"<p><{tag} {name}='{address}'>{html.escape(text)}</{tag}></p>" for name, address, text in links
    )

    plain = html_to_text(markup)

    assert {address for _, address, _ in links} <= set(plain.links)
    assert not re.search(r"</?(p|a|img|x)\b", plain.text, re.IGNORECASE)
    for _, address, _ in links:
        assert address in plain.text


@given(TEXT, ADDRESS, st.sampled_from(["", " ", "(", "字", "x", "_", "\u200b", "»", "-"]))
def test_address_in_plain_text_is_found_whatever_stands_before_it(before: str, address: str, glue: str) -> None:
    assert any(link.startswith(address.rstrip("_/")) for link in links_in_text(f"{before}{glue}{address} after"))


@pytest.mark.parametrize(
    ("markup", "text", "links"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb", ()),
        ("a<br>b", "a\n\nb", ()),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n\n- two", ()),
        ('<a href="http://x.example">here</a>', "here (http://x.example)", ("http://x.example",)),
        ('<a href="http://x.example">http://x.example</a>', "http://x.example", ("http://x.example",)),
        (
            '<a href="http://one.example" href="http://two.example">a</a>',
            None,
            ("http://one.example", "http://two.example"),
        ),
        ('<a href=" java\nscript:x() ">k</a>', "k (javascript:x())", ("javascript:x()",)),
        ('<img src="a.png" srcset="b.png 1x, c.png 2x" alt="bonus">', None, ("a.png", "b.png", "c.png")),
        (
            "seen <!-- <a href='http://hid.example'>casino</a> -->",
            "seen casino (http://hid.example)",
            ("http://hid.example",),
        ),
        ("<!-- never closed http://hid.example", "never closed http://hid.example", ("http://hid.example",)),
        ("<script>go('http://js.example/x')</script>", "go('http://js.example/x')", ("http://js.example/x",)),
        ("mail <http://auto.example/y> now", "mail http://auto.example/y now", ("http://auto.example/y",)),
        ('&lt;iframe src="https://x.example"&gt;', '<iframe src="https://x.example">', ("https://x.example",)),
        ("链接https://坏.example/路径。后", "链接https://坏.example/路径。后", ("https://坏.example/路径",)),
        ("bare casino.top and bit.ly/x1", None, ("http://casino.top", "http://bit.ly/x1")),
        ("x &amp; y &ldquo;z&rdquo; 3 &lt; 4", "x & y “z” 3 < 4", ()),
        ("e-mail a@b.example.org only", None, ()),
        ("http://[2001:db8::1]/x", None, ("http://[2001:db8::1]/x",)),
        ("", "", ()),
    ],
)
def test_reader_sees_this_text_and_these_links(markup: str, text: str | None, links: tuple[str, ...]) -> None:
    plain = html_to_text(markup)

    assert plain.links == links
    if text is not None:
        assert plain.text == text


def test_lone_surrogates_and_nul_are_replaced_and_pairs_kept() -> None:
    assert clean("a\ud800b\0c\ud83d\ude00") == "a\ufffdb\ufffdc😀"


@pytest.mark.parametrize("end", ["", ">", '">', "<b>"])
@pytest.mark.parametrize(
    "piece",
    ["<a ", '<a href="', "<!--", "<p>", "</", "<a =", "<?x", "<![", "<script>", "http://", "a@", "&", "<a href=x>y"],
)
def test_hostile_repetition_costs_seconds_not_hours(piece: str, end: str) -> None:
    """Quadratic parsing takes minutes for some of these; the limit is far above what a linear one needs."""
    began = time.process_time()

    html_to_text(piece * (100_000 // len(piece)) + end)

    assert time.process_time() - began < 10
