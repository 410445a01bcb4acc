"""The example rules and the dashboard: they ask for what is there, and Prometheus' own tool takes them.

promtool is in Debian's package `prometheus`; PROMTOOL names another one. Where there is none, its tests are skipped by name.
No Grafana is run: the dashboard is compared with what Grafana's own format asks for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_clock import BEGINNING
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from some_history import PLAN, some_history

from spamcheck.journal import Journal
from spamcheck.metrics import Metrics
from spamops import textfile
from spamops.alarms import Kind

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "monitoring" / "prometheus" / "spamops.rules.yml"
RULE_TESTS = RULES.with_name("spamops.rules.test.yml")
DASHBOARD = ROOT / "monitoring" / "grafana" / "spamops.json"
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed: apt-get install prometheus")
OURS = re.compile(r"\b((?:spamops|spamcheck)_[a-z0-9_]+)")
SELECTED = re.compile(r"\b((?:spamops|spamcheck)_[a-z0-9_]+)\{([^}]*)\}")


def controllers(folder: Path) -> bytes:
    """The controller's metrics."""
    return textfile.render(some_history(folder), "gpu", PLAN, BEGINNING + timedelta(hours=3))


def checkers(folder: Path) -> bytes:
    """The checker's metrics, with something in each."""
    with closing(Journal(folder)) as journal:
        with closing(sqlite3.connect(next(folder.glob("*.db")))) as db, db:
            db.executemany(
                "INSERT INTO totals (name, content_type, label, amount) VALUES (?, ?, ?, ?)",
                [
                    ("runs", "", "COMPLETED", 3),
                    ("checked", "jobs", "spam", 5),
                    ("failed", "jobs", "", 1),
                    ("gone", "jobs", "", 1),
                    ("superseded", "jobs", "", 1),
                    ("classify_seconds", "jobs", "count", 5),
                    ("classify_seconds", "jobs", "sum", 2.5),
                ],
            )
        metrics = Metrics(journal)
        metrics.up = {"journal": True, "temporal": True, "worker": False}
        metrics.requests.labels("/ok", "200").inc()
        return generate_latest(metrics.registry)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[frozenset[tuple[str, str]]]]:
    """Every name that is exported, with the labels that it comes with."""
    found: dict[str, set[frozenset[tuple[str, str]]]] = {}
    texts = controllers(tmp_path_factory.mktemp("one")), checkers(tmp_path_factory.mktemp("two"))
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).add(frozenset(sample.labels.items()))
    return found


def rules() -> list[dict[str, Any]]:
    """The example rules."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> Iterator[str]:
    """Everything that the rules and the dashboard ask Prometheus for."""
    for rule in rules():
        yield rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def test_every_metric_that_is_asked_for_is_exported(exported: dict[str, Any]) -> None:
    asked = {name for query in queries() for name in OURS.findall(query)}
    assert len(asked) > 15
    assert asked - set(exported) == set()


def test_every_label_value_that_is_asked_for_exists(exported: dict[str, set[frozenset[tuple[str, str]]]]) -> None:
    checked = 0
    for query in queries():
        for name, selector in SELECTED.findall(query):
            for label, value in re.findall(r'(\w+)="([^"]*)"', selector):
                assert any((label, value) in labels for labels in exported[name]), (name, label, value)
                checked += 1
    assert checked >= 5


def test_every_rule_has_a_test_and_says_what_to_do() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULE_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
        if "exp_alerts" in case
    }
    assert tested == {rule["alert"] for rule in rules()}
    page = (ROOT / "docs" / "alarms.md").read_text().lower()
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        for section in re.findall(r"docs/alarms\.md, ([a-z_ ]+)\.", rule["annotations"]["description"]):
            assert f"\n## `{section}`" in page or f"\n## {section}\n" in page, section


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36
    assert {"uid", "title", "time", "templating", "panels", "version"} <= set(dashboard)
    assert "id" not in dashboard, "an id is of one Grafana alone"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) > 10
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert panel["type"] in {"stat", "timeseries", "bargauge", "table", "state-timeline"}
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= known


def test_the_kinds_of_alarms_that_cost_money_have_a_rule() -> None:
    asked = {kind for rule in rules() for kind in re.findall(r'kind="([a-z_]+)"', rule["expr"])}
    assert asked == {Kind.NOT_SHELVED, Kind.IN_ERROR, Kind.NOT_SEEN}


def promtool(*arguments: str, text: bytes = b"") -> str:
    """What it says; fails with that when it is not content."""
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, timeout=60)
    told = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, told
    return told


@needs_promtool
def test_promtool_takes_the_metrics(tmp_path: Path) -> None:
    for name, text in (("controller", controllers(tmp_path / "one")), ("checker", checkers(tmp_path))):
        assert promtool("check", "metrics", text=text) == "", name


@needs_promtool
def test_promtool_takes_the_rules_and_their_tests_pass() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(RULE_TESTS))


@needs_promtool
def test_every_query_of_the_dashboard_is_one_for_prometheus(tmp_path: Path) -> None:
    exprs = [query.replace("$instance", ".*") for query in queries() if not query.startswith("label_values")]
    made = [{"record": f"check:q{number}", "expr": expr} for number, expr in enumerate(exprs)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    assert f"SUCCESS: {len(made)} rules found" in promtool("check", "rules", str(path))
