"""The server after the role: it serves, only this host reaches it, nobody has to keep a password."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

# 127.0.0.1, or it could be reached
LOOPBACK = re.compile(r"(127\.|\[::1\]|\[::ffff:127\.)")


def test_the_server_serves_and_comes_up_with_the_host(host: Any) -> None:
    host.wait_until_it_serves()
    assert host.run("systemctl", "is-enabled", "temporal").strip() == "enabled"


def test_the_checker_finds_its_namespace_with_a_short_retention(host: Any) -> None:
    described = json.loads(host.sh("temporal operator namespace describe -n spamcheck -o json"))
    assert described["config"]["workflowExecutionRetentionTtl"] == f"{3 * 86400}s"


def test_no_port_but_sshs_can_be_reached_from_outside(host: Any) -> None:
    listens = [line.split()[3] for line in host.sh("ss -Hltn").splitlines()]
    assert "127.0.0.1:7233" in listens
    assert {each for each in listens if not LOOPBACK.match(each)} <= {"0.0.0.0:22", "[::]:22"}
    assert not [each for each in listens if each.endswith(":5432")]


def test_the_unit_is_sandboxed(host: Any) -> None:
    verdict = host.sh("systemd-analyze security --no-pager temporal.service").splitlines()[-1]
    score = re.search(r"temporal\.service: ([0-9.]+)", verdict)
    assert score, verdict
    assert float(score.group(1)) <= 2.0, verdict


def test_there_is_no_password_that_could_leak(host: Any) -> None:
    assert host.sql("SELECT rolpassword IS NULL, rolsuper FROM pg_authid WHERE rolname = 'temporal'") == ["t|f"]


@pytest.mark.parametrize("database", ["temporal", "temporal_visibility"])
def test_another_user_of_the_host_cannot_read_the_store(host: Any, database: str) -> None:
    asked = f"runuser -u debian -- psql -XAtq -U temporal -d {database} -c 'SELECT 1' 2>&1"
    assert "Peer authentication failed" in host.sh(asked, check=False)
    asked = f"runuser -u temporal -- psql -XAtq -d {database} -c 'SELECT 1'"
    assert host.sh(asked) == "1\n", "the owner itself must get in, or the refusal above says nothing"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"temporal_history_shards": 8}, "made with 4"),
        ({"temporal_memory_reserve_mb": 10**7}, "MiB of memory"),
        ({"temporal_version": "1.33.0"}, "one minor version at a time"),
        ({"version": "current", "temporal_archive_checksum": f"sha256:{'0' * 64}"}, "was not installed"),
    ],
    ids=["shards", "memory", "version", "checksum"],
)
def test_a_faulty_setting_is_refused_and_changes_nothing(
    host: Any, converge: Any, variables: dict[str, Any], says: str
) -> None:
    look = "ls -lA /opt/temporal /etc/temporal; cat /etc/temporal/*; systemctl show -p MainPID temporal"
    before = host.sh(look)
    refused = converge(host, "--extra-vars", json.dumps(variables), works=False)
    assert says in refused
    assert host.sh(look) == before


@pytest.mark.timeout(900)
def test_a_configuration_that_a_failed_run_kept_from_taking_effect_does_so_when_the_cause_is_mended(
    host: Any, converge: Any
) -> None:
    process = "systemctl show -p MainPID --value temporal"
    wanted = ("--extra-vars", "temporal_log_level=error")
    before = host.sh(process)
    # Somebody's own command line, where the role wants its link.
    host.sh("rm /usr/local/bin/temporal; touch /usr/local/bin/temporal")
    try:
        refused = converge(host, *wanted, works=False)
        assert "/usr/local/bin/temporal" in refused
        assert host.sh(process) == before
        assert "level: error" in host.sh("cat /etc/temporal/server.yaml")
        host.sh("rm /usr/local/bin/temporal")
        converge(host, *wanted)
        assert host.sh(process) != before
        assert " changed=0 " in converge(host, *wanted)
    finally:
        host.sh("test -L /usr/local/bin/temporal || rm -f /usr/local/bin/temporal")
        converge(host)
