"""What the commands that log in to the server share: where it is, and that it is on."""

from __future__ import annotations

import sys

from ..cloud import Server, connect
from ..errors import CloudError, CloudUnavailable, ServerMissing, SettingsError, SshError
from ..settings import Settings
from ..ssh import SshTarget

LOOK_SECONDS = 10.0


def target_of(chosen: Settings) -> SshTarget:
    """Where to log in.

    Raises SettingsError when that is not set.
    """
    if chosen.ssh is None:
        raise SettingsError("ssh_host is not set: give the server's address, as you log in to it yourself")
    return chosen.ssh


def require_active(chosen: Settings) -> None:
    """Return when the server is ACTIVE, or the cloud cannot tell: then the login is tried.

    Raises SshError when the server is asleep, instead of a connection that nobody answers; ServerMissing.
    """
    try:
        cloud = connect(api_timeout=min(chosen.api_seconds, LOOK_SECONDS), **chosen.cloud_arguments())
        seen = Server(cloud, chosen.server).look(limit=0)
    except ServerMissing:
        raise
    except CloudError as error:
        kind = "does not answer" if isinstance(error, CloudUnavailable) else "cannot be asked"
        print(f"spamops: the cloud {kind} ({error}); trying to log in all the same", file=sys.stderr)
        return
    if seen.status != "ACTIVE":
        raise SshError(
            f"the server is {seen}: nobody can log in to it. To look at it awake: spamops run --skip-shelving-when-done"
            " (it costs money until you shelve it)"
        )
