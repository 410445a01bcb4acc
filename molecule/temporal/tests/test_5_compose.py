"""The compose project: what a person asked for runs as a unit. Of the engine only a stand-in is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

SECRET = 'correct "horse" \\ battery $TAPLE'


def calls(compose: Any) -> list[dict[str, Any]]:
    """What the stand-in was told, in order."""
    return [json.loads(line) for line in compose.run("cat", "/var/log/compose-calls").splitlines()]


def test_the_project_runs_at_the_wanted_revision_and_comes_up_with_the_host(compose: Any) -> None:
    wanted = compose.run("cat", "/srv/wanted").strip()
    assert compose.run("git", "-C", "/opt/temporal-compose", "rev-parse", "HEAD").strip() == wanted
    assert "nobody" not in compose.run("cat", "/opt/temporal-compose/docker-compose.yml")
    assert compose.run("systemctl", "is-enabled", "temporal-compose").strip() == "enabled"
    assert compose.run("systemctl", "is-active", "temporal-compose").strip() == "active"
    last = calls(compose)[-1]
    files = ["--file", "/opt/temporal-compose/docker-compose.yml", "--file", "/etc/temporal/compose.override.yml"]
    assert last["arguments"] == ["--project-name", "temporal", *files, "up", "--remove-orphans"]
    assert (last["version"], last["folder"]) == ("1.31.2", "/opt/temporal-compose")


def test_the_project_gets_its_secret_and_nobody_else_does(compose: Any) -> None:
    assert compose.run("stat", "-c", "%a %U", "/etc/temporal/compose.env").split() == ["600", "root"]
    process = compose.run("systemctl", "show", "-p", "MainPID", "--value", "temporal-compose").strip()
    environment = compose.run("cat", f"/proc/{process}/environ").split("\0")
    assert f"POSTGRES_PASSWORD={SECRET}" in environment
    others = compose.sh(
        "ps -ww -eo args; systemctl cat temporal-compose; journalctl --no-pager; cat /var/log/compose-calls"
    )
    assert "battery" not in others


def test_stopping_the_unit_takes_the_project_down(compose: Any) -> None:
    compose.sh("systemctl stop temporal-compose")
    assert calls(compose)[-1]["arguments"][-1] == "down"
    compose.sh("systemctl start temporal-compose")


@pytest.mark.timeout(600)
def test_a_frontend_that_others_could_reach_fails_the_run(compose: Any, converge: Any) -> None:
    opened = {"temporal_git_environment": {"STAND_IN_ADDRESS": "0.0.0.0"}}
    refused = converge(compose, "--extra-vars", json.dumps(opened), works=False)
    assert "See who could reach the frontend" in refused
    converge(compose)


def test_the_other_source_is_refused_while_one_is_in_place(compose: Any, converge: Any) -> None:
    refused = converge(compose, "--extra-vars", "temporal_source=bundled", works=False)
    assert "temporal-compose.service is on this host" in refused


def test_a_branch_is_no_revision(compose: Any, converge: Any) -> None:
    refused = converge(compose, "--extra-vars", "temporal_git_revision=main", works=False)
    assert "40 digits of a commit" in refused
