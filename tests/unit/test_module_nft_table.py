"""Whether the rules in force are those that were loaded, whatever packets did to counters and sets since; and whether the timer
that takes a change back finds what it needs, whoever is interrupted where."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_module import Result, run_module

COLLECTIONS = Path(__file__).parents[2] / ".collections"


@pytest.fixture(scope="module")
def stable() -> Any:
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    module = importlib.import_module("ansible_collections.comses.spamops.plugins.modules.nft_table")
    return module._stable


def rule(*ports: int, handle: int = 7) -> dict[str, Any]:
    """A rule as nft lists it."""
    match = {
        "match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [*ports]}}
    }
    return {
        "rule": {"family": "inet", "table": "t", "chain": "input", "handle": handle, "expr": [match, {"accept": None}]}
    }


def named_set(*elements: str, flags: list[str] | None = None) -> dict[str, Any]:
    """A named set as nft lists it."""
    return {
        "set": {"name": "s", "table": "t", "type": "ipv4_addr", "handle": 3, "flags": flags or [], "elem": [*elements]}
    }


def test_handles_versions_and_the_order_of_a_set_are_no_difference(stable: Any) -> None:
    assert stable([{"metainfo": {"version": "1.0.6"}}, rule(22, 2222)]) == stable(
        [{"metainfo": {"version": "1.1.3"}}, rule(2222, 22, handle=9)]
    )


def test_what_packets_added_is_no_difference(stable: Any) -> None:
    assert stable([named_set("192.0.2.1", flags=["timeout"])]) == stable([named_set("192.0.2.9", flags=["timeout"])])


def test_another_port_another_network_or_a_missing_rule_is_one(stable: Any) -> None:
    assert stable([rule(22)]) != stable([rule(2222)])
    assert stable([rule(22), rule(80)]) != stable([rule(22)])
    assert stable([named_set("192.0.2.1", flags=["interval"])]) != stable([named_set("192.0.2.2", flags=["interval"])])


# A host's nft and systemd would need root, and would close the machine that runs the tests: molecule/firewall has real ones.
# These know the table in force (`table`) and one timer (`timer`), and write down what they are asked (`asked`).
PROGRAMS = {
    "nft": """
echo "nft $*" >>asked
case "$*" in
  *list*) cat table ;;
  -c*) cat >/dev/null ;;
  "-f "*) if [ -e slow ]; then echo dead >timer; fi ;;
esac
""",
    "systemd-run": """
echo "systemd-run" >>asked
grep -q dead timer || exit 1
if [ ! -e late ]; then echo waiting >timer; fi
""",
    "systemctl": """
echo "systemctl $*" >>asked
case "$*" in
  show*) cat timer ;;
  reset-failed*) if grep -q failed timer; then echo dead >timer; fi ;;
  "stop "*) echo dead >timer ;;
esac
""",
}


class Host:
    """A folder that stands for a host where "old" rules are in force."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file, self.candidate = folder / "etc/rules", folder / "etc/rules.candidate"
        self.file.parent.mkdir()
        self.file.write_text("old")
        (folder / "table").write_text(json.dumps({"nftables": []}))
        self.timer = "dead"
        for name, script in PROGRAMS.items():
            (folder / name).write_text(f"#!/bin/sh\ncd {folder}\n{script}")
            (folder / name).chmod(0o755)

    @property
    def timer(self) -> str:
        """What systemd says of the timer."""
        return (self.folder / "timer").read_text().strip()

    @timer.setter
    def timer(self, state: str) -> None:
        (self.folder / "timer").write_text(state)

    def step(self, step: str = "apply", seconds: int = 60, content: str = "new") -> Result:
        """One step of the module."""
        arguments = {"name": "t", "content": content, "dest": str(self.file), "rollback_seconds": seconds}
        return run_module("nft_table", {**arguments, "step": step})

    def loaded(self) -> list[str]:
        """The files that nft has loaded, in order."""
        asked = (self.folder / "asked").read_text().splitlines()
        return [Path(line.split()[-1]).name for line in asked if line.startswith("nft -f")]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda _self, name, **_more: str(tmp_path / name))
    return Host(tmp_path)


def test_a_change_waits_with_its_timer_and_is_kept_once_confirmed(host: Host) -> None:
    assert host.step()["pending"]
    assert (host.candidate.read_text(), host.file.read_text(), host.timer) == ("new", "old", "waiting")
    assert not host.step("confirm").failed
    assert (host.candidate.exists(), host.file.read_text(), host.timer) == (False, "new", "dead")


@pytest.mark.parametrize("seconds", [60, 0])
def test_a_refused_change_leaves_the_waiting_one_what_its_timer_needs(host: Host, seconds: int) -> None:
    host.step(content="first")
    assert "waiting for its confirmation" in host.step(seconds=seconds)["msg"]
    assert (host.candidate.read_text(), host.timer) == ("first", "waiting")
    assert host.loaded() == ["rules.candidate"]


def test_a_timer_that_failed_once_does_not_stop_later_changes(host: Host) -> None:
    host.timer = "failed"
    assert host.step()["pending"]


def test_a_candidate_that_cannot_be_written_leaves_neither_rules_nor_a_timer(host: Host) -> None:
    (host.folder / "etc/rules.candidate.part").mkdir()
    assert "could not be written, so nothing was changed" in host.step()["msg"]
    assert (host.loaded(), host.timer) == ([], "dead")


def test_rules_are_not_loaded_once_their_timer_has_gone_off(host: Host) -> None:
    (host.folder / "late").touch()
    assert "so nothing was changed" in host.step()["msg"]
    assert (host.loaded(), host.candidate.exists()) == ([], False)


def test_rules_that_are_loaded_later_than_the_timer_restored_the_previous_ones_are_taken_back(host: Host) -> None:
    (host.folder / "slow").touch()
    assert "so the previous ones were restored" in host.step()["msg"]
    assert (host.loaded(), host.candidate.exists()) == (["rules.candidate", "rules"], False)


def test_a_login_after_a_reboot_confirms_nothing(host: Host) -> None:
    host.step()
    host.timer = "dead"
    assert host.step("confirm")["taken_back"]
    assert host.file.read_text() == "old"


def test_only_the_waiting_change_itself_is_withdrawn(host: Host) -> None:
    host.step(content="first")
    host.step("withdraw")
    assert (host.candidate.read_text(), host.timer) == ("first", "waiting")
    host.step("withdraw", content="first")
    assert "systemctl start nft-rollback-t.service" in (host.folder / "asked").read_text()


def test_the_steps_of_two_controllers_do_not_mingle(host: Host, stable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def another() -> bool:
        """Whether another step could begin."""
        folder = os.open(host.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(folder)
        return True

    assert another()
    table = sys.modules[stable.__module__].Table
    monkeypatch.setattr(table, "apply", lambda _self: {"another": another()})
    assert not host.step()["another"]
    assert another()
