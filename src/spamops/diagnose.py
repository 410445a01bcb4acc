"""What the server tells of itself, over SSH, in one file that can be given to others: without secrets, without personal data.

Everything is bounded: the connection, each command, what each may say, and the whole. What could not be had is noted in the
bundle, and the rest is kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shlex
import socket
import tarfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import __version__
from .diagnosis_sources import SOURCES, Source
from .errors import SpamopsError, SshError
from .scrub import Scrubber
from .ssh import CONNECT_SECONDS, SshTarget
from .text import one_line

FOLDER = "diagnosis"
KEPT = 10
"""So many bundles of failed runs stay in the folder of the history; the oldest go."""
SCRUB_SECONDS = 5.0
"""Of the time for all, what is left for the scrubbing and the writing."""
PART_SECONDS = 3600.0
"""A half-written bundle that is older belongs to nobody any more."""
_CHUNK = 32768


@dataclass(frozen=True)
class Plan:
    """What to collect from where. `secrets` must not appear in a bundle; `seconds` is the limit for all of it."""

    target: SshTarget
    secrets: tuple[str, ...] = field(default=(), repr=False)
    seconds: float = 60.0
    sources: tuple[Source, ...] = SOURCES


@dataclass
class Piece:
    """What one source said. `fault` is why it said nothing, or not all."""

    name: str
    text: str = ""
    exit_status: int | None = None
    seconds: float = 0.0
    fault: str | None = None
    cut: bool = False


def collect(plan: Plan, folder: Path, name: str, about: dict[str, Any] | None = None) -> Path:
    """Log in, collect, scrub, and write `folder`/`name`.tar.gz; its path. `about` is noted in it, scrubbed too.

    Raises SshError when the server cannot be logged in to, SpamopsError when the bundle cannot be written.
    """
    deadline = time.monotonic() + plan.seconds
    pieces = read(plan, deadline - min(SCRUB_SECONDS, plan.seconds / 4))
    scrub = Scrubber(plan.secrets, {plan.target.host: "[server]"})
    files = {f"{piece.name}.txt": scrub(piece.text) for piece in pieces}
    manifest = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "spamops": __version__,
        "about": _scrubbed(about or {}, scrub),
        "sources": [
            {key: value for key, value in asdict(piece).items() if key != "text"} | {"fault": _told(piece, scrub)}
            for piece in pieces
        ],
    }
    files["manifest.json"] = json.dumps(manifest | {"removed": dict(scrub.removed)}, indent=1) + "\n"
    path = folder / f"{name}.tar.gz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, name, files)
    except OSError as error:
        raise SpamopsError(f"the bundle {path} cannot be written: {error.strerror or error}") from error
    return path


def collect_in_time(plan: Plan, folder: Path, name: str, about: dict[str, Any]) -> tuple[Path | None, str | None]:
    """`collect`, which delays its caller by `plan.seconds` at most and raises nothing of its own: the bundle's path, or why
    there is none. One that takes longer is left behind and writes nothing more into its caller's way."""
    box: list[Path | str] = []
    done = threading.Event()

    def work() -> None:
        try:
            box.append(collect(plan, folder, name, about))
            prune(folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server has to be shelved
            box.append(one_line(str(error)) if isinstance(error, SpamopsError) else type(error).__name__)
        done.set()

    try:
        threading.Thread(target=work, daemon=True, name="diagnosis").start()
    except RuntimeError as error:
        return None, str(error)
    done.wait(plan.seconds)
    if not box:
        return None, f"it took longer than {plan.seconds:g} s"
    found = box[0]
    return (found, None) if isinstance(found, Path) else (None, found)


def bundle_name(run: int | None, at: datetime) -> str:
    """What a bundle is called, without its ending; sorts by time."""
    return f"spamops-diagnosis-{at:%Y%m%dT%H%M%SZ}" + (f"-run-{run}" if run else "")


def prune(folder: Path, keep: int = KEPT) -> None:
    """Remove the oldest bundles but for the newest `keep`."""
    for path in sorted(folder.glob("spamops-diagnosis-*.tar.gz"))[:-keep]:
        with contextlib.suppress(OSError):
            path.unlink()
    for part in folder.glob(".spamops-diagnosis-*.part"):  # of a process that was ended in the middle
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > PART_SECONDS:
                part.unlink()


def read(plan: Plan, deadline: float) -> list[Piece]:
    """What each source says until `deadline` (of the monotonic clock).

    Raises SshError when the server cannot be logged in to.
    """
    connection = connect(plan.target, deadline - time.monotonic())
    pieces = []
    try:
        for source in plan.sources:
            if deadline - time.monotonic() < 0.2:
                pieces.append(Piece(source.name, fault="no time was left"))
                continue
            pieces.append(_ask(connection, source, deadline))
    finally:
        # In a thread: closing waits for the other side's answer, which may never come.
        threading.Thread(target=connection.close, daemon=True, name="diagnosis-close").start()
    return pieces


def connect(target: SshTarget, limit: float) -> Any:
    """A connection of fabric that stands, within `limit` seconds.

    Raises SshError that says what to do: an unknown host key, one that changed, a refused login, no answer.
    """
    import fabric  # late: it takes a while
    import paramiko

    # Its words of a failed connection are told by the exceptions below, without a trace.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    seconds = max(1, min(CONNECT_SECONDS, int(limit)))
    chosen: dict[str, Any] = {"banner_timeout": seconds, "auth_timeout": seconds, "channel_timeout": seconds}
    if target.key_file is not None:
        key = _key(target.key_file)
        # One that needs a passphrase may be in the agent.
        chosen |= {"pkey": key, "look_for_keys": False, "allow_agent": key is None}
    try:
        connection = fabric.Connection(
            target.host, user=target.user, port=target.port, connect_timeout=seconds, connect_kwargs=chosen
        )
        # Fabric's own choice is to trust whoever answers.
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for path in _host_key_files(target):
            connection.client.load_system_host_keys(str(path))
        connection.open()
    except Exception as error:  # noqa: BLE001 - paramiko's own kinds, the system's, and what its configuration files bring up
        raise SshError(_fault(error, target)) from None
    return connection


def _key(path: Path) -> Any:
    """The private key, or None when it needs a passphrase.

    Raises SshError when it cannot be read. Left to paramiko, a refused login is told as a key that cannot be read.
    """
    import paramiko

    try:
        return paramiko.PKey.from_path(path)
    except (TypeError, paramiko.PasswordRequiredException):
        return None
    except OSError as error:
        raise SshError(f"ssh_key_file {path} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - whatever a file of another form brings up
        raise SshError(f"ssh_key_file {path} is no private key ({type(error).__name__})") from None


def knows_host(target: SshTarget, name: str) -> bool:
    """Whether a host key of that name is known; `name` is [HOST]:PORT where the port is not 22."""
    import paramiko

    for path in _host_key_files(target):
        try:
            if paramiko.HostKeys(str(path)).lookup(name) is not None:
                return True
        except (OSError, paramiko.SSHException):
            continue
    return False


def _host_key_files(target: SshTarget) -> Iterable[Path]:
    usual = (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts"))
    return [path for path in ((target.known_hosts,) if target.known_hosts else usual) if path and path.is_file()]


def _fault(error: Exception, target: SshTarget) -> str:
    import paramiko

    scan = f"ssh-keyscan -p {target.port} {target.host}"
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"the host key of {target.host} is not the one that is known: somebody else may answer there. If the server was made"
            f" anew, remove the old key (ssh-keygen -R) and add the new one ({scan}, and compare it with the cloud's console log)"
        )
    if isinstance(error, paramiko.AuthenticationException):
        return f"{target} refused the login: check ssh_user and ssh_key_file (a key with a passphrase needs an agent)"
    if isinstance(error, paramiko.SSHException) and "known_hosts" in str(error):
        return f"the host key of {target.host} is not known: add it with {scan}, and compare it with the cloud's console log"
    if isinstance(error, socket.gaierror):
        return f"the name {target.host} is not known: check ssh_host"
    if isinstance(error, OSError | paramiko.SSHException | EOFError):
        return f"no connection to {target.host} port {target.port}: {one_line(str(error)) or type(error).__name__}"
    return f"no connection to {target.host}: {type(error).__name__}"


def _ask(connection: Any, source: Source, deadline: float) -> Piece:
    began = time.monotonic()
    seconds = min(source.seconds, deadline - began)
    piece = Piece(source.name)
    # The server's own limit ends the command there, too: an nvidia-smi that hangs would hold its device.
    command = f"env LC_ALL=C timeout -k 1 {seconds:.0f} sh -c {shlex.quote(_with_sbin(source.script))}"
    try:
        _run(connection.transport, command, source, began + seconds, piece)
    except Exception as error:  # noqa: BLE001 - noted; the other sources may still tell
        piece.fault = f"{type(error).__name__}: {one_line(str(error))}"
    piece.seconds = round(time.monotonic() - began, 2)
    if source.keep is not None:
        piece.text = source.keep(piece.text)
    return piece


def _with_sbin(script: str) -> str:
    return f'PATH="$PATH:/usr/local/bin:/usr/sbin:/sbin"; {script}'


def _run(transport: Any, command: str, source: Source, until: float, piece: Piece) -> None:
    """Run one command, and put what it says into the piece, until the time is up or it has said too much."""
    channel = transport.open_session(timeout=max(0.1, until - time.monotonic()))
    content = bytearray()
    try:
        channel.set_combine_stderr(True)
        channel.settimeout(max(0.1, until - time.monotonic()))
        channel.exec_command(command)
        said = 0
        while True:
            left = until - time.monotonic()
            if left <= 0:
                piece.fault = "it did not end in time"
                break
            channel.settimeout(left)
            try:
                chunk = channel.recv(_CHUNK)
            except TimeoutError:
                continue
            if not chunk:
                channel.status_event.wait(max(0.0, until - time.monotonic()))
                piece.exit_status = channel.exit_status if channel.exit_status >= 0 else None
                break
            said += len(chunk)
            content += chunk
            if len(content) > source.most_bytes:
                piece.cut = True
                if not source.tail or said > 16 * source.most_bytes:
                    break
                del content[: -source.most_bytes]
    finally:
        channel.close()
        piece.text = _whole_lines(bytes(content), source, cut=piece.cut)


def _whole_lines(content: bytes, source: Source, *, cut: bool) -> str:
    """The text, and of one that was cut off only whole lines: half a secret would not be known for one."""
    if cut:
        content = (
            content[-source.most_bytes :].partition(b"\n")[2]
            if source.tail
            else content[: source.most_bytes].rpartition(b"\n")[0]
        )
    return content.decode("utf-8", "replace")


def _told(piece: Piece, scrub: Scrubber) -> str | None:
    return None if piece.fault is None else scrub(piece.fault)


def _scrubbed(value: Any, scrub: Scrubber) -> Any:
    """The same with every text in it scrubbed."""
    if isinstance(value, dict):
        return {key: _scrubbed(inner, scrub) for key, inner in value.items()}
    if isinstance(value, list):
        return [_scrubbed(inner, scrub) for inner in value]
    return scrub(value) if isinstance(value, str) else value


def _write(path: Path, name: str, files: dict[str, str]) -> None:
    """The archive, seen under its name only when it is whole, readable by its owner alone."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for file_name, text in sorted(files.items()):
                content = text.encode()
                entry = tarfile.TarInfo(f"{name}/{file_name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
