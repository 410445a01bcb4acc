"""Run a module of the collection in this process, as Ansible would hand it its arguments."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from fake_clock import FakeClock

from spamops.clock import RealClock

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".collections"
PACKAGE = "ansible_collections.comses.spamops.plugins.modules"


class Result(dict[str, Any]):
    """What a module returned; `text` is its whole output, `logged` what it sent to the system's log."""

    text = ""
    logged = ""

    @property
    def failed(self) -> bool:
        """Whether Ansible would call the task failed."""
        return bool(self.get("failed"))


def run_module(name: str, arguments: dict[str, Any], *, check: bool = False) -> Result:
    """Run one; what it returned."""
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    module = importlib.import_module(f"{PACKAGE}.{name}")
    # `-vvv` shows the invocation, which is part of the output; a value that is not given is left out, as by `omit`.
    given = {key: value for key, value in arguments.items() if value is not None}
    output = io.StringIO()
    with (
        patch_module_args({**given, "_ansible_check_mode": check, "_ansible_diff": True}),
        _log() as logged,
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit),
    ):
        module.main()
    result = Result(json.loads(output.getvalue()))
    result.text, result.logged = output.getvalue(), "\n".join(logged)
    return result


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
    """What AnsibleModule sends to the journal or to syslog: neither is there everywhere, so it is caught before."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basic, "has_journal", False)
        patch.setattr(basic.AnsibleModule, "_log_to_syslog", lambda _self, text: lines.append(text))
        yield lines


def use_clock(patch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """Let everything in this process that would use the machine's clock use this one."""
    patch.setattr(RealClock, "monotonic", lambda _self: clock.monotonic())
    patch.setattr(RealClock, "now", lambda _self: clock.now())
    patch.setattr(RealClock, "sleep", lambda _self, seconds: clock.sleep(seconds))


def run_without_spamops(name: str) -> str:
    """A Python program that runs a module where the package spamops is not installed."""
    return f"""
import sys
sys.path.insert(0, {str(COLLECTIONS)!r})
sys.modules["spamops"] = None
from ansible.module_utils.testing import patch_module_args
from {PACKAGE} import {name}
import json
with patch_module_args(json.load(sys.stdin)):
    {name}.main()
"""
