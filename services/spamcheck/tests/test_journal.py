"""The journal: what API and worker know of a run, and what a report says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from spamcheck import report
from spamcheck.items import Verdict
from spamcheck.journal import PAGE_ROWS, Journal, JournalError
from spamcheck.messages import Ref

RUN = "check-spam-20261121T060000Z-ab12cd"
DAY = 86400
SPAM, HAM = Verdict(True, 0.9, "rules", ("shortener",), "a reasoning"), Verdict(False, 0.6, "ollama/llama3.2")


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def journal(tmp_path: Path, time: Time) -> Iterator[Journal]:
    journal = Journal(tmp_path, time)
    journal.begin_run(RUN)
    yield journal
    journal.close()


def refs(*ids: str, content_type: str = "job") -> list[Ref]:
    return [Ref(item_id, content_type, f"hash-{item_id}") for item_id in ids]


def check(journal: Journal, ref: Ref, verdict: Verdict, run: str = RUN) -> None:
    key = (run, ref.item_id, ref.content_hash)
    journal.classifying(*key)
    journal.classified(*key, 10.0, 12.0)
    journal.sending(*key, verdict)
    journal.settle(*key, "submitted")


def whole(folder: Path, run: str = RUN) -> dict[str, object]:
    answer = json.loads(b"".join(report.stream(folder, run)))
    assert isinstance(answer, dict)
    return answer


def test_only_one_run_is_active_whoever_asks(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path)
    assert other.begin_run("check-spam-20261121T060001Z-000000") == RUN
    journal.end_run(RUN, "COMPLETED", None)
    assert other.begin_run("check-spam-20261121T060001Z-000000") != RUN
    other.close()


def test_settled_items_are_not_taken_up_again(journal: Journal) -> None:
    batch = refs("1", "2", "3", "4")
    assert journal.add_batch(RUN, 1, batch, 3) == batch
    check(journal, batch[0], SPAM)
    journal.settle(RUN, "2", "hash-2", "failed", reason="no model")
    journal.settle(RUN, "3", "hash-3", "gone")
    assert journal.add_batch(RUN, 2, batch, 3) == [batch[3]]


def test_an_edited_item_is_new(journal: Journal) -> None:
    journal.add_batch(RUN, 1, refs("1"), 3)
    check(journal, refs("1")[0], HAM)
    edited = Ref("1", "job", "another-hash")
    assert journal.add_batch(RUN, 2, [edited], 3) == [edited]


def test_an_item_that_comes_and_goes_cannot_keep_a_run_busy_for_ever(journal: Journal) -> None:
    [ref] = refs("1")
    taken = 0
    for number in range(1, 10):
        if not journal.add_batch(RUN, number, [ref], 3):
            break
        taken += 1
        journal.classifying(RUN, ref.item_id, ref.content_hash)
        journal.settle(RUN, ref.item_id, ref.content_hash, "superseded")
    assert taken == 3


def test_an_acceptance_that_was_only_assumed_is_not_trusted_when_the_item_is_still_scheduled(journal: Journal) -> None:
    [ref] = refs("1")
    key = (RUN, ref.item_id, ref.content_hash)
    journal.add_batch(RUN, 1, [ref], 3)
    journal.sending(*key, SPAM)
    journal.settle(*key, "submitted", assumed=True)
    assert journal.counts(RUN).checked == 1
    assert journal.add_batch(RUN, 2, [ref], 3) == [ref]
    assert journal.state(*key) == "assumed"


def test_progress_counts_every_item_once(journal: Journal) -> None:
    batch = refs("1", "2", "3", "4", "5", "6")
    journal.add_batch(RUN, 1, batch, 3)
    check(journal, batch[0], SPAM)
    check(journal, batch[1], HAM)
    journal.classifying(RUN, "3", "hash-3")
    journal.settle(RUN, "4", "hash-4", "failed", reason="no model")
    counts = journal.counts(RUN)
    assert (counts.found, counts.checked, counts.spam, counts.not_spam) == (6, 2, 1, 1)
    assert (counts.failed, counts.in_progress, counts.waiting) == (1, 1, 2)


def test_settling_twice_counts_once(journal: Journal) -> None:
    [ref] = refs("1")
    journal.add_batch(RUN, 1, [ref], 3)
    check(journal, ref, SPAM)
    journal.settle(RUN, "1", "hash-1", "submitted")
    assert ("checked", "job", "spam", 1.0) in list(journal.totals())


def test_time_in_which_two_items_were_classified_at_once_counts_once(journal: Journal) -> None:
    journal.add_batch(RUN, 1, refs("1"), 3)
    for started, ended in ((0.0, 4.0), (1.0, 2.0), (3.0, 6.0), (10.0, 11.0), (10.0, 10.5)):
        journal.classified(RUN, "1", "hash-1", started, ended)
    assert journal.classify_seconds(RUN) == 7.0


def test_the_report_has_everything_but_texts(journal: Journal, tmp_path: Path, time: Time) -> None:
    batch = [*refs("1", "2"), *refs("3", content_type="event")]
    journal.add_batch(RUN, 1, batch, 3)
    check(journal, batch[0], SPAM)
    check(journal, batch[1], HAM)
    journal.settle(RUN, "3", "hash-3", "failed", reason="the model is missing")
    journal.add_batch(RUN, 2, [batch[2]], 3)
    time.now += 90
    journal.end_run(RUN, "COMPLETED", None)
    answer = whole(tmp_path)
    assert {
        name: answer[name] for name in ("workflow_id", "status", "reason", "rounds", "checked", "spam", "left")
    } == {
        "workflow_id": RUN,
        "status": "COMPLETED",
        "reason": None,
        "rounds": 2,
        "checked": 2,
        "spam": 1,
        "left": 1,
    }
    assert (answer["started_at"], answer["ended_at"]) == ("2027-01-15T08:00:00.000Z", "2027-01-15T08:01:30.000Z")
    assert answer["by_type"] == {
        "event": {"spam": 0, "not_spam": 0, "failed": 1},
        "job": {"spam": 1, "not_spam": 1, "failed": 0},
    }
    assert answer["classify_seconds"] == 2.0
    verdicts = answer["verdicts"]
    assert isinstance(verdicts, list)
    assert verdicts[0] == {
        "item_id": "1",
        "content_type": "job",
        "content_hash": "hash-1",
        "is_spam": True,
        "confidence": 0.9,
        "by": "rules",
        "indicators": ["shortener"],
        "seconds": 2.0,
    }
    assert answer["failures"] == [
        {"item_id": "3", "content_type": "event", "content_hash": "hash-3", "reason": "the model is missing"}
    ]


def test_a_report_of_many_pages_misses_and_repeats_nothing(journal: Journal, tmp_path: Path) -> None:
    batch = refs(*(str(number) for number in range(2 * PAGE_ROWS + 7)))
    journal.add_batch(RUN, 1, batch, 3)
    for ref in batch:
        check(journal, ref, HAM)
    verdicts = whole(tmp_path)["verdicts"]
    assert isinstance(verdicts, list)
    assert sorted(int(verdict["item_id"]) for verdict in verdicts) == list(range(len(batch)))


def test_the_report_of_an_empty_run_is_json_too(journal: Journal, tmp_path: Path) -> None:
    assert whole(tmp_path)["verdicts"] == []


def test_old_runs_are_removed_with_all_their_rows(
    journal: Journal, tmp_path: Path, time: Time, rows: Iterator[object]
) -> None:
    journal.add_batch(RUN, 1, refs("1"), 3)
    check(journal, refs("1")[0], SPAM)
    journal.end_run(RUN, "COMPLETED", None)
    time.now += 29 * DAY
    assert journal.prune(30) == 0
    time.now += 2 * DAY
    assert (journal.prune(30), journal.prune(30)) == (1, 0)
    with sqlite3.connect(journal.path) as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("runs", "items", "spans")] == [
            0,
            0,
            0,
        ]
    # A counter that goes down would look like a restart to Prometheus.
    assert ("checked", "job", "spam", 1.0) in list(journal.totals())


def test_what_temporal_says_of_the_end_is_kept_with_the_reason_known_before(journal: Journal, time: Time) -> None:
    journal.confirm_run(RUN, "TERMINATED", "by the operator", time.now + 5)
    run = journal.run(RUN)
    assert run is not None
    assert (run.status, run.reason, run.confirmed, run.ended_at) == (
        "TERMINATED",
        "by the operator",
        True,
        time.now + 5,
    )
    assert journal.active() is None


def test_nothing_is_sent_by_a_step_that_outlives_its_run(journal: Journal) -> None:
    [ref] = refs("1")
    journal.add_batch(RUN, 1, [ref], 3)
    assert journal.classifying(RUN, ref.item_id, ref.content_hash)
    journal.end_run(RUN, "FAILED", "the site is down")
    assert not journal.sending(RUN, ref.item_id, ref.content_hash, SPAM)
    assert not journal.classifying(RUN, ref.item_id, ref.content_hash)
    assert journal.counts(RUN).in_progress == 0


def test_a_content_type_that_a_site_invents_is_no_label(journal: Journal) -> None:
    [ref] = refs("1", content_type="someone@example.org")
    journal.add_batch(RUN, 1, [ref], 3)
    check(journal, ref, SPAM)
    assert {content_type for _name, content_type, _label, _amount in journal.totals()} == {"other"}


def test_a_silent_worker_is_told_by_its_age(journal: Journal, time: Time) -> None:
    assert journal.worker() is None
    journal.beat("1@host", "cascade", {"llama3.2": "loaded"})
    time.now += 30
    worker = journal.worker()
    assert worker is not None
    assert (worker.age, worker.models) == (30, {"llama3.2": "loaded"})


def test_a_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="newer version"):
        Journal(tmp_path)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="STATE_DIR"):
        Journal(tmp_path / "file")
