"""The compute service's documents: servers, action log, errors and microversions as Nova writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .servers import Action, Server

Version = tuple[int, int]

OLDEST: Version = (2, 1)
NEWEST: Version = (2, 93)

ACTIONS = {
    "shelve": ("shelve", "os-shelve:shelve"),
    "unshelve": ("unshelve", "os-shelve:unshelve"),
    "os-start": ("start", "servers:start"),
    "os-stop": ("stop", "servers:stop"),
    "reboot": ("reboot", "servers:reboot"),
    "pause": ("pause", "os-pause-server:pause"),
    "unpause": ("unpause", "os-pause-server:unpause"),
    "suspend": ("suspend", "os-suspend-server:suspend"),
    "resume": ("resume", "os-suspend-server:resume"),
    "lock": ("lock", "os-lock-server:lock"),
    "unlock": ("unlock", "os-lock-server:unlock"),
}
"""Actions in a request's body: their name in messages and their policy rule."""

ADMIN_ACTIONS = {
    "shelveOffload": "os-shelve:shelve_offload",
    "os-resetState": "os-admin-actions:reset_state",
    "migrate": "os-migrate-server:migrate",
}
"""Actions that the default policy leaves to administrators."""

_FAULT_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    409: "conflictingRequest",
    429: "overLimit",
    503: "serviceUnavailable",
}
_FLAVOR = {
    "vcpus": 8,
    "ram": 30720,
    "disk": 60,
    "ephemeral": 0,
    "swap": 0,
    "original_name": "g3.small",
    "extra_specs": {},
}


@dataclass(frozen=True)
class Owner:
    """Whose servers these are."""

    project_id: str
    user_id: str


def error(status: int, message: str) -> dict[str, Any]:
    """The body of an error answer."""
    return {_FAULT_NAMES.get(status, "computeFault"): {"code": status, "message": message}}


def requested_version(headers: Mapping[str, str]) -> Version:
    """The microversion that a request asks for (2.1 when it names none).

    Raises ValueError with Nova's message when it is not offered.
    """
    asked = headers.get("x-openstack-nova-api-version", "")
    kind, _, number = headers.get("openstack-api-version", "").strip().partition(" ")
    if kind == "compute":
        asked = number.strip()
    if not asked:
        return OLDEST
    if asked == "latest":
        return NEWEST
    major, _, minor = asked.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ValueError(f"API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum.")
    version = (int(major), int(minor))
    if not OLDEST <= version <= NEWEST:
        raise ValueError(
            f"Version {asked} is not supported by the API. Minimum is {text(OLDEST)} and maximum is {text(NEWEST)}."
        )
    return version


def text(version: Version) -> str:
    """A microversion as it is written."""
    return f"{version[0]}.{version[1]}"


def version_document(base_url: str) -> dict[str, Any]:
    """Nova's version as discovery shows it."""
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": text(NEWEST),
        "min_version": text(OLDEST),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{base_url}/compute/v2.1/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}],
    }


def server_summary(server: Server, base_url: str) -> dict[str, Any]:
    """A server in a list without details."""
    return {
        "id": server.id,
        "name": server.name,
        "links": [
            {"rel": "self", "href": f"{base_url}/compute/v2.1/servers/{server.id}"},
            {"rel": "bookmark", "href": f"{base_url}/compute/servers/{server.id}"},
        ],
    }


def server_document(server: Server, base_url: str, version: Version, owner: Owner) -> dict[str, Any]:
    """A server with its details, in the form of the microversion."""
    state = server.state
    on_host = state.vm_state != "shelved_offloaded"
    document: dict[str, Any] = {
        **server_summary(server, base_url),
        "status": state.status,
        "tenant_id": owner.project_id,
        "user_id": owner.user_id,
        "metadata": {},
        "hostId": hashlib.sha224(f"{owner.project_id}host-1".encode()).hexdigest() if on_host else "",
        "image": {
            "id": server.image_id,
            "links": [{"rel": "bookmark", "href": f"{base_url}/images/{server.image_id}"}],
        },
        "flavor": _FLAVOR if version >= (2, 47) else {"id": "g3.small", "links": []},
        "created": _stamp(server.created) + "Z",
        "updated": _stamp(server.updated) + "Z",
        "addresses": {
            "sandbox": [
                {
                    "version": 4,
                    "addr": "127.0.0.1",
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01",
                }
            ]
        },
        "accessIPv4": "",
        "accessIPv6": "",
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": "nova" if on_host else "",
        "config_drive": "",
        "key_name": None,
        "OS-SRV-USG:launched_at": _stamp(server.created) + ".000000",
        "OS-SRV-USG:terminated_at": None,
        "security_groups": [{"name": "default"}],
        "OS-EXT-STS:task_state": state.task_state,
        "OS-EXT-STS:vm_state": state.vm_state,
        "OS-EXT-STS:power_state": state.power_state,
        "os-extended-volumes:volumes_attached": [],
    }
    if state.status in ("ACTIVE", "BUILD", "REBOOT"):
        document["progress"] = 0
    if server.fault is not None and state.vm_state == "error":
        code, message, at = server.fault
        document["fault"] = {"code": code, "created": _stamp(at) + "Z", "message": message}
    newer: tuple[tuple[Version, dict[str, Any]], ...] = (
        ((2, 9), {"locked": server.locked_by is not None}),
        ((2, 19), {"description": None}),
        ((2, 26), {"tags": []}),
        ((2, 63), {"trusted_image_certificates": None}),
        ((2, 71), {"server_groups": []}),
        ((2, 73), {"locked_reason": None}),
        ((2, 90), {"OS-EXT-SRV-ATTR:hostname": server.name}),
    )
    for since, fields in newer:
        if version >= since:
            document.update(fields)
    return document


def action_document(
    action: Action, server_id: str, version: Version, owner: Owner, *, events: bool = False
) -> dict[str, Any]:
    """An entry of the action log; with `events` (shown since 2.51 to those who are no administrators) in full."""
    document: dict[str, Any] = {
        "action": action.name,
        "instance_uuid": server_id,
        "request_id": action.request_id,
        "user_id": owner.user_id,
        "project_id": owner.project_id,
        "start_time": _micro_stamp(action.start),
        "message": action.message,
    }
    if version >= (2, 58):
        document["updated_at"] = _micro_stamp(action.updated)
    if events and version >= (2, 51):
        document["events"] = [
            {
                "event": event.name,
                "start_time": _micro_stamp(event.start),
                "finish_time": None if event.finish is None else _micro_stamp(event.finish),
                "result": event.outcome.result if event.outcome else None,
                **({"hostId": ""} if version >= (2, 62) else {}),
                **({"details": event.outcome.details if event.outcome else None} if version >= (2, 84) else {}),
            }
            for event in reversed(action.events)
        ]
    return document


LIMITS = {
    "maxServerMeta": 128,
    "maxPersonality": 5,
    "maxPersonalitySize": 10240,
    "maxServerGroups": 10,
    "maxServerGroupMembers": 10,
    "maxTotalKeypairs": 100,
    "maxTotalInstances": 10,
    "maxTotalCores": 128,
    "maxTotalRAMSize": 512000,
    "totalInstancesUsed": 1,
    "totalCoresUsed": 8,
    "totalRAMUsed": 30720,
    "totalServerGroupsUsed": 0,
}
"""A project's absolute limits: room for everything."""

QUOTA = {
    "instances": 10,
    "cores": 128,
    "ram": 512000,
    "key_pairs": 100,
    "metadata_items": 128,
    "server_groups": 10,
    "server_group_members": 10,
}


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _micro_stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
