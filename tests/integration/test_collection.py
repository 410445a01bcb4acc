"""The collection builds from a checkout, installs, and works where there is no checkout."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
NAME = "comses.spamops"
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
# The others run on managed hosts, with the standard library alone.
NEEDING_SPAMOPS = [
    module for module in MODULES if "require_spamops()" in (ROOT / "plugins" / "modules" / f"{module}.py").read_text()
]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
# What lies about in a checkout that is in use, and must not travel.
CLUTTER = (
    "spamops.toml",
    "secrets/llm_spam_check_api_key",
    ".venv/pyvenv.cfg",
    ".sandbox/state.json",
    ".env",
    ".idea/workspace.xml",
    ".coverage",
    "dist/spamops-0.1.0-py3-none-any.whl",
    "src/spamops/__pycache__/cli.cpython-311.pyc",
    "services/spamcheck/.mypy_cache/cache.json",
    "services/spamcheck/src/spamcheck.egg-info/PKG-INFO",
    "comses-spamops-0.0.9.tar.gz",
)
# Everything that may stand at the top of an installed collection.
EXPECTED = {
    "CHANGELOG.rst",
    "CONTRIBUTING.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "SECURITY.md",
    "changelogs",
    "docs",
    "inventories",
    "meta",
    "monitoring",
    "playbooks",
    "plugins",
    "pyproject.toml",
    "requirements",
    "requirements.yml",
    "roles",
    "services",
    "src",
}
# What the collection is for, and what its roles install on a host.
NEEDED = (
    "README.md",
    "LICENSE",
    "CHANGELOG.rst",
    "meta/runtime.yml",
    "plugins/modules/server_shelf.py",
    "playbooks/run_check.yml",
    "pyproject.toml",
    "src/spamops/cli.py",
    "services/spamcheck/pyproject.toml",
    "services/spamcheck/src/spamcheck/api.py",
    "requirements/spamcheck.lock",
)


@dataclass(frozen=True)
class Elsewhere:
    """A folder with nothing but the collection as it was installed from its archive."""

    archive: Path
    folder: Path

    @property
    def collection(self) -> Path:
        return self.folder / "collections" / "ansible_collections" / "comses" / "spamops"

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        environment |= {
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [PROGRAMS / program, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    checkout = tmp_path_factory.mktemp("checkout")
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, names):
        source, copy = ROOT / name, checkout / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    for name in CLUTTER:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("private\n")
    folder = tmp_path_factory.mktemp("elsewhere")
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    place = Elsewhere(folder / f"comses-spamops-{version}.tar.gz", folder)
    built = place.run("ansible-galaxy", "collection", "build", str(checkout), "--output-path", str(folder))
    assert built.returncode == 0, built.stderr
    installed = place.run(
        "ansible-galaxy", "collection", "install", "--offline", str(place.archive), "-p", str(folder / "collections")
    )
    assert installed.returncode == 0, installed.stderr
    return place


def inside(link: tarfile.TarInfo, names: set[str]) -> bool:
    """Whether a symbolic link leads to something else of the same archive."""
    return link.issym() and posixpath.normpath(f"{posixpath.dirname(link.name)}/{link.linkname}") in names


def test_the_archive_holds_no_secret_no_settings_and_nothing_else_that_git_does_not_track(elsewhere: Elsewhere) -> None:
    with tarfile.open(elsewhere.archive) as archive:
        members = archive.getmembers()
    links = [member for member in members if member.issym() or member.islnk()]
    outside = [link.name for link in links if not inside(link, {member.name for member in members})]
    assert not outside, "links that lead out of the collection"
    files = {member.name for member in members if member.isfile()} - {"MANIFEST.json", "FILES.json"}
    assert not files & set(CLUTTER)
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    assert files <= set(tracked)


def test_the_archive_leaves_out_what_only_developers_need(elsewhere: Elsewhere) -> None:
    with tarfile.open(elsewhere.archive) as archive:
        names = archive.getnames()
    unexpected = {name.partition("/")[0] for name in names} - EXPECTED
    assert not unexpected, "for users of the collection? Then name it here, else in build_ignore of galaxy.yml"
    developers = ("inventories/sandbox", "changelogs/fragments")
    assert not [name for name in names if name.startswith(developers) or "/tests/" in name or "/." in name]


@pytest.mark.parametrize("name", NEEDED)
def test_an_installation_misses_nothing_that_it_needs(elsewhere: Elsewhere, name: str) -> None:
    assert (elsewhere.collection / name).is_file()


@pytest.fixture(scope="module")
def documentation(elsewhere: Elsewhere) -> dict[str, dict[str, Any]]:
    """What ansible-doc says about every module, where there is no checkout."""
    answer = elsewhere.run("ansible-doc", "--json", "-t", "module", *(f"{NAME}.{module}" for module in MODULES))
    assert answer.returncode == 0, answer.stderr
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return found


def incomplete(options: dict[str, Any], wanted: tuple[str, ...], path: str = "") -> list[str]:
    """The options or returned values, nested ones included, that lack one of the words."""
    faults = []
    for name, words in options.items():
        faults += [f"{path}{name} has no {word}" for word in wanted if not words.get(word)]
        nested = words.get("suboptions") or words.get("contains") or {}
        faults += incomplete(nested, tuple(word for word in wanted if word != "returned"), f"{path}{name}.")
    return faults


@pytest.mark.parametrize("module", MODULES)
def test_a_module_explains_itself_where_it_is_installed(documentation: dict[str, dict[str, Any]], module: str) -> None:
    about = documentation[f"{NAME}.{module}"]["doc"]
    for word in ("short_description", "description", "author", "version_added"):
        assert about.get(word), f"no {word}"
    # Some take none; that those they take are documented is looked at by ansible-test (scripts/sanity).
    assert not incomplete(about.get("options") or {}, ("description", "type"))
    assert {"check_mode", "diff_mode"} <= set(about.get("attributes") or {})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_returns(documentation: dict[str, dict[str, Any]], module: str) -> None:
    returned = documentation[f"{NAME}.{module}"]["return"]
    assert returned
    assert not incomplete(returned, ("description", "type", "returned"))


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_are_tasks_that_use_its_own_options(
    documentation: dict[str, dict[str, Any]], module: str
) -> None:
    about = documentation[f"{NAME}.{module}"]
    examples = yaml.safe_load(about["examples"])
    tasks = [task for task in examples if f"{NAME}.{module}" in task]
    assert tasks
    options = about["doc"].get("options") or {}
    known = set(options).union(*(option.get("aliases") or () for option in options.values()))
    required = {name for name, option in options.items() if option.get("required")}
    for task in tasks:
        assert task.get("name")
        assert required <= set(task[f"{NAME}.{module}"] or {}) <= known


@pytest.mark.parametrize("module", NEEDING_SPAMOPS)
def test_a_controller_without_the_python_package_is_told_what_to_install(elsewhere: Elsewhere, module: str) -> None:
    bare = elsewhere.folder / "bare"
    if not bare.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    source = (ROOT / "plugins" / "modules" / f"{module}.py").read_text()
    about = yaml.safe_load(source.split('DOCUMENTATION = r"""', 1)[1].split('"""', 1)[0])
    arguments = {
        name: (option.get("choices") or ["http://127.0.0.1:1"])[0]
        for name, option in about["options"].items()
        if option.get("required")
    }
    answer = elsewhere.run(
        "ansible",
        "localhost",
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars=ansible_python_interpreter={bare}/bin/python",
        f"--module-name={NAME}.{module}",
        f"--args={json.dumps(arguments)}",
    )
    assert answer.returncode != 0
    assert "Failed to import the required Python library (spamops)" in answer.stdout + answer.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_can_be_started_by_its_full_name_where_it_is_installed(elsewhere: Elsewhere, playbook: str) -> None:
    answer = elsewhere.run("ansible-playbook", "--inventory=localhost,", "--syntax-check", f"{NAME}.{playbook}")
    assert answer.returncode == 0, answer.stderr
    assert "[ERROR]" not in answer.stderr


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_can_be_started_in_the_checkout(playbook: str) -> None:
    answer = subprocess.run(
        [PROGRAMS / "ansible-playbook", "--syntax-check", f"playbooks/{playbook}.yml"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


def test_the_changelog_of_the_next_release_can_be_made() -> None:
    answer = subprocess.run(
        [PROGRAMS / "antsibull-changelog", "lint"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    sections = {name for name, _ in yaml.safe_load((ROOT / "changelogs" / "config.yaml").read_text())["sections"]}
    fragments = [*(ROOT / "changelogs" / "fragments").glob("*.y*ml")]
    for fragment in fragments:
        assert set(yaml.safe_load(fragment.read_text())) <= sections | {"release_summary", "trivial"}, fragment.name
    assert fragments or (ROOT / "changelogs" / "changelog.yaml").exists()
