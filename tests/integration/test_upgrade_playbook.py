"""playbooks/upgrade.yml, run by the real ansible-playbook against the embedded cloud and a checker on loopback.

What the roles do on a host is tried in molecule. Here three small ones stand in for them, so that what is seen is the playbook's
own part: what it refuses, when it wakes and shelves, and when it has the checker taken back.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, Answer, FakeChecker
from scene import QUICK_DELAYS

from spamops import lock
from spamops.sandbox.cloud import SandboxCloud, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

NOTE = """
- name: Note that it was applied
  ansible.builtin.lineinfile: {{path: "{{{{ notes }}}}", line: "{role}", create: true, mode: "0600", insertafter: EOF}}
"""
SPAMCHECK = """
- name: Switch to a release
  ansible.builtin.file:
    src: "releases/{{ 'old' if spamcheck_rollback | default(false) else 'new' }}"
    dest: "{{ spamcheck_path }}/current"
    state: link
    force: true
"""
DIES = """
- name: Be cut off
  ansible.builtin.meta: reset_connection
- name: Be gone
  ansible.builtin.set_fact: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
"""

pytestmark = pytest.mark.timeout(300)


class Site:
    """A controller with a server in the cloud, a checker that answers while it is on, and the three roles."""

    def __init__(self, folder: Path, cloud: SandboxCloud, spec: ServerSpec, checker: FakeChecker) -> None:
        self.folder, self.cloud, self.server, self.checker = folder, cloud, spec.id, checker
        self.state_dir, self.host_dir = folder / "state", folder / "host"
        self.notes = folder / "notes"
        (self.host_dir / "releases").mkdir(parents=True)
        (self.host_dir / "current").symlink_to("releases/old")
        collection = folder / "ansible_collections/comses/spamops"
        collection.mkdir(parents=True)
        for name in ("plugins", "meta", "galaxy.yml", "src"):
            (collection / name).symlink_to(ROOT / name)
        for role in ("ollama", "temporal", "spamcheck"):
            self.role(role, NOTE.format(role=role) + (SPAMCHECK if role == "spamcheck" else ""))
        self.variables: dict[str, Any] = {
            "spamops_server": spec.id,
            "spamops_checker_url": checker.url,
            "spamops_api_key": API_KEY,
            "spamops_auth_type": "v3applicationcredential",
            "spamops_auth": cloud.clouds_yaml()["auth"],
            "spamops_state_dir": str(self.state_dir),
            "spamops_ready_seconds": 3,
            "spamcheck_path": str(self.host_dir),
            "notes": str(self.notes),
        }
        self.host: dict[str, Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

    def role(self, name: str, tasks: str) -> None:
        """Let a role do this."""
        folder = self.folder / "ansible_collections/comses/spamops/roles" / name / "tasks"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.yml").write_text("---" + tasks)

    def play(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit code and output of the playbook. A variable that is None is left out."""
        given = {name: value for name, value in (self.variables | variables).items() if value is not None}
        local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        # As root or not: nothing here needs other rights.
        checker = {"hosts": {"server": {**self.host, "ansible_become": False}}}
        inventory = {"all": {"hosts": {"localhost": local}, "children": {"checker": checker}}}
        for name, content in (("vars.json", given), ("hosts.json", inventory)):
            (self.folder / name).write_text(json.dumps(content))
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            [
                BIN / "ansible-playbook", ROOT / "playbooks/upgrade.yml", "-i", self.folder / "hosts.json",
                "-e", f"@{self.folder / 'vars.json'}", *arguments,
            ],
            cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=200,
        )  # fmt: skip
        return done.returncode, done.stdout

    @property
    def applied(self) -> list[str]:
        """The roles that were applied to the host."""
        return self.notes.read_text().split() if self.notes.exists() else []

    @property
    def current(self) -> str:
        """The release that is current on the host."""
        return (self.host_dir / "current").readlink().name

    @property
    def asked(self) -> list[str]:
        """Every action that the cloud was asked for."""
        return [action for _, action in self.cloud.action_requests]

    @property
    def now(self) -> str:
        """The server's status."""
        return self.cloud.history(self.server)[-1][1]


def message(output: str) -> str:
    """What the playbook says at its end."""
    (told,) = re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', output)[-1:]
    return str(json.loads(f'"{told}"'))


def make_site(folder: Path, status: str) -> Iterator[Site]:
    checker, spec = FakeChecker(on=False), ServerSpec(status=status)
    with SandboxCloud([spec], delays=QUICK_DELAYS, on_power=checker.power) as cloud, checker:
        yield Site(folder, cloud, spec, checker)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server that is shelved."""
    yield from make_site(tmp_path, "SHELVED_OFFLOADED")


@pytest.fixture
def site_that_is_on(tmp_path: Path) -> Iterator[Site]:
    """A server that is ACTIVE."""
    yield from make_site(tmp_path, "ACTIVE")


def test_faulty_variables_are_told_at_once_and_nothing_is_touched(site: Site) -> None:
    code, output = site.play(
        "--check", spamops_server=None, spamops_checker_url="checker:8001/", spamops_api_key="short"
    )
    assert code != 0
    told = message(output)
    for fault in (
        "4 fault(s); nothing was touched",
        "spamops_server is not set",
        "spamops_checker_url is not an address",
        "spamops_api_key is not set",
        "has no check mode",
    ):
        assert fault in told
    assert (site.cloud.requests, site.applied, site.state_dir.exists()) == ([], [], False)


def test_it_refuses_while_a_check_runs_from_this_controller(site: Site) -> None:
    held = lock.ServerLock(site.state_dir, site.server)
    held.acquire()
    code, output = site.play()
    held.release()
    assert code != 0
    assert "is active" in message(output)
    assert (site.asked, site.applied, site.now) == ([], [], "SHELVED_OFFLOADED")


def test_it_refuses_while_a_check_runs_from_elsewhere_and_leaves_the_server_on(site_that_is_on: Site) -> None:
    site = site_that_is_on
    site.checker.active = True
    code, output = site.play("-vvv")
    assert code != 0
    assert "a check is running on the checker: wait for its end" in message(output)
    assert message(output).endswith("Nothing was changed.")
    assert (site.asked, site.applied, site.now, site.current) == ([], [], "ACTIVE", "old")
    assert API_KEY not in output
    assert site.variables["spamops_auth"]["application_credential_secret"] not in output
    assert lock.holder(site.state_dir, site.server) is None


def test_a_shelved_server_is_woken_upgraded_in_order_and_shelved(site: Site) -> None:
    code, output = site.play()
    assert code == 0, output
    assert site.applied == ["ollama", "temporal", "spamcheck"]
    assert (site.current, site.asked, site.now) == ("new", ["unshelve", "shelve"], "SHELVED_OFFLOADED")
    assert "the checker proved itself" in message(output)


def test_a_checker_that_does_not_prove_itself_is_taken_back_and_the_server_shelved(site: Site) -> None:
    site.checker.order("ok", Answer(status=503, body={"reasons": ["no model"]}))
    code, output = site.play("-vvv")
    assert code != 0
    assert API_KEY not in output
    told = message(output)
    assert "The upgrade failed: Prove from the controller that it is ready: Status code was 503" in told
    assert "back on its previous release" in told
    assert (site.current, site.asked, site.now) == ("old", ["unshelve", "shelve"], "SHELVED_OFFLOADED")


def test_what_fails_before_the_checker_changes_takes_nothing_back(site: Site) -> None:
    site.role("temporal", "\n- name: Upgrade the schema\n  ansible.builtin.fail: {msg: it is newer}\n")
    code, output = site.play()
    assert code != 0
    assert "Upgrade the schema: it is newer" in message(output)
    assert "The checker was not changed" in message(output)
    assert (site.applied, site.current, site.now) == (["ollama"], "old", "SHELVED_OFFLOADED")


def test_a_host_that_is_lost_on_the_way_is_not_taken_for_upgraded_and_the_server_is_shelved(site: Site) -> None:
    site.role("temporal", DIES)
    code, output = site.play()
    assert code != 0
    assert "could not be reached any more" in message(output)
    assert "What was changed before is not known" in message(output)
    assert (site.current, site.asked, site.now) == ("old", ["unshelve", "shelve"], "SHELVED_OFFLOADED")
