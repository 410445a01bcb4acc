"""Many small files in one round trip: what is asked for is there, what is there already stays, a faulty one stops them all."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_module import Result, run_module

ME = pwd.getpwuid(os.getuid()).pw_name
GROUP = str(os.getgid())
DEFS = "# comment\nUMASK\t\t022\n#HOME_MODE 0700\nLAST no\n"


def apply(*files: dict[str, Any], check: bool = False, **more: Any) -> Result:
    return run_module("host_files", {"files": list(files), **more}, check=check)


def whole(path: Path, content: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "content": content, "owner": ME, "group": GROUP, **more}


def test_files_are_written_and_then_left_alone(tmp_path: Path) -> None:
    wanted = [whole(tmp_path / "deep/down/a", "one\n", mode="0640"), whole(tmp_path / "b", "two\n")]
    first = apply(*wanted)
    assert first["changed_paths"] == [str(tmp_path / "deep/down/a"), str(tmp_path / "b")]
    assert (tmp_path / "deep/down/a").read_text() == "one\n"
    assert (tmp_path / "deep/down/a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644
    second = apply(*wanted)
    assert (second["changed"], second["changed_paths"]) == (False, [])


def test_only_the_changed_ones_are_named_and_shown(tmp_path: Path) -> None:
    apply(whole(tmp_path / "a", "one\n"), whole(tmp_path / "b", "two\n"))
    again = apply(whole(tmp_path / "a", "one\n"), whole(tmp_path / "b", "three\n"))
    assert again["changed_paths"] == [str(tmp_path / "b")]
    assert [(each["before"], each["after"]) for each in again["diff"]] == [("two\n", "three\n")]


def test_a_mode_that_somebody_loosened_is_mended(tmp_path: Path) -> None:
    apply(whole(tmp_path / "secret", "x\n", mode="0600"))
    (tmp_path / "secret").chmod(0o666)
    assert apply(whole(tmp_path / "secret", "x\n", mode="0600"))["changed_paths"] == [str(tmp_path / "secret")]
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_check_mode_says_so_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old\n")
    files = [whole(tmp_path / "no/such/folder/a", "one\n"), {"path": str(tmp_path / "old"), "state": "absent"}]
    told = apply(*files, check=True)
    assert told["changed_paths"] == [str(tmp_path / "no/such/folder/a"), str(tmp_path / "old")]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_lines_are_replaced_or_appended_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "login.defs"
    path.write_text(DEFS)
    path.chmod(0o604)
    lines = [
        {"regexp": r"^UMASK\s", "line": "UMASK 077"},
        {"regexp": r"^#?HOME_MODE\s", "line": "HOME_MODE 0750"},
        {"regexp": r"^NEW\s", "line": "NEW yes"},
        {"regexp": r"^OTHER\s", "line": "OTHER yes", "replace_only": True},
    ]
    entry = {"path": str(path), "lines": lines}
    assert apply(entry)["changed"]
    assert path.read_text() == "# comment\nUMASK 077\nHOME_MODE 0750\nLAST no\nNEW yes\n"
    assert path.stat().st_mode & 0o777 == 0o604
    assert not apply(entry)["changed"]


def test_a_file_without_a_last_line_end_counts_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("UMASK 077")
    assert not apply({"path": str(path), "lines": [{"regexp": "^UMASK ", "line": "UMASK 077"}]})["changed"]


def test_one_faulty_file_keeps_all_from_being_written(tmp_path: Path) -> None:
    validator = tmp_path / "validator"
    validator.write_text("#!/bin/sh\necho line 1: bad word >&2\n! grep -q bad $1\n")
    validator.chmod(0o755)
    told = apply(whole(tmp_path / "first", "good\n"), whole(tmp_path / "second", "bad\n", validate=f"{validator} %s"))
    assert told.failed
    assert f"{tmp_path / 'second'} would be faulty: line 1: bad word" in told["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["validator"]


def test_a_missing_validator_stops_a_run_but_not_check_mode(tmp_path: Path) -> None:
    entry = whole(tmp_path / "a", "x\n", validate="/no/such/validator %s")
    assert "/no/such/validator" in apply(entry)["msg"]
    assert not (tmp_path / "a").exists()
    assert apply(entry, check=True)["changed"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_where_a_package_is_not_its_file_is_not_made(tmp_path: Path, state: str) -> None:
    entry = {"path": str(tmp_path / "a"), "state": state, "if_exists": True, "lines": [{"regexp": "x", "line": "x"}]}
    assert not apply(entry)["changed"]
    assert not (tmp_path / "a").exists()


def test_what_is_gone_stays_gone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n")
    assert apply({"path": str(tmp_path / "a"), "state": "absent"})["changed"]
    assert not (tmp_path / "a").exists()
    assert not apply({"path": str(tmp_path / "a"), "state": "absent"})["changed"]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    told = apply(whole(tmp_path, "x\n"))
    assert told.failed
    assert "is a folder" in told["msg"]


def test_a_change_that_has_not_taken_effect_is_told_by_every_run_until_it_has(tmp_path: Path) -> None:
    pending = tmp_path / "state/pending"
    wanted = [whole(tmp_path / "a", "one\n"), whole(tmp_path / "b", "two\n")]
    apply(wanted[1])
    assert not apply(wanted[1], pending=str(pending))["changed"]
    assert not pending.exists()
    assert apply(*wanted, check=True, pending=str(pending))["changed_paths"] == [str(tmp_path / "a")]
    assert not pending.exists()
    apply(*wanted, pending=str(pending))
    wanted[1]["content"] = "three\n"
    for _ in range(2):  # cut off before any handler
        told = apply(*wanted, pending=str(pending))
        assert (told["changed"], told["changed_paths"]) == (True, [str(tmp_path / "a"), str(tmp_path / "b")])
    told = apply(*wanted, check=True, pending=str(pending))
    assert (told["changed"], told["diff"]) == (True, [])
    pending.unlink()
    assert not apply(*wanted, pending=str(pending))["changed"]


def test_a_run_that_ends_amid_the_files_has_noted_what_it_was_about_to_change(tmp_path: Path) -> None:
    files = [whole(tmp_path / "a", "one\n") | {"owner": "no-such-user"}, whole(tmp_path / "b", "two\n")]
    pending = tmp_path / "pending"
    assert apply(*files, pending=str(pending)).failed
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert pending.read_text().splitlines() == [entry["path"] for entry in files]
