"""What the README promises is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

from spamops import settings
from spamops.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def test_its_table_of_exit_codes_is_that_of_the_program() -> None:
    told = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.M) for code in row.split(",")}
    assert told == {int(code) for code in ExitCode}


def test_every_command_in_it_knows_itself() -> None:
    commands = re.findall(r"`((?:spamops|scripts/|ansible-doc|ansible-playbook)[^`]*)`", README)
    assert len(commands) > 8
    for command in {c for c in commands if not c.endswith("/") and (" " in c or c.startswith("scripts/"))}:
        words = shlex.split(command)
        if words[0] == "spamops":
            line = [str(BIN / "spamops"), *(w for w in words[1:] if w.islower() and not w.startswith("-")), "--help"]
        elif words[0].startswith("scripts/"):
            line = [str(ROOT / words[0]), "--help"]
        elif words[0] == "ansible-doc":
            line = [str(BIN / "ansible-doc"), *words[1:]]
        else:
            assert (ROOT / words[1]).is_file(), command
            continue
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.strip(), command


def test_its_settings_file_is_a_start(tmp_path: Path) -> None:
    text = next(block for block in re.findall(r"```toml\n(.*?)```", README, re.S))
    values = tomllib.loads(text)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "llm_spam_check_api_key").write_text("k" * 40)
    config = tmp_path / "spamops.toml"
    config.write_text(text.replace(values["secrets_dir"], str(secrets)))
    assert settings.load(config, {}).server == values["server"]


def test_every_file_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_nothing_in_it_waits_to_be_filled_in() -> None:
    assert "<!--" not in README
