"""Every command of the operator's guide (docs/operations.md), and of the README's way to a first check, works as it is written.

`spamops` and the playbooks that need no real host are run, against the embedded cloud, a checker and a site on loopback. What
needs a real host is shown to be what a Molecule scenario or another test runs; the lines for systemd and cron are run by
molecule/schedule/tests/test_guide.py.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret
from fake_checker import API_KEY, Answer, FakeChecker, status
from guide import (
    BIN,
    IDENTIFIERS,
    PROGRAMS,
    ROOT,
    SERVER_ADDRESS,
    UNITS,
    VAULT_PASSWORD,
    Controller,
    chapters,
    lines,
    programs,
)
from long_history import long_history
from loopback_ssh import LoopbackSsh, tools
from notice_board import NoticeBoard
from scene import QUICK_DELAYS

from spamops.alarms import Kind
from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.sandbox.site import SandboxSite

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")

PAGE = (ROOT / "docs" / "operations.md").read_text()
ALARMS = (ROOT / "docs" / "alarms.md").read_text()
WAY = (
    (ROOT / "README.md")
    .read_text()
    .partition("### From nothing to a first check on Jetstream2\n")[2]
    .partition("\n### ")[0]
)
CHAPTERS = {int(heading.partition(".")[0]): fences for heading, fences in chapters(PAGE).items()}
WAY_LINES = lines(chapters(f"## x\n{WAY}")["x"][0])
ALL_LINES = [line for fences in CHAPTERS.values() for fence in fences for line in lines(fence)] + WAY_LINES
PLAYBOOK_LINES = [words for line in ALL_LINES for words in programs(line) if words[0] == "ansible-playbook"]
SECRETS = {
    "llm_spam_check_api_key": "vault_spamops_api_key",
    "llm_spam_check_jetstream_os_application_credential_id": "vault_spamops_application_credential_id",
    "llm_spam_check_jetstream_os_application_credential_secret": "vault_spamops_application_credential_secret",
}
RUN_HERE = {"init_secrets", "credential", "run_check"}
RUN_ELSEWHERE = {
    "schedule": ("molecule/schedule/tests", "molecule/schedule/converge.yml"),
    "site": ("molecule/default/converge.yml",),
    "website": ("molecule/website/converge.yml", "molecule/website/tests"),
    "rotate_key": ("molecule/website/tests",),
    "validate": ("molecule/website/tests",),
    "server": ("tests/integration/test_server_playbook.py",),
}
"""Playbooks for real hosts, and what runs them."""


class Place(Controller):
    """A controller with its cloud, server, checker, site, and a board on which alarms arrive."""

    def __init__(
        self, folder: Path, cloud: SandboxCloud, spec: ServerSpec, checker: FakeChecker, ssh: LoopbackSsh
    ) -> None:
        super().__init__(folder)
        self.cloud, self.server, self.checker, self.ssh = cloud, spec.id, checker, ssh
        self.site: SandboxSite | None = None
        self.environ |= {
            "GUIDE_PORT": str(ssh.port),
            "GUIDE_KEY": str(ssh.key_file),
            "GUIDE_KNOWN": str(ssh.known_hosts),
        }

    def serve_site(self, key: str) -> None:
        """Have the site answer to this key."""
        self.site = SandboxSite(api_key=key)
        self.site.start()

    @property
    def state(self) -> Path:
        return self.path("/var/lib/spamops")

    @property
    def now(self) -> str:
        """The server's status, by the cloud's own history."""
        return self.cloud.history(self.server)[-1][1]

    @property
    def vault(self) -> Path:
        return self.checkout / "inventories" / "mine" / "group_vars" / "all" / "vault.yml"

    @property
    def vaulted(self) -> dict[str, str]:
        """What the vault holds."""
        lib = VaultLib([("default", VaultSecret(VAULT_PASSWORD.encode()))])
        values: dict[str, str] = yaml.safe_load(lib.decrypt(self.vault.read_bytes()))
        return values

    def write_settings(self) -> None:
        """The settings file of the page, with what is here in the place of its examples."""
        assert self.site is not None
        (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
        values = tomllib.loads(self.here(text)) | {
            "server": self.server,
            "checker_url": self.checker.url,
            "auth_url": self.cloud.auth_url,
            "site_url": self.site.url,
            "ssh_host": "127.0.0.1",
            "ssh_port": self.ssh.port,
        }
        path = self.path("/etc/spamops/spamops.toml")
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))

    def settle(self) -> None:
        """What the first chapter leaves behind, without its commands."""
        secrets = self.path("/etc/spamops/secrets")
        secrets.mkdir(parents=True, mode=0o750)
        self.state.mkdir(mode=0o750)
        auth = self.cloud.clouds_yaml()["auth"]
        values = (API_KEY, auth["application_credential_id"], auth["application_credential_secret"])
        for name, value in zip(SECRETS, values, strict=True):
            (secrets / name).write_text(value)
            (secrets / name).chmod(0o640)
        self.serve_site(API_KEY)
        self.write_settings()
        (self.state / "id_ed25519").write_bytes(self.ssh.key_file.read_bytes())
        (self.state / "id_ed25519").chmod(0o600)
        self.path("/etc/spamops/known_hosts").write_bytes(self.ssh.known_hosts.read_bytes())
        self.path("/usr/local/bin/spamops").symlink_to(BIN / "spamops")

    def chapter(self, number: int) -> list[str]:
        """Run a chapter; what each fence said."""
        return [self.run(fence) for fence in CHAPTERS[number]]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Place]:
    """A controller on which nothing was done yet."""
    checker, spec = FakeChecker(on=False), ServerSpec()
    said = {"journalctl": 'echo "journal: $*"', "systemctl": 'echo "units: $*"'}
    with (
        LoopbackSsh(tmp_path / "ssh", tools(tmp_path / "tools", said)) as ssh,
        SandboxCloud([spec], delays=QUICK_DELAYS, on_power=checker.power) as cloud,
        checker,
    ):
        place = Place(tmp_path, cloud, spec, checker, ssh)
        try:
            yield place
        finally:
            if place.site is not None:
                place.site.close()


@pytest.fixture
def place(bare: Place) -> Place:
    """A controller on which the first chapter was done."""
    bare.settle()
    return bare


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What there is to be run


def test_a_command_that_no_test_could_run_is_noticed() -> None:
    assert len(ALL_LINES) > 60
    unknown = {line for line in ALL_LINES for words in programs(line) if words[0] not in PROGRAMS}
    assert not unknown, "tests/support/guide.py does not know how to run these"


def test_every_chapter_with_commands_is_run_here() -> None:
    source = Path(__file__).read_text()
    run = {
        int(number)
        for number in re.findall(r"\.chapter\((\d+)\)|CHAPTERS\[(\d+)\]", source)
        for number in number
        if number
    }
    assert set(CHAPTERS) == run
    assert len(WAY_LINES) <= 10, "the README promises ten commands at most"


def test_every_file_and_heading_it_points_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", PAGE)
    assert len(targets) > 20
    for target, anchor in targets:
        file = (ROOT / "docs" / target) if target else ROOT / "docs" / "operations.md"
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{target}#{anchor}"


def test_its_alarms_are_those_of_the_program_and_prometheus_alerts_are_explained() -> None:
    table = PAGE.partition("\n## 4. Alarms\n")[2].partition("```")[0]
    assert re.findall(r"^\| \[`(\w+)`\]\(alarms\.md#\1\)", table, re.M) == [str(kind) for kind in Kind]
    rules = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "spamops.rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Spam\w+)`", ALARMS.partition("\n## Prometheus alerts\n")[2])) == alerts


# From nothing to the first check


def told_of(place: Place, line: str) -> str:
    """Run a line of the README as somebody does who follows it, with the edits that it asks for."""
    said = place.run(line)
    all_ = place.checkout / "inventories" / "mine" / "group_vars" / "all"
    if line.startswith("cp "):
        file = all_ / "spamops.yml"
        edits = {
            "00000000-0000-4000-8000-000000000000": place.server,
            f"http://{SERVER_ADDRESS}:8001": place.checker.url,
            "https://keystone.example.org:5000/v3/": place.cloud.auth_url,
            'spamops_state_dir: ""': f"spamops_state_dir: {place.folder}/own-state",
        }
        text = file.read_text()
        for old, new in edits.items():
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
    if "init_secrets" in line:
        place.checker._key = place.vaulted["vault_spamops_api_key"]
        place.serve_site(place.vaulted["vault_spamops_api_key"])
    return said


@pytest.mark.timeout(600)
def test_from_a_clone_to_the_first_check(bare: Place) -> None:
    place, clouds = bare, bare.folder / "clouds.yaml"
    clouds.write_text(yaml.safe_dump({"clouds": {"jetstream2": place.cloud.password_clouds_yaml()}}))
    place.environ["OS_CLIENT_CONFIG_FILE"] = str(clouds)
    clone, program, modes, secrets, urls, login = CHAPTERS[1]
    # From this repository instead of that one.
    git = {"url." + str(ROOT) + ".insteadOf": "https://github.com/comses/spamops.git", "safe.directory": "*"}
    place.environ["GIT_CONFIG_COUNT"] = str(len(git))
    for number, (key, value) in enumerate(git.items()):
        place.environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    place.run(clone + "test -f playbooks/site.yml && git pull", cwd=place.folder)

    for line in WAY_LINES:
        told = told_of(place, line)
    assert "3 checked, 1 spam, 0 failed" in told
    assert place.now == "SHELVED_OFFLOADED"
    assert len(place.cloud.keystone.credentials) == 2

    place.run(program)
    assert place.path("/usr/local/bin/spamops").resolve().is_relative_to(place.path("/opt/spamops"))
    role = yaml.safe_load((ROOT / "roles" / "schedule" / "defaults" / "main.yml").read_text())
    (user,) = (line.split() for line in place.logged if line.startswith("useradd "))
    assert (user[-1], user[user.index("--home-dir") + 1]) == (role["schedule_user"], str(place.state))
    assert place.path(role["schedule_command"]).is_file()
    assert place.state == place.path(role["schedule_state_path"])

    place.write_settings()
    place.run(modes)
    place.run(secrets)
    vaulted = place.vaulted
    with NoticeBoard() as board:
        (place.checkout / "notify-urls").write_text(f"{board.url()}\n")
        place.run(urls)
        assert [title.rpartition(": ")[2] for title in board.titles] == ["a test"]
    assert not (place.checkout / "notify-urls").exists()
    folder = place.path("/etc/spamops/secrets")
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        [*SECRETS, "spamops_notify_urls"], 0o640
    )
    assert (mode(folder), mode(folder.parent), mode(place.state)) == (0o750, 0o750, 0o750)
    assert mode(place.path("/etc/spamops/spamops.toml")) == 0o640
    for name, variable in SECRETS.items():
        assert (folder / name).read_text().strip() == vaulted[variable]

    (place.ssh.key_file.parent / ".ssh").mkdir()
    place.run(login)
    place.ssh.authorized = " ".join((place.ssh.key_file.parent / ".ssh" / "authorized_keys").read_text().split()[:2])
    known = place.path("/etc/spamops/known_hosts").read_text().split()
    assert known[0] == f"[127.0.0.1]:{place.ssh.port}"

    (folder / "spamops_notify_urls").unlink()  # nobody listens there any more
    doctor, *_ = place.chapter(2)
    assert re.search(r"site +\W* *ok|ok +\W* *site", doctor), doctor
    assert Ledger(place.state).runs(1)[0]["outcome"] == "done"
    assert place.now == "SHELVED_OFFLOADED"
    assert "<html" in (place.state / "report.html").read_text()


# The chapters after that


def test_the_schedule(place: Place) -> None:
    cron = place.path("/etc/cron.d/spamops")
    cron.write_text("0 6 * * * spamops /usr/local/lib/spamops-scheduled run\n")
    place.chapter(3)
    assert cron.is_file()
    for line in place.logged:
        words = line.split()
        if words[0] == "systemctl":
            named = {word.removesuffix(".service") for word in words[2:]} - {"spamops-*"}
            assert named <= {unit.removesuffix(".service") for unit in UNITS}, line
        if words[0] == "journalctl":
            assert {words[at + 1] for at, word in enumerate(words) if word == "-t"} <= IDENTIFIERS, line
    role = yaml.safe_load((ROOT / "roles" / "schedule" / "vars" / "main.yml").read_text())
    assert set(role["_schedule_units"]) == UNITS
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert set(yaml.safe_load(text)) <= set(variables_of("schedule"))


def test_what_is_looked_at_when_an_alarm_came(place: Place) -> None:
    long_history(place.state, datetime.now(UTC), runs=3, verdicts=30)
    with NoticeBoard() as board:
        (place.path("/etc/spamops/secrets") / "spamops_notify_urls").write_text(board.url())
        (told,) = place.chapter(4)
        assert len(board.titles) == 2
    assert "nothing: " in told
    assert place.cloud.action_requests == []


def test_what_it_costs(place: Place) -> None:
    long_history(place.state, datetime.now(UTC), runs=3, verdicts=30)
    (told,) = place.chapter(5)
    assert "of 32 service units this day" in told
    assert "spamops_service_units" in told
    assert "always on" in (place.state / "report.html").read_text()
    rate, always, check = 16, 16 * 24 * 30, 16 * 0.25 * 30
    assert f"at {rate} service units an hour {always:,} in" in PAGE
    assert f"a check of 15 minutes a day costs {check:.0f}" in PAGE


def test_a_failure_is_looked_into(place: Place) -> None:
    long_history(place.state, datetime.now(UTC), runs=1, verdicts=10)
    place.checker.order("status", Answer(body=status("FAILED", "the site does not answer"), times=1))
    with pytest.raises(AssertionError, match="the site does not answer"):
        place.run("sudo -u spamops spamops run")
    looked, seen = place.chapter(6)
    assert "the site does not answer" in looked
    assert re.search(r"spamops-diagnosis-\w+-run-2\.tar\.gz", looked)
    (bundle,) = place.state.glob("spamops-diagnosis-*.tar.gz")
    with tarfile.open(bundle) as archive:
        assert any(name.endswith("manifest.json") for name in archive.getnames())
    assert "-u ollama.service" in seen
    assert "units: --failed" in seen
    asked = [action for _, action in place.cloud.action_requests if "doctor" not in action]
    assert asked == ["unshelve", "shelve", "unshelve", "shelve"]
    assert place.now == "SHELVED_OFFLOADED"


def test_what_moderators_decided_is_taken_in_and_things_are_forgotten(place: Place) -> None:
    ledger = long_history(place.state, datetime.now(UTC), runs=3, verdicts=60)
    verdicts = (ledger.run(2) or {})["verdicts"]
    item = verdicts[0]["item_id"]
    (place.checkout / "decisions.csv").write_text(f"item_id,decision\n{item},spam\n12,not_spam\n")
    taken, gone = place.chapter(7)
    assert "2 decisions: 2 new" in taken
    assert "spam" in (place.checkout / "feedback.csv").read_text()
    assert set(json.loads((place.checkout / "history.json").read_text())) == {"runs", "verdicts", "feedback"}
    assert re.search(r"deleted: 1 verdicts, 1 feedback|deleted: .*[1-9]", gone), gone
    assert "12" not in {str(row["item_id"]) for run in (1, 2, 3) for row in (ledger.run(run) or {})["verdicts"]}


def test_a_new_key_reaches_the_controller_too(place: Place) -> None:
    assert place.site is not None
    new = "n" * 8 + "-after-the-rotation-" + "w" * 16
    place.site.api_key = new  # as the playbook leaves it
    place.vault.parent.mkdir(parents=True)
    lib = VaultLib([("default", VaultSecret(VAULT_PASSWORD.encode()))])
    place.vault.write_bytes(lib.encrypt(f"vault_other: 1\nvault_spamops_api_key: {json.dumps(new)}\n"))
    (told,) = place.chapter(8)
    file = place.path("/etc/spamops/secrets/llm_spam_check_api_key")
    assert (file.read_text().strip(), mode(file)) == (new, 0o640)
    assert new not in told
    done = [line.split()[1] for line in place.logged if "show" not in line]  # the doctor asks systemd too
    assert done == ["stop", "playbooks/rotate_key.yml", "start"]


def test_the_program_is_renewed(place: Place) -> None:
    subprocess.run(["python3", "-m", "venv", "--without-pip", place.path("/opt/spamops")], check=True, timeout=60)
    place.path("/usr/local/bin/spamops").unlink()
    place.path("/usr/local/bin/spamops").symlink_to(place.path("/opt/spamops/bin/spamops"))
    origin = place.folder / "origin.git"
    identity = "-c user.name=somebody -c user.email=somebody@example.org"
    place.run(
        f"git init -q --bare {origin} && git init -q && git {identity} commit -q --allow-empty -m x"
        f" && git remote add origin {origin} && git push -q -u origin HEAD"
    )
    (told,) = place.chapter(9)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"spamops {version}" in told


def test_the_removal_leaves_nothing_of_the_program(place: Place) -> None:
    long_history(place.state, datetime.now(UTC), runs=1, verdicts=10)
    place.path("/opt/spamops").mkdir()
    place.chapter(10)
    assert json.loads((place.checkout / "history.json").read_text())["runs"]
    for name in ("/etc/spamops", "/opt/spamops", "/usr/local/bin/spamops"):
        assert not os.path.lexists(place.path(name))


# Playbooks for real hosts


def variables_of(role: str) -> dict[str, Any]:
    """The variables of a role."""
    specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    found: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return found


NAMED = sorted({Path(words[1]).stem for words in PLAYBOOK_LINES})


def test_every_playbook_is_run_by_a_test() -> None:
    assert set(NAMED) == RUN_HERE | set(RUN_ELSEWHERE)
    for name, places in RUN_ELSEWHERE.items():
        for place in places:
            files = [ROOT / place] if (ROOT / place).is_file() else list((ROOT / place).glob("*.py"))
            text = "".join(file.read_text() for file in files)
            starts = (
                rf"playbooks/{name}\.yml|\b(?:run|run_killed_at|play|playbook)\(\s*\"{name}\"|comses\.spamops\.{name}\b"
            )
            assert re.search(starts, text), f"{place} does not run {name}.yml"


@pytest.mark.parametrize("what", ["--syntax-check", "--list-tasks"])
def test_the_playbooks_for_real_hosts_are_such_that_ansible_takes_them(what: str) -> None:
    books = [f"playbooks/{name}.yml" for name in RUN_ELSEWHERE]
    done = subprocess.run(
        [BIN / "ansible-playbook", *books, "-i", "inventories/example", what],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for book in books:
        assert book in done.stdout
        assert what == "--syntax-check" or "TAGS: [" in done.stdout.partition(book)[2].partition("\nplaybook: ")[0]


def test_the_variables_of_their_command_lines_are_variables() -> None:
    options = {"-i", "-e", "--ask-vault-password", "--ask-become-pass"}
    for words in PLAYBOOK_LINES:
        name = Path(words[1]).stem
        text = (ROOT / "playbooks" / f"{name}.yml").read_text()
        assert {word for word in words[2:] if word.startswith("-")} <= options, words
        for variable, value in (words[at + 1].split("=") for at, word in enumerate(words) if word == "-e"):
            roles = [role for role in re.findall(r"comses\.spamops\.(\w+)", text) if (ROOT / "roles" / role).is_dir()]
            described = [variables_of(role)[variable] for role in roles if variable in variables_of(role)]
            assert described or f"{variable} " in text, f"{name}.yml has no variable {variable}"
            assert all(value in map(str, spec.get("choices", [value])) for spec in described), words
