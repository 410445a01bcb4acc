"""The whole sandbox: a cloud with one shelved server, a site with scheduled items, and the real checker on that server."""

from __future__ import annotations

import json
import queue
import secrets
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from ..clock import RealClock
from .cloud import SandboxCloud
from .processes import CheckerProcesses
from .servers import ServerSpec
from .site import SandboxSite
from .transitions import Delays

SERVER_NAME = "spamcheck"
SERVICE_UNITS_PER_HOUR = 16.0
"""An invented rate, of the size that clouds ask for a GPU."""

LOOK_SECONDS = 1.0
"""How often the checker's processes are looked at."""

DEMO_DELAYS = Delays(
    shelve=0.5, shelve_pending=0.5, shelve_upload=1.5, shelve_offload=0.5, unshelve_schedule=0.5, unshelve_spawn=2.0
)
"""Seconds that let a person see every state. Real clouds take minutes."""


class World:
    """Everything that a check run needs, on loopback, with its files in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        items: int = 250,
        seed: int = 1,
        delays: Delays = DEMO_DELAYS,
        checker: dict[str, str] | None = None,
        always_on: bool = False,
    ) -> None:
        """`checker` are further settings of the checker, as environment variables. With `always_on` it runs before the
        server is woken and after, as if booting took no time (for measurements).

        Raises MissingPart.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.api_key = secrets.token_hex(32)
        self.site = SandboxSite(api_key=self.api_key, db_path=folder / "site.db")
        self.site.seed(count=items, seed=seed)
        checker_dir = folder / "server"
        checker_dir.mkdir(exist_ok=True)
        self.checker = CheckerProcesses(checker_dir, site_url=self.site.url, api_key=self.api_key, extra=checker)
        self._always_on = always_on
        spec = ServerSpec(name=SERVER_NAME)
        self.server_id = spec.id
        self.cloud = SandboxCloud([spec], clock=RealClock(), delays=delays, on_power=self._on_power)
        # The hook must return at once, and off must follow on: a thread of its own does them in order.
        self._orders: queue.Queue[bool | None] = queue.Queue()
        self._machine = threading.Thread(target=self._obey, name="sandbox-server", daemon=True)

    def start(self) -> None:
        """Return when cloud and site answer, and the files for clients are written."""
        self.site.start()
        self.cloud.start()
        self._machine.start()
        if self._always_on:
            self._orders.put(True)
        self._write_files()

    def stop(self) -> None:
        """End everything and remove the files that hold credentials. May be called twice."""
        self._orders.put(None)
        if self._machine.is_alive():
            self._machine.join()
        self.checker.stop()
        self.cloud.stop()
        self.site.close()
        for name in ("vars.json", "spamops.toml"):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("secrets", "server/secrets"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def state_dir(self) -> Path:
        """Folder of the controller's history and locks."""
        return self.folder / "state"

    @property
    def config(self) -> Path:
        """Settings file for the `spamops` command."""
        return self.folder / "spamops.toml"

    def _on_power(self, _server_id: str, on: bool) -> None:
        if not self._always_on:
            self._orders.put(on)

    def _obey(self) -> None:
        told = ""
        while True:
            try:
                on = self._orders.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                died = self.checker.died()
                if died and died != told:
                    told = died
                    print(f"sandbox: {died}", file=sys.stderr, flush=True)
                continue
            if on is None:
                return
            if on:
                self.checker.start()
            else:
                self.checker.stop()

    def _write_files(self) -> None:
        auth = {
            "auth_url": self.cloud.auth_url,
            "application_credential_id": self.cloud.application_credential_id,
            "application_credential_secret": self.cloud.application_credential_secret,
        }
        variables: dict[str, Any] = {
            "server": self.server_id,
            "checker_url": self.checker.url,
            "api_key": self.api_key,
            "auth": auth,
            "state_dir": str(self.state_dir),
            "service_units_per_hour": SERVICE_UNITS_PER_HOUR,
            "site_url": self.site.url,
        }
        self._secret_file("vars.json", json.dumps(variables))
        names = {
            "llm_spam_check_api_key": self.api_key,
            "llm_spam_check_jetstream_os_application_credential_id": auth["application_credential_id"],
            "llm_spam_check_jetstream_os_application_credential_secret": auth["application_credential_secret"],
        }
        (self.folder / "secrets").mkdir(exist_ok=True, mode=0o700)
        for name, value in names.items():
            self._secret_file(f"secrets/{name}", value)
        settings = {
            "server": self.server_id,
            "checker_url": self.checker.url,
            "auth_url": self.cloud.auth_url,
            "secrets_dir": "secrets",
            "state_dir": str(self.state_dir),
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        self._secret_file("spamops.toml", "\n".join([*lines, f"service_units_per_hour = {SERVICE_UNITS_PER_HOUR}", ""]))

    def _secret_file(self, name: str, text: str) -> None:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
