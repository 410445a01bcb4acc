"""What docs/report.md tells a person to type does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from long_history import long_history

from spamops import settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "report.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_command_in_it_works(tmp_path: Path, block: str) -> None:
    if "parquet" in block:
        pytest.importorskip("pyarrow")
    long_history(tmp_path / "state", datetime.now(UTC), runs=3, verdicts=60)
    (tmp_path / "spamops.toml").write_text("verdict_days = 180\n")
    # There is no site's database here: in its place, what its client would print.
    psql = tmp_path / "bin" / "psql"
    psql.parent.mkdir()
    psql.write_text(
        "#!/bin/sh\nprintf 'item_id,decision,content_type,decided_at\\n12,spam,job,2026-03-01 10:00:00.1+00\\n'\n"
    )
    psql.chmod(0o755)
    path = f"{psql.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace("/tmp/", f"{tmp_path}/")],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "SPAMOPS_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if "feedback" in block:
        assert re.match(r"\d decisions: [12] new", done.stdout)


def test_its_settings_are_settings(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    (tmp_path / "spamops.toml").write_text("".join(blocks))
    chosen = settings.looking_back(tmp_path / "spamops.toml", {})
    values = tomllib.loads("".join(blocks))
    assert {name: getattr(chosen, name) for name in values} == values


def test_every_file_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", TEXT)
    assert len(targets) > 4
    for target in ("".join(pair) for pair in targets):
        assert (ROOT / "docs" / target).is_file(), target
