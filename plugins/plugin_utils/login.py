# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A new login to a host, to prove from the controller that one is still possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def new_login(connection: Any, connect_timeout: int, port: int | None = None) -> Iterator[None]:
    """Let every command within the block log in anew, with the user, key, jump host and options that Ansible uses for this
    host, instead of going through a connection that is open already.

    `connect_timeout` is in seconds; `port` overrides the one of the inventory. Only for connections of ansible.builtin.ssh,
    see `can_prove`.
    """
    before = connection.get_option("ssh_args")
    # ssh takes the first value it is given for an option, so these go before whatever is configured.
    forced = ["ControlMaster=no", "ControlPath=none", f"ConnectTimeout={connect_timeout}"]
    if port is not None:
        forced.append(f"Port={port}")
    connection.set_option("ssh_args", " ".join([*(f"-o {option}" for option in forced), before or ""]))
    try:
        yield
    finally:
        connection.set_option("ssh_args", before)


def can_prove(connection: Any) -> bool:
    """Whether a new login over this connection can be had: not so for `local`, `docker`, and SSH by other means than ssh."""
    return bool(connection.transport == "ssh")
