"""The modules that change files on the site's host, run in this process on real files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ansible_module import run_module

KEY = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# django_allowed_hosts


def test_a_settings_file_is_replaced_with_its_mode_and_a_copy_of_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "production.py"
    path.write_text('SECRET_KEY = "s3cret-word"\nALLOWED_HOSTS = ["a.org"]\n')
    path.chmod(0o640)
    link = tmp_path / "link.py"
    link.symlink_to(path)
    before = path.read_text()
    told = run_module("django_allowed_hosts", {"path": str(link), "hosts": ["203.0.113.7"], "backup": True}, check=True)
    assert told["changed"]
    assert path.read_text() == before, "check mode changes nothing"
    result = run_module("django_allowed_hosts", {"path": str(link), "hosts": ["203.0.113.7"], "backup": True})
    assert result["changed"]
    assert result["hosts"] == ["a.org", "203.0.113.7"]
    assert result["ours"] == ["203.0.113.7"]
    assert link.is_symlink()
    assert mode(path) == 0o640
    assert Path(result["backup_file"]).read_text() == before
    assert mode(Path(result["backup_file"])) == 0o640
    assert told["diff"] == result["diff"]
    assert "s3cret" not in result.text, "the rest of the settings is never shown"
    assert not run_module("django_allowed_hosts", {"path": str(link), "hosts": ["203.0.113.7"]})["changed"]


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        ("ALLOWED_HOSTS = env.list('H')\n", {"hosts": ["a.org"]}, "from a call"),
        ("ALLOWED_HOSTS = []\n", {"hosts": ["a_b.org"]}, "underscore"),
        ("ALLOWED_HOSTS = []\n", {"hosts": ["*"]}, "allow_wildcard"),
        ("ALLOWED_HOSTS = []\n", {"state": "exact"}, "shut everybody out"),
        ("ALLOWED_HOSTS = []\n", {"hosts": ["a.org"], "variable": "A-B"}, "no name"),
        (
            "# ours?\n",
            {"hosts": ["a.org"], "mode": "overlay", "extends": "core.settings"},
            "not one that spamops wrote",
        ),
        ("x", {"hosts": ["a.org"], "mode": "overlay", "extends": "core; import os"}, "dotted name"),
    ],
)
def test_what_is_refused_changes_nothing(tmp_path: Path, text: str, arguments: dict[str, object], reason: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text(text)
    result = run_module("django_allowed_hosts", {"path": str(path), **arguments})
    assert result.failed
    assert reason in result["msg"]
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_wildcard_is_allowed_by_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "settings.py"
    path.write_text("ALLOWED_HOSTS = []\n")
    run_module("django_allowed_hosts", {"path": str(path), "hosts": ["*"], "allow_wildcard": True})
    assert '["*"]' in path.read_text()


def test_an_overlay_is_made_where_there_is_none(tmp_path: Path) -> None:
    arguments = {
        "mode": "overlay",
        "path": str(tmp_path / "o.py"),
        "extends": "core.settings",
        "hosts": ["203.0.113.7"],
    }
    assert run_module("django_allowed_hosts", arguments, check=True)["changed"]
    assert not (tmp_path / "o.py").exists()
    assert run_module("django_allowed_hosts", arguments)["changed"]
    assert '"203.0.113.7"' in (tmp_path / "o.py").read_text()
    assert not run_module("django_allowed_hosts", arguments)["changed"]


# dotenv


def test_a_variable_is_set_and_no_other_line_is_shown(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("PASSWORD=s3cret-word\nURL=old\nLAST=x")
    path.chmod(0o600)
    result = run_module(
        "dotenv", {"path": str(path), "values": {"URL": "http://a|b&c"}, "absent": ["GONE"], "backup": True}
    )
    assert result["names"] == ["URL"]
    assert result["previous"] == {"URL": "old", "GONE": None}
    assert path.read_text() == "PASSWORD=s3cret-word\nURL='http://a|b&c'\nLAST=x"
    assert mode(path) == mode(Path(result["backup_file"])) == 0o600
    assert "s3cret" not in result.text
    assert not run_module("dotenv", {"path": str(path), "values": {"URL": "http://a|b&c"}})["changed"]


def test_a_missing_file_is_made_only_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert "does not exist" in run_module("dotenv", {"path": str(path), "values": {"A": "1"}})["msg"]
    run_module("dotenv", {"path": str(path), "values": {"A": "1"}, "create": True})
    assert path.read_text() == "A=1\n"
    assert mode(path) == 0o600


# secret_file


def test_a_secret_is_written_into_the_same_file_and_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(OTHER + "longer than the new one\n")
    path.chmod(0o644)
    inode = path.stat().st_ino
    told = run_module("secret_file", {"path": str(path), "content": KEY}, check=True)
    assert told["changed"]
    assert path.read_text().startswith(OTHER)
    result = run_module("secret_file", {"path": str(path), "content": KEY})
    assert path.read_text() == KEY
    assert path.stat().st_ino == inode, "a container sees the file that was mounted into it, not one of the same name"
    assert mode(path) == 0o600
    assert len(result["fingerprint"]) == 12
    assert told["fingerprint"] == result["fingerprint"] != result["previous_fingerprint"]
    assert KEY not in result.text + result.logged
    assert OTHER not in result.text + result.logged
    assert list(tmp_path.iterdir()) == [path], "no copy of a secret"
    assert not run_module("secret_file", {"path": str(path), "content": KEY + "\n"})["changed"]


@pytest.mark.parametrize(("before", "after"), [(0o640, 0o640), (0o644, 0o640), (None, 0o600)])
def test_a_secret_file_may_keep_its_mode_but_not_for_everybody(tmp_path: Path, before: int | None, after: int) -> None:
    path = tmp_path / "key"
    if before:
        path.write_text(KEY)
        path.chmod(before)
    run_module("secret_file", {"path": str(path), "content": OTHER, "mode": "keep"})
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (OTHER, after)
    assert not run_module("secret_file", {"path": str(path), "content": OTHER, "mode": "keep"})["changed"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("unconfigured", "everybody knows"),
        ("short", "5 characters"),
        ("a" * 40, "placeholder"),
        ("<put-your-key-here-0123456789-0123456789>", "placeholder"),
        ("change-me-change-me-change-me-change-me", "placeholder"),
        ("ü" * 10 + KEY, "ASCII"),
        (KEY + " " + KEY, "blanks"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "key"
    path.write_text(OTHER)
    result = run_module("secret_file", {"path": str(path), "content": content})
    assert result.failed
    assert reason in result["msg"]
    assert path.read_text() == OTHER


def test_a_file_can_be_looked_at_without_being_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("unconfigured")
    result = run_module("secret_file", {"path": str(path)})
    assert "everybody knows" in result["fault"]
    assert not result["changed"]
    assert run_module("secret_file", {"path": str(path), "state": "absent"})["changed"]
    assert not path.exists()
    assert not run_module("secret_file", {"path": str(path), "state": "absent"})["changed"]
