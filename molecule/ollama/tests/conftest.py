"""The host of this scenario as its administrator sees it, and releases of Ollama to upgrade to."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shlex
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HOST = "spamops-ollama"
PROJECT = Path(__file__).resolve().parents[3]
BUILT = "0.11.4"
"""What scripts/build-ollama builds."""


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout.strip()


def on_host(command: str, check: bool = True) -> str:
    """Run a shell command as root on the host: also right after a restart, when its address may be another one."""
    done = subprocess.run(
        ["docker", "exec", HOST, "sh", "-c", command], capture_output=True, text=True, timeout=120, check=False
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask Ollama on the host itself; it listens nowhere else."""
    program = (
        "import sys, urllib.request;"
        "data = sys.argv[2].encode() or None;"
        "print(urllib.request.urlopen('http://127.0.0.1:11434' + sys.argv[1], data, timeout=60).read().decode())"
    )
    given = shlex.quote(json.dumps(body) if body else "")
    return json.loads(on_host(f"python3 -c {shlex.quote(program)} {path} {given}"))


def start_play(*arguments: str) -> subprocess.Popen[str]:
    """Apply the role once more, with other variables."""
    command = [Path(sys.executable).with_name("ansible-playbook"), "--inventory", os.environ["MOLECULE_INVENTORY_FILE"]]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    return subprocess.Popen(
        [*command, PROJECT / "molecule/ollama/converge.yml", *arguments],
        env=environment,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def play(*arguments: str) -> tuple[int, str]:
    """Exit code and output of such a run."""
    process = start_play(*arguments)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


class Mirror:
    """A site's mirror of the vendor's releases, on this machine. `hold` lets it stop in the middle of an answer."""

    def __init__(self, folder: Path) -> None:
        """Serve a folder until `close`."""
        self.hold = threading.Event()
        self.held = threading.Event()
        mirror = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def copyfile(self, source: Any, outputfile: Any) -> None:
                if not mirror.hold.is_set():
                    return super().copyfile(source, outputfile)
                outputfile.write(source.read(1024 * 1024))
                outputfile.flush()
                mirror.held.set()
                while mirror.hold.is_set():
                    threading.Event().wait(0.1)
                return None

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        gateway = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", HOST)
        self.url = f"http://{gateway}:{self._server.server_address[1]}"

    def close(self) -> None:
        self.hold.clear()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="session")
def binary() -> Path:
    script = [PROJECT / "scripts/build-ollama"]
    return Path(subprocess.run(script, check=True, capture_output=True, text=True, timeout=1800).stdout.strip())


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    folder = tmp_path_factory.mktemp("mirror")
    made = Mirror(folder)
    made.folder = folder  # type: ignore[attr-defined]
    yield made
    made.close()


def release(folder: Path, version: str, program: bytes, suffix: str) -> tuple[Path, str]:
    """An archive in the vendor's form, with a library of that version beside the program; and its checksum."""
    tree = folder / f"tree-{version}"
    (tree / "bin").mkdir(parents=True)
    (tree / "lib/ollama").mkdir(parents=True)
    (tree / "bin/ollama").write_bytes(program)
    (tree / "bin/ollama").chmod(0o755)
    (tree / f"lib/ollama/of-{version}").write_text(version)
    target = folder / f"v{version}"
    target.mkdir(exist_ok=True)
    plain = target / "plain.tar"
    with tarfile.open(plain, "w") as archive:
        for part in ("bin", "lib"):
            archive.add(tree / part, part)
    packed = target / f"ollama-linux-amd64{suffix}"
    pack = ["zstd", "-q", "-1", plain, "-o", packed] if suffix == ".tar.zst" else None
    if pack:
        subprocess.run(pack, check=True)
    else:
        with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
            for part in ("bin", "lib"):
                archive.add(tree / part, part)
    plain.unlink()
    return packed, "sha256:" + hashlib.sha256(packed.read_bytes()).hexdigest()


def labelled(binary: Path, version: str) -> bytes:
    """The same program under another version of the same length: what is tested is the change of versions, and a second build
    would take minutes."""
    assert len(version) == len(BUILT)
    program = binary.read_bytes()
    assert BUILT.encode() in program
    return program.replace(BUILT.encode(), version.encode())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the journal of the units with a failed test."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and report.failed:
        journal = on_host("journalctl --no-pager -n 60 -u ollama -u ollama-warmup", check=False)
        report.sections.append(("journal of the host", journal))
