"""The other source: a repository with a compose file, as far as that goes without an engine that has images."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import httpx

API_KEY = "molecule-api-key-0123456789abcdefghijk"
UNIT = "spamcheck-compose.service"


def test_the_project_runs_with_its_variables(compose: Any) -> None:
    compose.ok(API_KEY)
    url = f"http://{compose.address}:8001/ok"
    answer = httpx.get(url, timeout=20, trust_env=False)
    assert (answer.status_code, answer.headers["X-Odd"]) == (401, "it's $HOME")


def test_the_compose_tool_gets_the_project_from_the_pinned_revision(compose: Any) -> None:
    said = compose.run("journalctl", "--no-pager", "-u", UNIT, "-o", "cat")
    wanted = "/opt/spamcheck/git --project-name spamcheck --file compose.yml up --detach --build --remove-orphans"
    assert wanted in said
    pinned = compose.run("git", "-C", "/srv/upstream", "rev-parse", "HEAD").strip()
    assert compose.run("git", "-C", "/opt/spamcheck/git", "rev-parse", "HEAD").strip() == pinned


def test_the_variables_are_readable_by_root_alone_and_the_unit_is_locked_in(compose: Any) -> None:
    assert compose.run("stat", "-c", "%a %U", "/opt/spamcheck/git/.env").split() == ["600", "root"]
    told = compose.run("systemd-analyze", "security", "--no-pager", UNIT)
    score = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert score is not None
    assert float(score[1]) <= 2.0
    assert API_KEY not in compose.sh("cat /proc/[0-9]*/cmdline; journalctl --no-pager; systemctl show " + UNIT)


def test_a_host_without_a_compose_tool_is_told_what_to_do(
    converge: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = converge("compose", "-e", '{"spamcheck_git_compose_command": ["/usr/bin/docker", "compose"]}', check=False)
    assert done.returncode != 0
    assert "This role installs no container engine" in " ".join((done.stdout + done.stderr).split())


def test_after_a_reboot_it_comes_back_by_itself(compose: Any) -> None:
    subprocess.run(["docker", "restart", "--time", "10", compose.name], check=True, capture_output=True, timeout=120)
    compose.ok(API_KEY)
