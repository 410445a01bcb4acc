"""The report: its figures are those of the history, and nothing that came from elsewhere does anything in it."""

from __future__ import annotations

import hashlib
import json
import random
import re
import stat
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_line import code_of
from long_history import RATE, decisions, end, long_history

from spamops import feedback, report
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.report import charts

NOW = datetime(2026, 3, 1, 15, 30, tzinfo=UTC)
HOSTILE = '</script><script>alert("x")</script>\'"><img src=x onerror=alert(1)>{{ 7*7 }}\u202e\u2028=1+1'


def sql(ledger: Ledger, query: str, *values: Any) -> Any:
    """The one row of a query."""
    with ledger.transaction() as db:
        return tuple(db.execute(query, values).fetchone())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Sixty runs with ten thousand verdicts, some of which moderators looked at."""
    ledger = long_history(tmp_path_factory.mktemp("history"), NOW)
    csv = decisions(ledger, NOW).encode()
    feedback.store(ledger, feedback.read(BytesIO(csv), NOW), NOW)
    return ledger


@pytest.mark.parametrize("place", [0, 1])
def test_its_figures_are_those_that_the_history_holds(history: Ledger, place: int) -> None:
    period = report.compute(history, NOW).periods[place]
    assert period.days == (7, 30)[place]
    since = (NOW.replace(hour=0, minute=0) - timedelta(days=period.days - 1)).isoformat(timespec="milliseconds")
    of = "FROM runs WHERE ended_at >= ?"
    sums = sql(history, f"SELECT COUNT(*), SUM(spam), SUM(not_spam), SUM(failed), SUM(service_units) {of}", since)
    assert (period.runs, period.items.spam, period.items.not_spam, period.items.failed) == sums[:4]
    assert period.items.judged > 2000
    assert period.cost.units == pytest.approx(sums[4], abs=0.001)
    assert period.cost.hours == pytest.approx(sums[4] / RATE, abs=0.001)
    bad = sql(history, f"SELECT COUNT(*) {of} AND exit_code NOT IN (0, 6)", since)
    assert (period.runs_not_done,) == bad
    inside = "FROM verdicts v JOIN runs r ON r.id = v.run_id WHERE r.ended_at >= ? AND is_spam IS NOT NULL"
    for name, counts in period.by_decider.items():
        found = sql(history, f"SELECT SUM(is_spam), SUM(NOT is_spam) {inside} AND decided_by = ?", since, name)
        assert (counts.spam, counts.not_spam) == found, name
    for name, counts in period.by_type.items():
        found = sql(history, f"SELECT SUM(is_spam), SUM(NOT is_spam) {inside} AND content_type = ?", since, name)
        assert (counts.spam, counts.not_spam) == found, name
        assert counts.share == found[0] / sum(found)
    for number, counts in enumerate(period.histogram):
        limits = (number / 10, 2 if number == 9 else (number + 1) / 10)
        query = f"SELECT COALESCE(SUM(is_spam), 0), COUNT(*) {inside} AND confidence >= ? AND confidence < ?"
        assert (counts.spam, counts.judged) == sql(history, query, since, *limits), number
    assert sum(counts.judged for counts in period.by_day.values()) == period.items.judged
    slowest = sql(history, f"SELECT MAX(v.seconds) {inside}", since)
    assert (period.slowest[0].seconds,) == slowest
    assert [v.seconds for v in period.slowest] == sorted((v.seconds for v in period.slowest), reverse=True)
    assert len(period.failed) == min(20, period.items.failed)


def test_what_an_always_on_server_would_have_cost_begins_with_its_first_run(tmp_path: Path) -> None:
    ledger = long_history(tmp_path, NOW, runs=2, verdicts=20, hours=5)
    week, month = report.compute(ledger, NOW).periods
    assert week.cost.always_hours == month.cost.always_hours == pytest.approx(10)
    assert week.cost.always_units == pytest.approx(10 * RATE)


def test_without_a_rate_it_shows_hours_and_makes_up_no_cost(tmp_path: Path) -> None:
    ledger = long_history(tmp_path, NOW, runs=2, verdicts=20)
    with ledger.transaction() as db:
        db.execute("UPDATE runs SET service_units_per_hour = NULL, service_units = NULL")
    figures = report.compute(ledger, NOW)
    assert figures.periods[0].cost.units is None
    assert figures.periods[0].cost.hours > 0
    assert "service_units_per_hour" in report.render(figures)


def test_how_often_the_machine_was_wrong_is_what_moderators_decided(history: Ledger) -> None:
    review = report.compute(history, NOW).review
    for name, condition in (
        ("false_positives", "verdict_is_spam AND NOT is_spam"),
        ("false_negatives", "NOT verdict_is_spam AND is_spam"),
    ):
        assert (getattr(review.all, name),) == sql(history, f"SELECT COUNT(*) FROM feedback WHERE {condition}")
        assert getattr(review.all, name) > 5
        for groups in (review.by_type, review.by_model, review.by_week):
            assert sum(getattr(score, name) for score in groups.values()) == getattr(review.all, name)
    assert (review.all.reviewed,) == sql(history, "SELECT COUNT(*) FROM feedback")


class Page(HTMLParser):
    """What a browser would make of the page: elements, addresses, and the one-line texts of figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile_history(folder: Path) -> Ledger:
    """A history in which every text that a checker or a cloud may choose is hostile."""
    ledger = Ledger(folder)
    chance = random.Random(1)
    rows = [
        {
            "item_id": item,
            "content_type": HOSTILE,
            "content_hash": HOSTILE,
            "is_spam": True,
            "confidence": 0.5,
            "by": HOSTILE,
        }
        | {"indicators": [HOSTILE], "seconds": 1.0}
        for item in (HOSTILE, "../../x?a=b#c", "javascript:alert(1)")
    ]
    made = {
        "checked": 3, "spam": 3, "not_spam": 0, "failed": 1, "classify_seconds": 3.0,
        "by_type": {HOSTILE: {"spam": 3, "not_spam": 0, "failed": 1}}, "verdicts": rows,
        "failures": [{"item_id": HOSTILE + "f", "content_type": HOSTILE, "content_hash": "x", "reason": HOSTILE}],
    }  # fmt: skip
    run = end(ledger, HOSTILE, NOW - timedelta(hours=1), made, ExitCode.CHECKER_FAILED, chance)
    with ledger.transaction() as db:
        details = json.loads(db.execute("SELECT details FROM runs").fetchone()[0])
        details["steps"] |= {HOSTILE: 1.0}
        details["warnings"] = [HOSTILE]
        details["server_timeline"][0] |= {"status": HOSTILE, "task_state": HOSTILE}
        db.execute(
            "UPDATE runs SET reason = ?, workflow_id = ?, workflow_status = ?, started_by = ?, outcome = ?, details = ?",
            (HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, json.dumps(details)),
        )
        db.execute(
            "INSERT INTO feedback (item_id, decided_at, content_type, is_spam, imported_at) VALUES (?, '', '', 0, '')",
            (HOSTILE,),
        )
        feedback.match(db)
    assert run == 1
    return ledger


def test_nothing_that_came_from_elsewhere_becomes_markup_or_script(tmp_path: Path) -> None:
    text = report.render(report.compute(hostile_history(tmp_path), NOW), "https://example.org/m/{id}/")
    page = Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "{{ 7*7 }}" in "".join(page.texts)
    assert {urlscheme(address) for address in page.addresses} <= {"https", "data", "#"}
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert HOSTILE in [row[0] for row in data["runs"]["1"]]
    assert "\u202e" not in text
    assert "../../x" not in [part for address in page.addresses for part in address.split("/m/")[1:]]
    assert "https://example.org/m/..%2F..%2Fx%3Fa%3Db%23c/" in page.addresses


def urlscheme(address: str) -> str:
    return "#" if address.startswith("#") else address.partition(":")[0]


def test_it_asks_for_nothing_and_runs_only_its_own_script(history: Ledger) -> None:
    text = report.render(report.compute(history, NOW))
    page = Page(text)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    for name in ("style", "script"):
        (inside,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.S)
        digest = b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert {urlscheme(address) for address in page.addresses} == {"#", "data"}
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", text)


def test_every_link_in_it_leads_somewhere_and_every_id_is_there_once(history: Ledger) -> None:
    page = Page(report.render(report.compute(history, NOW)))
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_before_the_first_run_it_is_a_page_too(tmp_path: Path) -> None:
    text = report.render(report.compute(Ledger(tmp_path / "none"), NOW))
    assert "No run yet." in text
    assert not (tmp_path / "none").exists()


def test_a_run_that_is_not_ended_and_one_that_ended_without_a_report_are_shown(tmp_path: Path) -> None:
    ledger = long_history(tmp_path, NOW, runs=1, verdicts=0)
    with ledger.transaction() as db:
        db.execute(
            "UPDATE runs SET details = NULL, checked = NULL, spam = NULL, exit_code = 4, outcome = 'server_not_woken'"
        )
    ledger.begin("gpu", "command", NOW - timedelta(minutes=30), RATE)
    figures = report.compute(ledger, NOW)
    assert figures.periods[0].cost.hours >= 0.5
    assert (figures.periods[0].runs, figures.periods[0].runs_not_done) == (1, 1)
    text = report.render(figures)
    assert "not ended" in text
    assert "server not woken" in text


def test_what_the_reaper_found_costs_but_is_no_check(tmp_path: Path) -> None:
    ledger = long_history(tmp_path, NOW, runs=1, verdicts=10)
    with ledger.transaction() as db:
        db.execute("UPDATE runs SET started_by = 'reap'")
    period = report.compute(ledger, NOW).periods[0]
    assert period.runs == 0
    assert period.cost.hours > 0


def test_a_long_history_leaves_out_old_verdicts_and_says_so(history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spamops.report.figures.VERDICTS_SHOWN", 400)
    monkeypatch.setattr("spamops.report.figures.RUNS_SHOWN", 5)
    figures = report.compute(history, NOW)
    assert len(figures.runs) == 5
    assert sum(map(len, figures.details.values())) <= 400
    assert max(figures.details) == 60
    assert "older ones are left out" in report.render(figures)
    assert figures.periods[1].verdicts > 9000, "counted all the same"


@pytest.mark.parametrize(("most", "top"), [(0, 4), (3, 4), (4, 4), (5, 6), (130, 160), (1000, 1000), (1001, 1200)])
def test_axes_end_where_a_person_would_end_them(most: float, top: float) -> None:
    assert charts.nice_top(most) == pytest.approx(top)


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A small history where the command looks for it."""
    long_history(tmp_path / "state", datetime.now(UTC), runs=3, verdicts=30)
    monkeypatch.setenv("SPAMOPS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def write(**more: Any) -> None:
        (tmp_path / "spamops.toml").write_text(
            "".join(f"{name} = {json.dumps(value)}\n" for name, value in more.items())
        )

    return write


def test_the_command_writes_a_file_for_its_owner_alone_unless_told_otherwise(
    settled: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settled(moderation_url="https://example.org/{id}")
    assert code_of("report", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    path = Path(told["file"])
    assert path == tmp_path / "spamops-report.html"
    assert (told["runs"], told["verdicts"], told["bytes"]) == (3, 30, path.stat().st_size)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "https://example.org/1" in path.read_text()
    assert code_of("report", "--output", str(path), "--mode", "0644") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize("mode", ["0666", "0400", "777", "x", "-1"])
def test_a_mode_that_lets_others_write_is_refused(settled: Callable[..., None], mode: str) -> None:
    assert code_of("report", f"--mode={mode}") == ExitCode.FAULTY_SETTINGS


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    settled: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.html"
    old.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert code_of("report", "--output", str(old)) == ExitCode.FAULTY_SETTINGS
    assert "No space left" in capsys.readouterr().err
    assert old.read_text() == "old"
    assert list(tmp_path.glob(".*.new")) == []
    assert code_of("report", "--output", str(tmp_path / "no" / "folder.html")) == ExitCode.FAULTY_SETTINGS


@pytest.mark.parametrize(
    "url",
    ["javascript:alert('{id}')", "https://example.org/", "https://{id}.example.org/", "https://u:p@example.org/{id}"],
)
def test_an_address_that_is_no_moderation_page_is_refused(
    settled: Callable[..., None], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settled(moderation_url=url)
    assert code_of("report") == ExitCode.FAULTY_SETTINGS
    assert "moderation_url" in capsys.readouterr().err
