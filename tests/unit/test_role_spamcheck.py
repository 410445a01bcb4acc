"""The role spamcheck: its settings are those of the package, and a release's name says what is in it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from spamcheck.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "spamcheck"
BUNDLE = ROLE / "files" / "bundle.py"
SECRETS_AND_PATHS = {"api_key", "comses_api_key", "payload_key", "state_dir"}


def bundle(*arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, BUNDLE, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def described(source: Path, lock: Path, salt: str = "python 3.11") -> Any:
    return json.loads(bundle("describe", source, lock, salt))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, with what a checkout has lying about."""
    folder = tmp_path / "elsewhere" / "spamcheck"
    shutil.copytree(ROOT / "services" / "spamcheck", folder, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    cache = folder / "src" / "spamcheck" / "__pycache__"
    cache.mkdir()
    (cache / "api.cpython-311.pyc").write_bytes(b"old")
    return folder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "requirements" / "spamcheck.lock", tmp_path))


def test_every_setting_of_the_checker_can_be_given_to_the_role() -> None:
    names = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["_spamcheck_setting_names"]
    assert names == sorted(Settings.model_fields.keys() - SECRETS_AND_PATHS)


def test_the_same_source_gives_the_same_release_wherever_it_lies(copy: Path, lock: Path) -> None:
    here = described(ROOT / "services" / "spamcheck", ROOT / "requirements" / "spamcheck.lock")
    assert described(copy, lock) == here
    assert here["release"].startswith(f"{here['version']}-")


def test_another_source_lock_or_python_gives_another_release(copy: Path, lock: Path) -> None:
    seen = [described(copy, lock), described(copy, lock, "python 3.12")]
    with (copy / "src" / "spamcheck" / "api.py").open("a") as file:
        file.write("# changed\n")
    seen.append(described(copy, lock))
    lock.write_text(lock.read_text() + "# changed\n")
    seen.append(described(copy, lock))
    assert len({one["release"] for one in seen}) == 4


def test_a_wheel_is_the_same_byte_for_byte_wherever_it_is_built(copy: Path, tmp_path: Path) -> None:
    wheels = []
    for number, source in enumerate((ROOT / "services" / "spamcheck", copy)):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = bundle("build", source, folder).strip()
        assert name.endswith("-py3-none-any.whl")
        wheels.append((folder / name).read_bytes())
    assert wheels[0] == wheels[1]


def test_what_is_missing_is_named(copy: Path, lock: Path, tmp_path: Path) -> None:
    assert "set spamcheck_source_dir" in bundle("describe", tmp_path, lock, "", code=1)
    assert "set spamcheck_lock" in bundle("describe", copy, tmp_path / "none.lock", "", code=1)
    assert "set spamcheck_wheelhouse" in bundle("pack", tmp_path, tmp_path / "wheels.tar", code=1)
