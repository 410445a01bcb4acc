"""The sandbox's cloud, whose server is the container: unshelving starts it, shelving stops it; and the site that it checks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from spamops.clock import RealClock
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.sandbox.site import SandboxSite

ROOT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SERVER = "spamops-default"
ADDRESS, GATEWAY = "10.203.77.10", "10.203.77.1"
CHECKER = f"http://{ADDRESS}:8001"
SITE_PORT = 18080
ITEMS = 20


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


@dataclass
class Machine:
    """The container as the cloud's host sees it; `boots` are the seconds from each start to the checker's /ok."""

    api_key: str
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
                if httpx.get(f"{CHECKER}/ok", headers={"X-API-Key": self.api_key}, timeout=2).status_code == 200:
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
    """Cloud, machine and site, and a controller with its state in a folder."""

    cloud: SandboxCloud
    machine: Machine
    site: SandboxSite
    server_id: str
    api_key: str
    folder: Path

    def playbook(
        self, name: str, *arguments: str, inventory: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the project as a user would."""
        extra = self.folder / "extra.json"
        extra.touch(mode=0o600)
        extra.write_text(json.dumps(variables))
        return subprocess.run(
            ["ansible-playbook", f"playbooks/{name}.yml", "-i", inventory, "-e", f"@{extra}", *arguments],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=900,
        )  # fmt: skip

    def check(self) -> Check:
        """Run one check by the playbook, and read its record in the history."""
        done = self.playbook(
            "run_check",
            inventory=str(ROOT / "inventories/sandbox"),
            spamops_server=self.server_id,
            spamops_checker_url=CHECKER,
            spamops_api_key=self.api_key,
            spamops_auth_type="v3applicationcredential",
            spamops_auth={
                "auth_url": self.cloud.auth_url,
                "application_credential_id": self.cloud.application_credential_id,
                "application_credential_secret": self.cloud.application_credential_secret,
            },
            spamops_state_dir=str(self.folder / "state"),
            spamops_service_units_per_hour="",
        )
        ledger = Ledger(self.folder / "state")
        last = ledger.runs(1)
        return Check(done.returncode, done.stdout, (ledger.run(last[0]["run"]) or {}) if last else {})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A shelved server that holds what the one command provisioned, and a site with scheduled items."""
    docker("stop", "--time", "60", SERVER)
    api_key = (EPHEMERAL / "api_key").read_text().split()[0]
    machine = Machine(api_key)
    spec = ServerSpec(name="spamcheck", status="SHELVED_OFFLOADED")
    cloud = SandboxCloud([spec], clock=RealClock(), on_power=machine.power)
    site = SandboxSite(address=GATEWAY, port=SITE_PORT, api_key=api_key, allowed_hosts=[GATEWAY])
    site.seed(count=ITEMS, seed=1)
    with cloud, site:
        yield Scene(cloud, machine, site, spec.id, api_key, tmp_path_factory.mktemp("controller"))
    docker("start", SERVER)
