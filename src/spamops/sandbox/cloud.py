"""An OpenStack cloud on loopback that openstacksdk cannot tell from a real one as far as waking and shelving go.

Keystone v3 under /identity, Nova v2.1 (microversions 2.1 to 2.93) under /compute; answers and state sequences as
observed on Nova 26 and Keystone 22. `SandboxCloud` is the whole of it; what else is named here is what it takes.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spamops.clock import Clock, RealClock
from spamops.sandbox import keystone, nova
from spamops.sandbox.faults import Failure, Fault, HttpFault, ServerFault, compute_fault
from spamops.sandbox.http import LoopbackServer
from spamops.sandbox.keystone import AccessRule, Credential, Keystone, Token
from spamops.sandbox.nova import Version
from spamops.sandbox.servers import Conflict, Fleet, LostRace, NoSuchServer, PowerHook, ServerSpec
from spamops.sandbox.transitions import Delays
from spamops.sandbox.transport import FaultBook, Transport

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

_MAX_PAGE = 1000
"""Servers in one answer, Nova's own default."""


@dataclass(frozen=True)
class _Call:
    """A request to Nova that carries a valid token and an offered microversion."""

    request: Request
    body: Any
    version: Version
    token: Token
    request_id: str


class _Denied(Exception):
    """The default policy forbids the call; holds the rule's name."""


_Handler = Callable[[_Call], Response]


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
        self._app = Transport(
            Starlette(routes=self._routes()),
            self._http_faults,
            seen=self._note,
            revoke_tokens=self.keystone.revoke_tokens,
        )
        self._http = LoopbackServer(self._app, port)
        self._port = self._http.port
        self._stopped = False

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

    # Keystone

    def _routes(self) -> list[Route]:
        base, server = "/compute/v2.1", "/compute/v2.1/servers/{server_id}"
        log = server + "/os-instance-actions"
        return [
            *_both("/identity", self._identity_versions),
            *_both("/identity/v3", self._identity_version),
            Route("/identity/v3/auth/tokens", self._log_in, methods=["POST"]),
            Route("/identity/v3/auth/tokens", self._show_token, methods=["GET"]),
            Route("/identity/v3/auth/catalog", self._show_catalog, methods=["GET"]),
            *_both("/compute", self._compute_versions),
            *_both(base, self._compute_version),
            Route(base + "/servers", self._nova(self._list_servers), methods=["GET"]),
            Route(base + "/servers/detail", self._nova(self._list_servers_in_detail), methods=["GET"]),
            Route(base + "/limits", self._nova(self._limits), methods=["GET"]),
            Route(base + "/os-quota-sets/{project_id}", self._nova(self._quota), methods=["GET"]),
            Route(server, self._nova(self._show_server), methods=["GET"]),
            Route(server + "/action", self._nova(self._act_on_server), methods=["POST"]),
            Route(log, self._nova(self._list_actions), methods=["GET"]),
            Route(log + "/{request_id}", self._nova(self._show_action), methods=["GET"]),
        ]

    async def _identity_versions(self, _: Request) -> Response:
        document = {"versions": {"values": [keystone.version_document(self.url)]}}
        return JSONResponse(document, 300, {"Location": f"{self.auth_url}/"})

    async def _identity_version(self, _: Request) -> Response:
        return JSONResponse({"version": keystone.version_document(self.url)})

    async def _log_in(self, request: Request) -> Response:
        try:
            text, token = self.keystone.log_in(await _json(request))
        except keystone.Refused as refused:
            return _keystone_error(refused.status, refused.message)
        document = self.keystone.token_document(token, self.url, catalog="nocatalog" not in request.query_params)
        return JSONResponse(document, 201, {"X-Subject-Token": text, "Vary": "X-Auth-Token"})

    async def _show_token(self, request: Request) -> Response:
        if self.keystone.validate(request.headers.get("x-auth-token", "")) is None:
            return _keystone_error(401, keystone.UNAUTHORIZED)
        subject = request.headers.get("x-subject-token", "")
        token = self.keystone.validate(subject)
        if token is None:
            return _keystone_error(404, "Could not find token.")
        return JSONResponse(self.keystone.token_document(token, self.url), headers={"X-Subject-Token": subject})

    async def _show_catalog(self, request: Request) -> Response:
        if self.keystone.validate(request.headers.get("x-auth-token", "")) is None:
            return _keystone_error(401, keystone.UNAUTHORIZED)
        return JSONResponse({"catalog": self.keystone.catalog(self.url), "links": {"self": str(request.url)}})

    # Nova

    async def _compute_versions(self, _: Request) -> Response:
        return JSONResponse({"versions": [nova.version_document(self.url)]})

    async def _compute_version(self, _: Request) -> Response:
        return JSONResponse({"version": nova.version_document(self.url)})

    def _nova(self, handler: _Handler) -> Callable[[Request], Any]:
        """An endpoint that checks token and microversion and turns the handler's exceptions into Nova's answers."""

        async def endpoint(request: Request) -> Response:
            request_id = f"req-{uuid.uuid4()}"
            response = await self._answer(handler, request, request_id)
            response.headers["x-openstack-request-id"] = request_id
            response.headers["x-compute-request-id"] = request_id
            return response

        return endpoint

    async def _answer(self, handler: _Handler, request: Request, request_id: str) -> Response:
        token = self.keystone.validate(request.headers.get("x-auth-token", ""))
        if token is None or not token.scoped or not _allowed_by_rules(token, request):
            challenge = {"WWW-Authenticate": f'Keystone uri="{self.url}/identity"'}
            return _keystone_error(401, keystone.UNAUTHORIZED, challenge)
        try:
            version = nova.requested_version(request.headers)
        except ValueError as error:
            return _nova_error(406 if "not supported" in str(error) else 400, str(error))
        call = _Call(request, await _json(request), version, token, request_id)
        try:
            response = await run_in_threadpool(handler, call)
        except NoSuchServer as error:
            response = _nova_error(404, str(error))
        except Conflict as error:
            response = _nova_error(409, str(error))
        except LostRace as error:
            response = JSONResponse(compute_fault(str(error)), 500)
        except _Denied as error:
            response = _nova_error(403, f"Policy doesn't allow os_compute_api:{error} to be performed.")
        response.headers["OpenStack-API-Version"] = f"compute {nova.text(version)}"
        response.headers["X-OpenStack-Nova-API-Version"] = nova.text(version)
        response.headers["Vary"] = "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
        return response

    @property
    def _owner(self) -> nova.Owner:
        return nova.Owner(self.keystone.project_id, self.keystone.user_id)

    def _list_servers(self, call: _Call) -> Response:
        _require("reader", call, "servers:index")
        return self._page(call, lambda server: nova.server_summary(server, self.url))

    def _list_servers_in_detail(self, call: _Call) -> Response:
        _require("reader", call, "servers:detail")
        return self._page(call, lambda server: nova.server_document(server, self.url, call.version, self._owner))

    def _page(self, call: _Call, document: Callable[[Any], dict[str, Any]]) -> Response:
        query = call.request.query_params
        found = self._fleet.all()
        if "name" in query:  # Nova takes the name as a regular expression
            try:
                found = [server for server in found if re.search(query["name"], server.name)]
            except re.error:
                return _nova_error(400, "Invalid regular expression in the filter name.")
        if "status" in query:
            found = [server for server in found if server.state.status == query["status"].upper()]
        if "marker" in query:
            ids = [server.id for server in found]
            if query["marker"] not in ids:
                return _nova_error(400, f"marker [{query['marker']}] not found")
            found = found[ids.index(query["marker"]) + 1 :]
        limit = query.get("limit", str(_MAX_PAGE))
        if not (limit.isascii() and limit.isdigit()):
            return _nova_error(400, "Invalid input for query parameters limit.")
        page = found[: min(int(limit), _MAX_PAGE)]
        body: dict[str, Any] = {"servers": [document(server) for server in page]}
        if page and len(page) < len(found):
            after = call.request.url.include_query_params(marker=page[-1].id)
            body["servers_links"] = [{"rel": "next", "href": str(after)}]
        return JSONResponse(body)

    def _show_server(self, call: _Call) -> Response:
        server = self._fleet.get(call.request.path_params["server_id"])
        _require("reader", call, "servers:show")
        document = nova.server_document(server, self.url, call.version, self._owner)
        return JSONResponse({"server": document})

    def _act_on_server(self, call: _Call) -> Response:
        server_id = call.request.path_params["server_id"]
        if not isinstance(call.body, Mapping) or len(call.body) != 1:
            return _nova_error(400, "Malformed request body")
        name, argument = next(iter(call.body.items()))
        self._fleet.get(server_id)
        if name in nova.ADMIN_ACTIONS:
            raise _Denied(nova.ADMIN_ACTIONS[name])
        if name not in nova.ACTIONS:
            return _nova_error(400, f"There is no such action: {name}")
        action, rule = nova.ACTIONS[name]
        _require("member", call, rule)
        if action == "reboot":
            kind = argument.get("type", "") if isinstance(argument, Mapping) else ""
            if kind not in ("SOFT", "HARD"):
                return _nova_error(400, "Invalid input for field/attribute type.")
            action = "reboot_hard" if kind == "HARD" else "reboot"
        if action == "unlock" and self._fleet.get(server_id).locked_by == "admin":
            raise _Denied("os-lock-server:unlock:unlock_override")
        self._fleet.act(server_id, action, call.request_id)
        return Response(status_code=202)

    def _list_actions(self, call: _Call) -> Response:
        server = self._fleet.get(call.request.path_params["server_id"])
        _require("reader", call, "os-instance-actions:list")
        newest_first = reversed(server.actions)
        documents = [nova.action_document(action, server.id, call.version, self._owner) for action in newest_first]
        return JSONResponse({"instanceActions": documents})

    def _show_action(self, call: _Call) -> Response:
        server = self._fleet.get(call.request.path_params["server_id"])
        _require("reader", call, "os-instance-actions:show")
        wanted = call.request.path_params["request_id"]
        for action in server.actions:
            if action.request_id == wanted:
                document = nova.action_document(action, server.id, call.version, self._owner, events=True)
                return JSONResponse({"instanceAction": document})
        return _nova_error(404, f"Action {wanted} on instance {server.id} could not be found.")

    def _limits(self, call: _Call) -> Response:
        _require("reader", call, "limits")
        return JSONResponse({"limits": {"rate": [], "absolute": nova.LIMITS}})

    def _quota(self, call: _Call) -> Response:
        _require("reader", call, "os-quota-sets:show")
        return JSONResponse({"quota_set": {"id": call.request.path_params["project_id"], **nova.QUOTA}})


def _both(path: str, endpoint: Callable[[Request], Any]) -> list[Route]:
    """The path with and without a slash at its end, as discovery asks for either."""
    return [Route(path, endpoint, methods=["GET"]), Route(path + "/", endpoint, methods=["GET"])]


def _require(role: str, call: _Call, rule: str) -> None:
    if role not in call.token.roles:
        raise _Denied(rule)


def _allowed_by_rules(token: Token, request: Request) -> bool:
    rules = token.credential.access_rules if token.credential is not None else None
    path = request.url.path.removeprefix("/compute")
    return rules is None or any(rule.allows("compute", request.method, path) for rule in rules)


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        return None


def _nova_error(status: int, message: str) -> Response:
    return JSONResponse(nova.error(status, message), status)


def _keystone_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    title = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}[status]
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status, headers)
