"""The run, on a real Temporal dev server, with a site and a classifier that do as they are told."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from spamcheck.classify.base import AnswerInvalid, ClassifierUnavailable
from spamcheck.items import Item
from spamcheck.sources.base import (
    ItemFaulty,
    ItemGone,
    ItemRefused,
    SiteFaulty,
    SiteRefused,
    SiteUnreachable,
)


async def fails(parts: Any, **changes: Any) -> str:
    """Run, and return the reason with which it failed."""
    with pytest.raises(WorkflowFailureError) as caught:
        await parts.run(**changes)
    assert isinstance(caught.value.cause, ApplicationError)
    run = parts.journal.run(parts.workflow_id)
    assert (run.status, run.reason) == ("FAILED", caught.value.cause.message)
    assert run.ended_at is not None
    return str(caught.value.cause.message)


async def test_everything_scheduled_is_checked_over_several_batches(bench: Any) -> None:
    async with bench() as parts:
        for number in range(250):
            parts.source.add(f"{number}", "spam" if number % 5 == 0 else "science")
        summary = await parts.run()
        assert (summary.status, summary.checked, summary.spam, summary.failed) == ("COMPLETED", 250, 50, 0)
        assert summary.left == 0
        assert parts.source.items == {}
        assert max(Counter(parts.source.received).values()) == 1


async def test_nothing_scheduled_ends_at_once(bench: Any) -> None:
    async with bench() as parts:
        summary = await parts.run()
        assert (summary.status, summary.rounds, summary.found) == ("COMPLETED", 1, 0)


async def test_the_run_ends_when_the_first_100_places_are_taken_for_good(bench: Any) -> None:
    async with bench() as parts:
        for number in range(100):
            parts.source.add(f"dead-{number}")
        parts.source.dead = set(parts.source.items)
        parts.source.add("never-delivered")
        summary = await parts.run()
        assert (summary.checked, summary.left) == (100, 100)
        assert max(Counter(parts.source.received).values()) == 1


async def test_dead_places_ahead_do_not_hide_the_items_behind_them(bench: Any) -> None:
    async with bench() as parts:
        for number in range(95):
            parts.source.add(f"dead-{number}")
        parts.source.dead = set(parts.source.items)
        for number in range(40):
            parts.source.add(f"live-{number}")
        summary = await parts.run()
        assert (summary.checked, summary.left) == (135, 95)


async def test_no_more_items_are_in_work_than_is_set(bench: Any) -> None:
    async with bench(parallelism=3) as parts:
        for number in range(30):
            parts.source.add(f"{number}")
        parts.classifier.on_classify = lambda _item: asyncio.sleep(0.02)
        await parts.run()
        assert parts.classifier.most_at_once == 3


async def test_one_item_that_always_fails_is_set_aside_and_named(bench: Any) -> None:
    async with bench() as parts:
        for number in range(20):
            parts.source.add(f"{number}")

        def classify(item: Item) -> None:
            if item.id == "7":
                raise AnswerInvalid("the model answered twice with something that is not a verdict")

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.status, summary.checked, summary.failed, summary.failed_ids) == ("COMPLETED", 19, 1, ["7"])
        assert parts.classifier.tries["7"] == 3
        assert summary.left == 1
        [row] = parts.journal.settled_rows(parts.workflow_id, "failed")
        assert row["reason"] == "the model answered twice with something that is not a verdict"


async def test_an_error_of_the_classifiers_program_sets_the_item_aside_without_quoting_it(bench: Any) -> None:
    async with bench() as parts:
        parts.source.add("1", "a secret address")
        parts.source.add("2")

        def classify(item: Item) -> None:
            if item.id == "1":
                raise ValueError(f"cannot parse {item.fields['title']}")

        parts.classifier.on_classify = classify
        await parts.run()
        [row] = parts.journal.settled_rows(parts.workflow_id, "failed")
        assert row["reason"] == "unexpected ValueError in the classifier"


async def test_a_model_that_comes_back_costs_no_item(bench: Any) -> None:
    async with bench() as parts:
        for number in range(5):
            parts.source.add(f"{number}")

        def classify(item: Item) -> None:
            if parts.classifier.tries[item.id] == 1:
                raise ClassifierUnavailable("Ollama answers 503")

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.checked, summary.failed) == (5, 0)


@pytest.mark.parametrize(("fault", "tries"), [(ItemRefused("400: confidence"), 1), (ItemFaulty("500 on one"), 3)])
async def test_a_verdict_that_the_site_does_not_take_is_set_aside(bench: Any, fault: Exception, tries: int) -> None:
    async with bench() as parts:
        parts.source.add("bad")
        parts.source.add("good")
        seen: Counter[str] = Counter()

        def submit(item_id: str) -> None:
            seen[item_id] += 1
            if item_id == "bad":
                raise fault

        parts.source.on_submit = submit
        summary = await parts.run()
        assert (summary.status, summary.checked, summary.failed_ids) == ("COMPLETED", 1, ["bad"])
        assert seen == {"bad": tries, "good": 1}


async def test_a_record_that_is_gone_is_no_failure(bench: Any) -> None:
    async with bench() as parts:
        parts.source.add("gone")

        def submit(item_id: str) -> None:
            del parts.source.items[item_id]
            raise ItemGone("404")

        parts.source.on_submit = submit
        summary = await parts.run()
        assert (summary.status, summary.gone, summary.failed) == ("COMPLETED", 1, 0)


async def test_an_edit_while_in_work_gets_a_verdict_for_the_new_text_only(bench: Any) -> None:
    async with bench(fresh_seconds=0.01) as parts:
        old = parts.source.add("1", "harmless")

        async def classify(item: Item) -> None:
            if item.content_hash == old.content_hash:
                parts.source.add("1", "spam by an edit")
                await asyncio.sleep(0.05)

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.checked, summary.spam, summary.superseded) == (1, 1, 1)
        assert [content_hash for _id, content_hash in parts.source.received] != [old.content_hash]


async def test_a_moderators_decision_while_in_work_is_not_overwritten(bench: Any) -> None:
    async with bench(fresh_seconds=0.01) as parts:
        parts.source.add("1")

        async def classify(item: Item) -> None:
            parts.source.items.pop(item.id, None)
            await asyncio.sleep(0.05)

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.status, summary.superseded, summary.checked) == ("COMPLETED", 1, 0)
        assert parts.source.received == []


async def test_a_decision_while_waiting_in_the_queue_is_seen_before_a_model_is_asked(bench: Any) -> None:
    async with bench(parallelism=1) as parts:
        for number in range(12):
            parts.source.add(f"{number}")

        async def classify(_item: Item) -> None:
            parts.source.items.pop("11", None)
            # One at a time, so the second batch has this long to arrive before the last item's turn comes.
            await asyncio.sleep(0.2)

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.checked, summary.superseded) == (11, 1)
        assert parts.classifier.tries["11"] == 0


async def test_an_item_that_reappears_after_a_decision_is_taken_up_again(bench: Any) -> None:
    async with bench(fresh_seconds=0.01, parallelism=1) as parts:
        item = parts.source.add("1")

        async def classify(_item: Item) -> None:
            if parts.classifier.tries["1"] == 1:
                del parts.source.items["1"]
                await asyncio.sleep(0.05)

        def read(_number: int) -> None:
            if parts.journal.state(parts.workflow_id, "1", item.content_hash) == "superseded":
                parts.source.items["1"] = item

        parts.classifier.on_classify = classify
        parts.source.on_read = read
        summary = await parts.run()
        assert (summary.checked, summary.superseded) == (1, 0)


async def test_a_site_that_shuffles_its_batches_is_still_checked_whole_and_once(bench: Any) -> None:
    async with bench() as parts:
        for number in range(200):
            parts.source.add(f"{number}")

        def read(number: int) -> None:
            items = list(parts.source.items.items())
            turn = number * 37 % max(1, len(items))
            parts.source.items = dict(items[turn:] + items[:turn])

        parts.source.on_read = read
        summary = await parts.run()
        assert (summary.status, summary.checked) == ("COMPLETED", 200)
        assert max(Counter(parts.source.received).values()) == 1


@pytest.mark.parametrize("fault", [SiteUnreachable("connection refused"), SiteFaulty("the whole batch: 500")])
async def test_a_site_that_comes_back_costs_nothing(bench: Any, fault: Exception) -> None:
    async with bench(site_patience_seconds=20) as parts:
        for number in range(10):
            parts.source.add(f"{number}")
        left = {"reads": 2, "submits": 3}

        def fail(kind: str) -> None:
            if left[kind]:
                left[kind] -= 1
                raise fault

        parts.source.on_read = lambda _number: fail("reads")
        parts.source.on_submit = lambda _item_id: fail("submits")
        summary = await parts.run()
        assert (summary.status, summary.checked, summary.failed) == ("COMPLETED", 10, 0)


async def test_a_site_that_stays_down_ends_the_run_with_the_reason(bench: Any) -> None:
    async with bench(site_patience_seconds=0.3) as parts:
        parts.source.add("1")

        def read(_number: int) -> None:
            raise SiteUnreachable("the site refuses connections")

        parts.source.on_read = read
        reason = await fails(parts)
        assert reason.startswith("the scheduled items could not be read: the site refuses connections (tried for")


async def test_a_site_that_goes_down_for_good_in_the_middle_ends_the_run_with_the_reason(bench: Any) -> None:
    async with bench(site_patience_seconds=0.3, parallelism=4) as parts:
        for number in range(30):
            parts.source.add(f"{number}")

        def submit(_item_id: str) -> None:
            if len(parts.source.received) >= 10:
                raise SiteUnreachable("the site answers 502")

        parts.source.on_submit = submit
        assert "the site answers 502" in await fails(parts)
        counts = parts.journal.counts(parts.workflow_id)
        assert (counts.checked, counts.failed, counts.in_progress) == (10, 0, 0)
        assert parts.journal.run(parts.workflow_id).left == 20


async def test_a_key_that_the_site_refuses_ends_the_run_at_once(bench: Any) -> None:
    async with bench(site_patience_seconds=60) as parts:

        def read(_number: int) -> None:
            raise SiteRefused("401: set COMSES_API_KEY")

        parts.source.on_read = read
        reason = await asyncio.wait_for(fails(parts), 5)
        assert reason.endswith("401: set COMSES_API_KEY")
        assert parts.source.reads == 1


async def test_a_run_in_which_every_item_fails_does_not_end_well(bench: Any) -> None:
    async with bench() as parts:
        for number in range(5):
            parts.source.add(f"{number}")

        def classify(_item: Item) -> None:
            raise ClassifierUnavailable("model llama3.2 is missing")

        parts.classifier.on_classify = classify
        reason = await fails(parts)
        assert reason == "every item failed, none was checked: model llama3.2 is missing (5 times)"


async def test_many_failures_in_a_row_end_the_run_instead_of_paying_for_more(bench: Any) -> None:
    async with bench(give_up_after=6, item_attempts=1, parallelism=2) as parts:
        for number in range(60):
            parts.source.add(f"{number}")

        def classify(item: Item) -> None:
            if int(item.id) >= 10:
                raise ClassifierUnavailable("Ollama is down")

        parts.classifier.on_classify = classify
        reason = await fails(parts)
        assert "6 items in a row were set aside" in reason
        assert "Ollama is down" in reason
        counts = parts.journal.counts(parts.workflow_id)
        assert counts.checked == 10
        assert counts.failed < 25


async def test_continuing_as_new_loses_and_repeats_nothing(bench: Any) -> None:
    async with bench() as parts:
        for number in range(150):
            parts.source.add(f"{number}")
        handle = await parts.start(history_events=150)
        first_run = handle.first_execution_run_id
        summary = await handle.result()
        assert (summary.status, summary.checked, summary.rounds) == ("COMPLETED", 150, summary.rounds)
        assert max(Counter(parts.source.received).values()) == 1
        last = await parts.client.get_workflow_handle(handle.id).describe()
        assert last.run_id != first_run
        assert last.history_length < 400
        first = await parts.client.get_workflow_handle(handle.id, run_id=first_run).describe()
        assert first.status == WorkflowExecutionStatus.CONTINUED_AS_NEW


async def test_failures_in_a_row_are_counted_across_continuing_as_new(bench: Any) -> None:
    async with bench(give_up_after=20, item_attempts=1, parallelism=2) as parts:
        for number in range(60):
            parts.source.add(f"{number}")

        def classify(_item: Item) -> None:
            raise ClassifierUnavailable("Ollama is down")

        parts.classifier.on_classify = classify
        assert "20 items in a row" in await fails(parts, history_events=60)


async def test_a_canceled_run_says_so_in_the_journal(bench: Any) -> None:
    async with bench() as parts:
        for number in range(20):
            parts.source.add(f"{number}")
        begun = asyncio.Event()

        async def classify(_item: Item) -> None:
            begun.set()
            await asyncio.sleep(30)

        parts.classifier.on_classify = classify
        handle = await parts.start()
        await begun.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 10)
        assert (await handle.describe()).status == WorkflowExecutionStatus.CANCELED
        run = parts.journal.run(parts.workflow_id)
        assert run.status == "CANCELED"
        assert parts.journal.counts(parts.workflow_id).failed == 0


async def test_an_answer_that_was_lost_does_not_send_the_verdict_twice(bench: Any) -> None:
    async with bench(site_patience_seconds=20) as parts:
        parts.source.add("1")

        async def taken_but_cut_off(item_id: str, verdict: Any) -> None:
            await type(parts.source).submit(parts.source, item_id, verdict)
            raise SiteUnreachable("the connection was cut")

        parts.source.submit = taken_but_cut_off
        summary = await parts.run()
        assert (summary.checked, summary.failed) == (1, 0)
        assert len(parts.source.received) == 1


async def test_what_temporal_stores_holds_no_text_of_items_and_verdicts(bench: Any, temporal: Any) -> None:
    word = "Xylotomographical"
    async with bench() as parts:
        parts.source.add("1", f"spam {word}")
        parts.source.add("2", f"{word} fails")

        def classify(item: Item) -> None:
            if item.id == "2":
                raise ClassifierUnavailable("Quokka-reason of the operator")

        parts.classifier.on_classify = classify
        summary = await parts.run()
        assert (summary.checked, summary.failed) == (1, 1)
        assert word in parts.source.verdicts["1"].reasoning
    stored = b"".join(path.read_bytes() for path in temporal.folder.glob("temporal.db*"))
    assert b"CheckSpamWorkflow" in stored
    for text in (word, "reasoning about", "Quokka-reason", '"is_spam"'):
        assert text.encode() not in stored
    journal = b"".join(path.read_bytes() for path in parts.settings.state_dir.iterdir())
    assert word.encode() not in journal


async def test_classify_seconds_are_the_time_in_which_something_was_classified(bench: Any) -> None:
    async with bench(parallelism=4) as parts:
        for number in range(4):
            parts.source.add(f"{number}")
        parts.classifier.on_classify = lambda _item: asyncio.sleep(0.3)
        await parts.run()
        seconds = [row["seconds"] for row in parts.journal.settled_rows(parts.workflow_id, "submitted")]
        assert len(seconds) == 4
        assert min(seconds) > 0.29
        # Four at once: compared with their sum, because on a busy machine each takes longer.
        assert max(seconds) <= parts.journal.classify_seconds(parts.workflow_id) < 0.75 * sum(seconds)


async def test_an_item_whose_verdict_is_in_the_journal_is_never_sent_again(bench: Any) -> None:
    async with bench() as parts:
        item = parts.source.add("1")
        parts.source.dead = {"1"}
        first = await parts.run()
        assert first.checked == 1
        # As after a lost history: the same run again, the journal still there.
        handle = await parts.start()
        again = await handle.result()
        assert dataclasses.asdict(again)["checked"] == 1
        assert parts.source.received == [("1", item.content_hash)]
