"""Moderators' decisions: a file is taken whole or not at all, twice is as good as once, and each meets the right verdict."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import code_of
from hypothesis import given
from hypothesis import strategies as st
from long_history import long_history

from spamops import feedback, retention
from spamops.errors import ExitCode, SettingsError
from spamops.ledger import Ledger

NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)


def read(text: str | bytes) -> list[feedback.Decision]:
    """Decisions of a file with this content."""
    return feedback.read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), NOW)


def faults(text: str | bytes) -> str:
    """What is said about a file that is refused."""
    with pytest.raises(SettingsError) as refused:
        read(text)
    assert "nothing was imported" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("word", "is_spam"),
    [("spam", True), ("SPAM", True), ("t", True), ("1", True), ("not_spam", False), ("f", False), ("Ham", False)],
)
def test_the_words_of_sites_and_databases_are_understood(word: str, is_spam: bool) -> None:
    assert read(f"item_id,decision\n12,{word}\n") == [feedback.Decision("12", is_spam)]


def test_columns_may_come_in_any_order_and_from_a_spreadsheet() -> None:
    text = "\ufeffDate,Type,Status,ID\r\n2026-02-01,job,spam,12\r\n,,not_spam,13\r\n\r\n"
    assert read(text) == [
        feedback.Decision("12", True, "job", "2026-02-01"),
        feedback.Decision("13", False, "", ""),
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-02-01T10:00:00Z", "2026-02-01T10:00:00.000+00:00"),
        ("2026-02-01 12:00:00.5+02", "2026-02-01T10:00:00.500+00:00"),
        ("2026-02-01 10:00", "2026-02-01T10:00:00.000+00:00"),
        ("2026-02-01", "2026-02-01"),
    ],
)
def test_times_are_kept_in_utc(text: str, kept: str) -> None:
    assert read(f"item_id,decision,decided_at\n12,spam,{text}\n")[0].decided_at == kept


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("item_id\n12\n", "no column decision"),
        ("item_id,decision,comment\n12,spam,x\n", "'comment' is not known"),
        ("item_id,id,decision\n1,1,spam\n", "two columns for item_id"),
        ("item_id,decision\n12,spam\n13,perhaps\n", "line 3: 'perhaps' is no decision"),
        ("item_id,decision\n12,spam_likely\n", "line 2: spam_likely is what the machine says"),
        ("item_id,decision\n12\n", "line 2 has 1 columns"),
        ("item_id,decision\n12,spam,x\n", "line 2 has 3 columns"),
        ("item_id,decision\n,spam\n", "line 2 names no item"),
        ("item_id,decision\n" + "9" * 201 + ",spam\n", "line 2: '999"),
        ("item_id,decision\n1\x002,spam\n", "line 2"),
        ('item_id,decision\n"1\x1b[2J",spam\n', "no item's id"),
        ('item_id,decision\n"12,spam\n', "line 2 is not CSV"),
        ("item_id,decision\n12,spam\n12,not_spam\n", "line 3 says something else of the same item than line 2"),
        ("item_id,decision,date\n12,spam,2026-02-30\n", "line 2: '2026-02-30' is no day"),
        ("item_id,decision,date\n12,spam,20260201\n", "no day or time"),
        ("item_id,decision,date\n12,spam,2027-01-01\n", "of the past"),
        ("item_id,decision,date\n12,spam,0001-01-01T00:00+10:00\n", "no day or time"),
        (b"item_id,decision\n1\xff,spam\n", "line 2 is not UTF-8"),
        ("item_id,decision\n" + '"' + "x" * 200_000 + '",spam\n', "line 2 is not CSV: field larger"),
    ],
)
def test_a_faulty_file_is_refused_with_the_line(text: str | bytes, said: str) -> None:
    message = faults(text)
    assert said in message
    assert message.isascii() or "…" in message
    assert "\x1b" not in message


def test_every_faulty_row_is_named_up_to_a_sane_number() -> None:
    message = faults("item_id,decision\n" + "1,x\n" * 50)
    assert "line 2:" in message
    assert "line 21:" in message
    assert "line 22:" not in message
    assert "and 30 more" in message


def test_a_file_without_end_is_refused() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"1" * size

    with pytest.raises(SettingsError, match="more than 50,000,000 bytes"):
        feedback.read(Endless(), NOW)  # type: ignore[arg-type]


@given(st.binary(max_size=400))
def test_no_file_whatsoever_is_a_defect(data: bytes) -> None:
    try:
        decisions = feedback.read(io.BytesIO(b"item_id,decision,date\n" + data), NOW)
    except SettingsError:
        return
    assert all(each.item_id and each.item_id.isprintable() for each in decisions)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three runs, each with the same ten items, an hour apart; the last an hour ago."""
    made = long_history(tmp_path / "state", NOW, runs=3, verdicts=30, hours=1)
    with made.transaction() as db:
        db.execute("UPDATE verdicts SET item_id = (rowid - 1) % 10 + 1, is_spam = run_id = 3")
    return made


def rows(ledger: Ledger) -> list[tuple[object, ...]]:
    """What the history holds of the decisions."""
    found = feedback.all_of(ledger)
    return [(row["item_id"], row["decided_at"], row["is_spam"], row["run_id"], row["verdict_is_spam"]) for row in found]


def test_a_decision_is_about_the_last_verdict_before_it(ledger: Ledger) -> None:
    early = (NOW - timedelta(minutes=90)).isoformat()
    text = f"item_id,decision,date\n1,spam,{early}\n2,spam,\n3,not_spam,2026-03-01\n4,spam,2025-01-01\n99,spam,\n"
    done = feedback.store(ledger, read(text), NOW)
    assert done.as_dict() == {"rows": 5, "new": 5, "changed": 0, "unchanged": 0, "without_verdict": 2}
    found = {row[0]: row[3:] for row in rows(ledger)}
    assert found == {"1": (2, 0), "2": (3, 1), "3": (3, 1), "4": (None, None), "99": (None, None)}


def test_a_type_that_is_told_has_to_be_the_verdicts(ledger: Ledger) -> None:
    (kind,) = {row["content_type"] for row in ledger.run(3)["verdicts"] if row["item_id"] == "1"}  # type: ignore[index]
    done = feedback.store(ledger, read(f"item_id,decision,type\n1,spam,{kind}\n2,spam,nonsense\n"), NOW)
    assert done.without_verdict == 1


def test_a_file_may_be_imported_again(ledger: Ledger) -> None:
    text = "item_id,decision,date\n1,spam,2026-03-01\n2,not_spam,\n"
    feedback.store(ledger, read(text), NOW)
    before = rows(ledger)
    again = feedback.store(ledger, read(text), NOW + timedelta(days=1))
    assert (again.new, again.changed, again.unchanged) == (0, 0, 2)
    assert rows(ledger) == before


def test_a_moderator_who_thinks_again_is_heard_also_when_the_verdict_is_gone(ledger: Ledger) -> None:
    feedback.store(ledger, read("item_id,decision,date\n1,spam,2026-03-01\n"), NOW)
    assert retention.expire(ledger, 1, NOW + timedelta(days=30)) == 30
    done = feedback.store(ledger, read("item_id,decision,date\n1,not_spam,2026-03-01\n"), NOW)
    assert done.as_dict() == {"rows": 1, "new": 0, "changed": 1, "unchanged": 0, "without_verdict": 0}
    assert rows(ledger) == [("1", "2026-03-01", 0, 3, 1)]


def test_decisions_outlive_the_verdicts_that_they_are_about(ledger: Ledger) -> None:
    with ledger.transaction() as db:  # imported before anybody looked for its verdict
        db.execute(
            "INSERT INTO feedback (item_id, decided_at, content_type, is_spam, imported_at) VALUES ('5', '', '', 0, '')"
        )
    retention.expire(ledger, 1, NOW + timedelta(days=30))
    assert rows(ledger) == [("5", "", 0, 3, 1)]


@pytest.fixture
def settled(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which the command finds the history."""
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(ledger.path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_takes_a_file_or_what_a_database_prints(
    settled: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settled / "decisions.csv"
    file.write_text("item_id,decision\n1,spam\n")
    assert code_of("feedback", "import", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,is_spam\n2,t\n3,f\n")))
    assert code_of("feedback", "import", "-") == 0
    assert capsys.readouterr().out == "2 decisions: 2 new, 0 changed, 0 known before\n"
    assert len(rows(ledger)) == 3


def test_a_faulty_file_changes_nothing(settled: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    file = settled / "decisions.csv"
    file.write_text("item_id,decision\n1,spam\n2,perhaps\n")
    assert code_of("feedback", "import", str(file)) == ExitCode.FAULTY_SETTINGS
    assert "line 3" in capsys.readouterr().err
    assert rows(ledger) == []
    assert code_of("feedback", "import", str(settled / "none.csv")) == ExitCode.FAULTY_SETTINGS
    assert code_of("feedback") == ExitCode.FAULTY_SETTINGS
