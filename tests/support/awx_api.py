"""AWX's REST API v2 in memory, served over real HTTP: what the modules of awx.awx ask for, with the checks that AWX makes.

Written after AWX 24.6.1 (its browsable API, its serializers) and the modules of awx.awx 24.6.1. Stricter than AWX in two things: a
field that it does not know is refused (AWX ignores it), and whatever is asked for that is not here is a fault of its own.
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spamops.sandbox.http import LoopbackServer

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t0ken-of-awx-0123456789abcdef"
ORGANIZATION = "Volunteers"
HIDDEN = "$encrypted$"
API = "/api/v2"
VERSION = "24.6.1"

Item = dict[str, Any]


class Refused(Exception):
    """AWX answers with this status and body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


def invalid(name: str, text: str) -> Refused:
    return Refused(400, {name: [text]})


@dataclass
class Kind:
    """A collection of the API: its fields with their defaults (a type: it is required), and what it refers to."""

    type: str
    fields: dict[str, Any]
    refers: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unique: tuple[str, ...] = ("name",)
    read_only: tuple[str, ...] = ()


NOTICES = {f"notification_templates_{when}": "notification_templates" for when in ("started", "success", "error")}
KINDS = {
    "organizations": Kind("organization", {"name": str, "description": ""}),
    "projects": Kind(
        "project",
        {
            "name": str, "description": "", "organization": int, "scm_type": "", "scm_url": "", "scm_branch": "",
            "scm_refspec": "", "scm_clean": False, "scm_track_submodules": False, "scm_delete_on_update": False,
            "scm_update_on_launch": False, "scm_update_cache_timeout": 0, "allow_override": False, "credential": None,
            "default_environment": None, "timeout": 0, "local_path": "",
        },
        {"organization": "organizations", "credential": "credentials", "default_environment": "execution_environments"},
        NOTICES,
        ("name", "organization"),
    ),
    "inventories": Kind(
        "inventory",
        {
            "name": str, "description": "", "organization": int, "kind": "", "host_filter": None, "variables": "",
            "prevent_instance_group_fallback": False,
        },
        {"organization": "organizations"},
        {},
        ("name", "organization"),
    ),
    "hosts": Kind(
        "host", {"name": str, "description": "", "inventory": int, "enabled": True, "variables": ""},
        {"inventory": "inventories"}, {}, ("name", "inventory"),
    ),
    "groups": Kind(
        "group", {"name": str, "description": "", "inventory": int, "variables": ""},
        {"inventory": "inventories"}, {"hosts": "hosts", "children": "groups"}, ("name", "inventory"),
    ),
    "execution_environments": Kind(
        "execution_environment",
        {"name": str, "description": "", "organization": None, "image": str, "credential": None, "pull": ""},
        {"organization": "organizations", "credential": "credentials"},
    ),
    "credential_types": Kind(
        "credential_type", {"name": str, "description": "", "kind": str, "inputs": {}, "injectors": {}},
        unique=("name", "kind"), read_only=("managed",),
    ),
    "credentials": Kind(
        "credential", {"name": str, "description": "", "organization": None, "credential_type": int, "inputs": {}},
        {"organization": "organizations", "credential_type": "credential_types"}, {},
        ("name", "organization", "credential_type"),
    ),
    "job_templates": Kind(
        "job_template",
        {
            "name": str, "description": "", "job_type": "run", "inventory": None, "project": None, "playbook": "",
            "scm_branch": "", "forks": 0, "limit": "", "verbosity": 0, "extra_vars": "", "job_tags": "",
            "force_handlers": False, "skip_tags": "", "start_at_task": "", "timeout": 0, "use_fact_cache": False,
            "execution_environment": None, "survey_enabled": False, "become_enabled": False, "diff_mode": False,
            "allow_simultaneous": False, "job_slice_count": 1, "ask_variables_on_launch": False,
        },
        {"inventory": "inventories", "project": "projects", "execution_environment": "execution_environments"},
        {"credentials": "credentials", **NOTICES},
        read_only=("organization",),
    ),
    "schedules": Kind(
        "schedule",
        {"name": str, "description": "", "unified_job_template": int, "rrule": str, "extra_data": {}, "enabled": True},
        {"unified_job_template": "job_templates"}, {}, ("name", "unified_job_template"),
    ),
    "notification_templates": Kind(
        "notification_template",
        {
            "name": str, "description": "", "organization": int, "notification_type": str,
            "notification_configuration": {}, "messages": None,
        },
        {"organization": "organizations"}, {}, ("name", "organization"),
    ),
}  # fmt: skip
MANAGED = [
    {
        "name": "Machine", "kind": "ssh", "managed": True, "injectors": {},
        "inputs": {"fields": [
            {"id": "username", "type": "string"}, {"id": "password", "type": "string", "secret": True},
            {"id": "ssh_key_data", "type": "string", "secret": True, "format": "ssh_private_key"},
            {"id": "ssh_key_unlock", "type": "string", "secret": True}, {"id": "become_method", "type": "string"},
            {"id": "become_username", "type": "string"}, {"id": "become_password", "type": "string", "secret": True},
        ]},
    },
    {
        "name": "Vault", "kind": "vault", "managed": True, "injectors": {},
        "inputs": {
            "fields": [{"id": "vault_password", "type": "string", "secret": True}, {"id": "vault_id", "type": "string"}],
            "required": ["vault_password"],
        },
    },
]  # fmt: skip
WEBHOOK: dict[str, tuple[type, Any]] = {
    "url": (str, None), "http_method": (str, "POST"), "disable_ssl_verification": (bool, False), "username": (str, ""),
    "password": (str, ""), "headers": (dict, None),
}  # fmt: skip


class AwxApi:
    """An AWX with one organization. `writes` are the changes that were asked for, `faults` the requests that it has nothing for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self.items: dict[str, dict[int, Item]] = {name: {} for name in KINDS}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.surveys: dict[int, Item] = {}
        self.updates: dict[int, int] = {}
        self.writes: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self._keep("organizations", {"name": ORGANIZATION, "description": ""})
        for item in MANAGED:
            self._keep("credential_types", {"description": "", **copy.deepcopy(item)})
        self._http = LoopbackServer(Starlette(routes=[Route("/{rest:path}", self._answer, methods=list(METHODS))]))

    @property
    def url(self) -> str:
        return self._http.url

    def __enter__(self) -> Self:
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.stop()

    # What tests look at

    def one(self, collection: str, name: str) -> Item:
        """The item of that name, secrets as they were given."""
        (found,) = [item for item in self.items[collection].values() if item["name"] == name]
        return found

    def names(self, collection: str) -> set[str]:
        """The names of what a user made."""
        return {item["name"] for item in self.items[collection].values() if not item.get("managed")}

    def linked(self, collection: str, name: str, link: str) -> list[str]:
        """The names of what is associated with it."""
        target = KINDS[collection].links[link]
        ids = self.links.get((collection, self.one(collection, name)["id"], link), [])
        return sorted(self.items[target][number]["name"] for number in ids)

    def state(self) -> str:
        """Everything, as text, to compare."""
        return json.dumps([self.items, sorted((str(key), ids) for key, ids in self.links.items()), self.surveys])

    # HTTP

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        headers = {"X-API-Product-Name": "AWX", "X-API-Product-Version": VERSION}
        with self._lock:
            try:
                status, answer = self._route(request, json.loads(body) if body else {})
            except Refused as refused:
                status, answer = refused.status, refused.body
        if answer is None:
            return Response(status_code=status, headers=headers)
        return JSONResponse(answer, status, headers)

    def _route(self, request: Request, body: Item) -> tuple[int, Any]:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(401, {"detail": "Authentication credentials were not provided."})
        path = request.url.path
        words = path.removeprefix(API).strip("/").split("/")
        call: Callable[..., tuple[int, Any]] | None = None
        arguments: list[Any] = []
        if path.startswith(f"{API}/") and path.endswith("/"):
            call, arguments = self._find(request.method, words)
        if call is None:
            self.faults.append(f"{request.method} {path}")
            raise Refused(404, {"detail": "The requested resource could not be found."})
        if request.method != "GET":
            self.writes.append((request.method, path))
        given = dict(request.query_params) if request.method == "GET" else body
        return call(*arguments, given)

    def _find(self, method: str, words: list[str]) -> tuple[Callable[..., tuple[int, Any]] | None, list[Any]]:
        collection, *rest = words
        if collection == "project_updates" and method == "GET" and len(rest) == 1:
            return self._update, [int(rest[0])]
        if collection == "unified_job_templates" and method == "GET" and not rest:
            return self._list, ["job_templates"]
        if collection not in KINDS or (rest and not rest[0].isdigit()):
            return None, []
        if not rest:
            return {"GET": self._list, "POST": self._create}.get(method), [collection]
        number = int(rest[0])
        if number not in self.items[collection]:
            raise Refused(404, {"detail": "Not found."})
        if len(rest) == 1:
            return {"GET": self._show, "PATCH": self._change, "DELETE": self._delete}.get(method), [collection, number]
        if rest[1:] == ["survey_spec"] and collection == "job_templates":
            return {"GET": self._survey, "POST": self._set_survey}.get(method), [number]
        if len(rest) == 2 and rest[1] in KINDS[collection].links:
            return {"GET": self._linked, "POST": self._link}.get(method), [collection, number, rest[1]]
        return None, []

    # Lists and items

    def _list(self, collection: str, query: Item) -> tuple[int, Any]:
        either = {name.removeprefix("or__"): value for name, value in query.items() if name.startswith("or__")}
        every = {name: value for name, value in query.items() if not name.startswith("or__") and name != "page_size"}
        known = {"id", *KINDS[collection].fields, *KINDS[collection].read_only}
        for name in (set(either) | set(every)) - known:
            raise Refused(400, {"detail": f"{KINDS[collection].type} has no field named '{name}'"})
        found = [self._shown(collection, item) for item in self.items[collection].values()]
        found = [item for item in found if all(str(item[name]) == value for name, value in every.items())]
        if either:
            found = [item for item in found if any(str(item[name]) == value for name, value in either.items())]
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}

    def _show(self, collection: str, number: int, _: Item) -> tuple[int, Any]:
        return 200, self._shown(collection, self.items[collection][number])

    def _shown(self, collection: str, item: Item) -> Item:
        kind = KINDS[collection]
        number = item["id"]
        url = f"{API}/{collection}/{number}/"
        shown: Item = copy.deepcopy(item) | {"type": kind.type, "url": url, "summary_fields": {}}
        shown["related"] = {name: f"{url}{name}/" for name in kind.links}
        if collection == "job_templates":
            shown["related"]["survey_spec"] = f"{url}survey_spec/"
            shown["organization"] = self.items["projects"][item["project"]]["organization"] if item["project"] else None
        if collection == "projects":
            shown["scm_revision"] = "0" * 40
            if number in self.updates:
                shown["summary_fields"]["current_update"] = {"id": number}
        if collection == "credentials":
            for name in self._secrets(item["credential_type"]) & set(shown["inputs"]):
                shown["inputs"][name] = HIDDEN if shown["inputs"][name] else shown["inputs"][name]
        if collection == "notification_templates" and shown["notification_configuration"]["password"]:
            shown["notification_configuration"]["password"] = HIDDEN
        return shown

    def _keep(self, collection: str, item: Item) -> Item:
        kept = (
            {"id": self._next, "managed": False} | item
            if collection == "credential_types"
            else {"id": self._next} | item
        )
        self._next += 1
        self.items[collection][kept["id"]] = kept
        return kept

    def _create(self, collection: str, body: Item) -> tuple[int, Any]:
        kind = KINDS[collection]
        for name, default in kind.fields.items():
            if isinstance(default, type) and body.get(name) in (None, ""):
                raise invalid(name, "This field is required.")
        defaults = {name: copy.deepcopy(value) for name, value in kind.fields.items() if not isinstance(value, type)}
        item = self._checked(collection, defaults | self._taken(collection, body), None, set(kind.fields))
        kept = self._keep(collection, item)
        if collection == "projects":
            self.updates[kept["id"]] = 2
        return 201, self._shown(collection, kept)

    def _change(self, collection: str, number: int, body: Item) -> tuple[int, Any]:
        old = self.items[collection][number]
        if old.get("managed"):
            raise Refused(403, {"detail": f"Modifications not allowed for managed {collection}"})
        taken = self._taken(collection, body)
        new = self._checked(collection, copy.deepcopy(old) | taken, old, set(taken))
        if collection == "projects" and any(new[name] != old[name] for name in ("scm_url", "scm_branch", "scm_type")):
            self.updates[number] = 2
        self.items[collection][number] = new
        return 200, self._shown(collection, new)

    def _delete(self, collection: str, number: int, _: Item) -> tuple[int, Any]:
        item = self.items[collection][number]
        if collection == "credential_types" and (
            item["managed"] or any(one["credential_type"] == number for one in self.items["credentials"].values())
        ):
            raise Refused(403, {"detail": "Deletion not allowed for credential types that are in use"})
        self._forget(collection, number)
        return (202 if collection == "inventories" else 204), ({} if collection == "inventories" else None)

    def _forget(self, collection: str, number: int) -> None:
        del self.items[collection][number]
        for other, name in GO_WITH.get(collection, ()):
            for one in [one["id"] for one in self.items[other].values() if one[name] == number]:
                self._forget(other, one)
        if collection == "job_templates":
            self.surveys.pop(number, None)
        for (owner, owner_number, link), ids in list(self.links.items()):
            if (owner, owner_number) == (collection, number):
                del self.links[owner, owner_number, link]
            elif KINDS[owner].links[link] == collection and number in ids:
                ids.remove(number)

    def _update(self, number: int, _: Item) -> tuple[int, Any]:
        """A project's update, which takes two looks."""
        left = self.updates.get(number, 0)
        if left:
            self.updates[number] = left - 1
        if left <= 1:
            self.updates.pop(number, None)
        status = "running" if left > 1 else "successful"
        return 200, {"id": number, "status": status, "finished": None, "failed": False}

    # Associations and surveys

    def _linked(self, collection: str, number: int, link: str, _: Item) -> tuple[int, Any]:
        target = KINDS[collection].links[link]
        found = [self._shown(target, self.items[target][one]) for one in self.links.get((collection, number, link), [])]
        return 200, {"count": len(found), "next": None, "previous": None, "results": found}

    def _link(self, collection: str, number: int, link: str, body: Item) -> tuple[int, Any]:
        if set(body) - {"id", "disassociate"} or body.get("id") not in self.items[KINDS[collection].links[link]]:
            raise Refused(400, {"detail": f"no such object: {body}"})
        ids = self.links.setdefault((collection, number, link), [])
        if body.get("disassociate"):
            ids.remove(body["id"])
            return 204, None
        if link == "credentials":
            kinds = [self.items["credentials"][one]["credential_type"] for one in ids]
            kind = self.items["credentials"][body["id"]]["credential_type"]
            if kind in kinds:
                raise Refused(
                    400,
                    {"detail": f"Cannot assign multiple {self.items['credential_types'][kind]['name']} credentials."},
                )
        ids.append(body["id"])
        return 204, None

    def _survey(self, number: int, _: Item) -> tuple[int, Any]:
        return 200, self.surveys.get(number, {})

    def _set_survey(self, number: int, body: Item) -> tuple[int, Any]:
        for name, kind in (("name", str), ("description", str), ("spec", list)):
            if not isinstance(body.get(name), kind):
                raise Refused(400, {"error": f"Field '{name}' is missing from survey spec."})
        variables = [question.get("variable") for question in body["spec"]]
        if not body["spec"] or len(set(variables)) != len(variables):
            raise Refused(400, {"error": "'spec' doesn't contain any items, or has a variable twice."})
        for question in body["spec"]:
            wanted = {
                "question_name",
                "question_description",
                "variable",
                "type",
                "required",
                "default",
                "choices",
                "min",
                "max",
            }
            if set(question) != wanted or not isinstance(question["required"], bool):
                raise Refused(400, {"error": f"fields of a question: {sorted(set(question) ^ wanted)}"})
            if question["type"] not in (
                "text",
                "textarea",
                "password",
                "multiplechoice",
                "multiselect",
                "integer",
                "float",
            ):
                raise Refused(400, {"error": f"'{question['type']}' is not one of the allowed types"})
            if question["type"] == "multiplechoice" and (
                not all(isinstance(choice, str) for choice in question["choices"])
                or question["default"] not in question["choices"]
            ):
                raise Refused(400, {"error": "Default choice must be answered from the choices listed."})
        self.surveys[number] = body
        return 200, {}

    # Checks

    def _taken(self, collection: str, body: Item) -> Item:
        """What AWX takes of a body: no read-only field, and an empty text for null where null cannot be."""
        kind = KINDS[collection]
        for name in set(body) - set(kind.fields) - set(kind.read_only):
            raise invalid(name, "no such field")
        taken = {name: value for name, value in body.items() if name in kind.fields}
        return {name: "" if value is None and kind.fields[name] == "" else value for name, value in taken.items()}

    def _checked(self, collection: str, item: Item, old: Item | None, given: set[str]) -> Item:
        kind = KINDS[collection]
        for name, default in kind.fields.items():
            wanted = default if isinstance(default, type) else type(default)
            if name not in kind.refers and default is not None and type(item[name]) is not wanted:
                raise invalid(name, f"Not a valid {wanted.__name__}: {item[name]!r}")
        for name, target in kind.refers.items():
            if item[name] is not None and item[name] not in self.items[target]:
                raise invalid(name, f'Invalid pk "{item[name]}" - object does not exist.')
        if any(
            one is not old and all(one[name] == item[name] for name in kind.unique)
            for one in self.items[collection].values()
        ):
            raise Refused(400, {"__all__": [f"{kind.type} with this {' and '.join(kind.unique)} already exists."]})
        for name in ("variables", "extra_vars"):
            if item.get(name) and not isinstance(json.loads(item[name]), dict):
                raise invalid(name, "Cannot parse as JSON")
        check = getattr(self, f"_check_{kind.type}", None)
        if check:
            check(item, old, given)
        return item

    def _check_project(self, item: Item, old: Item | None, given: set[str]) -> None:
        if item["scm_type"] not in ("", "git", "svn", "insights", "archive"):
            raise invalid("scm_type", f'"{item["scm_type"]}" is not a valid choice.')
        if item["scm_type"] and not item["scm_url"]:
            raise invalid("scm_url", "SCM URL is required.")

    def _check_execution_environment(self, item: Item, old: Item | None, given: set[str]) -> None:
        if item["pull"] not in ("", "always", "missing", "never"):
            raise invalid("pull", f'"{item["pull"]}" is not a valid choice.')

    def _check_credential_type(self, item: Item, old: Item | None, given: set[str]) -> None:
        if item["kind"] not in ("cloud", "net"):
            raise invalid("kind", f'"{item["kind"]}" is not a valid choice.')
        in_use = old and any(one["credential_type"] == old["id"] for one in self.items["credentials"].values())
        if old and in_use and item["inputs"] != old["inputs"]:
            raise Refused(
                403, {"detail": "Modifications to inputs are not allowed for credential types that are in use"}
            )
        allowed = {"id", "type", "label", "help_text", "secret", "multiline", "format", "choices", "default"}
        fields = item["inputs"].get("fields", [])
        for one in fields:
            if not {"id", "label"} <= set(one) <= allowed or one["id"] == "tower":
                raise invalid("inputs", f"not a field: {one}")
            one.setdefault("type", "string")
        names = [one["id"] for one in fields]
        if len(set(names)) != len(names) or set(item["inputs"].get("required", [])) - set(names):
            raise invalid("inputs", "field ids must be unique, and required ones be there")
        if set(item["injectors"]) - {"file", "env", "extra_vars"}:
            raise invalid("injectors", "Additional properties are not allowed")
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        for place, variables in item["injectors"].items():
            for name, template in variables.items():
                if not re.fullmatch(r"[a-zA-Z_]+[a-zA-Z0-9_]*", name) or (
                    place == "env" and name.startswith("ANSIBLE_")
                ):
                    raise invalid("injectors", f"{name} cannot be set")
                try:
                    environment.from_string(template).render(dict.fromkeys(names, "EXAMPLE"))
                except TemplateError as error:
                    raise invalid("injectors", f"{name}: {error}") from None

    def _secrets(self, kind: int) -> set[str]:
        fields = self.items["credential_types"][kind]["inputs"]["fields"]
        return {one["id"] for one in fields if one.get("secret")}

    def _check_credential(self, item: Item, old: Item | None, given: set[str]) -> None:
        inputs = self.items["credential_types"][item["credential_type"]]["inputs"]
        fields = {one["id"]: one for one in inputs["fields"]}
        if not item["organization"]:
            raise Refused(400, {"detail": "Missing 'user', 'team', or 'organization'."})
        if old and item["credential_type"] != old["credential_type"]:
            raise invalid("credential_type", "You cannot change the credential type")
        for name, value in item["inputs"].items():
            if name not in fields or not isinstance(value, str):
                raise Refused(400, {"inputs": {name: ["not an input of this type"]}})
            if value == HIDDEN:
                item["inputs"][name] = (old or {"inputs": {}})["inputs"].get(name, "")
            elif fields[name].get("format") == "ssh_private_key" and not value.startswith("-----BEGIN "):
                raise Refused(400, {"inputs": {name: ["Invalid certificate or key"]}})
        missing = [name for name in inputs.get("required", []) if not item["inputs"].get(name)]
        if missing:
            raise Refused(400, {"inputs": {name: [f"required for {item['name']}"] for name in missing}})

    def _check_job_template(self, item: Item, old: Item | None, given: set[str]) -> None:
        if item["job_type"] not in ("run", "check"):
            raise invalid("job_type", f'"{item["job_type"]}" is not a valid choice.')
        if not item["project"] or not item["inventory"]:
            raise Refused(400, {"project": ["This field is required."], "inventory": ["This field is required."]})
        if item["project"] in self.updates:
            raise invalid("playbook", "Playbook not found for project.")  # its first update has not ended
        playbooks = {str(path.relative_to(ROOT)) for path in (ROOT / "playbooks").glob("*.yml")}
        if item["playbook"] not in playbooks:
            raise invalid("playbook", "Playbook not found for project.")

    def _check_schedule(self, item: Item, old: Item | None, given: set[str]) -> None:
        rule = item["rrule"]
        starts = re.findall(r"DTSTART(?:;TZID=([^:]+))?:\d{8}T\d{6}(Z?)", rule)
        if len(starts) != 1 or not any(starts[0]):
            raise invalid("rrule", "Valid DTSTART required in rrule, one, with a time zone.")
        if starts[0][0]:
            try:
                ZoneInfo(starts[0][0])
            except (KeyError, ValueError):
                raise invalid("rrule", f"rrule parsing failed validation: {starts[0][0]}") from None
        rules = re.findall(r" RRULE:(\S+)", rule)
        if len(rules) != 1 or re.fullmatch(r"DTSTART\S+ RRULE:FREQ=(DAILY|HOURLY|MINUTELY);INTERVAL=\d+", rule) is None:
            raise invalid("rrule", "RRULE and INTERVAL required in rrule")
        questions = self.surveys.get(item["unified_job_template"], {}).get("spec", [])
        if set(item["extra_data"]) - {question["variable"] for question in questions}:
            raise invalid("extra_data", "Variables are not allowed on launch.")

    def _check_notification_template(self, item: Item, old: Item | None, given: set[str]) -> None:
        if item["notification_type"] != "webhook":
            raise invalid("notification_type", "only webhook is known here")
        configuration = item["notification_configuration"]
        for name, (wanted, default) in WEBHOOK.items():
            if name not in configuration and default is not None:
                configuration[name] = default
            if not isinstance(configuration.get(name), wanted):
                raise invalid("notification_configuration", f"Missing or incorrect field: {name}")
        if set(configuration) - set(WEBHOOK):
            raise invalid("notification_configuration", f"unknown: {set(configuration) - set(WEBHOOK)}")
        if configuration["http_method"].upper() not in ("POST", "PUT"):
            raise invalid("notification_configuration", "HTTP method must be either 'POST' or 'PUT'.")


GO_WITH = {
    "job_templates": [("schedules", "unified_job_template")],
    "inventories": [("hosts", "inventory"), ("groups", "inventory")],
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
