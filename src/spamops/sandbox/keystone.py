"""The identity service of the embedded cloud: Keystone v3 logins, tokens and the catalog."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ..clock import Clock

REGION = "RegionOne"
DOMAIN = {"id": "default", "name": "Default"}
UNAUTHORIZED = "The request you have made requires authentication."
"""Keystone's only words for a refused login, whatever the reason."""


RESTRICTED = "Using method 'application_credential' is not allowed for managing additional application credentials."


@dataclass(frozen=True)
class AccessRule:
    """One call that a restricted application credential may make.

    `path` is the service's own (`/v2.1/servers/ID/action`); `{name}` and `*` stand for one segment, `**` for any number.
    """

    method: str
    path: str
    service: str = "compute"

    def allows(self, service: str, method: str, path: str) -> bool:
        """Whether this rule covers the call."""
        parts = re.split(r"(\*\*|\*|\{[^}/]*\})", self.path)
        pattern = "".join(
            ".*" if part == "**" else "[^/]+" if part[:1] in "*{" and part else re.escape(part) for part in parts
        )
        return (service, method) == (self.service, self.method) and re.fullmatch(pattern, path) is not None


@dataclass(frozen=True)
class Credential:
    """An application credential. `access_rules` None: unrestricted. `expires_at` by the cloud's clock; None: never."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(64), repr=False)
    name: str = "spamops"
    roles: tuple[str, ...] = ("member", "reader")
    access_rules: tuple[AccessRule, ...] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Token:
    """What a token stands for. `valid_until` is in seconds of the cloud's monotonic clock."""

    credential: Credential | None
    roles: tuple[str, ...]
    scoped: bool
    valid_until: float


class Refused(Exception):
    """A login that is answered with an error: HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Keystone:
    """Logins and tokens of one user in one project. Safe for many threads.

    Tokens are valid for `token_seconds` of the cloud's clock.
    """

    def __init__(self, *, clock: Clock, token_seconds: float, credentials: Sequence[Credential]) -> None:
        self.user_id, self.user_name = uuid.uuid4().hex, "spamops"
        self.password = secrets.token_urlsafe(24)
        self.project_id, self.project_name = uuid.uuid4().hex, "sandbox"
        self.services = [("identity", "keystone", "/identity"), ("compute", "nova", "/compute/v2.1")]
        """What the catalog lists: type, name and path of each service."""
        self._clock = clock
        self._token_seconds = token_seconds
        self._lock = threading.Lock()
        self._credentials = {credential.id: credential for credential in credentials}
        self._tokens: dict[str, Token] = {}

    @property
    def credentials(self) -> list[Credential]:
        """Every application credential."""
        with self._lock:
            return list(self._credentials.values())

    def make(self, body: Any, token: Token) -> Credential:
        """An application credential as a user asks for it. Raises Refused."""
        try:
            asked = body["application_credential"]
            rules = asked.get("access_rules")
            credential = Credential(
                name=asked["name"],
                roles=tuple(role["name"] for role in asked.get("roles") or [{"name": name} for name in token.roles]),
                access_rules=None
                if rules is None
                else tuple(AccessRule(rule["method"], rule["path"], rule["service"]) for rule in rules),
                expires_at=_moment(asked.get("expires_at")),
                **({"secret": asked["secret"]} if asked.get("secret") else {}),
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            raise Refused(400, "Invalid input for application_credential.") from None
        if not set(credential.roles) <= set(token.roles):
            raise Refused(400, "Invalid application credential: Could not find role assignment.")
        with self._lock:
            if any(one.name == credential.name for one in self._credentials.values()):
                raise Refused(
                    409, "Conflict occurred attempting to store application_credential - Duplicate entry found."
                )
            self._credentials[credential.id] = credential
        return credential

    def credential_document(self, credential: Credential) -> dict[str, Any]:
        """An application credential as it is shown, without its secret."""
        rules = credential.access_rules
        return {
            "id": credential.id,
            "name": credential.name,
            "description": None,
            "project_id": self.project_id,
            "user_id": self.user_id,
            "roles": [{"name": name} for name in credential.roles],
            "expires_at": credential.expires_at and credential.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%f"),
            "unrestricted": False,
            "access_rules": rules
            and [{"service": rule.service, "method": rule.method, "path": rule.path} for rule in rules],
            "links": {},
        }

    def add(self, credential: Credential) -> None:
        """One more application credential."""
        with self._lock:
            self._credentials[credential.id] = credential

    def remove(self, credential_id: str) -> None:
        """Delete an application credential; its tokens die with it."""
        with self._lock:
            del self._credentials[credential_id]
            self._tokens = {
                text: token
                for text, token in self._tokens.items()
                if token.credential is None or token.credential.id != credential_id
            }

    def revoke_tokens(self) -> None:
        """Make every token invalid; logging in again works."""
        with self._lock:
            self._tokens.clear()

    def validate(self, text: str) -> Token | None:
        """The token that this text stands for, or None when it is unknown, revoked or expired."""
        with self._lock:
            token = self._tokens.get(text)
        return token if token is not None and self._clock.monotonic() < token.valid_until else None

    def log_in(self, body: Any) -> tuple[str, Token]:
        """A new token for the body of POST /v3/auth/tokens. Raises Refused."""
        try:
            auth = body["auth"]
            identity = auth["identity"]
            methods = identity["methods"]
            if methods == ["application_credential"]:
                credential = self._credential_for(identity["application_credential"])
                if "scope" in auth:  # the credential carries its project; Keystone accepts no other
                    raise Refused(401, UNAUTHORIZED)
                return self._issue(credential, credential.roles, scoped=True)
            if methods == ["password"]:
                self._check_password(identity["password"]["user"])
                return self._issue(None, ("member", "reader"), scoped=self._scoped(auth.get("scope")))
        except (KeyError, TypeError, AttributeError):
            raise Refused(400, "Expecting to find auth in request body.") from None
        raise Refused(401, UNAUTHORIZED)

    def _credential_for(self, asked: dict[str, Any]) -> Credential:
        with self._lock:
            if "id" in asked:
                credential = self._credentials.get(asked["id"])
                if credential is None:
                    raise Refused(404, f"Could not find Application Credential: {asked['id']}.")
            else:
                self._check_user(asked["user"])
                named = [one for one in self._credentials.values() if one.name == asked["name"]]
                if not named:
                    raise Refused(404, f"Could not find Application Credential: {asked['name']}.")
                credential = named[0]
        expired = credential.expires_at is not None and credential.expires_at <= self._clock.now()
        if expired or not hmac.compare_digest(credential.secret.encode(), str(asked["secret"]).encode()):
            raise Refused(401, UNAUTHORIZED)
        return credential

    def _check_user(self, user: dict[str, Any]) -> None:
        if "id" in user:
            known = user["id"] == self.user_id
        else:
            known = user["name"] == self.user_name and self._is_domain(user["domain"])
        if not known:
            raise Refused(401, UNAUTHORIZED)

    def _check_password(self, user: dict[str, Any]) -> None:
        self._check_user(user)
        if not hmac.compare_digest(self.password.encode(), str(user["password"]).encode()):
            raise Refused(401, UNAUTHORIZED)

    def _scoped(self, scope: Any) -> bool:
        if scope is None or scope == "unscoped":
            return False
        project = scope["project"]
        if "id" in project:
            known = project["id"] == self.project_id
        else:
            known = project["name"] == self.project_name and self._is_domain(project["domain"])
        if not known:
            raise Refused(401, UNAUTHORIZED)
        return True

    @staticmethod
    def _is_domain(domain: dict[str, str]) -> bool:
        return DOMAIN["id"] == domain.get("id") or DOMAIN["name"] == domain.get("name")

    def _issue(self, credential: Credential | None, roles: tuple[str, ...], *, scoped: bool) -> tuple[str, Token]:
        token = Token(credential, roles, scoped, self._clock.monotonic() + self._token_seconds)
        text = "gAAAAA" + secrets.token_urlsafe(96)
        with self._lock:
            self._tokens[text] = token
        return text, token

    # Documents

    def token_document(self, token: Token, base_url: str, *, catalog: bool = True) -> dict[str, Any]:
        """The body of a token. Its times are of this machine's clock: that is what a client compares them with."""
        issued = datetime.now(UTC)
        seconds = token.valid_until - self._clock.monotonic()
        document: dict[str, Any] = {
            "methods": ["application_credential" if token.credential else "password"],
            "user": {
                "id": self.user_id,
                "name": self.user_name,
                "domain": DOMAIN,
                "password_expires_at": None,
            },
            "audit_ids": [secrets.token_urlsafe(16)],
            "issued_at": _stamp(issued),
            "expires_at": _stamp(issued + timedelta(seconds=seconds)),
        }
        if token.scoped:
            document["project"] = {"id": self.project_id, "name": self.project_name, "domain": DOMAIN}
            document["is_domain"] = False
            document["roles"] = [{"id": uuid.uuid5(uuid.NAMESPACE_OID, name).hex, "name": name} for name in token.roles]
            if catalog:
                document["catalog"] = self.catalog(base_url)
        if token.credential is not None:
            document["application_credential"] = {
                "id": token.credential.id,
                "name": token.credential.name,
                "restricted": True,
            }
        return {"token": document}

    def catalog(self, base_url: str) -> list[dict[str, Any]]:
        """The services, each with one public endpoint."""
        services = [(kind, name, base_url + path) for kind, name, path in self.services]
        return [
            {
                "id": uuid.uuid5(uuid.NAMESPACE_URL, url).hex,
                "type": kind,
                "name": name,
                "endpoints": [
                    {
                        "id": uuid.uuid5(uuid.NAMESPACE_OID, url).hex,
                        "interface": "public",
                        "region": REGION,
                        "region_id": REGION,
                        "url": url,
                    }
                ],
            }
            for kind, name, url in services
        ]


def version_document(base_url: str) -> dict[str, Any]:
    """Keystone's version as discovery shows it."""
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{base_url}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(text: str | None) -> datetime | None:
    """A moment in UTC from a request, which may leave out the zone."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
