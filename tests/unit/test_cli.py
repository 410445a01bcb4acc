"""The command line: exit codes, stdout for results, stderr for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, Answer, FakeChecker, report
from fake_clock import BEGINNING
from scene import write_settings

from spamops import cli
from spamops.errors import EXIT_CODES, ExitCode
from spamops.ledger import Ledger
from spamops.lock import ServerLock
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.summary import Summary, add_check, finish

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide enough that no word is folded."""
    monkeypatch.setenv("COLUMNS", "200")


def code_of(*arguments: str) -> int:
    """What the command exits with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def some_history(folder: Path) -> Ledger:
    """One run, ended."""
    ledger = Ledger(folder / "state")
    made = Summary(server="gpu")
    add_check(made, "COMPLETED", {}, report(2, failed=1))
    finish(made, ExitCode.ITEMS_FAILED, "1 items failed")
    ledger.end(ledger.begin("gpu", "command", BEGINNING, 16.0), made, BEGINNING, report(2, failed=1))
    return ledger


def test_every_exit_code_is_explained(capsys: Captured) -> None:
    assert code_of("run", "--help") == 0
    shown = capsys.readouterr().out
    assert set(EXIT_CODES) == set(ExitCode)
    for code, text in EXIT_CODES.items():
        assert f"{int(code):>3}  {text}" in shown
    assert len({int(code) for code in ExitCode}) == len(ExitCode)


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("run", "--nonsense"), ("show", "x"), ("history", "--limit", "0")]
)
def test_a_mistyped_command_is_a_faulty_setting(arguments: tuple[str, ...]) -> None:
    assert code_of(*arguments) == ExitCode.FAULTY_SETTINGS


def test_faulty_settings_are_told_to_machines_too(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code_of("run", "--json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out) | {"reason": None} == {"exit_code": 2, "outcome": "faulty_settings", "reason": None}
    assert "server is not set" in err
    assert "Traceback" not in err


def test_the_settings_are_read_and_shown_without_secrets(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Path("spamops.toml")
    config.write_text('server = "checker-1"\nchecker_url = "http://203.0.113.7:8001"\nshelve_seconds = 1200\n')
    monkeypatch.setenv("SPAMOPS_API_KEY", API_KEY)
    assert code_of("settings", "--json") == 0
    out, err = capsys.readouterr()
    stated = json.loads(out)
    assert (stated["server"], stated["shelve_seconds"]) == ("checker-1", 1200)
    assert stated["api_key"] == "*" * 10
    assert "unshelve_seconds" not in stated
    assert code_of("settings") == 0
    shown = capsys.readouterr()
    assert 'server = "checker-1"' in shown.out.splitlines()
    assert API_KEY not in out + err + shown.out + shown.err

    config.write_text(config.read_text().replace("shelve_seconds", "shelv_seconds") + "api_seconds = 0\n")
    assert code_of("settings") == 2
    err = capsys.readouterr().err
    assert "shelv_seconds is not a setting; did you mean shelve_seconds?" in err
    assert "api_seconds" in err


def test_the_history_needs_no_credentials(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    some_history(tmp_path)
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(tmp_path / "state"))
    assert code_of("history", "--json") == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["id"], run["outcome"], run["failed"]) == (1, "items_failed", 1)
    assert code_of("history") == 0
    assert "items failed" in capsys.readouterr().out
    assert code_of("show", "1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [verdict["is_spam"] for verdict in shown["verdicts"]] == [None, True, False]
    assert code_of("show", "1") == 0
    assert "items failed" in capsys.readouterr().out
    assert code_of("show", "2") == 2
    assert "there is no run 2" in capsys.readouterr().err


def test_no_run_yet_is_no_fault(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(tmp_path))
    assert code_of("history") == 0
    assert capsys.readouterr() == ("", "no run yet\n")
    assert code_of("history", "--json") == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_broken_history_is_named(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ledger.db").write_text("not a database" * 100)
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(tmp_path))
    assert code_of("history") == 8
    assert "cannot be read or written" in capsys.readouterr().err


def test_a_run_tells_machines_everything_on_one_line(tmp_path: Path, capsys: Captured) -> None:
    checker = FakeChecker(on=False)
    spec = ServerSpec()
    with SandboxCloud([spec], on_power=checker.power) as cloud, checker:
        config = str(write_settings(tmp_path, cloud, spec.id, checker.url))
        assert code_of("run", "--json", "--config", config) == 0
        out, err = capsys.readouterr()
        told: dict[str, Any] = json.loads(out)
        assert told["server_states"][0] == told["server_states"][-1] == "SHELVED_OFFLOADED"
        assert (told["checked"], told["exit_code"], told["workflow_status"]) == (3, 0, "COMPLETED")
        assert "server ACTIVE" in err
        checker.order("report", Answer(200, report(3, failed=1)))
        assert code_of("run", "--config", config) == 6
        out, err = capsys.readouterr()
        assert "done, but some items failed" in out
        assert "spamops: 1 items failed; see: spamops show 2" in err
        assert API_KEY not in out + err


def test_the_state_of_things_is_shown_while_a_run_is_active(tmp_path: Path, capsys: Captured) -> None:
    spec = ServerSpec(status="ACTIVE")
    with SandboxCloud([spec]) as cloud:
        config = str(write_settings(tmp_path, cloud, spec.id, "http://127.0.0.1:9"))
        lock = ServerLock(tmp_path / "state", spec.id)
        lock.acquire(pid=4711)
        assert code_of("status", "--json", "--config", config) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["state"] == {"status": "ACTIVE", "task_state": None}
        assert told["lock"]["pid"] == 4711
        assert code_of("run", "--config", config) == 3
        capsys.readouterr()
        lock.release()
        assert code_of("status", "--config", config) == 0
        out = capsys.readouterr().out
        assert "ACTIVE" in out
        assert "free" in out
        assert cloud.action_requests == []


def test_a_status_that_cannot_be_had_is_a_failure(tmp_path: Path, capsys: Captured) -> None:
    with SandboxCloud([]) as cloud:
        config = str(write_settings(tmp_path, cloud, "nobody", "http://127.0.0.1:9"))
        assert code_of("status", "--config", config) == 4
        assert "no server nobody in this project" in capsys.readouterr().err


def test_open_alarms_and_the_budget_are_shown_with_the_state(tmp_path: Path, capsys: Captured) -> None:
    spec = ServerSpec(status="SHELVED_OFFLOADED")
    with SandboxCloud([spec]) as cloud:
        config = str(write_settings(tmp_path, cloud, spec.id, "http://127.0.0.1:9", budget_day_units=24.0))
        Ledger(tmp_path / "state").raise_alarm(spec.id, "check_failed", "run 1: it broke", 1, BEGINNING, again=True)
        assert code_of("status", "--json", "--config", config) == 0
        told = json.loads(capsys.readouterr().out)
        assert [(alarm["kind"], alarm["text"]) for alarm in told["alarms"]] == [("check_failed", "run 1: it broke")]
        assert told["budget"] == {"day": {"limit": 24.0, "spent": 0, "left": 24.0}}
        assert code_of("status", "--config", config) == 0
        out = capsys.readouterr().out
        assert "check_failed, since 2026-03-01T03:00Z: run 1: it broke" in out
        assert "0 of 24 service units this day (UTC)" in out
