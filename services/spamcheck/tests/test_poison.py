"""Content made to break the checker: it costs its own record at most, never the others, the batch or the worker."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spamcheck.classify import glyphs, phrases, rules
from spamcheck.classify.indicators import Indicator
from spamcheck.classify.prompt import readable
from spamcheck.inbox import Inbox
from spamcheck.items import Item
from spamcheck.sources.comses import ComsesSource
from spamcheck.sources.comses_records import BatchReader, items
from spamcheck.sources.html import html_to_text, links_in_text
from spamops.sandbox.http import LoopbackServer


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def job(record_id: Any, **content: Any) -> dict[str, Any]:
    fields = {"id": 7, "title": "Workshop", "description": "An honest workshop", **content}
    return {"id": record_id, "contentType": "job", "contentObject": fields}


@pytest.mark.parametrize("marks", ["\u0300\u0316", "\u0344\u0316", "\uff9e\u0300", "\u0f73\u0f71", "\u0591\u05b0"])
@pytest.mark.parametrize("call", [glyphs.reveal, phrases.fold, readable])
def test_pile_of_combining_marks_does_not_hold_up_the_worker(call: Callable[[str], str], marks: str) -> None:
    """Sorting 200,000 marks takes minutes; without them it is milliseconds."""
    assert seconds(lambda: call("a" + marks * 100_000)) < 5


def test_marks_that_a_fold_brings_together_stay_few() -> None:
    assert len(phrases.fold("a" + ("\u0591" * 8 + "\u0300" * 8) * 1000)) < 20_000


def test_pile_of_combining_marks_speaks_for_spam() -> None:
    item = Item("1", "job", "h", {"bio": "a" + "\u0300\u0316" * 1000})

    assert Indicator.INVISIBLE_CHARACTERS in rules.examine(item).indicators


@pytest.mark.parametrize("text", ["Tiếng Việt ệ", "שָׁלוֹם", "हिन्दी", "བོད་ཡིག", "g͡b ə̃́ː", "e\u0301\u0323\u0302"])
def test_marks_that_languages_need_are_kept_and_not_held_against_them(text: str) -> None:
    text = unicodedata.normalize("NFD", text)

    assert glyphs.without_piles(text) == text
    assert glyphs.hidden_characters(text) == 0


@pytest.mark.parametrize("end", ["", " ", "x "])
@pytest.mark.parametrize(
    "piece",
    [
        *("http://a.com/(((", "http://a.com/[[[", "http://a.com/{{{", "http://a.com/'''", 'http://a.com/"""'),
        *("http://a.com/«««", "a.com/(((", "www.a.com/(", "http://a.com/!", "http://a.com/;", "http://", "//a", "a."),
        *("|a.com", "a.com|", "(a.com)", "+a.com", "=a.com", "http://a@", "-a.com-"),
    ],
)
def test_brackets_and_quotes_in_addresses_do_not_hold_up_the_worker(piece: str, end: str) -> None:
    """Each took the square of its length: 300 kB ran for many minutes."""
    text = ((piece * 60)[:250] + end if end else piece * 20) * 4000

    assert seconds(lambda: links_in_text(text[:300_000])) < 6


def test_addresses_inside_an_overlong_word_are_all_found() -> None:
    long_path = f"http://long.example.org/{'q' * 5000}"
    word = f"{'x' * 300}|casino.top/a(http://b.com/x(HTTPS://c.com/(("

    found = links_in_text(f"see {long_path} and {word} then d.top")

    assert found == (long_path, "http://casino.top/a", "http://b.com/x(", "HTTPS://c.com/((", "http://d.top")


def test_addresses_are_found_across_the_pieces_of_a_long_text() -> None:
    text = " ".join(f"word{number} site{number}.top http://h{number}.example.org/a" for number in range(500))

    assert set(links_in_text(text)) == {
        link for number in range(500) for link in (f"http://site{number}.top", f"http://h{number}.example.org/a")
    }


UNUSABLE = [None, "x", 7, [], {}, job(None), job(True), job(1.5), job([1]), job({}), job(" "), job(10**400)]


@pytest.mark.parametrize("record", UNUSABLE)
def test_record_that_no_verdict_could_name_does_not_stop_the_others(
    record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert [item.id for item in items([job(1), record, job(2)])] == ["1", "2"]
    assert vars(caplog.records[0])["spamcheck_fields"] == {"count": 1, "positions": "2"}


def test_same_records_left_out_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = BatchReader()
    for _ in range(3):
        list(reader.items([job(1), None]))

    assert len(caplog.records) == 1


def nested(depth: int) -> list[Any]:
    outer: list[Any] = []
    for _ in range(depth - 1):
        outer = [outer]
    return outer


@pytest.mark.parametrize("depth", [400, 5000])
@pytest.mark.parametrize("wrap", [lambda deep: {"extra": deep}, lambda deep: {"description": {"a": deep}}])
def test_content_nested_too_deep_costs_its_own_record_alone(depth: int, wrap: Callable[[Any], Any]) -> None:
    batch = items([job(1), job(2, **wrap(nested(depth))), job(3)])

    assert [bool(item.unreadable) for item in batch] == [False, True, False]
    assert (batch[1].fields, batch[1].links, batch[1].gone) == ({}, (), False)


def test_content_that_breaks_the_reader_costs_its_own_record_and_shows_nothing_of_it() -> None:
    # What no JSON parser gives stands for what nobody thought of.
    batch = items([job(1), job(2, title={"secret text": object()}), job(3)])

    assert [item.unreadable for item in batch] == ["", "unexpected TypeError", ""]


def test_lists_of_an_honest_depth_are_read() -> None:
    (item,) = items([job(1, tags=[["a", ["b"]], {"c": ["d"]}])])

    assert not item.unreadable
    assert item.fields["tags"].startswith("a, b, ")


def test_unchanged_record_is_not_parsed_again_and_a_changed_one_is() -> None:
    reader = BatchReader()
    first = list(reader.items([job(1), job(2)]))
    second = list(reader.items([job(1), job(2, title="Edited")]))

    assert second[0] is first[0]
    assert second[1].fields["title"] == "Edited"


async def test_heartbeats_go_on_while_a_batch_full_of_markup_is_parsed() -> None:
    batch = [job(number, description=f"<b>x</b>{number}" * 4_000) for number in range(40)]

    async def answer(_request: Request) -> Response:
        return JSONResponse(batch)

    server = LoopbackServer(Starlette(routes=[Route("/{path:path}", answer)]))
    server.start()
    try:
        source = ComsesSource(server.url, "k" * 40, 60)
        beats: list[float] = []
        reading = asyncio.create_task(Inbox(source).read())
        while not reading.done():
            beats.append(time.monotonic())
            await asyncio.sleep(0.02)
        await source.aclose()
    finally:
        server.stop()

    assert len(await reading) == len(batch)
    assert beats[-1] - beats[0] > 1, "too little to parse: this shows nothing"
    longest = max(later - earlier for earlier, later in itertools.pairwise(beats))
    assert longest < (beats[-1] - beats[0]) / 3


async def test_unreadable_record_is_set_aside_with_the_reason_and_the_others_are_judged(
    bench: Callable[..., Any],
) -> None:
    async with bench() as parts:
        parts.source.add("1")
        parts.source.items["2"] = Item("2", "job", "0" * 16, unreadable="nested too deep")
        parts.source.add("3")

        summary = await parts.run()

        assert (summary.status, summary.checked, summary.failed) == ("COMPLETED", 2, 1)
        assert parts.source.verdicts.keys() == {"1", "3"}
        assert parts.classifier.tries["2"] == 0
        assert parts.journal.reasons(parts.workflow_id) == [("its content cannot be read (nested too deep)", 1)]


def test_long_markup_is_read_to_its_end() -> None:
    plain = html_to_text("<b>x</b>" * 25_000 + '<a href="http://end.example">end</a>')

    assert plain.links == ("http://end.example",)
    assert json.dumps(plain.text).endswith('end (http://end.example)"')
