"""The metrics: true, in Prometheus' own form, and readable by the collector at every moment."""

from __future__ import annotations

import os
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from fake_clock import BEGINNING
from prometheus_client.parser import text_string_to_metric_families
from scene import write_settings
from some_history import PLAN, some_history

from spamops import cli, textfile
from spamops.budget import Budget
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud
from spamops.summary import Summary, finish

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    """Values by name and labels, read as Prometheus' own client reads them."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def rendered(folder: Path) -> Samples:
    """The metrics of that history, three hours after its beginning."""
    return samples(textfile.render(some_history(folder), "gpu", PLAN, BEGINNING + timedelta(hours=3)))


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("spamops_runs_total", {"outcome": "items_failed"}, 1),
        ("spamops_runs_total", {"outcome": "checker_failed"}, 1),
        ("spamops_runs_total", {"outcome": "done"}, 1),
        ("spamops_items_total", {"content_type": "jobs", "result": "spam"}, 1),
        ("spamops_items_total", {"content_type": "jobs", "result": "not_spam"}, 4),
        ("spamops_service_units_total", {}, 8.4),
        ("spamops_server_active_seconds_total", {}, 1890),
        ("spamops_last_run_outcome", {"outcome": "checker_failed"}, 1),
        ("spamops_last_run_outcome", {"outcome": "done"}, 0),
        ("spamops_last_run_start_timestamp_seconds", {}, (BEGINNING + timedelta(hours=1)).timestamp()),
        ("spamops_last_run_end_timestamp_seconds", {}, (BEGINNING + timedelta(minutes=80)).timestamp()),
        ("spamops_last_success_timestamp_seconds", {}, (BEGINNING + timedelta(minutes=20)).timestamp()),
        ("spamops_last_run_step_duration_seconds", {"step": "wake"}, 9.5),
        ("spamops_last_run_service_units", {}, 4.0),
        ("spamops_server_state", {"state": "shelved_offloaded"}, 1),
        ("spamops_server_state", {"state": "active"}, 0),
        ("spamops_server_seen_timestamp_seconds", {}, (BEGINNING + timedelta(hours=2)).timestamp()),
        ("spamops_alarm_open", {"kind": "check_failed"}, 1),
        ("spamops_alarm_open", {"kind": "server_not_shelved"}, 0),
        ("spamops_budget_limit_service_units", {"period": "day"}, 24.0),
        ("spamops_budget_left_service_units", {"period": "day"}, 24.0 - 8.0 - 0.4),
        ("spamops_budget_left_service_units", {"period": "month"}, 300.0 - 8.0 - 0.4),
        ("spamops_written_timestamp_seconds", {}, (BEGINNING + timedelta(hours=3)).timestamp()),
    ],
)
def test_the_figures_are_those_of_the_history(name: str, labels: dict[str, str], value: float, tmp_path: Path) -> None:
    assert rendered(tmp_path)[(name, frozenset(labels.items()))] == pytest.approx(value)


def test_a_history_without_a_run_is_no_success_at_the_beginning_of_time(tmp_path: Path) -> None:
    found = samples(textfile.render(Ledger(tmp_path), "gpu", Budget(), BEGINNING))
    names = {name for name, _ in found}
    assert "spamops_build_info" in names
    assert not names & {"spamops_last_success_timestamp_seconds", "spamops_last_run_outcome"}
    assert found[("spamops_server_state", frozenset({("state", "unknown")}))] == 1


def test_what_a_checker_says_makes_no_endless_series_and_no_odd_label(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    made = Summary(server="gpu")
    made.by_type = {f'type {n}"}}\n evil_metric 1': {"spam": 1} for n in range(200)}
    finish(made, ExitCode.DONE, None)
    ledger.end(ledger.begin("gpu", "command", BEGINNING, None), made, BEGINNING)
    found = samples(textfile.render(ledger, "gpu", PLAN, BEGINNING))
    types = {dict(labels)["content_type"] for name, labels in found if name == "spamops_items_total"}
    assert len(types) <= textfile.CONTENT_TYPES_AT_MOST + 1
    assert "evil_metric" not in {name for name, _ in found}
    spam = sum(
        v for (name, labels), v in found.items() if name == "spamops_items_total" and ("result", "spam") in labels
    )
    assert spam == 200


def test_the_file_is_whole_and_readable_whatever_the_umask(tmp_path: Path) -> None:
    ledger = some_history(tmp_path)
    path = tmp_path / "metrics" / "spamops.prom"
    path.parent.mkdir()
    over, broken = threading.Event(), []

    def collect() -> None:
        while not over.is_set():
            if path.exists() and not path.read_bytes().endswith(b"\n"):
                broken.append(path.read_bytes())

    reader = threading.Thread(target=collect)
    reader.start()
    before = os.umask(0o077)
    try:
        for _ in range(30):
            assert textfile.write(path, ledger, "gpu", PLAN, BEGINNING)
    finally:
        os.umask(before)
        over.set()
        reader.join()
    assert broken == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [left.name for left in path.parent.iterdir()] == ["spamops.prom"]


def test_a_file_that_cannot_be_written_leaves_no_trace(tmp_path: Path) -> None:
    ledger = some_history(tmp_path)
    path = tmp_path / "metrics" / "spamops.prom"
    assert not textfile.write(path, ledger, "gpu", PLAN, BEGINNING)
    path.mkdir(parents=True)
    assert not textfile.write(path, ledger, "gpu", PLAN, BEGINNING)
    assert [left.name for left in path.parent.iterdir()] == ["spamops.prom"]


def test_the_command_shows_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spamops.prom"
    with SandboxCloud([]) as cloud:
        config = str(write_settings(tmp_path, cloud, "gpu", "http://127.0.0.1:9", metrics_textfile=str(path)))
    assert code_of("metrics", "--config", config) == 0
    assert "# TYPE spamops_runs_total counter" in capsys.readouterr().out
    assert code_of("metrics", "--write", "--json", "--config", config) == 0
    assert "spamops_build_info" in path.read_text()
    path.unlink()
    path.mkdir()
    assert code_of("metrics", "--write", "--config", config) == 8


def test_a_file_that_the_collector_would_not_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SandboxCloud([]) as cloud:
        config = str(write_settings(tmp_path, cloud, "gpu", "http://127.0.0.1:9", metrics_textfile="x.txt"))
    assert code_of("metrics", "--config", config) == 2
    assert "metrics_textfile must end in .prom" in capsys.readouterr().err


def code_of(*arguments: str) -> int:
    """What the command exits with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
