"""What is collected from a server over real SSH: complete, bounded, and without what was planted in every source."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import stat
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from fake_checker import API_KEY, Answer, status
from loopback_ssh import LoopbackSsh, start_sshd, tools
from scene import Scene

from spamops import diagnose
from spamops.diagnose import Plan
from spamops.diagnosis_sources import SOURCES, Source
from spamops.errors import SshError
from spamops.sandbox.cloud import ServerSpec
from spamops.ssh import SshTarget

SECRET = "n0t-to-be-t0ld/" + "q" * 10
PLANTED = f"""2026-11-21T10:00:00+0000 gpu unit[7]: a line that stays
2026-11-21T10:00:01+0000 gpu unit[7]: the key is {SECRET} here
2026-11-21T10:00:02+0000 gpu unit[7]: {SECRET.upper()}
2026-11-21T10:00:03+0000 gpu unit[7]: password=planted-password and mail to planted.person@dept.example.edu
2026-11-21T10:00:04+0000 gpu unit[7]: Authorization: Bearer planted-bearer-token
2026-11-21T10:00:05+0000 gpu unit[7]: prompt="planted-item-text of a job" from 8.8.4.4
2026-11-21T10:00:06+0000 gpu unit[7]: \x1b]0;planted-title\x07 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
"""
MODELS = {
    "models": [
        {"name": f"llama3.2 planted.person@dept.example.edu {SECRET}", "digest": "sha256:" + "ab" * 32, "size": 4711,
         "template": "planted-template", "details": {"license": "planted-license"}}
    ]
}  # fmt: skip
GONE = ("planted-", "planted.", "8.8.4.4", "0f1e2d3c", SECRET, SECRET.upper(), "\x1b")
PLANTED_EVERYWHERE = (
    "systemctl journalctl nvidia-smi free uptime head ps df ss uname python3 dpkg-query temporal ls".split()
)
FAST_LIMIT = 60.0


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Commands that all say what must not be told."""
    (tmp_path / "planted").write_text(PLANTED)
    (tmp_path / "models").write_text(json.dumps(MODELS))
    scripts = dict.fromkeys(PLANTED_EVERYWHERE, f"cat {shlex.quote(str(tmp_path / 'planted'))}")
    scripts["curl"] = f"echo 'noise of a login shell'; cat {shlex.quote(str(tmp_path / 'models'))}"
    return tools(tmp_path / "tools", scripts)


@pytest.fixture
def ssh(tmp_path: Path, planted: Path) -> Iterator[LoopbackSsh]:
    """A server whose commands are these."""
    with LoopbackSsh(tmp_path / "ssh", planted) as server:
        yield server


def target(ssh: LoopbackSsh, user: str = "operator") -> SshTarget:
    return SshTarget("127.0.0.1", user, ssh.port, ssh.key_file, ssh.known_hosts)


def files(path: Path) -> dict[str, str]:
    """What is in a bundle."""
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }


def check_bundle(path: Path) -> dict[str, Any]:
    found = files(path)
    assert set(found) == {f"{source.name}.txt" for source in SOURCES} | {"manifest.json"}
    for name, text in found.items():
        for word in GONE:
            assert word not in text, (name, word)
    for source in SOURCES:
        wanted = "4711" if source.name.startswith("ollama-") else "a line that stays"
        assert wanted in found[f"{source.name}.txt"], source.name
    assert '"digest": "abababababab"' in found["ollama-tags.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    manifest: dict[str, Any] = json.loads(found["manifest.json"])
    return manifest


def test_a_bundle_holds_every_source_and_nothing_that_was_planted_in_any(ssh: LoopbackSsh, tmp_path: Path) -> None:
    about = {"run": 7, "reason": f"refused {SECRET} for planted.person@dept.example.edu", "odd": [SECRET, None, 1]}
    path = diagnose.collect(Plan(target(ssh), (SECRET,), FAST_LIMIT), tmp_path / "out", "bundle", about)
    assert path == tmp_path / "out" / "bundle.tar.gz"
    manifest = check_bundle(path)
    assert manifest["about"]["run"] == 7
    assert [row["fault"] for row in manifest["sources"]] == [None] * len(SOURCES)
    assert {"secret", "email", "text", "ip", "key"} <= set(manifest["removed"])
    assert list((tmp_path / "out").iterdir()) == [path]


@pytest.mark.skipif(
    shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None,
    reason="no sshd on this machine (openssh-server)",
)
def test_it_works_with_opensshs_own_server(ssh: LoopbackSsh, tmp_path: Path) -> None:
    process = start_sshd(tmp_path / "ssh", ssh, getpass.getuser())
    try:
        plan = Plan(target(ssh, getpass.getuser()), (SECRET,), FAST_LIMIT)
        check_bundle(diagnose.collect(plan, tmp_path / "out", "bundle"))
    finally:
        process.kill()
        process.communicate()


def test_the_commands_ask_for_root_only_where_the_user_may_not_read_the_journal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    scripts = {
        "id": 'echo "users $GROUPS_HERE"',
        "sudo": f'echo "sudo $*" >> {log}; [ "$2" = true ] || {{ shift; exec "$@"; }}',
        "journalctl": "echo 'from the journal'",
    }
    sources = tuple(source for source in SOURCES if source.name == "journal")
    for groups, wanted in (("adm", ""), ("video", "sudo -n true\nsudo -n journalctl")):
        log.write_text("")
        with LoopbackSsh(tmp_path / groups, tools(tmp_path / "tools", scripts), {"GROUPS_HERE": groups}) as ssh:
            (piece,) = diagnose.read(Plan(target(ssh), sources=sources), time.monotonic() + FAST_LIMIT)
        assert "from the journal" in piece.text
        assert log.read_text().startswith(wanted)
        assert bool(log.read_text()) == bool(wanted)


def test_one_command_that_hangs_costs_its_own_time_alone_and_is_ended_there_too(tmp_path: Path) -> None:
    sources = (Source("hangs", "sleep 600", 1.0), Source("tells", "echo here"), Source("floods", "yes", 30.0, 10_000))
    with LoopbackSsh(tmp_path / "ssh") as ssh:
        began = time.monotonic()
        hangs, tells, floods = diagnose.read(Plan(target(ssh), sources=sources), began + FAST_LIMIT)
        assert time.monotonic() - began < 25
        assert hangs.fault is not None or hangs.exit_status == 124
        assert (tells.text, tells.exit_status, tells.fault) == ("here\n", 0, None)
        assert floods.cut
        assert len(floods.text) <= 10_000
        deadline = time.monotonic() + 20
        while ssh.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not ssh.running()


def test_a_source_that_says_too_much_is_cut_at_whole_lines_so_that_no_half_secret_stays(tmp_path: Path) -> None:
    script = f"for i in $(seq 2000); do echo '{SECRET}'; done"
    sources = (Source("head", script, 20, 5_000), Source("tail", script, 20, 5_000, tail=True))
    with LoopbackSsh(tmp_path / "ssh") as ssh:
        for piece in diagnose.read(Plan(target(ssh), sources=sources), time.monotonic() + FAST_LIMIT):
            assert piece.cut
            assert set(piece.text.split()) == {SECRET}


def fault_of(ssh: LoopbackSsh, **changes: Any) -> str:
    values = {
        "host": "127.0.0.1",
        "user": "operator",
        "port": ssh.port,
        "key_file": ssh.key_file,
        "known_hosts": ssh.known_hosts,
    }
    with pytest.raises(SshError) as told:
        diagnose.connect(SshTarget(**(values | changes)), 3)
    return str(told.value)


def test_a_host_that_is_not_known_or_not_the_same_is_refused(ssh: LoopbackSsh, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("")
    assert "is not known: add it with ssh-keyscan" in fault_of(ssh, known_hosts=other)
    ssh.know(paramiko.ECDSAKey.generate())
    assert "is not the one that is known" in fault_of(ssh)
    assert ssh.commands == []


def test_a_login_that_fails_says_what_to_do(ssh: LoopbackSsh, tmp_path: Path) -> None:
    ssh.refuse = True
    assert "operator@127.0.0.1 refused the login: check ssh_user and ssh_key_file" in fault_of(ssh)
    assert "no connection" in fault_of(ssh, port=1)
    assert "refused the login" not in fault_of(ssh, host="name-that-is-nowhere.invalid")
    (tmp_path / "no-key").write_text("no key")
    assert "is no private key" in fault_of(ssh, key_file=tmp_path / "no-key")
    assert "cannot be read: No such file" in fault_of(ssh, key_file=tmp_path / "nothing")
    ssh.silent = True
    began = time.monotonic()
    assert "no connection" in fault_of(ssh)
    assert time.monotonic() - began < 15


def test_only_the_newest_bundles_stay(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"spamops-diagnosis-20261121T1000{number:02}Z-run-{number}.tar.gz").write_text("")
    (tmp_path / "mine.tar.gz").write_text("")
    old = tmp_path / ".spamops-diagnosis-x.tar.gz.1.part"
    old.write_text("")
    os.utime(old, (1, 1))
    diagnose.prune(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == diagnose.KEPT + 1
    assert "spamops-diagnosis-20261121T100003Z-run-3.tar.gz" in left
    assert "spamops-diagnosis-20261121T100002Z-run-2.tar.gz" not in left


# In a run


def failing(scene: Scene) -> None:
    scene.checker.order("status", Answer(200, status("FAILED", "the site refused the key")))


def test_a_failed_run_collects_while_the_server_is_on_and_then_shelves_it(ssh: LoopbackSsh, tmp_path: Path) -> None:
    with Scene(tmp_path / "scene", ServerSpec()) as scene:
        scene.settings |= ssh.settings | {"diagnose_seconds": FAST_LIMIT}
        failing(scene)
        states: list[str] = []
        run = ssh.run
        ssh.run = lambda *args: (states.append(scene.ends), run(*args))[1]  # type: ignore[method-assign]
        told = scene.run()
        assert (told.code, scene.ends) == (5, "SHELVED_OFFLOADED")
        assert set(states) == {"ACTIVE"}
        (bundle,) = (scene.state_dir / "diagnosis").iterdir()
        manifest = json.loads(files(bundle)["manifest.json"])
        assert manifest["about"]["workflow_id"] == "check-1"
        assert "the site refused the key" in manifest["about"]["reason"]
        assert f"what the server told is in {bundle}" in told.summary["warnings"]
        assert told.summary["steps"]["diagnose"] >= 0
        assert API_KEY not in json.dumps(files(bundle))


@pytest.mark.parametrize("how", ["silent", "stall", "refuse", "gone", "unknown"])
def test_collecting_that_fails_delays_the_shelving_by_its_limit_at_most_and_changes_nothing(
    ssh: LoopbackSsh, tmp_path: Path, how: str
) -> None:
    with Scene(tmp_path / "scene", ServerSpec()) as scene:
        scene.settings |= ssh.settings | {"diagnose_seconds": 3}
        failing(scene)
        if how in ("silent", "stall", "refuse"):
            setattr(ssh, how, True)
        elif how == "gone":
            scene.settings["ssh_port"] = 1
        else:
            ssh.known_hosts.write_text("")
        told = scene.run()
        assert (told.code, scene.ends) == (5, "SHELVED_OFFLOADED")
        assert told.summary["steps"]["diagnose"] < 5 or "diagnose" in told.summary["steps"]
        assert "the site refused the key" in told.message
        if how != "stall":  # then a bundle says that no source answered
            assert any("could not be collected" in warning for warning in told.summary["warnings"])


@pytest.mark.parametrize("how", ["done", "no host", "no time", "not woken", "never seen"])
def test_nothing_is_collected_where_that_tells_nothing(ssh: LoopbackSsh, tmp_path: Path, how: str) -> None:
    spec = ServerSpec(status="ERROR") if how == "not woken" else ServerSpec()
    with Scene(tmp_path / "scene", spec) as scene:
        if how != "no host":
            scene.settings |= ssh.settings
        if how == "no time":
            scene.settings["diagnose_seconds"] = 0
        if how == "never seen":
            scene.settings["server"] = "nobody"
        if how != "done":
            failing(scene)
        told = scene.run()
        assert "diagnose" not in told.summary["steps"]
        assert not (scene.state_dir / "diagnosis").exists()
        assert ssh.commands == []


def test_the_pass_is_left_behind_when_it_takes_too_long(
    ssh: LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    monkeypatch.setattr(diagnose, "read", lambda *_: held.wait(60) and [])
    began = time.monotonic()
    assert diagnose.collect_in_time(Plan(target(ssh), seconds=1), tmp_path, "x", {}) == (
        None,
        "it took longer than 1 s",
    )
    assert time.monotonic() - began < 5
    held.set()


def test_a_folder_that_cannot_be_written_is_told(ssh: LoopbackSsh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path, fault = diagnose.collect_in_time(Plan(target(ssh), seconds=FAST_LIMIT), tmp_path / "file", "x", {})
    assert path is None
    assert re.search(r"the bundle .* cannot be written", fault or "")


def test_ctrl_c_does_not_wait_for_evidence(ssh: LoopbackSsh, tmp_path: Path) -> None:
    ssh.stall = True
    with Scene(tmp_path / "scene", ServerSpec()) as scene:
        scene.settings |= ssh.settings | {"diagnose_seconds": FAST_LIMIT}
        failing(scene)
        ssh.run = lambda *_: os.kill(os.getpid(), signal.SIGINT)  # type: ignore[method-assign]
        began = time.monotonic()
        told = scene.run()
        assert time.monotonic() - began < FAST_LIMIT / 2
        assert (told.code, scene.ends) == (5, "SHELVED_OFFLOADED")
        assert "the site refused the key" in told.message
