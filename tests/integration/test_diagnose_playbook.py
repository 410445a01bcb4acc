"""playbooks/run_check.yml collects what the server tells when the check fails, before the server is shelved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, Answer, FakeChecker, status
from loopback_ssh import LoopbackSsh, tools
from scene import QUICK_DELAYS

from spamops.sandbox.cloud import SandboxCloud, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[LoopbackSsh]:
    """A server whose journal holds the key and the credential's secret."""
    with LoopbackSsh(tmp_path / "ssh", tools(tmp_path / "tools", {"journalctl": f"cat {tmp_path}/journal"})) as server:
        yield server


@pytest.mark.parametrize("reachable", [True, False])
def test_a_failed_check_leaves_a_bundle_and_a_shelved_server(ssh: LoopbackSsh, tmp_path: Path, reachable: bool) -> None:
    spec = ServerSpec()
    checker = FakeChecker(on=False)
    states: list[str] = []
    with SandboxCloud([spec], on_power=checker.power, delays=QUICK_DELAYS) as cloud, checker:
        run = ssh.run
        ssh.run = lambda *args: (states.append(cloud.history(spec.id)[-1][1]), run(*args))[1]  # type: ignore[method-assign]
        auth = cloud.clouds_yaml()["auth"]
        (tmp_path / "journal").write_text(
            f"key {API_KEY}, secret {auth['application_credential_secret']}, a line that stays\n"
        )
        checker.order("status", Answer(200, status("FAILED", "the model is gone")))
        variables: dict[str, Any] = {
            "spamops_server": spec.id, "spamops_checker_url": checker.url, "spamops_api_key": API_KEY,
            "spamops_auth_type": "v3applicationcredential", "spamops_auth": auth, "spamops_state_dir": str(tmp_path / "state"),
            "spamops_diagnose_seconds": 60, **{f"spamops_{name}": value for name, value in ssh.settings.items()},
        }  # fmt: skip
        if not reachable:
            ssh.refuse = True
        (tmp_path / "vars.json").write_text(json.dumps(variables))
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", "localhost,", "-vv", "-e", f"@{tmp_path / 'vars.json'}",
             "-e", "ansible_python_interpreter={{ ansible_playbook_python }}", str(ROOT / "playbooks" / "run_check.yml")],
            cwd=ROOT, env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=170, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stdout
        assert "CHECKER FAILED (exit code 5)" in done.stdout, done.stdout
        assert "the model is gone" in done.stdout
        assert cloud.history(spec.id)[-1][1] == "SHELVED_OFFLOADED"
        assert API_KEY not in done.stdout + done.stderr
        assert auth["application_credential_secret"] not in done.stdout + done.stderr
    if not reachable:
        assert "refused the login" in done.stdout
        assert not (tmp_path / "state" / "diagnosis").exists()
        return
    (bundle,) = (tmp_path / "state" / "diagnosis").iterdir()
    assert str(bundle) in done.stdout
    assert set(states) == {"ACTIVE"}
    with tarfile.open(bundle) as archive:
        texts = {name.rpartition("/")[2]: archive.extractfile(name).read().decode() for name in archive.getnames()}  # type: ignore[union-attr]
    assert "a line that stays" in texts["journal.txt"]
    assert API_KEY not in "".join(texts.values())
    assert auth["application_credential_secret"] not in "".join(texts.values())
    assert "the model is gone" in json.loads(texts["manifest.json"])["about"]["reason"]
