"""From one version to the next, with a workflow in the store; and back by itself when the next one does not come up."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

OLD, NEW = "1.30.4", "1.31.2"
PROJECT = Path(__file__).resolve().parents[3]


def broken_archive(folder: Path) -> Path:
    """The new version, with a server that does not start."""
    build = subprocess.run([PROJECT / "scripts/build-temporal"], capture_output=True, text=True, check=True)
    with tarfile.open(build.stdout.strip()) as good:
        good.extract("temporal-sql-tool", folder, filter="data")
    server = folder / "temporal-server"
    server.write_text("#!/bin/sh\necho 'the new version is broken' >&2\nexit 1\n")
    server.chmod(0o755)
    archive = folder / "broken.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as broken:
        for name in ("temporal-server", "temporal-sql-tool"):
            broken.add(folder / name, name)
    return archive


@pytest.mark.timeout(600)
async def test_an_upgrade_that_does_not_serve_goes_back_to_what_was_there(
    host: Any, converge: Any, workflows: Any, tmp_path: Path
) -> None:
    await workflows.begin("upgraded")
    archive = broken_archive(tmp_path)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    variables = {
        "version": "current",
        "temporal_archive": str(archive),
        "temporal_archive_checksum": f"sha256:{digest}",
    }
    said = converge(host, "--extra-vars", json.dumps(variables), works=False)
    assert f"Temporal {NEW} did not come to serve. The host runs {OLD} again, with its databases as they were." in said
    assert "the new version is broken" in said
    assert host.run("readlink", "/opt/temporal/current").strip() == OLD
    assert host.schema() == ["1.18", "1.13"]
    assert host.serves()


@pytest.mark.timeout(600)
async def test_an_upgrade_keeps_the_workflows(host: Any, converge: Any, workflows: Any) -> None:
    converge(host, "--extra-vars", "version=current")
    assert host.schema() == ["1.19", "1.14"]
    described = json.loads(host.sh("temporal operator cluster describe --detail -o json"))
    assert described["serverVersion"] == NEW
    assert await workflows.end("upgraded") == ["upgraded: begun", "upgraded: ended"]


@pytest.mark.timeout(600)
def test_the_second_run_after_an_upgrade_changes_nothing(host: Any, converge: Any) -> None:
    again = converge(host, "--extra-vars", "version=current")
    assert " changed=0 " in again, again[-4000:]


@pytest.mark.timeout(600)
def test_binaries_can_go_back_and_forth_over_the_newer_schema(host: Any, converge: Any) -> None:
    for version, link in (("previous", OLD), ("current", NEW)):
        converge(host, "--extra-vars", f"version={version}")
        assert host.run("readlink", "/opt/temporal/current").strip() == link
        assert host.schema() == ["1.19", "1.14"]
        assert host.serves()
