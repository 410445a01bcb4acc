"""What an administrator and the checker rely on: a private server with its models, that survives what hosts go through."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import BUILT, HOST, Mirror, ask, docker, labelled, on_host, play, release, start_play

# A machine that does other things as well needs a minute for each run of the role.
pytestmark = pytest.mark.timeout(900)

MODELS = {"llama3.1:latest", "llama3.2:latest"}
CONTEXT = 4096
SCHEMA = {
    "type": "object",
    "properties": {"is_spam": {"type": "boolean"}},
    "required": ["is_spam"],
}


def loaded() -> dict[str, int]:
    """Models in memory, and the length of their context."""
    return {each["name"]: each.get("context_length", 0) for each in ask("/api/ps")["models"]}


def wait_until_loaded(seconds: float = 90) -> float:
    """Seconds until all models are in memory with the wanted context."""
    began = time.monotonic()
    while True:
        try:
            if loaded() == dict.fromkeys(MODELS, CONTEXT):
                return time.monotonic() - began
        except AssertionError:  # it does not answer yet
            pass
        assert time.monotonic() - began < seconds, on_host("journalctl --no-pager -u ollama-warmup", check=False)
        time.sleep(0.5)


def current() -> str:
    return on_host("readlink /opt/ollama/current").removeprefix("releases/")


def releases() -> set[str]:
    return {name.split("-")[0] for name in on_host("ls /opt/ollama/releases").split()}


def version() -> str:
    return str(ask("/api/version")["version"])


def score(unit: str) -> float:
    found = re.search(
        r"Overall exposure level for \S+: ([0-9.]+)", on_host(f"systemd-analyze security {unit} --no-pager")
    )
    assert found
    return float(found[1])


def test_nobody_outside_the_host_reaches_the_models() -> None:
    addresses = re.findall(r"(\S+):11434\s", on_host("ss -Hltn"))
    assert addresses == ["127.0.0.1"]
    address = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", HOST)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 11434), timeout=5)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_model_answers_in_the_form_that_the_checker_asks_for(model: str) -> None:
    for seed in range(20):  # its weights are noise: now and then it does not come to an end
        reply = ask(
            "/api/chat",
            {
                "model": model,
                "messages": [{"role": "user", "content": f"hello {seed}"}],
                "format": SCHEMA,
                "stream": False,
                "options": {"num_ctx": CONTEXT, "num_predict": 200, "seed": seed},
            },
        )
        if reply["done_reason"] == "stop":
            assert isinstance(json.loads(reply["message"]["content"])["is_spam"], bool)
            return
    pytest.fail("no answer came to an end")


def test_a_call_with_the_checker_s_context_loads_no_model_anew() -> None:
    wait_until_loaded()
    before = on_host("pgrep -x ollama | sort")
    chat = {"messages": [{"role": "user", "content": "hello"}], "stream": False, "keep_alive": "15m"}
    ask("/api/chat", {**chat, "model": "llama3.1", "options": {"num_ctx": CONTEXT, "num_predict": 5, "temperature": 0}})
    assert on_host("pgrep -x ollama | sort") == before
    ask("/api/chat", {"model": "llama3.1", "messages": [], "keep_alive": -1})


@pytest.mark.parametrize("unit", ["ollama.service", "ollama-warmup.service"])
def test_a_broken_into_service_can_do_little(unit: str) -> None:
    assert score(unit) <= 2.0


def test_it_runs_as_a_user_that_owns_the_models_alone_and_cannot_log_in() -> None:
    assert on_host("ps -o user= -p $(systemctl show -P MainPID ollama)") == "ollama"
    assert on_host("stat -c '%U %a' /var/lib/ollama/models") == "ollama 750"
    assert on_host("getent passwd ollama").endswith(":/usr/sbin/nologin")
    assert on_host("stat -c %U /opt/ollama/current/bin/ollama /usr/local/bin/ollama") == "root\nroot"
    assert on_host("find /opt/ollama -user ollama -o -perm -o+w ! -type l") == ""


def test_it_runs_with_what_the_role_says_and_without_the_vendor_s_cloud() -> None:
    environment = on_host("tr '\\0' '\\n' < /proc/$(systemctl show -P MainPID ollama)/environ").splitlines()
    for line in (
        f"OLLAMA_CONTEXT_LENGTH={CONTEXT}",
        "OLLAMA_NUM_PARALLEL=1",
        "OLLAMA_NO_CLOUD=1",
        "OLLAMA_KEEP_ALIVE=-1",
    ):
        assert line in environment
    unit = on_host("cat /etc/systemd/system/ollama.service")
    assert "OLLAMA" not in unit, "whatever is ours is in the drop-in, which an upgrade by the vendor leaves alone"


def test_a_download_that_is_broken_off_leaves_the_host_as_it_was_and_is_repeated(binary: Path, mirror: Mirror) -> None:
    was = current()
    _, checksum = release(mirror.folder, "0.14.0", labelled(binary, "0.14.0"), ".tar.zst")  # type: ignore[attr-defined]
    upgrade = ["-e", json.dumps({
        "ollama_version": "0.14.0",
        "ollama_archive": "",
        "ollama_mirror": mirror.url,
        "ollama_checksum": checksum,
        "ollama_install_free_mb": 100,
        # There is none: what is seen is that the unit still starts, and how much it may do.
        "ollama_gpu": "nvidia",
    })]  # fmt: skip
    mirror.hold.set()
    broken_off = start_play(*upgrade)
    assert mirror.held.wait(120), "the role did not begin to download"
    os.killpg(broken_off.pid, signal.SIGKILL)
    broken_off.communicate()
    assert (version(), current()) == (BUILT, was)
    mirror.hold.clear()

    code, output = play(*upgrade)
    assert code == 0, output
    assert version() == "0.14.0"
    assert on_host("ls /opt/ollama/current/lib/ollama") == "of-0.14.0"
    assert on_host("readlink /opt/ollama/previous") == f"releases/{was}"
    assert on_host("ls -A /opt/ollama | grep download", check=False) == ""
    assert {each["name"] for each in ask("/api/tags")["models"]} == MODELS
    assert "DeviceAllow=char-nvidia* rw" in on_host("systemctl cat ollama")
    assert score("ollama.service") <= 2.0
    assert score("ollama-gpu.service") <= 2.0
    wait_until_loaded()


def test_an_archive_with_another_checksum_is_refused_and_nothing_changes(mirror: Mirror) -> None:
    was = on_host("ls -l /opt/ollama /opt/ollama/releases /etc/systemd/system; systemctl show -P MainPID ollama")
    variables = {"ollama_archive": "", "ollama_mirror": mirror.url, "ollama_install_free_mb": 100}
    code, output = play(
        "-e", json.dumps({**variables, "ollama_version": "0.14.0", "ollama_checksum": f"sha256:{'0' * 64}"})
    )
    assert code != 0
    assert "did not match" in output
    on_host("rm -rf /opt/ollama/download")
    assert was.split() != []
    after = on_host("ls -l /opt/ollama /opt/ollama/releases /etc/systemd/system; systemctl show -P MainPID ollama")
    assert without_times(after) == without_times(was)


def without_times(listing: str) -> list[str]:
    return [re.sub(r"\w{3} +\d+ \d\d:\d\d", "", line) for line in listing.splitlines() if not line.startswith("total")]


def test_a_version_that_does_not_start_is_taken_back(mirror: Mirror, tmp_path: Path) -> None:
    was = current()
    program = b'#!/bin/sh\n[ "$1" = --version ] && { echo "ollama version is 0.15.0"; exit; }\necho "no such model runner"; exit 1\n'
    archive, _ = release(tmp_path, "0.15.0", program, ".tgz")
    # Let systemd lose its patience within seconds; with the unit's own limit it does so after half a minute.
    on_host("mkdir -p /run/systemd/system/ollama.service.d")
    on_host(
        "printf '[Unit]\\nStartLimitBurst=2\\n[Service]\\nRestartSec=1\\n' >/run/systemd/system/ollama.service.d/99-test.conf"
    )
    code, output = play(
        "-e", json.dumps({"ollama_version": "0.15.0", "ollama_archive": str(archive), "ollama_start_timeout": 20})
    )
    assert code != 0
    assert "did not come up" in output
    assert "no such model runner" in output, "the journal says why"
    assert (version(), current()) == ("0.14.0", was)
    on_host("rm -r /run/systemd/system/ollama.service.d")


def test_a_downgrade_leaves_nothing_of_the_newer_version_in_use() -> None:
    code, output = play()
    assert code == 0, output
    assert version() == BUILT
    assert on_host("ls /opt/ollama/current/lib/ollama", check=False) == ""
    assert releases() == {BUILT, "0.14.0"}, "the previous version stays, what failed does not"
    assert "DeviceAllow" not in on_host("systemctl cat ollama")
    assert {each["name"] for each in ask("/api/tags")["models"]} == MODELS


def test_a_run_that_was_cut_off_before_the_restart_is_completed_by_the_next_one() -> None:
    before = on_host("systemctl show -P MainPID ollama")
    # As if the connection had been lost right after the files were written.
    on_host("rm /opt/ollama/applied")
    code, output = play("--check")
    assert code == 0, output
    assert on_host("systemctl show -P MainPID ollama") == before, "looking restarts nothing"
    code, output = play()
    assert code == 0, output
    assert on_host("systemctl show -P MainPID ollama") != before


# The last one: after a restart the host may have another address, at which Ansible does not find it.
def test_after_a_crash_and_after_a_boot_the_models_are_loaded_by_themselves(record_property: Any) -> None:
    wait_until_loaded()
    on_host("systemctl kill --signal=KILL ollama")
    wait_until_loaded()

    docker("restart", "--time", "20", HOST)
    took = wait_until_loaded()
    record_property("seconds from boot to loaded models", took)
    assert took < 60
    for unit in ("ollama.service", "ollama-warmup.service"):
        assert on_host(f"systemctl is-failed {unit}", check=False) in ("active", "inactive")
    assert on_host("systemctl is-system-running", check=False) == "running"
