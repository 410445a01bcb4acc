"""A cloud, a checker and the controller's settings, put together for one test."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, FakeChecker
from fake_clock import FakeClock

from spamops import cycle, reap, settings
from spamops.errors import ExitCode, SpamopsError
from spamops.progress import PlainWatcher
from spamops.sandbox.cloud import Credential, Delays, SandboxCloud, ServerSpec

USUAL_DELAYS = Delays(
    shelve=0.5, shelve_pending=0.5, shelve_upload=4, shelve_offload=4, unshelve_schedule=1, unshelve_spawn=8,
    build=5, start=3, stop=3, reboot=4, pause=1, suspend=2,
)  # fmt: skip
"""Seconds on the way, in which every state is seen; with a fake clock they cost nothing but looks."""

QUICK_DELAYS = Delays(
    shelve=0.1, shelve_pending=0.1, shelve_upload=0.2, shelve_offload=0.1, unshelve_schedule=0.2, unshelve_spawn=0.3
)
"""Seconds for tests that run in real time."""


def write_settings(folder: Path, cloud: SandboxCloud, server: str, checker: str, **more: Any) -> Path:
    """The settings file of a controller, with its secret files beside it; the file's path."""
    credential: Credential = more.pop("credential", cloud.credential)
    urls: list[str] = more.pop("notify_urls", [])
    secrets = folder / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("llm_spam_check_api_key", more.pop("api_key", API_KEY)),
        ("llm_spam_check_jetstream_os_application_credential_id", credential.id),
        ("llm_spam_check_jetstream_os_application_credential_secret", credential.secret),
        ("spamops_notify_urls", "\n".join(urls)),
    ):
        path = secrets / name
        path.touch(mode=0o600)
        path.write_text(text)
    values = {
        "server": server,
        "checker_url": checker,
        "auth_url": cloud.auth_url,
        "secrets_dir": str(secrets),
        "state_dir": str(folder / "state"),
        "service_units_per_hour": 16.0,
    } | more
    config = folder / "spamops.toml"
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    return config


@dataclass
class Told:
    """What a run came to, as the operator sees it."""

    code: int
    message: str
    lines: str
    error: BaseException | None = None
    summary: dict[str, Any] = field(default_factory=dict)


class Scene:
    """One server, one checker and one controller on a clock that nobody waits for."""

    def __init__(
        self, folder: Path, spec: ServerSpec | None = None, patch: pytest.MonkeyPatch | None = None, **cloud: Any
    ) -> None:
        self.folder = folder
        self.patch = patch or pytest.MonkeyPatch()
        self.at_end: list[Callable[[], None]] = []
        self.clock = FakeClock()
        self.checker = FakeChecker(clock=self.clock, on=False)
        self.spec = spec or ServerSpec()
        usual: dict[str, Any] = {"clock": self.clock, "delays": USUAL_DELAYS, "on_power": self.checker.power}
        self.cloud = SandboxCloud([self.spec], **usual | cloud)
        self.server_id = self.spec.id
        # Shorter than the default of 900 s: every poll until then is a real call.
        self.settings: dict[str, Any] = {"server": self.server_id, "shelve_seconds": 200}
        self.options = cycle.Options()
        self.stream = io.StringIO()
        self.watcher: Any = PlainWatcher(self.stream)
        self.checker_listens = True
        self._listening = False

    def __enter__(self) -> Scene:
        """The cloud answers; the checker does once the run begins."""
        self.cloud.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both at the same time: each takes a moment."""
        self.undo()
        other = threading.Thread(target=self.checker.stop)
        other.start()
        self.cloud.stop()
        other.join()

    def undo(self) -> None:
        """Take back what a test did to this process."""
        while self.at_end:
            self.at_end.pop(0)()

    @property
    def state_dir(self) -> Path:
        """Where the controller keeps its history and locks."""
        return self.folder / "state"

    @property
    def ends(self) -> str:
        """The server's status now, by the cloud's own history."""
        return self.cloud.history(self.server_id)[-1][1]

    def load(self) -> settings.Settings:
        """The settings, from a file."""
        more = {name: value for name, value in self.settings.items() if name != "server"}
        config = write_settings(self.folder, self.cloud, self.settings["server"], self.checker.url, **more)
        return settings.load(config, environ={})

    def reap(self, *, dry_run: bool = False, **changes: Any) -> reap.Reaped:
        """One look of the reaper, with these settings changed."""
        self.listen()
        plan = reap.plan_of(self.load().model_copy(update=changes))
        return reap.reap(plan, dry_run=dry_run, clock=self.clock)

    def listen(self) -> None:
        """Let the checker answer while its server is on."""
        if self.checker_listens and not self._listening:
            self._listening = True
            self.checker.start()

    def run(self) -> Told:
        """One run, from the settings file to the exit code."""
        self.listen()
        try:
            summary = cycle.run(self.load(), self.options, watcher=self.watcher, clock=self.clock)
        except SpamopsError as error:
            return Told(int(error.exit_code), str(error), self.stream.getvalue(), error)
        except Exception as error:  # noqa: BLE001 - a defect, as the command line would tell it
            return Told(int(ExitCode.UNEXPECTED), f"{type(error).__name__}: {error}", self.stream.getvalue(), error)
        return Told(summary.exit_code, summary.reason or "", self.stream.getvalue(), None, summary.as_dict())


class Records(logging.Handler):
    """Everything that was logged, at any level, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.lines: list[str] = []
        self.alarms: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.lines.append(self.format(record))
        if record.name == "spamops.alarm":
            self.alarms.append(record.getMessage())
