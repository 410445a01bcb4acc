"""The embedded cloud with what it takes to create a server: Nova's keypairs, flavors and servers, Neutron, Cinder, Glance.

Answers and refusals have the form of the real services as far as openstacksdk and the modules of openstack.cloud look at them.
Quotas and outages are ordered as `HttpFault` on a path.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spamops.sandbox import nova
from spamops.sandbox.cloud import Delays, HttpFault, SandboxCloud, ServerSpec
from spamops.sandbox.identity_api import identity_error, read_json, with_and_without_slash
from spamops.sandbox.keystone import UNAUTHORIZED
from spamops.sandbox.servers import NoSuchServer, Server

Document = dict[str, Any]
Answer = tuple[int, Any]
Handler = Callable[[Request, Any], Answer]

IMAGE, FLAVOR, PRIVATE_NETWORK, PUBLIC_NETWORK = "Debian 12", "g3.small", "auto_allocated_network", "public"
"""What the cloud offers from the start."""

COMPUTE, NETWORK, VOLUME, IMAGES = "/compute/v2.1", "/network/v2.0", "/volume/v3", "/image/v2"


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def no_quota(path: str, message: str) -> HttpFault:
    """The next POST to a path is refused for want of quota, in Nova's words."""
    return HttpFault(
        method="POST",
        path=path,
        status=403,
        body={"forbidden": {"code": 403, "message": f"Quota exceeded for {message}"}},
    )


class ProvisioningCloud(SandboxCloud):
    """A cloud without servers, with one image, one flavor, a private network and one of floating addresses.

    A new server is in BUILD for `build_seconds`; with `no_host` it ends in ERROR. The tables can be looked into and changed.
    """

    def __init__(self, *, build_seconds: float = 0.0) -> None:
        self._tables_lock = threading.Lock()
        self.no_host = False
        self.admin_passwords: list[str] = []
        self.keypairs: dict[str, Document] = {}
        self.volumes: dict[str, Document] = {}
        self.images = _by_id({"name": IMAGE, "status": "active", "visibility": "public", "min_disk": 0, "min_ram": 0})
        self.flavors = _by_id({"name": FLAVOR, "vcpus": 4, "ram": 15360, "disk": 60, "swap": 0, "links": []})
        self.networks = _by_id(_network(PRIVATE_NETWORK, external=False), _network(PUBLIC_NETWORK, external=True))
        self.subnets = _by_id(
            *(
                {
                    "name": network["name"],
                    "network_id": network["id"],
                    "ip_version": 4,
                    "cidr": cidr,
                    "gateway_ip": None,
                }
                for network, cidr in zip(self.networks.values(), ("10.0.0.0/24", "203.0.113.0/24"), strict=True)
            )
        )
        self.ports: dict[str, Document] = {}
        self.floating_ips: dict[str, Document] = {}
        self.security_groups: dict[str, Document] = {}
        self.details: dict[str, Document] = {}
        """What each server was created with, by its id."""
        super().__init__([], delays=Delays(build=build_seconds))
        self.keystone.services += [
            ("network", "neutron", "/network"),
            ("volumev3", "cinderv3", f"{VOLUME}/{self.keystone.project_id}"),
            ("image", "glance", "/image"),
        ]

    @property
    def servers(self) -> list[Server]:
        """Every server."""
        return self._fleet.all()

    @property
    def rules(self) -> set[tuple[str, str, int | None, str | None]]:
        """Direction, family, port and other end of every rule of every security group."""
        return {
            (rule["direction"], rule["ethertype"], rule["port_range_min"], rule["remote_ip_prefix"])
            for group in self.security_groups.values()
            for rule in group["security_group_rules"]
        }

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Every request that asked for a change."""
        return [
            (method, path) for method, path in self.requests if method != "GET" and not path.startswith("/identity")
        ]

    def _further_routes(self) -> list[BaseRoute]:
        def route(method: str, path: str, handler: Handler) -> Route:
            return Route(path, self._checked(handler), methods=[method])

        server, project = COMPUTE + "/servers/{id}", VOLUME + "/{project_id}"
        return [
            *with_and_without_slash("/network", self._network_versions),
            *with_and_without_slash(VOLUME, self._volume_versions),
            *with_and_without_slash("/image", self._image_versions),
            route("GET", COMPUTE + "/os-keypairs", self._list_keypairs),
            route("POST", COMPUTE + "/os-keypairs", self._make_keypair),
            route("GET", COMPUTE + "/os-keypairs/{id}", self._show_keypair),
            route("GET", COMPUTE + "/flavors", self._lister("flavors", self.flavors)),
            route("GET", COMPUTE + "/flavors/detail", self._lister("flavors", self.flavors)),
            route("GET", COMPUTE + "/flavors/{id}", self._shower("flavor", self.flavors)),
            route("GET", COMPUTE + "/flavors/{id}/os-extra_specs", lambda *_: (200, {"extra_specs": {}})),
            route("GET", COMPUTE + "/servers", self._list_servers),
            route("GET", COMPUTE + "/servers/detail", self._list_servers),
            route("POST", COMPUTE + "/servers", self._make_server),
            route("GET", server, self._show_server),
            route("GET", server + "/os-security-groups", self._groups_of_server),
            route("POST", server + "/os-volume_attachments", self._attach),
            route("GET", NETWORK + "/networks", self._lister("networks", self.networks)),
            route("GET", NETWORK + "/networks/{id}", self._shower("network", self.networks)),
            route("GET", NETWORK + "/subnets", self._lister("subnets", self.subnets)),
            route("GET", NETWORK + "/ports", self._lister("ports", self.ports)),
            route("GET", NETWORK + "/floatingips", self._lister("floatingips", self.floating_ips)),
            route("POST", NETWORK + "/floatingips", self._make_floating_ip),
            route("GET", NETWORK + "/floatingips/{id}", self._shower("floatingip", self.floating_ips)),
            route("PUT", NETWORK + "/floatingips/{id}", self._move_floating_ip),
            route("GET", NETWORK + "/security-groups", self._lister("security_groups", self.security_groups)),
            route("POST", NETWORK + "/security-groups", self._make_group),
            route("GET", NETWORK + "/security-groups/{id}", self._shower("security_group", self.security_groups)),
            route("POST", NETWORK + "/security-group-rules", self._make_rules),
            route("DELETE", NETWORK + "/security-group-rules/{id}", self._delete_rule),
            route("GET", project + "/volumes", self._lister("volumes", self.volumes)),
            route("GET", project + "/volumes/detail", self._lister("volumes", self.volumes)),
            route("POST", project + "/volumes", self._make_volume),
            route("GET", project + "/volumes/{id}", self._show_volume),
            route("GET", IMAGES + "/images", self._lister("images", self.images)),
            route("GET", IMAGES + "/images/{id}", self._shower("", self.images)),
        ]

    def _checked(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            token = self.keystone.validate(request.headers.get("x-auth-token", ""))
            if token is None or not token.scoped:
                return identity_error(401, UNAUTHORIZED)
            body = await read_json(request)

            def answer() -> Answer:
                with self._tables_lock:
                    return handler(request, body)

            try:
                status, document = await run_in_threadpool(answer)
            except NoSuchServer as error:
                return JSONResponse(nova.error(404, str(error)), 404)
            except Refused as error:
                body = {"NeutronError": {"type": "Refused", "message": error.message, "detail": ""}}
                known = body if request.url.path.startswith("/network") else nova.error(error.status, error.message)
                return JSONResponse(known, error.status)
            return Response(status_code=204) if document is None else JSONResponse(document, status)

        return endpoint

    # Discovery

    async def _network_versions(self, _: Request) -> Response:
        link = [{"rel": "self", "href": f"{self.url}/network/v2.0/"}]
        return JSONResponse({"versions": [{"id": "v2.0", "status": "CURRENT", "links": link}]})

    async def _volume_versions(self, _: Request) -> Response:
        version = {"id": "v3.0", "status": "CURRENT", "version": "3.70", "min_version": "3.0"}
        return JSONResponse({"versions": [version | {"links": [{"rel": "self", "href": f"{self.url}{VOLUME}/"}]}]})

    async def _image_versions(self, _: Request) -> Response:
        link = [{"rel": "self", "href": f"{self.url}{IMAGES}/"}]
        return JSONResponse({"versions": [{"id": "v2.15", "status": "CURRENT", "links": link}]}, 300)

    # Tables

    @staticmethod
    def _lister(key: str, table: dict[str, Document]) -> Handler:
        def handler(request: Request, _: Any) -> Answer:
            wanted = {name: value for name, value in request.query_params.items() if name not in ("limit", "marker")}
            rows = [
                row for row in table.values() if all(str(row[name]) == wanted[name] for name in wanted if name in row)
            ]
            return 200, {key: rows}

        return handler

    @staticmethod
    def _shower(key: str, table: dict[str, Document]) -> Handler:
        def handler(request: Request, _: Any) -> Answer:
            row = _row(table, request.path_params["id"])
            return 200, {key: row} if key else row

        return handler

    # Nova

    def _list_keypairs(self, *_: Any) -> Answer:
        return 200, {"keypairs": [{"keypair": pair} for pair in self.keypairs.values()]}

    def _show_keypair(self, request: Request, _: Any) -> Answer:
        return 200, {"keypair": _row(self.keypairs, request.path_params["id"])}

    def _make_keypair(self, _: Request, body: Any) -> Answer:
        asked = body["keypair"]
        if asked["name"] in self.keypairs:
            raise Refused(409, f"Key pair '{asked['name']}' already exists.")
        try:
            kind, coded = asked["public_key"].split()[:2]
            if kind.encode() not in base64.b64decode(coded, validate=True):
                raise ValueError
        except ValueError:
            raise Refused(400, "Keypair data is invalid: failed to generate fingerprint") from None
        self.keypairs[asked["name"]] = {
            **asked,
            "fingerprint": "00:11",
            "type": "ssh",
            "user_id": self.keystone.user_id,
        }
        return 201, {"keypair": self.keypairs[asked["name"]]}

    def _make_server(self, _: Request, body: Any) -> Answer:
        asked = body["server"]
        if asked["imageRef"] not in self.images or asked["flavorRef"] not in self.flavors:
            raise Refused(400, "Can not find requested image or flavor")
        if asked["key_name"] not in self.keypairs:
            raise Refused(400, "Invalid key_name provided.")
        names = [group["name"] for group in asked["security_groups"]]
        groups = [group for group in self.security_groups.values() if group["name"] in names]
        if len(groups) != len(names):
            raise Refused(400, "Security group not found or found twice.")
        network = _row(self.networks, asked["networks"][0]["uuid"])
        server = str(uuid.uuid4())
        address = {"subnet_id": self._subnet_of(network)["id"], "ip_address": f"10.0.0.{10 + len(self.ports)}"}
        self.ports |= _by_id(
            {"device_id": server, "network_id": network["id"], "fixed_ips": [address], "status": "ACTIVE", "name": ""}
        )
        self.details[server] = {
            "key_name": asked["key_name"],
            "groups": groups,
            "network": network["name"],
            "asked": asked,
        }
        self.add_server(ServerSpec(id=server, name=asked["name"], status="ERROR" if self.no_host else "BUILD"))
        self.admin_passwords.append(secrets.token_hex(8))
        links = [{"rel": "self", "href": f"{self.url}{COMPUTE}/servers/{server}"}]
        return 202, {"server": {"id": server, "links": links, "adminPass": self.admin_passwords[-1]}}

    def _document(self, server: Server, version: nova.Version) -> Document:
        owner = nova.Owner(self.keystone.project_id, self.keystone.user_id)
        details = self.details[server.id]
        addresses = [
            {"version": 4, "addr": address, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"}
            for port in self.ports.values()
            if port["device_id"] == server.id
            for address, kind in [
                (port["fixed_ips"][0]["ip_address"], "fixed"),
                *(
                    (ip["floating_ip_address"], "floating")
                    for ip in self.floating_ips.values()
                    if ip["port_id"] == port["id"]
                ),
            ]
        ]
        attached = [
            {"id": volume["id"], "delete_on_termination": False}
            for volume in self.volumes.values()
            if server.id in [attachment["server_id"] for attachment in volume["attachments"]]
        ]
        return nova.server_document(server, self.url, version, owner) | {
            "addresses": {details["network"]: addresses},
            "key_name": details["key_name"],
            "security_groups": [{"name": group["name"]} for group in details["groups"]],
            "os-extended-volumes:volumes_attached": attached,
        }

    def _list_servers(self, request: Request, _: Any) -> Answer:
        version = nova.requested_version(request.headers)
        name = request.query_params.get("name", "")
        return 200, {
            "servers": [self._document(server, version) for server in self._fleet.all() if name in server.name]
        }

    def _show_server(self, request: Request, _: Any) -> Answer:
        server = self._fleet.get(request.path_params["id"])
        return 200, {"server": self._document(server, nova.requested_version(request.headers))}

    def _groups_of_server(self, request: Request, _: Any) -> Answer:
        return 200, {"security_groups": self.details[request.path_params["id"]]["groups"]}

    def _attach(self, request: Request, body: Any) -> Answer:
        server, volume = request.path_params["id"], _row(self.volumes, body["volumeAttachment"]["volumeId"])
        if volume["status"] != "available":
            raise Refused(400, f"Invalid volume: volume {volume['id']} status must be 'available'.")
        volume["status"] = "in-use"
        volume["attachments"] = [{"server_id": server, "device": "/dev/vdb", "attachment_id": volume["id"]}]
        return 200, {"volumeAttachment": {"id": volume["id"], "serverId": server, "volumeId": volume["id"]}}

    # Neutron

    def _subnet_of(self, network: Document) -> Document:
        return next(subnet for subnet in self.subnets.values() if subnet["network_id"] == network["id"])

    def _make_floating_ip(self, _: Request, body: Any) -> Answer:
        asked = body["floatingip"]
        network = _row(self.networks, asked["floating_network_id"])
        if not network["router:external"]:
            raise Refused(400, f"Bad floatingip request: Network {network['id']} is not an external network.")
        made = _by_id(
            {
                "floating_ip_address": f"203.0.113.{10 + len(self.floating_ips)}",
                "floating_network_id": network["id"],
                "port_id": asked.get("port_id"),
                "fixed_ip_address": asked.get("fixed_ip_address"),
                "status": "ACTIVE" if asked.get("port_id") else "DOWN",
                "router_id": None,
                "project_id": self.keystone.project_id,
            }
        )
        self.floating_ips |= made
        return 201, {"floatingip": next(iter(made.values()))}

    def _move_floating_ip(self, request: Request, body: Any) -> Answer:
        row = _row(self.floating_ips, request.path_params["id"])
        row |= body["floatingip"]
        row["status"] = "ACTIVE" if row["port_id"] else "DOWN"
        return 200, {"floatingip": row}

    def _rule(self, group: str, asked: Document) -> Document:
        rule = {
            "id": str(uuid.uuid4()),
            "security_group_id": group,
            "direction": asked["direction"],
            "ethertype": asked.get("ethertype", "IPv4"),
            "protocol": asked.get("protocol"),
            "port_range_min": asked.get("port_range_min"),
            "port_range_max": asked.get("port_range_max"),
            "remote_ip_prefix": asked.get("remote_ip_prefix"),
            "remote_group_id": None,
            "description": asked.get("description", ""),
            "project_id": self.keystone.project_id,
            "tenant_id": self.keystone.project_id,
        }
        prefix = rule["remote_ip_prefix"]
        if prefix is not None:
            try:
                network = ipaddress.ip_network(prefix, strict=False)
            except ValueError:
                raise Refused(400, f"Invalid input for remote_ip_prefix. Reason: '{prefix}' is not valid.") from None
            if f"IPv{network.version}" != rule["ethertype"]:
                raise Refused(400, f"Conflicting value ethertype {rule['ethertype']} for CIDR {prefix}")
            rule["remote_ip_prefix"] = str(network)
        return rule

    def _make_group(self, _: Request, body: Any) -> Answer:
        made = _by_id(
            {
                "name": body["security_group"]["name"],
                "description": body["security_group"].get("description", ""),
                "project_id": self.keystone.project_id,
                "stateful": True,
            }
        )
        group = next(iter(made.values()))
        egress = [{"direction": "egress", "ethertype": family} for family in ("IPv4", "IPv6")]
        group["security_group_rules"] = [self._rule(group["id"], rule) for rule in egress]
        self.security_groups |= made
        return 201, {"security_group": group}

    def _make_rules(self, _: Request, body: Any) -> Answer:
        made = []
        for asked in body.get("security_group_rules") or [body["security_group_rule"]]:
            group = _row(self.security_groups, asked["security_group_id"])
            rule = self._rule(group["id"], asked)
            same = [other for other in group["security_group_rules"] if _without_id(other) == _without_id(rule)]
            if same:
                raise Refused(409, f"Security group rule already exists. Rule id is {same[0]['id']}.")
            group["security_group_rules"].append(rule)
            made.append(rule)
        return 201, {"security_group_rules": made}

    def _delete_rule(self, request: Request, _: Any) -> Answer:
        for group in self.security_groups.values():
            kept = [rule for rule in group["security_group_rules"] if rule["id"] != request.path_params["id"]]
            group["security_group_rules"] = kept
        return 204, None

    # Cinder

    def _make_volume(self, _: Request, body: Any) -> Answer:
        asked = body["volume"]
        made = _by_id(
            {
                "name": asked["name"],
                "size": asked["size"],
                "status": "creating",
                "attachments": [],
                "bootable": "false",
                "description": asked.get("description"),
            }
        )
        self.volumes |= made
        return 202, {"volume": next(iter(made.values()))}

    def _show_volume(self, request: Request, _: Any) -> Answer:
        volume = _row(self.volumes, request.path_params["id"])
        shown = dict(volume)
        if volume["status"] == "creating":  # the next look finds it made
            volume["status"] = "available"
        return 200, {"volume": shown}


def _row(table: dict[str, Document], key: str) -> Document:
    if key not in table:
        raise Refused(404, f"{key} could not be found.")
    return table[key]


def _by_id(*rows: Document) -> dict[str, Document]:
    made = [{"id": str(uuid.uuid4()), **row} for row in rows]
    return {row["id"]: row for row in made}


def _network(name: str, *, external: bool) -> Document:
    found = next(iter(_by_id({"name": name, "router:external": external}).values()))
    return found | {"status": "ACTIVE", "admin_state_up": True, "shared": external, "subnets": [], "project_id": ""}


def _without_id(rule: Document) -> Document:
    return {name: value for name, value in rule.items() if name not in ("id", "description")}
