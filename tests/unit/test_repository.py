"""What an administrator and a contributor rely on in the repository itself."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
PUBLIC_REGISTRIES = {"pypi.org", "files.pythonhosted.org", "proxy.golang.org"}


def repository_files() -> list[Path]:
    """Every plain file that git tracks or would track."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    paths = {ROOT / name for name in names if name}
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def texts(*suffixes: str) -> dict[str, str]:
    """Path from the root to text, of the files that are text and, when suffixes are given, end in one of them."""
    found = {}
    for path in repository_files():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def project(folder: str = ".") -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


def group(name: str) -> list[str]:
    """The requirements of a dependency group, with those of the groups that it includes."""
    found = []
    for entry in project()["dependency-groups"][name]:
        found += group(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return found


def lock_text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text()


def pins(lock: str) -> list[tuple[Requirement, str]]:
    """The pinned requirements of a lock, each with the rest of its entry (its hashes)."""
    text = lock_text(lock).replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for entry in entries:
        pin, _, hashes = entry.partition(" --hash=")
        found.append((Requirement(pin.strip()), hashes))
    return found


def versions(lock: str, python: str) -> dict[str, Version]:
    """What a lock installs on Linux with this Python."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    return {
        canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("=="))
        for pin, _ in pins(lock)
        if pin.marker is None or pin.marker.evaluate(environment)
    }


SPAMOPS = project()["project"]["dependencies"]
SANDBOX = project()["project"]["optional-dependencies"]["sandbox"]
SPAMCHECK = project("services/spamcheck")["project"]["dependencies"]
WANTED = {
    "dev": SPAMOPS + SANDBOX + SPAMCHECK + group("dev"),
    "demo": SPAMOPS + SANDBOX + SPAMCHECK + group("demo"),
    "controller": SPAMOPS + group("controller"),
    "spamcheck": SPAMCHECK,
    "bootstrap": ["uv"],
    "runner": ["ansible-runner>=2.4"],
}
# Collections that only some need, and the page that tells them; whoever has the package ansible has them.
OPTIONAL_COLLECTIONS = {"awx.awx": "docs/awx.md"}
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())


def test_every_lock_is_one_that_these_tests_know() -> None:
    assert {path.stem for path in (ROOT / "requirements").glob("*.lock")} == set(WANTED)


@pytest.mark.parametrize("lock", WANTED)
def test_a_tampered_package_is_refused_because_every_pin_carries_hashes(lock: str) -> None:
    entries = pins(lock)
    assert entries
    for pin, hashes in entries:
        assert str(pin.specifier).startswith("=="), f"{pin} is not pinned"
        assert re.fullmatch(r"(sha256:[0-9a-f]{64})(\s+--hash=sha256:[0-9a-f]{64})*\s*", hashes), f"{pin} has no hash"


@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_works_on_any_machine_because_it_names_no_address(lock: str) -> None:
    assert not re.search(r"://|^\s*-(i|-index-url|-extra-index-url|f|-find-links)\b", lock_text(lock), re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", WANTED)
def test_a_fresh_set_up_gets_every_dependency_that_pyproject_names(lock: str, python: str) -> None:
    locked = versions(lock, python)
    for wanted in map(Requirement, WANTED[lock]):
        if wanted.marker and not wanted.marker.evaluate({"python_version": python}):
            continue
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{wanted} is not in {lock}.lock: run scripts/lock"
        assert locked[name] in wanted.specifier, f"{lock}.lock has {name} {locked[name]}: run scripts/lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_tested_is_what_runs_because_all_locks_agree_on_versions(python: str) -> None:
    tested = versions("dev", python)
    for lock in set(WANTED) - {"dev", "bootstrap"}:
        differing = {name: version for name, version in versions(lock, python).items() if tested.get(name) != version}
        assert not differing, f"{lock}.lock differs from dev.lock: run scripts/lock"


def test_the_packages_and_the_collection_have_one_version_and_one_licence() -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    for folder in (".", "services/spamcheck"):
        metadata = project(folder)["project"]
        assert metadata["version"] == galaxy["version"]
        assert [metadata["license"]] == galaxy["license"] == ["GPL-3.0-or-later"]
    licence = (ROOT / "LICENSE").read_text().split()
    assert " ".join(licence[:7]) == "GNU GENERAL PUBLIC LICENSE Version 3, 29"


def test_the_oldest_python_is_the_same_for_packages_and_tools() -> None:
    settings = project()
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert project("services/spamcheck")["project"]["requires-python"] == f">={oldest}"
    assert settings["tool"]["mypy"]["python_version"] == oldest == PYTHONS[0]
    assert settings["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    limits = yaml.safe_load((ROOT / "tests" / "config.yml").read_text())
    assert limits["modules"]["python_requires"] == f">={oldest}"


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_a_script_can_be_started_as_the_readme_says(script: Path) -> None:
    assert os.access(script, os.X_OK), f"chmod +x {script.name}"
    assert re.match(r"#!/usr/bin/env (bash|python3|-S \.venv/bin/python)$", script.read_text().splitlines()[0])


def takes_options(script: Path) -> bool:
    return bool(re.search(r"\$@|\$\{?1\b|argparse|sys\.argv", script.read_text()))


@pytest.mark.parametrize("script", [path for path in SCRIPTS if takes_options(path)], ids=lambda path: path.name)
def test_a_script_that_takes_options_explains_them_and_does_nothing_else(script: Path) -> None:
    text = script.read_text()
    # Looked at first: a script that ignores --help would start its work here.
    assert re.search(r'--help|^exec .*"\$@"$|argparse', text, re.MULTILINE), f"{script.name} does not know --help"
    answer = subprocess.run([script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip(), "no explanation on stdout"


def machine_addresses() -> set[str]:
    """Host names of the package registries that this machine is set up to use, other than the public ones."""
    settings = [value for name, value in os.environ.items() if re.search(r"INDEX|FIND_LINKS|GOPROXY", name)]
    hosts = {urlsplit(word).hostname for value in settings for word in re.split(r"[\s,|]+", value)}
    return {host for host in hosts if host} - PUBLIC_REGISTRIES


def test_no_file_leads_to_one_particular_machine() -> None:
    folders = {str(ROOT)} if len(ROOT.parts) > 2 else set()
    home = re.compile(r"(?<![\w.~}$/])/(?:Users|home|work)/[a-z]\w*")
    faults = []
    for name, text in texts().items():
        faults += [f"{name}: {word}" for word in folders | machine_addresses() if word in text]
        faults += [f"{name}: {match.group()}" for match in home.finditer(text)]
    assert not faults


def test_every_link_between_the_pages_leads_somewhere() -> None:
    broken = []
    for name, text in texts(".md").items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            path = target.partition("#")[0]
            outside = "://" in path or path.startswith("mailto:")
            if path and not outside and not ((ROOT / name).parent / path).exists():
                broken.append(f"{name}: {target}")
    assert not broken


def test_settings_and_secrets_of_a_checkout_are_never_committed_by_mistake() -> None:
    private = ["spamops.toml", "secrets/llm_spam_check_api_key", ".venv/pyvenv.cfg", ".sandbox/state"]
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *private], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert ignored == private


def test_the_collection_resolves_in_a_fresh_clone_by_a_link_that_can_move() -> None:
    link = ROOT / ".collections" / "ansible_collections" / "comses" / "spamops"
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT


def used_collections() -> set[str]:
    """Namespace.name of every collection that a task in playbooks/ or roles/ calls."""
    found: set[str] = set()
    for name, text in texts(".yml", ".yaml").items():
        if name.startswith(("playbooks/", "roles/")):
            found |= {
                ".".join(words) for words in re.findall(r"^[\s-]*([a-z_]\w*)\.([a-z_]\w*)\.\w+:", text, re.MULTILINE)
            }
    return found - {"ansible.builtin", "ansible.legacy", "comses.spamops"}


def test_an_installation_from_galaxy_has_every_collection_that_is_used() -> None:
    dependencies = yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]
    requirements = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert {entry["name"]: entry["version"] for entry in requirements} == dependencies
    assert set(dependencies) == used_collections() - set(OPTIONAL_COLLECTIONS)
    for name, page in OPTIONAL_COLLECTIONS.items():
        assert f"ansible-galaxy collection install '{name}:" in (ROOT / page).read_text()


def test_pre_commit_runs_what_ci_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"].split() for repo in config["repos"] for hook in repo["hooks"]]
    hooks = {words[1] for words in entries if words[0] == "scripts/lint" and len(words) == 2}
    match = re.search(r"^all=\(([\w ]+)\)$", (ROOT / "scripts" / "lint").read_text(), re.MULTILINE)
    assert match
    assert hooks == set(match.group(1).split())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}, "a hook of a foreign repository needs the network"


@pytest.mark.parametrize("path", ["src/spamops/settings.py", "services/spamcheck/src/spamcheck/settings.py"])
def test_every_setting_says_what_it_is(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    assert classes
    fields = [
        node
        for node in classes[0].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id != "model_config"
    ]
    assert fields
    for field in fields:
        words = field.value.keywords if isinstance(field.value, ast.Call) else []
        assert "description" in {word.arg for word in words}, f"line {field.lineno}: {ast.unparse(field.target)}"
