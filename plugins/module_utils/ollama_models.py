# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Bring the models of an Ollama server to a wanted state."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils import ollama_registry
from ansible_collections.comses.spamops.plugins.module_utils.ollama_api import (
    Missing,
    Model,
    Ollama,
    OllamaError,
    full_name,
)
from ansible_collections.comses.spamops.plugins.module_utils.ollama_pull import Limits, Progress, pull

REGISTRY_SECONDS = 15.0
BACKUP_SUFFIX = "-before-pull"
MIB = 1024 * 1024
_WEIGHTS = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})$", re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """A model, and where it comes from. `free_bytes` must be left on the disk of `models_path`."""

    name: str
    latest: bool = False
    reference: str = ""
    digest: str = ""
    insecure: bool = False
    path: Path | None = None
    checksum: str = ""
    template: str | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    models_path: Path | None = None
    free_bytes: int = 0

    @property
    def source(self) -> str:
        """The name to pull by."""
        return self.reference or self.name


@dataclass
class Outcome:
    """What was, what is (in check mode: what would be), and what was noticed."""

    before: Model | None = None
    after: Model | None = None
    changed: bool = False
    notes: list[str] = field(default_factory=list)


def find(server: Ollama, name: str) -> Model | None:
    """The model of this name."""
    return server.models().get(full_name(name).lower())


def remove(server: Ollama, name: str, check: bool) -> Outcome:
    """See to it that there is no model of this name. Raises OllamaError."""
    before = find(server, name)
    if before is not None and not check:
        with contextlib.suppress(Missing):
            server.delete(name)
        if find(server, name) is not None:
            raise OllamaError(f"Ollama says that {full_name(name)} is removed, and lists it still")
    return Outcome(before, None, before is not None)


def ensure(server: Ollama, wanted: Wanted, limits: Limits, progress: Progress, check: bool) -> Outcome:
    """See to it that the model is there; `progress` tells how far it came, also on failure. Raises OllamaError."""
    outcome = Outcome(before=find(server, wanted.name))
    outcome.after = outcome.before
    if wanted.path is None:
        _from_registry(server, wanted, limits, progress, check, outcome)
    else:
        _from_file(server, wanted, wanted.path, limits, progress, check, outcome)
    return outcome


def _from_registry(
    server: Ollama, wanted: Wanted, limits: Limits, progress: Progress, check: bool, outcome: Outcome
) -> None:
    before = outcome.before
    pinned = before is not None and _matches(before.digest, wanted.digest)
    if pinned and (wanted.digest or not wanted.latest):
        return  # the registry is not asked
    manifest = None
    try:
        manifest = ollama_registry.manifest(wanted.source, wanted.insecure, REGISTRY_SECONDS)
    except ollama_registry.Unknown as reason:
        outcome.notes.append(f"the size was not known before the pull: {reason}")
    if manifest and before and pinned and before.digest in manifest.digests:
        return
    if manifest:
        progress.lacking = frozenset(digest for digest in manifest.layers if not server.has_blob(digest))
        _require_room(wanted, sum(manifest.layers[digest] for digest in progress.lacking))
    outcome.changed = True
    if check:
        outcome.after = Model(wanted.digest or "", sum(manifest.layers.values()) if manifest else 0)
        if before and not manifest:
            outcome.notes.append("whether the registry has a newer one is not known: it could not be asked")
        return

    def make_sure_of_room() -> None:
        if manifest is None:
            _require_room(wanted, progress.bytes_total - progress.bytes_completed)

    reference = wanted.source
    _pull_and_name(
        server, wanted, lambda: pull(server, reference, wanted.insecure, limits, make_sure_of_room, progress)
    )
    outcome.after = _there(server, wanted.name)
    outcome.changed = outcome.after != before


def _pull_and_name(server: Ollama, wanted: Wanted, do_pull: Callable[[], None]) -> None:
    """Pull; a model with another digest than the pinned one never stays under the name."""
    models = server.models()
    source, name = full_name(wanted.source), full_name(wanted.name)
    had_source, same = source.lower() in models, source.lower() == name.lower()
    backup = ""
    if wanted.digest and had_source:
        backup = source + BACKUP_SUFFIX
        server.copy(source, backup)
    try:
        do_pull()
        pulled = _there(server, source)
        if _matches(pulled.digest, wanted.digest):
            if not same:
                server.copy(source, name)
                if not had_source:
                    server.delete(source)
            return
        if backup:
            server.copy(backup, source)
        else:
            server.delete(source)
    finally:
        if backup:
            server.delete(backup)
    raise OllamaError(
        f"the registry gave {source} with the digest {pulled.digest}, and {wanted.digest} is wanted: it was not kept;"
        " see who changed it, then set digest anew"
    )


def _from_file(
    server: Ollama, wanted: Wanted, path: Path, limits: Limits, progress: Progress, check: bool, outcome: Outcome
) -> None:
    there = server.show(wanted.name) if outcome.before else {}
    weights = _weights(there)
    if outcome.before and not wanted.latest and wanted.checksum in ("", weights):
        return
    try:
        with path.open("rb") as file:
            _require_gguf(path, file.read(8))
        digest, size = _sha256(path), path.stat().st_size
    except OSError as error:
        raise OllamaError(f"{path} on the host cannot be read: {error.strerror}") from None
    if wanted.checksum and wanted.checksum != digest:
        raise OllamaError(f"{path} has the checksum {digest}, and {wanted.checksum} is wanted; nothing was changed")
    if outcome.before and weights == digest and not _differs(there, wanted):
        return
    uploaded = server.has_blob(digest)
    if not uploaded:
        _require_room(wanted, size)
    outcome.changed = True
    if check:
        outcome.after = Model("", size)
        return
    progress.attempts = 1
    if not uploaded:
        server.upload(path, digest, limits.total)
        progress.note({"status": "uploading", "digest": digest, "total": size, "completed": 0})
        progress.note({"status": "uploading", "digest": digest, "total": size, "completed": size})
    _create(server, wanted, {path.name: digest}, limits, progress)
    outcome.after = _there(server, wanted.name)


def _create(server: Ollama, wanted: Wanted, files: dict[str, str], limits: Limits, progress: Progress) -> None:
    body: dict[str, Any] = {"model": full_name(wanted.name), "files": files, "stream": True}
    for name in ("template", "system", "parameters"):
        if (value := getattr(wanted, name)) is not None:
            body[name] = value
    with server.stream("/api/create", body, limits.total) as stream:
        for line in stream:
            if "error" in line:
                raise OllamaError(f"Ollama could not make {wanted.name} of the file: {line['error']}")
            progress.note({"status": line.get("status", "")})
            if line.get("status") == "success":
                return
    raise OllamaError(f"Ollama's answer ended before {wanted.name} was made; see journalctl -u ollama")


def _there(server: Ollama, name: str) -> Model:
    model = find(server, name)
    if model is None:
        raise OllamaError(f"Ollama says that {full_name(name)} is there, and does not list it")
    return model


def _matches(digest: str, pin: str) -> bool:
    """A pin may be the first 12 digits or more, as `ollama list` shows them."""
    return digest.removeprefix("sha256:").startswith(pin.removeprefix("sha256:"))


def _weights(shown: dict[str, Any]) -> str:
    found = _WEIGHTS.search(str(shown.get("modelfile", "")))
    return f"sha256:{found[1]}" if found else ""


def _differs(shown: dict[str, Any], wanted: Wanted) -> bool:
    if wanted.template is not None and wanted.template.strip() != str(shown.get("template", "")).strip():
        return True
    if wanted.system is not None and wanted.system.strip() != str(shown.get("system", "")).strip():
        return True
    if wanted.parameters is None:
        return False
    there: dict[str, list[str]] = {}
    for line in str(shown.get("parameters", "")).splitlines():
        name, _dummy, value = line.partition(" ")
        there.setdefault(name, []).append(_plain(value))
    given = {
        name: [_plain(each) for each in (value if isinstance(value, list) else [value])]
        for name, value in wanted.parameters.items()
    }
    return there != given


def _plain(value: Any) -> str:
    """Numbers and words as they compare equal, however they are written."""
    text = str(value).strip().strip('"')
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.lower() if text.lower() in ("true", "false") else text


def _require_gguf(path: Path, head: bytes) -> None:
    """Ollama makes a model of anything that begins with these letters, even of zeros. Raises OllamaError."""
    if len(head) < 8 or head[:4] != b"GGUF" or head[4:] == bytes(4):
        raise OllamaError(f"{path} is not a GGUF file")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _require_room(wanted: Wanted, needed: int) -> None:
    """Raises OllamaError when the disk of the models would be left with less than is to stay free."""
    if wanted.models_path is None or needed <= 0:
        return
    folder = wanted.models_path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed + wanted.free_bytes:
        raise OllamaError(
            f"{wanted.name} needs {_mib(needed)} MiB more on the disk of {wanted.models_path}, {_mib(wanted.free_bytes)} MiB"
            f" are to stay free, and {_mib(free)} MiB are free: make room, or move models_path to a larger volume"
        )


def _mib(size: int) -> int:
    return -(-size // MIB)
