"""The module spamcheck_run, run in this process against a checker on loopback, on a clock nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_module import Result, run_module, use_clock
from fake_checker import API_KEY, WORKFLOW_ID, Answer, FakeChecker, report, status
from fake_clock import FakeClock

from spamops.ledger import Ledger
from spamops.summary import Summary

ENDS = ("FAILED", "CANCELED", "TERMINATED", "TIMED_OUT")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    use_clock(monkeypatch, fake)
    return fake


@pytest.fixture
def checker(clock: FakeClock) -> Iterator[FakeChecker]:
    with FakeChecker(clock=clock) as fake:
        yield fake


def check(checker: FakeChecker, *, check_mode: bool = False, **more: Any) -> Result:
    return run_module("spamcheck_run", {"url": checker.url, "api_key": API_KEY} | more, check=check_mode)


def test_a_check_returns_its_counts_and_the_whole_report(checker: FakeChecker) -> None:
    done = check(checker)
    assert not done.failed
    assert done["changed"] is True
    assert (done["workflow_id"], done["workflow_status"]) == (WORKFLOW_ID, "COMPLETED")
    assert done["counts"] == {"checked": 3, "spam": 1, "not_spam": 2, "failed": 0}
    assert {name: done["report"][name] for name in report()} == report()
    assert done["progress"]["checked"] == 3
    assert done["diff"]["after"] == "checked: 3\nspam: 1\nnot_spam: 2\nfailed: 0\n"
    assert list(done["steps"]) == ["ready", "check", "report"]
    assert checker.requests.count("start") == 1


def test_a_check_that_found_nothing_changed_nothing(checker: FakeChecker) -> None:
    checker.order("report", Answer(body=report(0)))
    done = check(checker)
    assert not done.failed
    assert done["changed"] is False
    assert done["counts"]["checked"] == 0


def test_items_that_failed_one_by_one_are_counted_and_are_no_failure_of_the_task(checker: FakeChecker) -> None:
    checker.order("report", Answer(body=report(2, failed=4)))
    done = check(checker)
    assert not done.failed
    assert done["counts"]["failed"] == 4


def test_a_checker_without_reports_still_gives_counts(checker: FakeChecker) -> None:
    checker.order("report", Answer(404, {"detail": "Not Found"}))
    done = check(checker)
    assert not done.failed
    assert done["counts"] == {"checked": 3, "spam": 1, "not_spam": 2, "failed": 0}
    assert done["report"] == {}


def test_a_report_that_cannot_be_fetched_is_a_warning_and_the_counts_are_there(checker: FakeChecker) -> None:
    checker.order("report", Answer(500, "oops"))
    done = check(checker)
    assert not done.failed
    assert done["counts"]["checked"] == 3
    assert any(note.startswith("warning: the report") for note in done["notes"])


@pytest.mark.parametrize("word", ENDS)
def test_every_other_end_fails_with_its_reason_and_what_is_known(checker: FakeChecker, word: str) -> None:
    checker.order("status", Answer(body=status(word, "the site does not answer", checked=1)))
    checker.order("report", Answer(body=report(1) | {"status": word}))
    told = check(checker)
    assert told.failed
    assert told["msg"] == f"the check {WORKFLOW_ID} ended {word}: the site does not answer"
    assert (told["exit_code"], told["workflow_status"], told["counts"]["checked"]) == (5, word, 1)
    assert told["report"]["verdicts"]


def test_a_check_that_does_not_end_fails_at_its_limit_and_names_the_workflow(
    checker: FakeChecker, clock: FakeClock
) -> None:
    checker.order("status", Answer(body=status("RUNNING")))
    told = check(checker, timeout=600)
    assert told.failed
    assert "did not end within 600 s" in told["msg"]
    assert (told["exit_code"], told["workflow_id"]) == (5, WORKFLOW_ID)
    assert 600 <= clock.monotonic() < 620


def test_a_checker_that_is_not_ready_is_waited_for_and_its_reasons_are_noted(checker: FakeChecker) -> None:
    checker.order("ok", Answer(503, {"status": "not ready", "reasons": ["no worker"]}, seconds=40))
    done = check(checker)
    assert not done.failed
    assert done["notes"] == ["waiting for the checker: no worker"]


def test_a_checker_that_never_gets_ready_fails_at_its_limit_and_nothing_is_started(
    checker: FakeChecker, clock: FakeClock
) -> None:
    checker.order("ok", Answer(503, {"status": "not ready", "reasons": ["no worker"]}))
    told = check(checker, ready_timeout=100)
    assert told.failed
    assert "not ready within 100 s; at last: no worker" in told["msg"]
    assert "start" not in checker.requests
    assert 100 <= clock.monotonic() < 105


def test_garbled_status_answers_are_put_up_with_for_a_while(checker: FakeChecker) -> None:
    checker.order("status", Answer(502, "<html>Bad Gateway</html>", seconds=60))
    assert check(checker, status_grace=90)["workflow_status"] == "COMPLETED"


def test_garbled_status_answers_that_last_fail_the_task(checker: FakeChecker, clock: FakeClock) -> None:
    checker.order("status", Answer(502, "<html>Bad Gateway</html>"))
    told = check(checker, status_grace=90)
    assert told.failed
    assert "502" in told["msg"]
    assert 90 <= clock.monotonic() < 100


# Check mode


def test_check_mode_starts_nothing_and_says_that_the_checker_is_ready(checker: FakeChecker) -> None:
    told = check(checker, check_mode=True)
    assert not told.failed
    assert (told["changed"], told["ready"], told["notes"]) == (True, True, [])
    assert checker.requests == ["ok"]


def test_check_mode_does_not_fail_on_a_checker_whose_server_is_shelved(checker: FakeChecker) -> None:
    checker.on = False
    told = check(checker, check_mode=True)
    assert not told.failed
    assert told["ready"] is False
    assert told["notes"][0].startswith("would wait for the checker: ")
    assert "start" not in checker.requests


# The key


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_key_that_the_checker_refuses_fails_at_once_and_is_not_shown(
    checker: FakeChecker, clock: FakeClock, check_mode: bool
) -> None:
    other = "another-key-that-is-long-enough-0123456789"
    told = check(checker, api_key=other, check_mode=check_mode)
    assert told.failed
    assert "refused the key (401)" in told["msg"]
    assert told["exit_code"] == 5
    assert clock.monotonic() == 0
    assert other not in told.text
    assert other not in told.logged


@pytest.mark.parametrize("key", ["", "too-short-a-key", "unconfigured", "x" * 20 + " " + "x" * 20])
def test_an_unusable_key_is_refused_before_anything_is_sent(checker: FakeChecker, key: str) -> None:
    told = check(checker, api_key=key)
    assert told.failed
    assert told["msg"].startswith("api_key ")
    assert told["exit_code"] == 2
    assert checker.requests == []
    assert not key or f'"{key}"' not in told.text


def test_neither_output_nor_log_shows_the_key_of_a_check_that_goes_well(checker: FakeChecker) -> None:
    done = check(checker)
    assert API_KEY not in done.text
    assert API_KEY not in done.logged


# The run that the task belongs to


def begin_run(state_dir: Path) -> int:
    return Ledger(state_dir).begin("spamcheck", "playbook", datetime.now(UTC), None)


def end_run(state_dir: Path, run: int) -> None:
    Ledger(state_dir).end(run, Summary(server="spamcheck"), datetime.now(UTC))


def test_a_task_stops_waiting_when_its_run_is_ended(checker: FakeChecker, clock: FakeClock, tmp_path: Path) -> None:
    run = begin_run(tmp_path)
    checker.order("status", Answer(body=status("RUNNING")))
    clock.at(30, lambda: end_run(tmp_path, run))
    told = check(checker, state_dir=str(tmp_path), run=run)
    assert told.failed
    assert "was ended elsewhere" in told["msg"]
    assert clock.monotonic() < 40


def test_a_task_that_outlived_its_run_starts_nothing(checker: FakeChecker, tmp_path: Path) -> None:
    run = begin_run(tmp_path)
    end_run(tmp_path, run)
    told = check(checker, state_dir=str(tmp_path), run=run)
    assert told.failed
    assert "was ended elsewhere" in told["msg"]
    assert "start" not in checker.requests


def test_check_mode_has_no_run_and_makes_no_folder(checker: FakeChecker, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert not check(checker, check_mode=True, state_dir=str(folder), run=0).failed
    assert not folder.exists()
