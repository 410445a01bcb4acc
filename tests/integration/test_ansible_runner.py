"""The job templates that playbooks/awx.yml makes, run as AWX runs them: by ansible-runner, in a private data directory with a copy
of the project, the inventory, and what the credential type injects; cancelled as AWX cancels them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import psutil
import pytest
from awx_api import ORGANIZATION, TOKEN, AwxApi
from fake_checker import API_KEY, FakeChecker
from jinja2.sandbox import ImmutableSandboxedEnvironment
from notice_board import SECRET, NoticeBoard
from scene import QUICK_DELAYS

from spamops import lock
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def awx(tmp_path_factory: pytest.TempPathFactory) -> AwxApi:
    """What playbooks/awx.yml made. Each test changes the addresses in it to those of its own cloud."""
    folder = tmp_path_factory.mktemp("awx")
    with AwxApi() as api:
        variables = {
            "awx_host": api.url, "awx_token": TOKEN, "awx_organization": ORGANIZATION, "awx_jobs": ["check", "reap"],
            "awx_project_url": "https://git.example.org/spamops.git", "awx_image": "registry.example.org/spamops-ee:0.1.0",
            "spamops_server": "SERVER", "spamops_checker_url": "http://CHECKER", "spamops_state_dir": "/STATE",
            "spamops_api_key": API_KEY, "spamops_service_units_per_hour": 16, "spamops_reap_grace_seconds": 0,
            "spamops_notify_urls": ["json://FIRST", "json://SECOND"],
            "spamops_auth": {
                "auth_url": "http://CLOUD", "application_credential_id": "an-id", "application_credential_secret": "a-secret"
            },
        }  # fmt: skip
        (folder / "vars.json").write_text(json.dumps(variables))
        done = subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", "localhost,", "-e", f"@{folder}/vars.json", str(ROOT / "playbooks/awx.yml")],
            cwd=ROOT, env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
    return api


@dataclass
class World:
    """A cloud with one server, its checker, a board for alarms, and the folder that AWX exposes to its jobs."""

    folder: Path
    awx: AwxApi
    cloud: SandboxCloud
    spec: ServerSpec
    checker: FakeChecker
    board: NoticeBoard

    @property
    def state_dir(self) -> Path:
        return self.folder / "exposed"

    @property
    def now(self) -> str:
        return self.cloud.history(self.spec.id)[-1][1]

    @property
    def free(self) -> bool:
        """Whether nobody, so no guard either, holds the server's lock."""
        return lock.holder(self.state_dir, self.spec.id) is None

    @property
    def inputs(self) -> dict[str, str]:
        """What is in AWX's credential."""
        auth = self.cloud.clouds_yaml()["auth"]
        own = {name: auth[name] for name in ("application_credential_id", "application_credential_secret")}
        kept = self.awx.one("credentials", "spamops")["inputs"]
        urls = kept["notify_urls"].replace("json://FIRST", self.board.url()).replace("json://SECOND", self.board.url())
        return {**kept, **own, "notify_urls": urls}

    @property
    def secrets(self) -> set[str]:
        """What must be nowhere."""
        return {SECRET, API_KEY, self.inputs["application_credential_secret"], self.inputs["application_credential_id"]}

    def private_data(self, job: str, **answers: str) -> tuple[Path, str]:
        """The folder of a job as AWX lays it out, and its playbook. `answers` are those to the survey."""
        folder = self.folder / f"job-{job}-{len(list(self.folder.glob('job-*')))}"
        template = self.awx.one("job_templates", f"spamops {job}")
        self._project(folder / "project")

        text = self.awx.one("inventories", "spamops")["variables"]
        for word, value in {
            "SERVER": self.spec.id, "http://CHECKER": self.checker.url, "/STATE": str(self.state_dir),
            "http://CLOUD": self.cloud.clouds_yaml()["auth"]["auth_url"],
        }.items():  # fmt: skip
            assert word in text
            text = text.replace(word, value)
        host = self.awx.one("hosts", "localhost")
        listed = {
            "all": {"hosts": ["localhost"], "vars": json.loads(text)},
            "_meta": {"hostvars": {"localhost": json.loads(host["variables"])}},
        }
        script = folder / "inventory" / "hosts"
        script.parent.mkdir()
        script.write_text(f"#!{sys.executable}\nprint({json.dumps(json.dumps(listed))})\n")
        script.chmod(0o700)

        environment = folder / "env"
        environment.mkdir()
        asked = self.awx.surveys.get(template["id"], {"spec": []})["spec"]
        given = {question["variable"]: question["default"] for question in asked}
        assert set(answers) <= set(given)
        private(environment / "extravars", {**json.loads(template["extra_vars"] or "{}"), **given, **answers})
        kind = self.awx.one("credential_types", "spamops")
        assert set(kind["injectors"]) == {"extra_vars"}
        jinja = ImmutableSandboxedEnvironment()
        injected = {
            name: jinja.from_string(one).render(self.inputs) for name, one in kind["injectors"]["extra_vars"].items()
        }
        lines = [f"{name}: !unsafe {json.dumps(value)}\n" for name, value in injected.items()]
        private(environment / "tmpcredential", "".join(lines))
        private(environment / "cmdline", f"-e @{environment / 'tmpcredential'}")
        private(
            environment / "envvars",
            {
                "ANSIBLE_FORCE_COLOR": "True", "ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_RETRY_FILES_ENABLED": "False",
                "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True",
                "ANSIBLE_COLLECTIONS_PATH": f"{folder}/requirements_collections:.collections:~/.ansible/collections",
                "JOB_ID": "7", "AWX_PRIVATE_DATA_DIR": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}",
            },
        )  # fmt: skip
        private(environment / "settings", {"suppress_ansible_output": True, "pexpect_timeout": 1})
        return folder, template["playbook"]

    @staticmethod
    def _project(target: Path) -> None:
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z", "ansible.cfg", ".collections", "playbooks", "plugins", "roles",
             "meta", "galaxy.yml"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, names):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)

    def run(self, job: str, cancel: Callable[[], bool] | None = None, **answers: str) -> ansible_runner.Runner:
        """The job, to its end, or until `cancel` says so: AWX asks its database there."""
        folder, playbook = self.private_data(job, **answers)
        return ansible_runner.run(
            private_data_dir=str(folder), playbook=playbook, ident="7", verbosity=3, cancel_callback=cancel,
            suppress_env_files=True,
        )  # fmt: skip

    def told(self, runner: ansible_runner.Runner) -> str:
        """All that the job left behind; no secret is in it."""
        files = [path for path in Path(runner.config.artifact_dir).rglob("*") if path.is_file()]
        assert any(path.parent.name == "job_events" for path in files)
        text = "\n".join(path.read_text(errors="replace") for path in files)
        for secret in self.secrets:
            assert secret not in text
        return text

    def guards(self) -> list[psutil.Process]:
        """The guard of the run: whoever has its lock's file open."""
        path = str(lock.lock_path(self.state_dir, self.spec.id))
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if "spamops.guard" in (process.info["cmdline"] or []):
                found += [process for file in process.open_files() if file.path == path]
        return found

    def processes(self) -> list[psutil.Process]:
        """The jobs' own, guards included, as their container would hold them; not what else runs beside these tests."""
        found = self.guards()
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("AWX_PRIVATE_DATA_DIR", "").startswith(f"{self.folder}/"):
                    found.append(process)
        return found

    def row(self) -> dict[str, Any]:
        (row,) = Ledger(self.state_dir).runs()
        return row


def private(path: Path, content: Any) -> None:
    path.touch(mode=0o600)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def until(true: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether it comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def world(tmp_path: Path, awx: AwxApi) -> Iterator[World]:
    checker = FakeChecker(on=False)
    spec = ServerSpec(status="SHELVED_OFFLOADED")
    with SandboxCloud([spec], delays=QUICK_DELAYS, on_power=checker.power) as cloud, checker, NoticeBoard() as board:
        made = World(tmp_path, awx, cloud, spec, checker, board)
        made.state_dir.mkdir(mode=0o700)
        yield made
        checker.stop()
        assert until(lambda: made.free), "a guard outlived its job"


def test_a_check_that_awx_runs_ends_well_and_leaves_no_secret_in_its_artifacts(world: World) -> None:
    runner = world.run("check")
    text = world.told(runner)
    assert (runner.status, runner.rc) == ("successful", 0), text
    assert "3 checked, 1 spam, 0 failed" in text
    assert [action for _, action in world.cloud.action_requests] == ["unshelve", "shelve"]
    assert (world.now, world.free) == ("SHELVED_OFFLOADED", True)
    assert (world.row()["outcome"], world.row()["checked"], world.row()["service_units"] > 0) == ("done", 3, True)


def test_the_switches_of_the_survey_are_obeyed(world: World) -> None:
    runner = world.run("check", skip_shelving_when_done="yes")
    assert runner.status == "successful", world.told(runner)
    assert world.now == "ACTIVE"


def test_a_job_that_is_cancelled_has_its_server_shelved_by_the_guard_and_the_history_and_an_alarm_tell_it(
    world: World,
) -> None:
    world.checker.hold("status")
    runner = world.run("check", cancel=lambda: world.checker.arrived("status", within=0))
    assert runner.status == "canceled"
    assert until(lambda: world.free)
    assert world.now == "SHELVED_OFFLOADED"
    assert [action for _, action in world.cloud.action_requests] == ["unshelve", "shelve"]
    assert (world.row()["outcome"], world.row()["server_status_after"]) == ("terminated", "SHELVED_OFFLOADED")
    assert ["the check failed" in title for title in world.board.titles] == [True, True]
    assert "terminated" in world.board.texts.lower()
    world.told(runner)


def test_a_job_that_is_cancelled_with_its_container_is_left_to_the_reaper_which_shelves_and_tells(world: World) -> None:
    world.checker.hold("status")

    killed: list[psutil.Process] = []

    def container_is_gone() -> bool:
        if not killed and world.checker.arrived("status", within=0):
            killed.extend(world.processes())
            for process in killed:
                process.kill()
        return bool(killed)

    runner = world.run("check", cancel=container_is_gone)
    assert runner.status == "canceled"
    assert len(killed) > 1
    world.checker.release("status")
    assert until(lambda: world.free)
    assert (world.now, world.board.titles) == ("ACTIVE", [])
    assert world.row()["ended_at"] is None

    # What the job began goes on at the checker: it is not cut off.
    waiting = world.run("reap")
    assert "the checker has an active check" in world.told(waiting)
    assert world.now == "ACTIVE"

    world.checker.active = False
    reaped = world.run("reap")
    text = world.told(reaped)
    assert reaped.status == "successful", text
    assert "shelved: " in text
    assert world.now == "SHELVED_OFFLOADED"
    assert (world.row()["outcome"], world.row()["server_status_after"]) == ("terminated", "SHELVED_OFFLOADED")
    assert ["the reaper shelved" in title for title in world.board.titles] == [True, True]
