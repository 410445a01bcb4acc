"""Nova's calls of the embedded cloud, below /compute/v2.1: who may call, what is refused, how it is answered."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import keystone, nova
from .faults import compute_fault
from .identity_api import identity_error, read_json, with_and_without_slash
from .keystone import Keystone, Token
from .nova import Version
from .servers import Conflict, Fleet, LostRace, NoSuchServer, Server

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


class ComputeApi:
    """Servers, actions and the action log over HTTP. `url` is the cloud's base address."""

    def __init__(self, fleet: Fleet, service: Keystone, url: str) -> None:
        self._fleet = fleet
        self._keystone = service
        self._url = url

    def routes(self) -> list[Route]:
        """Every call."""
        base, server = "/compute/v2.1", "/compute/v2.1/servers/{server_id}"
        log = server + "/os-instance-actions"
        return [
            *with_and_without_slash("/compute", self._versions),
            *with_and_without_slash(base, self._version),
            Route(base + "/servers", self._checked(self._list_servers), methods=["GET"]),
            Route(base + "/servers/detail", self._checked(self._list_servers_in_detail), methods=["GET"]),
            Route(base + "/limits", self._checked(self._limits), methods=["GET"]),
            Route(base + "/os-quota-sets/{project_id}", self._checked(self._quota), methods=["GET"]),
            Route(server, self._checked(self._show_server), methods=["GET"]),
            Route(server + "/action", self._checked(self._act_on_server), methods=["POST"]),
            Route(log, self._checked(self._list_actions), methods=["GET"]),
            Route(log + "/{request_id}", self._checked(self._show_action), methods=["GET"]),
        ]

    async def _versions(self, _: Request) -> Response:
        return JSONResponse({"versions": [nova.version_document(self._url)]})

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": nova.version_document(self._url)})

    def _checked(self, handler: _Handler) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that checks token and microversion and turns the handler's exceptions into Nova's answers."""

        async def endpoint(request: Request) -> Response:
            request_id = f"req-{uuid.uuid4()}"
            response = await self._answer(handler, request, request_id)
            response.headers["x-openstack-request-id"] = request_id
            response.headers["x-compute-request-id"] = request_id
            return response

        return endpoint

    async def _answer(self, handler: _Handler, request: Request, request_id: str) -> Response:
        token = self._keystone.validate(request.headers.get("x-auth-token", ""))
        if token is None or not token.scoped or not _allowed_by_rules(token, request):
            challenge = {"WWW-Authenticate": f'Keystone uri="{self._url}/identity"'}
            return identity_error(401, keystone.UNAUTHORIZED, challenge)
        try:
            version = nova.requested_version(request.headers)
        except ValueError as error:
            return _nova_error(406 if "not supported" in str(error) else 400, str(error))
        call = _Call(request, await read_json(request), version, token, request_id)
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
        return nova.Owner(self._keystone.project_id, self._keystone.user_id)

    def _list_servers(self, call: _Call) -> Response:
        _require("reader", call, "servers:index")
        return self._page(call, lambda server: nova.server_summary(server, self._url))

    def _list_servers_in_detail(self, call: _Call) -> Response:
        _require("reader", call, "servers:detail")
        return self._page(call, lambda server: nova.server_document(server, self._url, call.version, self._owner))

    def _page(self, call: _Call, document: Callable[[Server], dict[str, Any]]) -> Response:
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
        document = nova.server_document(server, self._url, call.version, self._owner)
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


def _require(role: str, call: _Call, rule: str) -> None:
    if role not in call.token.roles:
        raise _Denied(rule)


def _allowed_by_rules(token: Token, request: Request) -> bool:
    rules = token.credential.access_rules if token.credential is not None else None
    path = request.url.path.removeprefix("/compute")
    return rules is None or any(rule.allows("compute", request.method, path) for rule in rules)


def _nova_error(status: int, message: str) -> Response:
    return JSONResponse(nova.error(status, message), status)
