"""Both Python packages build as wheels that install and run outside the checkout, with what they declare alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"spamops": ROOT, "spamcheck": ROOT / "services" / "spamcheck"}
BUILD_SECONDS = 120


def run(*command: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a user elsewhere would: nothing of this checkout in the environment."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


def files_of(package: str) -> set[str]:
    """The package's files that git tracks or would track, as they are named in a wheel."""
    source = FOLDERS[package] / "src"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z", package],
        cwd=source,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return {name for name in names if name and (source / name).is_file()}


@dataclass(frozen=True)
class Installed:
    """A fresh environment that holds the two wheels and, as its dependencies, the locked packages."""

    wheels: dict[str, Path]
    python: Path
    elsewhere: Path

    def program(self, name: str) -> Path:
        return self.python.parent / name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    wheels = {}
    for package, source in FOLDERS.items():
        # The wheel is built from the source archive, so both are shown to be complete.
        out = folder / f"dist-{package}"
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=folder)
        (wheels[package],) = out.glob("*.whl")
    environment = folder / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=folder)
    python = environment / "bin" / "python"
    (site_packages,) = environment.glob("lib/python3.*/site-packages")
    # A folder on the path brings its packages; what its own .pth files add (this checkout's sources) it does not.
    locked = Path(str(metadata.distribution("httpx").locate_file("")))
    (site_packages / "locked.pth").write_text(f"{locked}\n")
    uv = Path(sys.prefix) / "bin" / "uv"
    run(uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, *wheels.values(), cwd=folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(wheels, python, elsewhere)


@pytest.mark.parametrize("package", FOLDERS)
def test_an_installation_misses_no_file_of_the_package(installed: Installed, package: str) -> None:
    with zipfile.ZipFile(installed.wheels[package]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files_of(package)
    assert f"{package}/py.typed" in names


@pytest.mark.parametrize("package", FOLDERS)
def test_an_installed_package_is_the_wheel_and_tells_its_version(installed: Installed, package: str) -> None:
    words = f"import {package}, importlib.metadata as m; print({package}.__file__, m.version('{package}'))"
    path, version = run(installed.python, "-c", words, cwd=installed.elsewhere).stdout.split()
    assert Path(path).is_relative_to(installed.python.parents[1])
    declared = tomllib.loads((FOLDERS[package] / "pyproject.toml").read_text())["project"]["version"]
    assert version == declared


def test_the_command_line_explains_itself_outside_the_checkout(installed: Installed) -> None:
    answer = run(installed.program("spamops"), "--help", cwd=installed.elsewhere)
    assert "run" in answer.stdout
    assert "status" in answer.stdout


@pytest.mark.parametrize("package", FOLDERS)
def test_every_module_of_a_wheel_can_be_imported(installed: Installed, package: str) -> None:
    with zipfile.ZipFile(installed.wheels[package]) as wheel:
        names = sorted(name for name in wheel.namelist() if name.startswith(f"{package}/") and name.endswith(".py"))
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    modules = [name for name in modules if not name.endswith("__main__")]
    run(
        installed.python,
        "-c",
        f"import importlib\nfor n in {modules!r}: importlib.import_module(n)",
        cwd=installed.elsewhere,
    )


@pytest.mark.parametrize("program", ["spamcheck-api", "spamcheck-worker"])
def test_an_installed_checker_says_which_settings_it_lacks(installed: Installed, program: str) -> None:
    answer = run(installed.program(program), cwd=installed.elsewhere, code=2)
    assert "API_KEY is not set" in answer.stderr
    assert "Traceback" not in answer.stderr


def declared(package: str) -> set[str]:
    """What an installation of the package brings: its requirements, with theirs, those of the extras included."""
    project = tomllib.loads((FOLDERS[package] / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    waiting = [*project["dependencies"], *(text for extra in extras for text in extra)]
    found = {package}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += metadata.requires(name) or []
    return found


def imports(path: Path) -> Iterator[str]:
    """First word of every absolute import in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FOLDERS)
def test_an_installation_brings_everything_that_the_package_imports(package: str) -> None:
    brings = declared(package)
    owners = metadata.packages_distributions()
    missing = set()
    for name in files_of(package):
        if name.endswith(".py"):
            for module in set(imports(FOLDERS[package] / "src" / name)) - sys.stdlib_module_names - {package}:
                if not brings & {canonicalize_name(owner) for owner in owners.get(module, [])}:
                    missing.add(f"{name} imports {module}")
    assert not missing
