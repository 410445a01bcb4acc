"""The subcommands, one file each, in the order of --help. A new one: a file with `add_to(commands)`, and its name here."""

from __future__ import annotations

from types import ModuleType

from . import (
    diagnose,
    doctor,
    export,
    feedback,
    forget,
    history,
    logs,
    metrics,
    notify,
    reap,
    report,
    run,
    settings,
    show,
    ssh,
    status,
)

ALL: tuple[ModuleType, ...] = (
    run,
    status,
    history,
    show,
    report,
    feedback,
    export,
    forget,
    reap,
    notify,
    metrics,
    settings,
    doctor,
    diagnose,
    logs,
    ssh,
)
