"""The demo as a newcomer meets it when things do not go as planned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SPAMOPS = Path(sys.executable).parent / "spamops"


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [str(SPAMOPS), "sandbox", "demo", "--items", "30", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def started_for(folder: Path) -> list[list[str]]:
    """Command lines of the processes that know a folder below this one."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), process.environ().get("SPAMOPS_SANDBOX_DIR", "")]
        except (psutil.Error, OSError):
            continue
        if any(f"{folder}/spamops-demo-" in text for text in told):
            found.append(told)
    return found


@pytest.mark.parametrize(
    "moment", ["an embedded cloud", "playbook: Begin the run", "(spawning)", "playbook: Check what", "(shelving)"]
)
def test_ctrl_c_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if moment in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        code = process.wait(timeout=120)
    assert code == 130, "".join(lines) + rest
    assert "Traceback" not in rest
    assert "nothing is left running" in rest
    assert started_for(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == []


def test_two_demos_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    with demo(tmp_path, "--json") as one, demo(tmp_path, "--json", "--seed", "2") as other:
        results = [process.communicate(timeout=170) for process in (one, other)]
    for process, (output, errors) in zip((one, other), results, strict=True):
        assert process.returncode == 0, errors
        result = json.loads(output.splitlines()[-1])
        assert (result["scheduled_before"], result["scheduled_after"], result["checked"]) == (30, 0, 30)
        assert result["server_status_after"] == "SHELVED_OFFLOADED"
    assert started_for(tmp_path) == []


def test_without_temporal_or_ansible_the_demo_says_what_is_missing(tmp_path: Path) -> None:
    with demo(tmp_path, "--playbook", str(tmp_path / "none.yml")) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was not found" in errors
    assert "Traceback" not in errors
