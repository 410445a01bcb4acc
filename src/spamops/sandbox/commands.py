"""`spamops sandbox up` and `spamops sandbox demo`."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ExitCode, SettingsError

MISSING = "the sandbox's packages are not installed: pip install 'spamops[sandbox]' spamcheck, or scripts/bootstrap in a checkout"


def add_to(commands: Any) -> None:
    """Add the sandbox's commands to the command line."""
    sandbox = commands.add_parser(
        "sandbox", help="an embedded cloud, site and checker on this machine, to look around", description=__doc__
    )
    names = sandbox.add_subparsers(title="commands", required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--items", type=_count, default=250, metavar="N", help="scheduled items (default: 250)")
    common.add_argument("--seed", type=int, default=1, metavar="N", help="another seed gives other items (default: 1)")
    common.add_argument("--verbose", action="store_true", help="log the libraries' work too, on stderr")

    up = names.add_parser("up", parents=[common], help="start it and keep it running until Ctrl-C")
    up.add_argument("--dir", type=Path, default=Path(".sandbox"), metavar="DIR", help="its files (default: .sandbox)")
    up.set_defaults(command=_up)

    demo = names.add_parser("demo", parents=[common], help="start it, run one check by the playbook, show the result")
    demo.add_argument("--json", action="store_true", help="the last line on stdout is one JSON object")
    demo.add_argument("--keep", action="store_true", help="keep the logs and databases, and say where")
    demo.add_argument(
        "--playbook", type=Path, default=Path("playbooks/run_check.yml"), help="default: playbooks/run_check.yml"
    )
    demo.set_defaults(command=_demo)


def _count(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if not 1 <= value <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100000")
    return value


def _demo(options: argparse.Namespace) -> int:
    try:
        from . import demo  # late: its packages are an extra
    except ModuleNotFoundError as error:
        raise SettingsError(f"{MISSING} ({error.name})") from None
    return demo.run(
        playbook=options.playbook.resolve(),
        items=options.items,
        seed=options.seed,
        as_json=options.json,
        keep=options.keep,
    )


def _up(options: argparse.Namespace) -> int:
    try:
        from .processes import MissingPart
        from .world import World
    except ModuleNotFoundError as error:
        raise SettingsError(f"{MISSING} ({error.name})") from None
    folder: Path = options.dir.resolve()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    with _alone(folder):
        for name in ("site.db", "site.db-wal", "site.db-shm"):  # what it served before: the items are made anew
            (folder / name).unlink(missing_ok=True)
        try:
            world = World(folder, items=options.items, seed=options.seed)
        except MissingPart as error:
            raise SettingsError(str(error)) from None
        try:
            world.start()
            print(_words(world.cloud.auth_url, world.site.url, world.checker.url, folder), flush=True)
            over.wait()
        finally:
            print("spamops: stopping the sandbox", file=sys.stderr)
            world.stop()
    return int(ExitCode.DONE)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "sandbox.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"the folder {folder} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"a sandbox runs in {folder} already; stop it, or give another folder with --dir") from None
    else:
        yield
    finally:
        os.close(descriptor)


def _words(cloud: str, site: str, checker: str, folder: Path) -> str:
    bin_dir = Path(sys.executable).parent
    return f"""The sandbox is up. Ctrl-C stops it.

  cloud     {cloud}   one server, SHELVED_OFFLOADED
  site      {site}   its scheduled items
  checker   {checker}   answers while the server is ACTIVE
  files     {folder}

Try, in another terminal, in the same folder:

  export PATH={bin_dir}:$PATH SPAMOPS_CONFIG={folder}/spamops.toml
  export SPAMOPS_SANDBOX_DIR={folder} no_proxy=127.0.0.1

  spamops run
  spamops status
  ansible-playbook playbooks/run_check.yml
"""
