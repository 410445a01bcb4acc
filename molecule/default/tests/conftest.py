"""The sandbox's cloud, whose server is the container: unshelving starts it, shelving stops it; the site that it checks; and a
controller: inventory, vault, settings, state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from spamops.clock import RealClock
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.sandbox.site import SandboxSite

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
sys.path.insert(0, str(ROOT / "tests" / "support"))
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SERVER, SITE = "spamops-default", "spamops-default-site"
ADDRESS, SITE_ADDRESS, GATEWAY = "10.203.77.10", "10.203.77.20", "10.203.77.1"
CHECKER = f"http://{ADDRESS}:8001"
RECORDS_PORT = 18080
VARIABLES = yaml.safe_load((ROOT / "molecule/default/group_vars/all.yml").read_text())
ITEMS = 8
"""Of one check. The small models read a letter a token: some seconds an item."""


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    done = subprocess.run(
        ["docker", *arguments], text=True, errors="replace", capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_server(*command: str) -> str:
    """What a command prints on the server, as root, past its firewall and its sshd."""
    return docker("exec", SERVER, *command)


def api_key() -> str:
    """The key that the inventory holds now."""
    return (EPHEMERAL / "api_key").read_text().split()[0]


@dataclass
class Machine:
    """The container as the cloud's host sees it; `boots` are the seconds from each start to the checker's /ok."""

    boots: list[float] = field(default_factory=list)

    def power(self, _server_id: str, on: bool) -> None:
        """Switch it on or off; on is over when the checker is ready, so that the boot is measured from its first moment."""
        if not on:
            docker("stop", "--time", "60", SERVER)
            return
        began = time.monotonic()
        docker("start", SERVER)
        while time.monotonic() - began < 180:
            try:
                if httpx.get(f"{CHECKER}/ok", headers={"X-API-Key": api_key()}, timeout=2).status_code == 200:
                    self.boots.append(time.monotonic() - began)
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)


@dataclass
class Check:
    """One run of playbooks/run_check.yml."""

    exit_code: int
    output: str
    record: dict[str, Any]


@dataclass
class Scene:
    """Cloud, machine, site and controller."""

    cloud: SandboxCloud
    machine: Machine
    records: SandboxSite
    folder: Path

    def __post_init__(self) -> None:
        self._write_inventory()
        self._write_settings()

    @property
    def scheduled(self) -> int:
        """How many items the site has still to be judged."""
        return len(self.records.store.scheduled())

    @property
    def is_on(self) -> bool:
        """Whether the server's container runs."""
        return docker("inspect", "--format", "{{.State.Running}}", SERVER).strip() == "true"

    # Playbooks

    @property
    def vault(self) -> Path:
        return self.folder / "inventory/group_vars/all/vault.yml"

    @property
    def password(self) -> Path:
        return self.folder / "vault-password"

    def _write_inventory(self) -> None:
        """That of the scenario, with the controller, and with the key in an encrypted file."""
        inventory = self.folder / "inventory"
        hosts = yaml.safe_load((EPHEMERAL / "inventory/ansible_inventory.yml").read_text())["all"]["hosts"]
        controller = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        groups = {"checker": {"hosts": {SERVER: hosts[SERVER]}}, "website": {"hosts": {SITE: hosts[SITE]}}}
        (inventory / "group_vars/all").mkdir(parents=True)
        (inventory / "hosts.yml").write_text(
            yaml.safe_dump({"all": {"hosts": {"localhost": controller}, "children": groups}})
        )
        shutil.copy(ROOT / "molecule/default/group_vars/website.yml", inventory / "group_vars/website.yml")
        cloud = {
            "spamops_api_key": "{{ vault_spamops_api_key }}",
            "spamops_auth_type": "v3applicationcredential",
            "spamops_auth": {
                "auth_url": self.cloud.auth_url,
                "application_credential_id": self.cloud.application_credential_id,
                "application_credential_secret": self.cloud.application_credential_secret,
            },
            "spamops_state_dir": str(self.folder / "state"),
        }
        (inventory / "group_vars/all/spamops.yml").write_text(yaml.safe_dump(VARIABLES | cloud))
        self.password.write_text("the-word-of-the-vault\n")
        self.vault.write_text(yaml.safe_dump({"vault_spamops_api_key": api_key()}))
        self._ansible("vault", "encrypt", str(self.vault))

    def _ansible(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name(f"ansible-{program}")), *arguments, "--vault-password-file", str(self.password)],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=900,
        )  # fmt: skip

    def playbook(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the project as a user would."""
        return self._ansible("playbook", f"playbooks/{name}.yml", "-i", str(self.folder / "inventory"), *arguments)

    def check(self) -> Check:
        """Run one check by the playbook, and read its record in the history."""
        done = self.playbook("run_check")
        return Check(done.returncode, done.stdout, self.last_run())

    def last_run(self) -> dict[str, Any]:
        """The newest run of the history, with its verdicts."""
        ledger = Ledger(self.folder / "state")
        last = ledger.runs(1)
        return (ledger.run(last[0]["id"]) or {}) if last else {}

    def rotate_the_key(self) -> subprocess.CompletedProcess[str]:
        """Change the key by the playbook; the scenario's inventory and the command line's settings get the new one too."""
        done = self.playbook("rotate_key", "-e", f'{{"rotate_key_also_files": ["{self._secrets / KEY_NAME}"]}}')
        shown = yaml.safe_load(self._ansible("vault", "view", str(self.vault)).stdout)
        (EPHEMERAL / "api_key").write_text(shown["vault_spamops_api_key"] + "\n")
        return done

    # The command line

    @property
    def _secrets(self) -> Path:
        return self.folder / "secrets"

    def _write_settings(self) -> None:
        self._secrets.mkdir(mode=0o700)
        named = {
            KEY_NAME: api_key(),
            "llm_spam_check_jetstream_os_application_credential_id": self.cloud.application_credential_id,
            "llm_spam_check_jetstream_os_application_credential_secret": self.cloud.application_credential_secret,
        }
        for name, value in named.items():
            (self._secrets / name).write_text(value)
            (self._secrets / name).chmod(0o600)
        settings = {
            "server": VARIABLES["spamops_server"],
            "checker_url": CHECKER,
            "auth_url": self.cloud.auth_url,
            "secrets_dir": str(self._secrets),
            "state_dir": str(self.folder / "state"),
            "reap_grace_seconds": 1,
            "ssh_host": ADDRESS,
            "ssh_user": "debian",
            "ssh_key_file": str(EPHEMERAL / "id_ed25519"),
            "ssh_known_hosts": str(EPHEMERAL / "known_hosts"),
        }
        # What TOML and JSON write alike: strings and numbers.
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
        (self.folder / "spamops.toml").write_text("".join(lines))

    def spamops(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command line, in a process group of its own."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("spamops")), *arguments, "--config", str(self.folder / "spamops.toml")],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            cwd=self.folder, env=os.environ | environment,
        )  # fmt: skip


KEY_NAME = "llm_spam_check_api_key"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A shelved server that holds what the one command provisioned, and a site with scheduled items."""
    docker("stop", "--time", "60", SERVER)
    machine = Machine()
    spec = ServerSpec(id=VARIABLES["spamops_server"], name="spamcheck", status="SHELVED_OFFLOADED")
    cloud = SandboxCloud([spec], clock=RealClock(), on_power=machine.power)
    records = SandboxSite(address=GATEWAY, port=RECORDS_PORT, allowed_hosts=[GATEWAY])
    records.seed(count=ITEMS, seed=1)
    with cloud, records:
        yield Scene(cloud, machine, records, tmp_path_factory.mktemp("controller"))
    docker("start", SERVER)
