"""The module server_diagnosis: it collects, and it never fails, whatever happens."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_module import Result, run_module
from loopback_ssh import LoopbackSsh, tools

SECRET = "planted-" + "s" * 30


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[LoopbackSsh]:
    """A server whose journal holds a secret."""
    with LoopbackSsh(
        tmp_path / "ssh", tools(tmp_path / "tools", {"journalctl": f"echo the key is {SECRET}"})
    ) as server:
        yield server


def collect(folder: Path, ssh: LoopbackSsh, *, check: bool = False, **more: Any) -> Result:
    arguments = {
        "host": "127.0.0.1", "user": "operator", "port": ssh.port, "key_file": str(ssh.key_file),
        "known_hosts": str(ssh.known_hosts), "state_dir": str(folder / "state"), "run": 4, "secrets": [SECRET],
        "reason": f"it went wrong with {SECRET}", "timeout": 60,
    }  # fmt: skip
    result = run_module("server_diagnosis", arguments | more, check=check)
    assert not result.failed
    assert SECRET not in result.text + result.logged
    return result


def test_a_bundle_is_made_without_the_secrets_that_are_named(ssh: LoopbackSsh, tmp_path: Path) -> None:
    result = collect(tmp_path, ssh)
    assert result["changed"]
    path = Path(result["bundle"])
    assert path.parent == tmp_path / "state" / "diagnosis"
    assert path.name.endswith("-run-4.tar.gz")
    with tarfile.open(path) as archive:
        texts = {name.rpartition("/")[2]: archive.extractfile(name).read().decode() for name in archive.getnames()}  # type: ignore[union-attr]
    assert SECRET not in "".join(texts.values())
    assert texts["journal.txt"].startswith("the key is [")
    assert json.loads(texts["manifest.json"])["about"]["run"] == 4


def test_nothing_is_collected_in_check_mode_or_without_time(ssh: LoopbackSsh, tmp_path: Path) -> None:
    assert collect(tmp_path, ssh, check=True)["changed"]
    assert not collect(tmp_path, ssh, timeout=0)["changed"]
    assert ssh.commands == []


@pytest.mark.parametrize("how", ["refuse", "silent", "gone", "option"])
def test_what_cannot_be_collected_is_no_failure(ssh: LoopbackSsh, tmp_path: Path, how: str) -> None:
    more: dict[str, Any] = {"gone": {"port": 1}, "option": {"host": "-oProxyCommand=x"}}.get(how, {})
    if how in ("refuse", "silent"):
        setattr(ssh, how, True)
    result = collect(tmp_path, ssh, timeout=3, **more)
    assert not result["changed"]
    assert result["fault"]
    assert "bundle" not in result
