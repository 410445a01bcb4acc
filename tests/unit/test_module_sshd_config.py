"""A change of the SSH server that is not confirmed is undone whole, wherever it was cut off; and a port is one for everybody."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).parents[2] / ".collections"
LOCATIONS = ("STATE", "PENDING", "RESTORING", "OVER", "BOOT_UNIT", "BOOT_LINK")
PLAIN_PORTS = ["0.0.0.0:22", "[::]:22", "0.0.0.0:2222", "[::]:2222"]


def imported(name: str) -> Any:
    """A module of the collection."""
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    return importlib.import_module(f"ansible_collections.comses.spamops.plugins.{name}")


class Killed(BaseException):
    """The module was killed here."""


class Host:
    """A folder in the place of a host's root: a file to be changed, one that is new, and what a change leaves."""

    def __init__(self, root: Path, pending: Any) -> None:
        self.root, self.pending = root, pending
        self.changed, self.new = root / "etc/sshd_config", root / "etc/banner"
        self.changed.write_text("before\n")
        programs = root / "bin"
        programs.mkdir()
        for name in ("systemctl", "sync"):  # not for the machine that tests
            (programs / name).write_text("#!/bin/sh\n")
            (programs / name).chmod(0o755)
        self.environment = {"PATH": f"{programs}:{os.environ['PATH']}"}

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        """Ansible's."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=self.environment)
        return done.returncode, done.stdout, done.stderr

    def begin(self) -> None:
        """A change that waits for its confirmation."""
        self.pending.keep([self.changed, self.new], ":", at_boot=True)
        self.changed.write_text("after\n")
        self.new.write_text("after\n")

    def reboot(self) -> int:
        """What the unit for the next boot comes to."""
        if not self.pending.BOOT_LINK.exists():
            return 0
        command = self.pending.BOOT_UNIT.read_text().partition("ExecStart=")[2]
        return self.run_command(shlex.split(command))[0]

    def files(self) -> dict[str, str]:
        """Every file there is, with what it holds."""
        return {
            str(path.relative_to(self.root)): path.read_text()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and "bin" not in path.parts
        }


@pytest.fixture
def pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = imported("module_utils.sshd_pending")
    for name in LOCATIONS:
        monkeypatch.setattr(module, name, tmp_path / getattr(module, name).relative_to("/"))
    module.BOOT_UNIT.parent.mkdir(parents=True)
    monkeypatch.setattr(module.os, "sync", lambda: None)
    return module


@pytest.fixture
def host(tmp_path: Path, pending: Any) -> Host:
    return Host(tmp_path, pending)


def cut_off(script: Path, line: int, flag: Path) -> bool:
    """Have a script killed before this line, the first time; False where it has fewer."""
    lines = script.read_text().splitlines()
    if line > len(lines):
        return False
    lines.insert(line, f"[ -e {flag} ] || {{ : >{flag}; kill -KILL $$; }}")
    script.write_text("\n".join(lines) + "\n")
    return True


@pytest.mark.parametrize("taken_up_by", ["reboot", "settle"])
def test_a_restoration_that_is_killed_anywhere_is_finished_later(host: Host, pending: Any, taken_up_by: str) -> None:
    before, flag = host.files(), host.root / "bin" / "killed"
    line = 1
    while True:
        host.begin()
        if not cut_off(pending.PENDING / pending.SCRIPT, line, flag):
            break
        assert pending.restore(host) or not pending.exists(), f"killed at line {line}, and called a success"
        host.reboot() if taken_up_by == "reboot" else pending.settle(host)
        host.reboot()
        assert host.files() == before, f"killed at line {line}"
        flag.unlink(missing_ok=True)
        line += 1
    assert line > 15
    assert pending.restore(host) == ""  # a later change is restored as ever
    assert host.files() == before


def test_a_restoration_that_is_over_does_not_undo_what_came_after(host: Host, pending: Any) -> None:
    host.begin()
    script = pending.PENDING / pending.SCRIPT
    end = next(n for n, line in enumerate(script.read_text().splitlines()) if str(pending.BOOT_UNIT) in line)
    assert cut_off(script, end, host.root / "bin" / "killed")
    pending.restore(host)
    host.changed.write_text("by hand\n")
    host.reboot()
    assert pending.settle(host) == ""
    assert host.changed.read_text() == "by hand\n"


def test_a_confirmation_that_is_killed_leaves_neither_a_unit_that_fails_nor_a_former_key(
    host: Host, pending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for taken_up_by in (host.reboot, lambda: pending.settle(host)):
        host.begin()
        with monkeypatch.context() as killed:
            killed.setattr(pending, "_disarm", lambda _module: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                pending.confirm(host)
        assert not taken_up_by()
        assert host.files() == {"etc/sshd_config": "after\n", "etc/banner": "after\n"}


def test_what_is_left_of_a_change_that_never_began_is_removed(host: Host, pending: Any) -> None:
    before = host.files()
    for name in ("new", "keys", "confirmed"):
        (pending.STATE / name).mkdir(parents=True)
        (pending.STATE / name / "0").write_text("a private key\n")
    assert pending.settle(host) == ""
    assert host.files() == before


def test_the_boot_is_guarded_before_anything_is_pending(
    host: Host, pending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = host.files()
    monkeypatch.setattr(Path, "rename", lambda *_arguments: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        pending.keep([host.changed], ":", at_boot=True)
    assert pending.BOOT_LINK.exists()
    assert host.reboot() == 0
    assert pending.settle(host) == ""
    assert host.files() == before


def test_a_restoration_that_cannot_be_finished_is_told_and_stays_armed(host: Host, pending: Any) -> None:
    host.begin()
    pending.PENDING.rename(pending.RESTORING)
    (pending.RESTORING / pending.SCRIPT).unlink()
    assert str(pending.RESTORING) in pending.settle(host)
    assert pending.RESTORING.exists()
    assert pending.BOOT_LINK.exists()


@pytest.mark.parametrize("addresses", [PLAIN_PORTS, [*PLAIN_PORTS, "192.0.2.1:2022"]])
def test_a_port_of_the_socket_is_open_to_ipv4_whatever_the_unit_says(addresses: list[str]) -> None:
    plan = imported("module_utils.sshd_plan")
    lines = plan._socket_text(addresses).splitlines()
    assert "BindIPv6Only=both" in lines
    assert lines.index("ListenStream=") < lines.index("ListenStream=22") < lines.index("ListenStream=2222")


def test_a_previous_port_stays_open_to_ipv4_while_the_new_one_is_tried() -> None:
    plan = imported("module_utils.sshd_plan")
    assert plan.listen_everywhere([22]) == "BindIPv6Only=both\nListenStream=22\n"


def test_a_socket_for_single_addresses_keeps_to_ipv6_alone_where_the_unit_does() -> None:
    plan = imported("module_utils.sshd_plan")
    assert "BindIPv6Only" not in plan._socket_text(["[::]:22", "192.0.2.1:22"])
    assert plan.listen_everywhere([]) == ""
