"""What docs/diagnosis.md says is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from spamops.commands.logs import UNIT
from spamops.diagnosis_sources import SOURCES, UNITS
from spamops.doctor.runner import EXAMINATIONS
from spamops.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "diagnosis.md").read_text()
SPAMOPS = Path(sys.executable).parent / "spamops"


def test_its_table_of_the_doctor_names_every_finding() -> None:
    table = PAGE.split("## `spamops doctor`")[1].split("## Bundles")[0]
    told = {name for row in re.findall(r"^\| ([a-z, ]+) \|", table, re.M) for name in row.split(", ")} - {"name"}
    assert told == {name for examination in EXAMINATIONS for name in examination.names}


def test_its_settings_are_settings() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert set(tomllib.loads(text)) <= set(Settings.model_fields)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(spamops [^`]*)`", PAGE))))
def test_every_command_in_it_is_understood(command: str) -> None:
    words = [word for word in shlex.split(command)[1:] if not word.isupper()]
    done = subprocess.run(
        [SPAMOPS, words[0], *(w for w in words[1:] if w != "--"), "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: spamops {words[0]}")


def test_every_file_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_no_source_can_be_left_out_because_its_name_is_there_twice() -> None:
    names = [source.name for source in SOURCES]
    assert len(set(names)) == len(names)
    assert all(UNIT.fullmatch(unit) for unit in UNITS)
