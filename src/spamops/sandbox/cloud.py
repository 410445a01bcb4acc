"""An OpenStack cloud on loopback that openstacksdk cannot tell from a real one as far as waking and shelving go.

Keystone v3 under /identity, Nova v2.1 (microversions 2.1 to 2.93) under /compute; answers and state sequences as
observed on Nova 26 and Keystone 22. `SandboxCloud` is the whole of it; what else is named here is what it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from ..clock import Clock, RealClock
from . import keystone
from .compute_api import ComputeApi
from .faults import Failure, Fault, HttpFault, ServerFault
from .http import LoopbackServer
from .identity_api import IdentityApi
from .keystone import AccessRule, Credential, Keystone
from .servers import Fleet, PowerHook, ServerSpec
from .transitions import Delays
from .transport import FaultBook, Transport

__all__ = [
    "AccessRule",
    "Credential",
    "Delays",
    "Failure",
    "Fault",
    "HttpFault",
    "PowerHook",
    "SandboxCloud",
    "ServerFault",
    "ServerSpec",
]


class SandboxCloud:
    """An embedded cloud with one project, one user, an unrestricted application credential and any number of servers.

    `token_seconds` is how long a token is valid. `on_power(server_id, on)` is called with True before a server can be
    seen ACTIVE and with False once it no longer can; servers that are ACTIVE from the start are told at `start`. Keep
    it short: with a fake clock it runs inside a request.

    With the real clock transitions happen on time by themselves; with any other clock they happen when somebody looks.
    """

    def __init__(
        self,
        servers: Sequence[ServerSpec] | None = None,
        *,
        clock: Clock | None = None,
        delays: Delays | None = None,
        shelved_offload: bool = True,
        on_power: PowerHook | None = None,
        token_seconds: float = 3600.0,
        port: int = 0,
    ) -> None:
        """Raises PortInUse when `port` is taken (0: any free one)."""
        self._clock: Clock = clock or RealClock()
        self.credential = Credential()
        self.keystone = Keystone(clock=self._clock, token_seconds=token_seconds, credentials=[self.credential])
        self._fleet = Fleet(
            [ServerSpec()] if servers is None else servers,
            clock=self._clock,
            delays=delays or Delays(),
            shelved_offload=shelved_offload,
            on_power=on_power,
        )
        self._http_faults = FaultBook(self._clock)
        self._seen_lock = threading.Lock()
        self._seen: list[tuple[str, str, str | None]] = []
        self._announced = False
        app = Starlette()
        self._app = Transport(
            app,
            self._http_faults,
            seen=self._note,
            revoke_tokens=self.keystone.revoke_tokens,
        )
        self._http = LoopbackServer(self._app, port)
        self._port = self._http.port
        app.router.routes.extend(self._further_routes())
        app.router.routes.extend(IdentityApi(self.keystone, self.url).routes())
        app.router.routes.extend(ComputeApi(self._fleet, self.keystone, self.url).routes())
        self._stopped = False

    def _further_routes(self) -> list[BaseRoute]:
        """What a cloud that can do more answers besides; asked before what is answered here. `url` is known by then."""
        return []

    # Running

    def start(self) -> None:
        """Return when requests are answered. After `stop` it begins again on the same port, with everything it knew."""
        if self._stopped:
            self._http = LoopbackServer(self._app, self._port)
            self._stopped = False
        if not self._announced:
            self._announced = True
            self._fleet.announce()
        self._http.start()
        if isinstance(self._clock, RealClock):
            self._fleet.start_ticker()

    def stop(self) -> None:
        """Stop answering, free the port and end every thread. May be called twice."""
        self._http.stop()
        self._fleet.stop_ticker()
        self._stopped = True

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def api_down(self) -> None:
        """Refuse connections; the servers live on, and the port stays ours."""
        self._http.stop()
        self._http = LoopbackServer(self._app, self._port)

    def api_up(self) -> None:
        """Answer again after `api_down`."""
        self._http.start()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The API is down inside the block."""
        self.api_down()
        try:
            yield
        finally:
            self.api_up()

    # Access

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def auth_url(self) -> str:
        """Keystone's address."""
        return f"{self.url}/identity/v3"

    @property
    def application_credential_id(self) -> str:
        """Id of the unrestricted application credential."""
        return self.credential.id

    @property
    def application_credential_secret(self) -> str:
        """Its secret."""
        return self.credential.secret

    def clouds_yaml(self, credential: Credential | None = None) -> dict[str, Any]:
        """One cloud's entry for clouds.yaml (what stands below its name), also good for `openstack.connect(**entry)`."""
        used = credential or self.credential
        return {
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": self.auth_url,
                "application_credential_id": used.id,
                "application_credential_secret": used.secret,
            },
            "region_name": keystone.REGION,
        }

    def password_clouds_yaml(self) -> dict[str, Any]:
        """The same for the user's name and password."""
        return {
            "auth_type": "v3password",
            "auth": {
                "auth_url": self.auth_url,
                "username": self.keystone.user_name,
                "password": self.keystone.password,
                "project_name": self.keystone.project_name,
                "user_domain_name": keystone.DOMAIN["name"],
                "project_domain_name": keystone.DOMAIN["name"],
            },
            "region_name": keystone.REGION,
        }

    def add_credential(self, credential: Credential) -> Credential:
        """One more application credential: other roles, access rules, an end."""
        self.keystone.add(credential)
        return credential

    def remove_credential(self, credential: Credential | None = None) -> None:
        """Delete an application credential (the unrestricted one where none is named) with its tokens."""
        self.keystone.remove((credential or self.credential).id)

    def revoke_tokens(self) -> None:
        """Make every token invalid now; logging in again works."""
        self.keystone.revoke_tokens()

    # Servers

    def add_server(self, spec: ServerSpec) -> None:
        """One more server."""
        self._fleet.add(spec)

    def act(self, server_id: str, action: str) -> None:
        """What somebody else does to a server: shelve, unshelve, start, stop, reboot ...

        Raises servers.NoSuchServer and servers.Conflict, as the API would refuse it.
        """
        self._fleet.act(server_id, action)

    def force_state(self, server_id: str, status: str, task_state: str | None = None) -> None:
        """Put a server into a state for good, as an administrator or an accident may."""
        self._fleet.force(server_id, status, task_state)

    def advance(self) -> None:
        """Do what is due by the clock now, hooks included where no thread does that."""
        self._fleet.advance()

    def history(self, server_id: str) -> list[tuple[float, str, str | None]]:
        """(seconds since the epoch, status, task_state) of every change of a server, the first entry its beginning."""
        return self._fleet.history(server_id)

    def active_seconds(self, server_id: str) -> float:
        """Seconds that a server has spent in vm_state active: what a cloud bills in full, a reboot included."""
        return self._fleet.active_seconds(server_id)

    # Faults

    def order(self, *faults: Fault) -> None:
        """Order faults; they strike in this order. See `spamops.sandbox.faults` for what there is."""
        for fault in faults:
            if isinstance(fault, HttpFault):
                self._http_faults.order(fault)
            else:
                self._fleet.order(fault)

    @property
    def faults(self) -> list[Fault]:
        """The faults that are not used up."""
        return [*self._fleet.orders(), *self._http_faults.orders()]

    def forget_faults(self) -> None:
        """Take back every fault that is not used up."""
        self._fleet.forget_orders()
        self._http_faults.forget()

    # What clients did

    @property
    def requests(self) -> list[tuple[str, str]]:
        """(method, path) of every request so far, those with ordered bad answers included."""
        with self._seen_lock:
            return [(method, path) for method, path, _ in self._seen]

    @property
    def action_requests(self) -> list[tuple[str, str]]:
        """(server id, action) of every action that a client asked for, accepted or not."""
        with self._seen_lock:
            return [(path.split("/")[-2], action) for _, path, action in self._seen if action is not None]

    def _note(self, method: str, path: str, action: str | None) -> None:
        with self._seen_lock:
            self._seen.append((method, path, action))
