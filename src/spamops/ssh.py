"""Logging in to the server: where, as whom, and with which host keys. Host keys are always checked."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

CONNECT_SECONDS = 10
"""For a connection to stand: a server that is on answers at once, one that is off never does."""
ALIVE_SECONDS = 15
"""A connection that says nothing is asked so often whether it lives; after two unanswered questions it is given up."""


@dataclass(frozen=True)
class SshTarget:
    """Where to log in. What is None is left to ssh itself (its configuration files, the agent, the usual files)."""

    host: str
    user: str | None = None
    port: int = 22
    key_file: Path | None = None
    known_hosts: Path | None = None

    def __str__(self) -> str:
        """As a person writes it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def client(self) -> str:
        """Path of OpenSSH's client.

        Raises SettingsError where there is none.
        """
        found = shutil.which("ssh")
        if found is None:
            raise SettingsError("there is no ssh on this machine: install OpenSSH's client (openssh-client)")
        return found

    def arguments(self, *, by_hand: bool = False) -> list[str]:
        """Arguments of OpenSSH's client, up to the host. `by_hand`: a person sits there who can be asked for a passphrase, and
        whether a host key that is not known yet is the right one. A key that changed is refused in any case."""
        options = {
            "StrictHostKeyChecking": "ask" if by_hand else "yes",
            "BatchMode": "no" if by_hand else "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": str(ALIVE_SECONDS),
            "ServerAliveCountMax": "2",
        }
        if self.known_hosts is not None:
            options["UserKnownHostsFile"] = _quoted(self.known_hosts)
        if self.key_file is not None:
            options["IdentitiesOnly"] = "yes"
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words += ["-p", str(self.port)]
        words += ["-l", self.user] if self.user else []
        words += ["-i", str(self.key_file)] if self.key_file else []
        return [*words, "--", self.host]


def _quoted(path: Path) -> str:
    """ssh splits this option's value at blanks."""
    return f'"{path}"' if " " in str(path) else str(path)
