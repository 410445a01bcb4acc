"""playbooks/awx.yml against AWX's API on loopback, and execution-environment.yml as ansible-builder takes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from awx_api import ORGANIZATION, TOKEN, AwxApi

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# A play of many requests, several times over; two cores may be shared with other tests.
pytestmark = pytest.mark.timeout(900)
KEY = "the-key-of-the-check-0123456789abcdef"
SECRETS = {
    "key": KEY,
    "credential": "an-application-credential-secret",
    "payload": "cGF5bG9hZC1rZXktb2YtdGVtcG9yYWwtMDEyMzQ1Njc=",
    "notifier": "slack://token-a/token-b/token-c",
    "ssh": "bm8tcmVhbC1rZXktYXQtYWxsLWp1c3QtdGV4dA",
    "vault": "a password of a vault",
    "webhook": "hook-with-a-secret-in-it",
    "token": TOKEN,
}
VARIABLES: dict[str, Any] = {
    "awx_token": TOKEN,
    "awx_organization": ORGANIZATION,
    "awx_project_url": "https://git.example.org/spamops.git",
    "awx_image": "registry.example.org/spamops-ee:0.1.0",
    "awx_timezone": "Europe/Berlin",
    "awx_check_time": "06:30",
    "awx_ssh_user": "debian",
    "awx_ssh_private_key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRETS['ssh']}\n-----END OPENSSH PRIVATE KEY-----\n",
    "awx_vault_password": SECRETS["vault"],
    "awx_webhook_url": f"https://chat.example.org/{SECRETS['webhook']}",
    "awx_website_variables": {"website_dir": "/opt/site"},
    "awx_variables": {"firewall_site_cidrs": ["192.0.2.10/32"]},
    "spamops_server": "00000000-0000-4000-8000-000000000001",
    "spamops_checker_url": "http://203.0.113.7:8001",
    "spamops_api_key": KEY,
    "spamops_auth_type": "v3applicationcredential",
    "spamops_auth": {
        "auth_url": "https://keystone.example.org:5000/v3/",
        "application_credential_id": "an-application-credential-id",
        "application_credential_secret": SECRETS["credential"],
    },
    "spamops_state_dir": "/var/lib/spamops",
    "spamops_service_units_per_hour": 16,
    "spamops_notify_urls": [SECRETS["notifier"], "json://192.0.2.1/"],
    "vault_spamcheck_payload_key": SECRETS["payload"],
}
HOSTS = {
    "all": {
        "hosts": {
            "localhost": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        },
        "children": {
            "checker": {"hosts": {"spamcheck": {"ansible_host": "203.0.113.7", "ansible_user": "debian"}}},
            "website": {"hosts": {"www": {"ansible_host": "192.0.2.10", "ansible_user": "deploy", "note": "not told"}}},
        },
    }
}


class Operator:
    """Somebody who runs playbooks/awx.yml on an AWX of their own."""

    def __init__(self, folder: Path, awx: AwxApi) -> None:
        self.folder = folder
        self.awx = awx
        self.environment: dict[str, str] = {}

    def play(self, *arguments: str, hosts: dict[str, Any] | None = None, **variables: Any) -> tuple[int, str]:
        """Run the playbook: its exit code and all it said. A variable that is None is left out."""
        given = {"awx_host": self.awx.url} | VARIABLES | variables
        (self.folder / "vars.json").write_text(json.dumps({k: v for k, v in given.items() if v is not None}))
        (self.folder / "hosts.json").write_text(json.dumps(hosts or HOSTS))
        done = subprocess.run(
            [
                str(BIN / "ansible-playbook"), "-i", str(self.folder / "hosts.json"), "-e", f"@{self.folder / 'vars.json'}",
                str(ROOT / "playbooks" / "awx.yml"), *arguments,
            ],
            cwd=ROOT, env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"} | self.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert self.awx.faults == []
        return done.returncode, done.stdout

    def succeeds(self, *arguments: str, **variables: Any) -> str:
        """The same, where it must succeed."""
        code, output = self.play(*arguments, **variables)
        assert code == 0, output
        return output


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with AwxApi() as awx:
        yield Operator(tmp_path, awx)


def test_awx_gets_all_that_a_check_needs_again_changes_nothing_and_absent_leaves_nothing(operator: Operator) -> None:
    awx = operator.awx
    before = awx.state()
    operator.succeeds("--check")
    assert awx.state() == before

    told = operator.succeeds("-vvv")
    for name, secret in SECRETS.items():
        assert secret not in told, name
    number = awx.one("organizations", ORGANIZATION)["id"]
    ours = {name: awx.one(name, "spamops")["id"] for name in ("projects", "inventories", "execution_environments")}

    project = awx.one("projects", "spamops")
    assert (project["scm_type"], project["scm_url"], project["scm_branch"], project["organization"]) == (
        "git", VARIABLES["awx_project_url"], "main", number,
    )  # fmt: skip
    assert awx.one("execution_environments", "spamops")["image"] == VARIABLES["awx_image"]
    looks_at_the_inventory(awx)
    looks_at_the_credentials(awx)

    wanted = {
        "check": ("playbooks/run_check.yml", ["spamops"]),
        "reap": ("playbooks/reap.yml", ["spamops"]),
        "provision": ("playbooks/site.yml", ["spamops", "spamops ssh"]),
        "rotate": ("playbooks/rotate_key.yml", ["spamops", "spamops ssh", "spamops vault"]),
    }
    assert awx.names("job_templates") == {f"spamops {job}" for job in wanted}
    for job, (playbook, credentials) in wanted.items():
        template = awx.one("job_templates", f"spamops {job}")
        assert template["playbook"] == playbook
        assert awx.linked("job_templates", f"spamops {job}", "credentials") == credentials
        assert awx.linked("job_templates", f"spamops {job}", "notification_templates_error") == ["spamops webhook"]
        assert template["allow_simultaneous"] is False
        assert {
            name: template[key]
            for name, key in zip(ours, ("project", "inventory", "execution_environment"), strict=True)
        } == ours
    rotate = awx.one("job_templates", "spamops rotate")
    assert json.loads(rotate["extra_vars"]) == {"rotate_key_file": "/var/lib/spamops/vault.yml"}

    check, reap = awx.one("job_templates", "spamops check"), awx.one("job_templates", "spamops reap")
    assert check["survey_enabled"]
    assert not reap["survey_enabled"]
    questions = awx.surveys[check["id"]]["spec"]
    assert [question["variable"] for question in questions] == [
        "skip_shelving_when_done",
        "skip_changing_instance_state",
    ]
    assert {question["default"] for question in questions} == {"no"}
    rules = {item["unified_job_template"]: item["rrule"] for item in awx.items["schedules"].values()}
    assert rules == {
        check["id"]: "DTSTART;TZID=Europe/Berlin:20260101T063000 RRULE:FREQ=DAILY;INTERVAL=1",
        reap["id"]: "DTSTART;TZID=UTC:20260101T000000 RRULE:FREQ=MINUTELY;INTERVAL=5",
    }
    hook = awx.one("notification_templates", "spamops webhook")
    assert hook["notification_configuration"]["url"] == VARIABLES["awx_webhook_url"]

    made = awx.state()
    assert "changed=0" in operator.succeeds("--check", "--diff")
    again = operator.succeeds()
    assert "changed=0" in again, again
    assert awx.state() == made

    gone = operator.succeeds("-vvv", awx_state="absent", **dict.fromkeys(
        ["awx_project_url", "awx_image", "awx_ssh_private_key", "awx_vault_password", "spamops_api_key", "spamops_auth"]
    ))  # fmt: skip
    assert awx.state() == before
    assert TOKEN not in gone
    assert "changed=0" in operator.succeeds(awx_state="absent")


def looks_at_the_inventory(awx: AwxApi) -> None:
    text = awx.one("inventories", "spamops")["variables"]
    for name, secret in SECRETS.items():
        assert secret not in text, name
    variables = json.loads(text)
    for name in ("server", "checker_url", "state_dir", "service_units_per_hour"):
        assert variables[f"spamops_{name}"] == VARIABLES[f"spamops_{name}"]
    assert variables["spamops_api_key"] == "{{ vault_spamops_api_key }}"
    assert variables["spamops_auth"] == {
        "auth_url": VARIABLES["spamops_auth"]["auth_url"],
        "application_credential_id": "{{ vault_spamops_application_credential_id }}",
        "application_credential_secret": "{{ vault_spamops_application_credential_secret }}",
    }
    assert variables["firewall_site_cidrs"] == ["192.0.2.10/32"]
    assert awx.names("hosts") == {"localhost", "spamcheck", "www"}
    assert json.loads(awx.one("hosts", "www")["variables"]) == {"ansible_host": "192.0.2.10", "ansible_user": "deploy"}
    assert json.loads(awx.one("hosts", "localhost")["variables"])["ansible_connection"] == "local"
    assert awx.linked("groups", "checker", "hosts") == ["spamcheck"]
    assert awx.linked("groups", "website", "hosts") == ["www"]
    assert json.loads(awx.one("groups", "website")["variables"])["website_dir"] == "/opt/site"
    assert json.loads(awx.one("groups", "checker")["variables"])["spamcheck_api_key"] == "{{ spamops_api_key }}"


def looks_at_the_credentials(awx: AwxApi) -> None:
    kind = awx.one("credential_types", "spamops")
    secret = {field["id"] for field in kind["inputs"]["fields"] if field.get("secret")}
    assert secret == {"spamops_api_key", "application_credential_secret", "spamcheck_payload_key", "notify_urls"}
    assert set(kind["injectors"]) == {"extra_vars"}, "an environment can be read by others"
    assert awx.one("credentials", "spamops")["inputs"] == {
        "spamops_api_key": KEY,
        "application_credential_id": "an-application-credential-id",
        "application_credential_secret": SECRETS["credential"],
        "spamcheck_payload_key": SECRETS["payload"],
        "notify_urls": f"{SECRETS['notifier']}\njson://192.0.2.1/",
    }
    machine = awx.one("credentials", "spamops ssh")
    assert (machine["inputs"]["username"], machine["inputs"]["become_method"]) == ("debian", "sudo")
    assert machine["inputs"]["ssh_key_data"] == VARIABLES["awx_ssh_private_key"]
    assert awx.one("credentials", "spamops vault")["inputs"] == {"vault_password": SECRETS["vault"]}
    for item in awx.items["credentials"].values():
        assert not [name for name, text in SECRETS.items() if text in item["description"]]


def test_a_secret_that_changed_here_is_changed_there_and_jobs_no_longer_wanted_are_gone(operator: Operator) -> None:
    awx = operator.awx
    operator.succeeds()
    key = "another-key-of-the-check-0123456789abcdef"
    told = operator.succeeds("-vvv", spamops_api_key=key, awx_no_log=False)
    assert key not in told, "the modules themselves must hide it"
    assert awx.one("credentials", "spamops")["inputs"]["spamops_api_key"] == key
    assert "changed=0" in operator.succeeds(spamops_api_key=key)

    operator.succeeds(
        spamops_api_key=key, awx_jobs=["check", "reap"], awx_webhook_url="", awx_ssh_private_key=None, awx_vault_password=None,
        awx_check_time="18:00",
    )  # fmt: skip
    assert awx.names("job_templates") == {"spamops check", "spamops reap"}
    assert awx.names("credentials") == {"spamops"}
    assert awx.names("notification_templates") == set()
    assert "T180000 " in awx.one("schedules", "spamops check daily")["rrule"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"awx_host": "http://awx.example.org"}, "awx_host"),
        ({"awx_token": None}, "awx_token"),
        ({"awx_organization": None}, "awx_organization"),
        ({"awx_project_url": "https://me:password@git.example.org/x.git"}, "awx_project_url"),
        ({"awx_image": None}, "awx_image"),
        ({"awx_timezone": "Mars; rm"}, "awx_timezone"),
        ({"awx_check_time": 990}, "awx_check_time"),
        ({"awx_jobs": ["chek"]}, "awx_jobs"),
        ({"spamops_server": None}, "spamops_server"),
        ({"spamops_api_key": "{{ vault_that_nobody_wrote }}"}, "spamops_api_key"),
        ({"spamops_auth": None}, "spamops_auth"),
        ({"spamops_state_dir": ""}, "spamops_state_dir"),
        ({"awx_ssh_private_key": None}, "awx_ssh_private_key"),
        ({"awx_vault_password": None}, "awx_vault_password"),
        ({"awx_state": "gone"}, "awx_state"),
    ],
    ids=str,
)
def test_a_faulty_variable_is_told_in_one_message_before_anything_is_touched(
    operator: Operator, fault: dict[str, Any], says: str
) -> None:
    code, output = operator.play(**fault)
    assert code != 0
    assert "1 fault(s); nothing was touched" in output, output
    assert f"- {says}" in output
    assert operator.awx.writes == []
    assert "password@" not in output


def test_all_faults_are_told_at_once(operator: Operator) -> None:
    code, output = operator.play(
        awx_image=None, spamops_server="", awx_vault_password=None, hosts={"all": {"hosts": {"localhost": None}}}
    )
    assert code != 0
    assert "5 fault(s)" in output
    for word in ("awx_image", "spamops_server", "awx_vault_password", "group checker", "group website"):
        assert word in output


def test_an_organization_or_a_token_that_awx_does_not_know_is_told_and_nothing_is_touched(operator: Operator) -> None:
    code, output = operator.play(awx_organization="Nobody")
    assert code != 0
    assert "AWX has no organization Nobody" in " ".join(output.split())
    code, output = operator.play(awx_token="an-old-token-of-somebody")
    assert code != 0
    assert "Invalid authentication credentials" in output
    assert "an-old-token-of-somebody" not in output
    assert operator.awx.writes == []


def test_without_the_collection_it_says_how_to_get_it(operator: Operator) -> None:
    # The dev environment brings the collection in its site-packages, which are not looked at here.
    operator.environment = {"ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false"}
    code, output = operator.play()
    assert code != 0, output
    assert "The collection awx.awx is not installed here; nothing was touched" in " ".join(output.split())
    assert operator.awx.writes == []


# What is documented


def test_the_example_explains_every_variable_that_the_playbook_takes() -> None:
    example = yaml.safe_load((ROOT / "inventories/example/group_vars/all/awx.yml").read_text())
    given = {name for name in VARIABLES if name.startswith("awx_")} | {"awx_host", "awx_jobs", "awx_name"}
    assert given <= set(example)
    text = (ROOT / "playbooks/awx.yml").read_text() + (ROOT / "playbooks/tasks/awx_present.yml").read_text()
    assert [name for name in example if name not in text] == []


def test_awx_gets_every_setting_that_the_example_has_and_is_no_secret() -> None:
    example = yaml.safe_load((ROOT / "inventories/example/group_vars/all/spamops.yml").read_text())
    (tasks,) = yaml.load((ROOT / "playbooks/tasks/awx_present.yml").read_text(), Loader=Unsafe)
    names = {f"spamops_{name}" for name in tasks["vars"]["awx_setting_names"].split("'")[1].split()}
    elsewhere = set(tasks["vars"]["awx_secret_settings"]) | {"spamops_cloud"}
    assert names | elsewhere == set(example)
    assert not names & elsewhere


class Unsafe(yaml.SafeLoader):
    """YAML with Ansible's tag for text that is no template."""


Unsafe.add_constructor(
    "!unsafe", lambda loader, node: loader.construct_mapping(node) if isinstance(node, yaml.MappingNode) else node.value
)


# The execution environment

PLANTED = (
    "spamops.toml",
    "secrets/llm_spam_check_api_key",
    ".sandbox/vars.json",
    ".env",
    "inventories/mine/group_vars/all/vault.yml",
    "playbooks/group_vars/all/vault.yml",
    "playbooks/vault.yml.txt",
    "requirements/private.txt",
    ".venv/pyvenv.cfg",
)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context that ansible-builder makes of a checkout in use, with secrets lying about in it."""
    checkout = tmp_path_factory.mktemp("checkout")
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, names):
        source, copy = ROOT / name, checkout / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    for name in PLANTED:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("planted-secret\n")
    folder = checkout / "context"
    done = subprocess.run(
        [str(BIN / "ansible-builder"), "create", "--file", "execution-environment.yml", "--context", str(folder),
         "--output-filename", "Containerfile"],
        cwd=checkout, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No matches for" not in done.stdout + done.stderr
    return folder


def test_the_image_is_built_from_locked_packages_and_no_others(context: Path) -> None:
    text = (context / "Containerfile").read_text()
    steps = text.replace("\\\n", " ").splitlines()
    installs = [step for step in steps if "pip install" in step and not step.startswith("FROM")]
    locked = [step for step in installs if "--require-hashes" in step]
    assert len(locked) == 1, steps
    for lock in ("controller.lock", "runner.lock"):
        assert f"-r /usr/share/spamops/requirements/{lock}" in locked[0]
        assert (context / "_build/spamops/requirements" / lock).read_bytes() == (
            ROOT / "requirements" / lock
        ).read_bytes()
    (own,) = [step for step in installs if " /usr/share/spamops" in step and "--require-hashes" not in step]
    for option in ("--no-deps", "--no-index", "--no-build-isolation"):
        assert option in own
    # bindep and its two helpers are in a stage that is thrown away.
    rest = [step for step in installs if step not in (*locked, own)]
    assert [step.split("install ")[1] for step in rest] == ["--no-cache-dir bindep pyyaml packaging"]
    assert text.index("FROM base AS builder") < text.index(rest[0]) < text.index("FROM base AS final")
    assert "EE_BASE_IMAGE=" in text.splitlines()[0]
    assert any("collection install" in step and "--offline" in step for step in steps)
    assert any("check_ansible" in step for step in steps)


def test_no_secret_of_the_checkout_travels_into_the_image(context: Path) -> None:
    found = [path for path in context.rglob("*") if path.is_file() and b"planted-secret" in path.read_bytes()]
    assert found == []


def test_what_travels_is_enough_for_the_package_and_the_collection(context: Path, tmp_path: Path) -> None:
    """What the image's steps install, installed beside this environment, and a playbook of it read."""
    source = tmp_path / "spamops"
    shutil.copytree(context / "_build" / "spamops", source)
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=170, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    pip = ("python", "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", str(tmp_path / "site"), str(source))
    assert (tmp_path / "site" / "spamops" / "cli.py").is_file()
    run(
        "ansible-galaxy",
        "collection",
        "install",
        "--offline",
        "--no-deps",
        str(source),
        "-p",
        str(tmp_path / "collections"),
    )
    for book in ("run_check", "reap", "site", "rotate_key"):
        run("ansible-playbook", "-i", "localhost,", "--syntax-check", f"comses.spamops.{book}")
