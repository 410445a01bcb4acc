"""`spamops settings`."""

from __future__ import annotations

import argparse
import json

from .. import settings
from .base import Commands

EXPLAINED = """Reads what a run would read (the settings file, the environment, the secret files) and tells every fault at once. It asks
nobody: whether the values are the right ones, spamops doctor tells. What is shown differs from the default; secrets are starred.

exit codes:
    0  complete and well formed
    2  faulty settings: each fault is named"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    commands.add("settings", "look whether the settings are complete and well formed", _settings, explain=EXPLAINED)


def _settings(options: argparse.Namespace) -> int:
    stated = settings.load(options.config).stated()
    if options.json:
        print(json.dumps(stated))
    else:
        for name, value in stated.items():
            print(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return 0
