"""The checker's package on the controller: what release its source is, and its wheel.

bundle.py describe SOURCE LOCK SALT   prints {"version", "release"} as JSON
bundle.py build SOURCE FOLDER         builds the wheel into FOLDER and prints its name
bundle.py pack WHEELHOUSE FILE        packs the wheels of a folder into one tar file

The release is VERSION-HASH, of the sources, of the lock and of SALT: the same input gives the same name on every machine.
Needs Python 3.11 or newer; `build` needs hatchling as well.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

HASH_CHARACTERS = 12


def files_of(source):
    """Everything that goes into the wheel, in an order that is the same everywhere."""
    found = [source / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for path in (source / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            found.append(path)
    return sorted(found, key=lambda path: path.relative_to(source).as_posix())


def describe(source, lock, salt):
    """Version and release of a source folder."""
    digest = hashlib.sha256(salt.encode())
    for name, path in [*((path.relative_to(source).as_posix(), path) for path in files_of(source)), ("lock", lock)]:
        digest.update(f"\0{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    version = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return {"version": version, "release": f"{version}-{digest.hexdigest()[:HASH_CHARACTERS]}"}


def build(source, folder):
    """The name of the wheel."""
    if importlib.util.find_spec("hatchling") is None:
        sys.exit(f"{sys.executable} has no hatchling, which builds the wheel: install it there (pip install hatchling)")
    # A fixed date makes the wheel the same, byte for byte, wherever it is built.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1580601600"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"hatchling failed on {source}:\n{done.stdout}{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return wheel.name


def pack(wheelhouse, file):
    """One file travels faster than forty."""
    wheels = sorted(wheelhouse.glob("*.whl"))
    if not wheels:
        sys.exit(f"{wheelhouse} holds no wheels: set spamcheck_wheelhouse to a folder that pip download has filled")
    with tarfile.open(file, "w") as archive:
        for wheel in wheels:
            archive.add(wheel, arcname=wheel.name)


def main():
    """The program."""
    what, source, *rest = sys.argv[1:]
    source = Path(source)
    if what == "pack":
        pack(source, Path(rest[0]))
        return
    if not (source / "pyproject.toml").is_file():
        sys.exit(f"{source} holds no Python package (no pyproject.toml): set spamcheck_source_dir")
    if what == "build":
        sys.stdout.write(build(source, Path(rest[0])))
        return
    lock = Path(rest[0])
    if not lock.is_file():
        sys.exit(f"the lock {lock} does not exist: set spamcheck_lock")
    sys.stdout.write(json.dumps(describe(source, lock, rest[1])))


if __name__ == "__main__":
    main()
