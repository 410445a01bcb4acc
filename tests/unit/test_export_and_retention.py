"""What leaves the history: tables for other programs, and what it forgets for good."""

from __future__ import annotations

import csv
import io
import json
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import code_of
from fake_checker import FakeChecker
from long_history import decisions, long_history
from scene import write_settings

from spamops import export, feedback, retention
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec

NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Ten runs a week apart, with decisions."""
    made = long_history(tmp_path / "state", NOW, runs=10, verdicts=200, hours=168)
    feedback.store(made, feedback.read(io.BytesIO(decisions(made, NOW).encode()), NOW), NOW)
    return made


def count(ledger: Ledger, table: str) -> int:
    """Rows of a table."""
    with ledger.transaction() as db:
        return int(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def exported(ledger: Ledger, form: str, *tables: str, days: int | None = None) -> bytes:
    """What an export writes."""
    file = io.BytesIO()
    export.write(ledger, file, form, tables, NOW, days)
    return file.getvalue()


def test_json_holds_every_row_of_every_table(ledger: Ledger) -> None:
    found = json.loads(exported(ledger, "json", *export.TABLES))
    for table in export.TABLES:
        assert len(found[table]) == count(ledger, table) > 0
        assert set(found[table][0]) == set(export.TABLES[table])
    run = ledger.run(3)
    assert run is not None
    mine = {row["item_id"]: row for row in found["verdicts"] if row["run_id"] == 3}
    for verdict in run["verdicts"]:
        assert verdict == {name: mine[verdict["item_id"]][name] for name in verdict}


def test_json_of_an_empty_history_is_json(tmp_path: Path) -> None:
    assert json.loads(exported(Ledger(tmp_path / "none"), "json", *export.TABLES)) == {
        name: [] for name in export.TABLES
    }


def test_csv_and_parquet_hold_what_json_holds(ledger: Ledger) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for table, columns in export.TABLES.items():
        rows = json.loads(exported(ledger, "json", table))[table]
        assert parquet.read_table(io.BytesIO(exported(ledger, "parquet", table))).to_pylist() == rows
        read = list(csv.DictReader(io.StringIO(exported(ledger, "csv", table).decode())))
        assert len(read) == len(rows)
        for given, expected in zip(read, rows, strict=True):
            for name, kind in columns.items():
                value = expected[name]
                text = "" if value is None else " ".join(value) if kind is list else value
                assert given[name] == (str(text).lower() if kind is bool else str(text)), name


def test_only_the_last_days_can_be_had(ledger: Ledger) -> None:
    rows = json.loads(exported(ledger, "json", "runs", days=15))["runs"]
    assert [row["run_id"] for row in rows] == [9, 10]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1", "\u00a0=1", "\n=cmd|' /C calc'!A0"]
)
def test_a_spreadsheet_runs_nothing_of_a_csv_file(ledger: Ledger, text: str) -> None:
    with ledger.transaction() as db:
        db.execute("UPDATE verdicts SET item_id = ? WHERE rowid = 1", (text,))
        db.execute("UPDATE verdicts SET indicators = ? WHERE rowid = 1", (json.dumps([text]),))
    row = next(csv.DictReader(io.StringIO(exported(ledger, "csv", "verdicts").decode(), newline="")))
    for name in ("item_id", "indicators"):
        assert row[name].startswith("'")
        assert row[name].isprintable()
    exact = json.loads(exported(ledger, "json", "verdicts"))["verdicts"]
    assert text in [each["item_id"] for each in exact]


@pytest.fixture
def settled(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which the command finds the history."""
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(ledger.path.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_pyarrow_it_says_what_to_install(
    settled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert code_of("export", "--format", "parquet", "--output", "x.parquet") == ExitCode.FAULTY_SETTINGS
    assert "pip install 'spamops[parquet]'" in capsys.readouterr().err
    assert not list(settled.glob("*x.parquet*"))


def test_the_command_writes_to_stdout_or_to_a_file_of_its_owner(
    settled: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert code_of("export", "--format", "csv") == 0
    assert capsysbinary.readouterr().out.startswith(b'"run_id","server","started_at","item_id"')
    assert code_of("export") == 0
    assert set(json.loads(capsysbinary.readouterr().out)) == set(export.TABLES)
    assert code_of("export", "--format", "csv", "--table", "runs", "--output", "runs.csv", "--json") == 0
    assert json.loads(capsysbinary.readouterr().out)["rows"] == {"runs": 10}
    assert stat.S_IMODE((settled / "runs.csv").stat().st_mode) == 0o600
    assert code_of("export", "--json") == ExitCode.FAULTY_SETTINGS


def test_old_verdicts_go_and_sums_and_decisions_stay(ledger: Ledger) -> None:
    runs, decided = ledger.runs(100), count(ledger, "feedback")
    gone = retention.expire(ledger, 30, NOW)
    assert gone > 0
    assert count(ledger, "verdicts") == 200 - gone
    assert ledger.runs(100) == runs
    assert count(ledger, "feedback") == decided
    for run in runs:
        kept = ledger.run(run["id"])
        assert kept is not None
        old = datetime.fromisoformat(run["ended_at"]) < NOW - timedelta(days=30)
        assert bool(kept["verdicts"]) != old
    assert retention.expire(ledger, 30, NOW) == 0


def test_nothing_about_an_item_is_left_in_the_file(ledger: Ledger) -> None:
    mark = "item-to-be-forgotten-4711"
    with ledger.transaction() as db:
        db.execute("UPDATE verdicts SET item_id = ? WHERE rowid IN (3, 77, 150)", (mark,))
    csv_text = f"item_id,decision,date\n{mark},spam,2026-02-01\n{mark},not_spam,\n"
    feedback.store(ledger, feedback.read(io.BytesIO(csv_text.encode()), NOW), NOW)
    assert mark.encode() in ledger.path.read_bytes()
    assert retention.forget(ledger, mark) == {"verdicts": 3, "feedback": 2}
    assert mark.encode() not in b"".join(path.read_bytes() for path in ledger.path.parent.iterdir() if path.is_file())
    assert count(ledger, "verdicts") == 197
    assert retention.forget(ledger, mark) == {"verdicts": 0, "feedback": 0}


def test_the_command_forgets_an_item_or_what_is_too_old(
    settled: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("forget", "1003", "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdicts"] == 1
    assert code_of("forget", "--expired") == ExitCode.FAULTY_SETTINGS
    assert "verdict_days is not set" in capsys.readouterr().err
    (settled / "spamops.toml").write_text("verdict_days = 1\n")
    assert code_of("forget", "--expired") == 0
    assert "deleted: " in capsys.readouterr().out
    assert count(ledger, "verdicts") == 0
    assert code_of("forget") == ExitCode.FAULTY_SETTINGS
    assert code_of("forget", "1", "--expired") == ExitCode.FAULTY_SETTINGS


@pytest.mark.parametrize("days", ["0", '"x"', "-3", "40000"])
def test_a_faulty_number_of_days_deletes_nothing(settled: Path, ledger: Ledger, days: str) -> None:
    (settled / "spamops.toml").write_text(f"verdict_days = {days}\n")
    assert code_of("forget", "--expired") == ExitCode.FAULTY_SETTINGS
    assert count(ledger, "verdicts") == 200


def test_a_run_is_not_judged_by_what_could_not_be_removed(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no database at all, and long enough to be none " * 10)
    retention.after_a_run(Ledger(tmp_path), 30, NOW)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")
def test_the_end_of_a_run_and_the_reaper_remove_what_is_too_old(tmp_path: Path) -> None:
    spec = ServerSpec()
    checker = FakeChecker(on=False)
    with SandboxCloud([spec], on_power=checker.power) as cloud, checker:
        config = str(write_settings(tmp_path, cloud, spec.id, checker.url, verdict_days=30))
        for command, code in ((("run",), 0), (("reap", "--dry-run"), 0), (("reap",), 0)):
            ledger = long_history(tmp_path / "state", NOW, runs=1, verdicts=10)
            before = count(ledger, "verdicts")
            assert code_of(*command, "--config", config) == code
            old = count(ledger, "verdicts WHERE run_id IN (SELECT id FROM runs WHERE server = 'gpu')")
            assert (before > 0, old) == (True, 10 if "--dry-run" in command else 0)
        assert count(ledger, "verdicts") == 3, "those of the run itself stay"
