"""Secrets that are made once and encrypted, and the restricted credential with which a check works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from spamops.cloud import ACTIVE, SHELVED, Server, connect
from spamops.errors import CloudRefused
from spamops.sandbox.cloud import AccessRule, Credential, SandboxCloud, ServerSpec

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")


class Operator:
    """Somebody with an inventory and a vault password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vault = folder / "inventory" / "group_vars" / "all" / "vault.yml"
        self.password = folder / "password"
        self.password.write_text("the-word-of-the-vault\n")
        self.vault.parents[2].mkdir(parents=True)
        (folder / "inventory" / "hosts.yml").write_text(
            "all: {hosts: {localhost: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}}}\n"
        )
        self.clouds = folder / "clouds.yaml"

    def play(self, name: str, *more: str, password: bool = True) -> subprocess.CompletedProcess[str]:
        line = [
            PROGRAMS / "ansible-playbook",
            f"playbooks/{name}.yml",
            "-i",
            self.folder / "inventory",
            "-vvv",
            "--diff",
        ]
        line += ["--vault-password-file", self.password] if password else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "ANSIBLE_"))}
        environment |= {"OS_CLIENT_CONFIG_FILE": str(self.clouds), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            [*line, *more],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def vaulted(self) -> dict[str, str]:
        shown = subprocess.run(
            [PROGRAMS / "ansible-vault", "view", "--vault-password-file", self.password, self.vault],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        values: dict[str, str] = yaml.safe_load(shown)
        return values


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


def test_secrets_are_made_once_and_a_file_that_is_there_is_never_touched(operator: Operator) -> None:
    looked = operator.play("init_secrets", "--check")
    assert looked.returncode == 0, looked.stdout
    assert not operator.vault.exists()
    made = operator.play("init_secrets")
    assert made.returncode == 0, made.stdout
    assert operator.vault.stat().st_mode & 0o777 == 0o600
    values, raw = operator.vaulted(), operator.vault.read_bytes()
    assert set(values) == {"vault_spamops_api_key", "vault_spamcheck_payload_key"}
    assert not [value for value in values.values() if value in made.stdout + made.stderr]
    assert operator.play("init_secrets").returncode == 0
    assert operator.vault.read_bytes() == raw


def test_without_a_vault_password_nothing_is_written(operator: Operator) -> None:
    told = operator.play("init_secrets", password=False)
    assert told.returncode != 0
    assert "no vault password" in told.stdout + told.stderr
    assert not operator.vault.exists()


def test_a_file_that_is_not_encrypted_is_left_alone(operator: Operator) -> None:
    operator.vault.parent.mkdir(parents=True)
    operator.vault.write_text("a: b\n")
    told = operator.play("init_secrets")
    assert told.returncode != 0
    assert "is not encrypted" in told.stdout + told.stderr
    assert operator.vault.read_text() == "a: b\n"


def cloud_of(operator: Operator, cloud: SandboxCloud) -> None:
    """The person's own login, with a password, in clouds.yaml."""
    keystone = cloud.keystone
    auth = {
        "auth_url": cloud.auth_url,
        "username": keystone.user_name,
        "password": keystone.password,
        "user_domain_name": "Default",
        "project_id": keystone.project_id,
    }
    operator.clouds.write_text(yaml.safe_dump({"clouds": {"own": {"auth": auth, "auth_type": "v3password"}}}))


def test_the_playbook_makes_a_credential_that_does_the_work_and_nothing_else(operator: Operator) -> None:
    mine, other = ServerSpec(name="mine"), ServerSpec(name="other")
    with SandboxCloud([mine, other]) as cloud:
        cloud_of(operator, cloud)
        wanted = ("-e", f"spamops_server={mine.id}", "-e", "credential_cloud=own")
        looked = operator.play("credential", "--check", *wanted)
        assert looked.returncode == 0, looked.stdout[-3000:]
        assert len(cloud.keystone.credentials) == 1
        made = operator.play("credential", *wanted)
        assert made.returncode == 0, made.stdout[-4000:] + made.stderr
        values = operator.vaulted()
        secret = values["vault_spamops_application_credential_secret"]
        assert secret not in made.stdout + made.stderr
        auth: dict[str, Any] = {
            "auth_url": cloud.auth_url,
            "application_credential_id": values["vault_spamops_application_credential_id"],
            "application_credential_secret": secret,
        }
        connection = connect(auth_type="v3applicationcredential", auth=auth)
        server = Server(connection, mine.id)
        server.bring_to(ACTIVE, 30)
        assert server._failed_event("unshelve") is None, "the action log can be read"
        server.bring_to(SHELVED, 30)
        with pytest.raises(CloudRefused, match=r"The rule that it lacks.*GET, path /v2.1/servers/"):
            Server(connection, other.id).look(limit=5)
        raw = operator.vault.read_bytes()
        assert operator.play("credential", *wanted).returncode == 0
        assert operator.vault.read_bytes() == raw, "once: another run makes no second one"
        assert len(cloud.keystone.credentials) == 2


LACKING = [
    ((), r"GET, path /v2.1/servers/[0-9a-f-]+\."),
    (("GET /v2.1/servers/{}",), r"POST, path /v2.1/servers/[0-9a-f-]+/action\."),
]


@pytest.mark.parametrize(("rules", "lacking"), LACKING)
def test_a_credential_that_is_too_narrow_is_told_which_rule_it_lacks(rules: tuple[str, ...], lacking: str) -> None:
    spec = ServerSpec()
    with SandboxCloud([spec]) as cloud:
        allowed = tuple(AccessRule(*rule.format(spec.id).split(" ", 1)) for rule in rules)
        made = Credential(access_rules=allowed)
        cloud.add_credential(made)
        server = Server(connect(**cloud.clouds_yaml(made)), spec.id)
        with pytest.raises(CloudRefused, match=lacking):
            server.bring_to(ACTIVE, 20)


def test_a_wrong_secret_is_not_taken_for_a_missing_rule() -> None:
    with SandboxCloud([ServerSpec()]) as cloud:
        auth = cloud.clouds_yaml()["auth"] | {"application_credential_secret": "wrong"}
        server = Server(connect(auth_type="v3applicationcredential", auth=auth), "spamcheck")
        with pytest.raises(CloudRefused, match="wrong, expired or deleted"):
            server.look(limit=5)
