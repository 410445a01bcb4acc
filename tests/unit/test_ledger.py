"""The history: what a run cost and found is not lost, not doubled, and holds nothing it should not."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from fake_checker import report
from fake_clock import BEGINNING

from spamops.errors import ExitCode, LedgerError
from spamops.ledger import MIGRATIONS, Ledger
from spamops.summary import Summary, add_check, finish


def summary(code: ExitCode = ExitCode.DONE, reason: str | None = None) -> Summary:
    """What a run came to."""
    made = Summary(server="gpu", server_status_before="SHELVED_OFFLOADED", warnings=["a warning"])
    add_check(made, "COMPLETED", {}, report(3, failed=1))
    finish(made, code, reason)
    return made


def test_a_run_is_found_again_with_its_verdicts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    number = ledger.begin("gpu", "command", BEGINNING, 16.0)
    assert ledger.is_open(number)
    ledger.end(number, summary(), BEGINNING + timedelta(seconds=90), report(3, failed=1))
    assert not ledger.is_open(number)
    run = ledger.run(number)
    assert run is not None
    assert (run["outcome"], run["exit_code"], run["checked"], run["spam"], run["failed"]) == ("done", 0, 3, 1, 1)
    assert (run["started_at"], run["ended_at"]) == ("2026-03-01T03:00:00.000+00:00", "2026-03-01T03:01:30.000+00:00")
    assert run["warnings"] == ["a warning"]
    verdicts = {verdict["item_id"]: verdict for verdict in run["verdicts"]}
    assert [verdicts[n]["is_spam"] for n in ("1", "2", "1000")] == [True, False, None]
    assert verdicts["1000"]["failure"] == "500"
    assert verdicts["1"]["indicators"] == ["links"]


def test_a_run_that_was_ended_is_not_ended_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    number = ledger.begin("gpu", "playbook", BEGINNING, None)
    ledger.end(number, summary(ExitCode.TERMINATED), BEGINNING)
    ledger.end(number, summary(ExitCode.DONE), BEGINNING)
    assert ledger.runs()[0]["outcome"] == "terminated"
    ledger.end(number, summary(ExitCode.SERVER_NOT_SHELVED), BEGINNING, reopen=True)
    assert ledger.runs()[0]["outcome"] == "server_not_shelved"


def test_a_history_that_was_removed_during_the_run_is_not_success(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    number = ledger.begin("gpu", "command", BEGINNING, None)
    ledger.path.unlink()
    with pytest.raises(LedgerError, match="has lost run 1"):
        ledger.end(number, summary(), BEGINNING)


def test_a_history_of_the_first_version_is_taken_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    ledger, at = Ledger(tmp_path), BEGINNING.isoformat(timespec="milliseconds")
    with closing(sqlite3.connect(ledger.path)) as db, db:
        for statement in MIGRATIONS[0].split(";"):
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO runs (server, started_by, started_at, ended_at, outcome) VALUES ('gpu', 'command', ?, ?, 'done')",
            (at, at),
        )
    threads = [threading.Thread(target=ledger.runs) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run["outcome"] for run in ledger.runs()] == ["done"]
    assert ledger.deadline(1) is None
    ledger.raise_alarm("gpu", "server_not_shelved", "text", 1, BEGINNING, again=False)
    assert len(ledger.open_alarms("gpu")) == 1
    assert ledger.runs_since(["gpu", "other"], BEGINNING) == ledger.runs()
    assert ledger.runs_since(["other"], BEGINNING) == []


def test_the_newest_runs_come_first(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for _ in range(5):
        ledger.begin("gpu", "command", BEGINNING, None)
    assert [run["id"] for run in ledger.runs(limit=2)] == [5, 4]


def test_looking_back_makes_no_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "none")
    assert ledger.runs() == []
    assert ledger.run(1) is None
    assert not (tmp_path / "none").exists()


def test_a_history_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("gpu", "command", BEGINNING, None)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="newer version of spamops"):
        ledger.begin("gpu", "command", BEGINNING, None)


def test_two_processes_that_begin_at_once_make_one_history(tmp_path: Path) -> None:
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(Ledger(tmp_path).begin("gpu", "command", BEGINNING, None)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_a_verdict_that_comes_twice_in_a_report_is_kept_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    number = ledger.begin("gpu", "command", BEGINNING, None)
    doubled = report(2)
    doubled["verdicts"] += doubled["verdicts"]
    ledger.end(number, summary(), BEGINNING, doubled)
    run = ledger.run(number)
    assert run is not None
    assert len(run["verdicts"]) == 2


def test_nothing_of_a_run_is_kept_when_its_verdicts_cannot_be(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    number = ledger.begin("gpu", "command", BEGINNING, None)
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("DROP TABLE verdicts")
        db.commit()
    with pytest.raises(LedgerError):
        ledger.end(number, summary(), BEGINNING, report())
    assert ledger.is_open(number)
