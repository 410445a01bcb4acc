"""The subcommands, one file each, in the order of --help. A new one: a file with `add_to(commands)`, and its name here."""

from __future__ import annotations

from types import ModuleType

from . import history, metrics, notify, reap, run, show, status

ALL: tuple[ModuleType, ...] = (run, status, history, show, reap, notify, metrics)
