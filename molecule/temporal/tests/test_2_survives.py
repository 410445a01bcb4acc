"""A run of the checker is not lost: its workflow goes on after the server was killed, and after the host was off."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest


def switch_off_and_on(name: str) -> None:
    """What a shelving is for the host: it stops in order, and boots again."""
    subprocess.run(["docker", "restart", name], check=True, capture_output=True)


@pytest.mark.timeout(400)
async def test_a_workflow_goes_on_after_the_server_was_killed(host: Any, workflows: Any) -> None:
    await workflows.begin("killed")
    killed = host.sh("systemctl show -p MainPID --value temporal").strip()
    host.sh(f"kill -9 {killed}")
    host.wait_until_it_serves()
    assert host.sh("systemctl show -p MainPID --value temporal").strip() != killed
    assert await workflows.end("killed") == ["killed: begun", "killed: ended"]


@pytest.mark.timeout(400)
async def test_a_workflow_goes_on_after_the_host_was_off(host: Any, workflows: Any) -> None:
    await workflows.begin("off")
    switch_off_and_on(host.name)
    host.wait_until_it_serves()
    assert await workflows.end("off") == ["off: begun", "off: ended"]


def test_what_is_ordered_after_the_server_starts_when_it_serves(host: Any) -> None:
    unit = "systemd-run --quiet --wait --pipe -p After=temporal.service -p Requires=temporal.service"
    host.sh("systemctl stop temporal")
    health = host.sh(f"{unit} /usr/local/bin/temporal operator cluster health --command-timeout 5s")
    assert "SERVING" in health
