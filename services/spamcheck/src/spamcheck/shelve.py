"""How this server shelves itself: a token for an application credential, and one call to Nova."""

from __future__ import annotations

import ssl
from typing import Any
from uuid import UUID

import httpx

from .settings import WatchdogSettings

METADATA_SECONDS = 5.0
_COMPUTE = "compute"


class CloudFault(Exception):
    """The cloud did not do what it was asked. The message says what was tried, what came back and what to do."""


class AlreadyChanging(Exception):
    """Nova refuses because the server is in the middle of something else, being shelved for example."""


class Cloud:
    """The two calls that are needed, with whatever makes them fail put in words."""

    def __init__(self, settings: WatchdogSettings) -> None:
        self._settings = settings
        self._client = httpx.Client(
            timeout=settings.cloud_timeout_seconds,
            follow_redirects=False,  # a redirect would carry the credential elsewhere
            # The machine's own trust store, where an administrator adds a certificate authority.
            verify=ssl.create_default_context(),
            headers={"Accept": "application/json", "User-Agent": "spamcheck-watchdog"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def server_id(self) -> UUID:
        """The id of this server: the setting, or what the metadata service says.

        Raises CloudFault.
        """
        if self._settings.server_id is not None:
            return self._settings.server_id
        url = str(self._settings.metadata_url)
        try:
            # Never through a proxy: the answer belongs to whoever asks.
            with httpx.Client(timeout=METADATA_SECONDS, trust_env=False) as client:
                answer = client.get(url)
            return UUID(answer.raise_for_status().json()["uuid"])
        except httpx.HTTPError as error:
            raise CloudFault(
                f"the metadata service at {url} does not tell this server's id ({_why(error)}); set SERVER_ID"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CloudFault(
                f"the metadata service at {url} answered without a usable id (uuid) of this server; set SERVER_ID"
            ) from None

    def log_in(self) -> tuple[str, str]:
        """A token, and the address of Nova.

        Raises CloudFault.
        """
        settings = self._settings
        url = f"{str(settings.os_auth_url).rstrip('/').removesuffix('/v3')}/v3/auth/tokens"
        credential = {
            "id": settings.os_application_credential_id.get_secret_value().strip(),
            "secret": settings.os_application_credential_secret.get_secret_value().strip(),
        }
        identity = {"methods": ["application_credential"], "application_credential": credential}
        answer = self._post("Keystone", url, {"auth": {"identity": identity}})
        if answer.status_code in {401, 403, 404}:
            raise CloudFault(
                f"Keystone at {url} refuses the application credential (HTTP {answer.status_code}): it is unknown, expired"
                " or its secret is wrong; make a new one and give it to the role"
            )
        token = answer.headers.get("x-subject-token")
        if answer.status_code != 201 or not token:
            raise CloudFault(
                f"Keystone at {url} gave no token (HTTP {answer.status_code}); check OS_AUTH_URL and the cloud"
            )
        try:
            return token, self._nova(answer.json()["token"]["catalog"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CloudFault(f"Keystone at {url} answered without a catalog; check OS_AUTH_URL") from None

    def shelve(self, server: UUID, token: str, nova: str) -> None:
        """Ask Nova to shelve the server.

        Raises CloudFault, and AlreadyChanging when the server is not in a state in which that can be asked.
        """
        answer = self._post("Nova", f"{nova.rstrip('/')}/servers/{server}/action", {"shelve": None}, token)
        if answer.status_code == 202:
            return
        if answer.status_code == 409:
            raise AlreadyChanging(f"Nova does not shelve server {server} now: {_said(answer)}")
        if answer.status_code in {401, 403}:
            raise CloudFault(
                f"Nova does not let this application credential shelve server {server} (HTTP {answer.status_code}: "
                f"{_said(answer)}); it needs the role member, and an access rule for POST /v2.1/servers/{server}/action"
            )
        if answer.status_code == 404:
            raise CloudFault(f"Nova knows no server {server} in the credential's project; check SERVER_ID")
        raise CloudFault(f"Nova did not accept to shelve server {server} (HTTP {answer.status_code}: {_said(answer)})")

    def _nova(self, catalog: list[dict[str, Any]]) -> str:
        region, interface = self._settings.os_region_name, self._settings.os_interface
        regions = set()
        for service in catalog:
            for endpoint in service["endpoints"] if service["type"] == _COMPUTE else ():
                regions.add(str(endpoint["region"]))
                if endpoint["interface"] == interface and region in {"", endpoint["region"]}:
                    return str(endpoint["url"])
        raise CloudFault(
            f"the cloud's catalog has no {interface} address of Nova in region {region or '(any)'}; it has "
            f"{', '.join(sorted(regions)) or 'none at all'}; check OS_REGION_NAME and OS_INTERFACE"
        )

    def _post(self, who: str, url: str, body: dict[str, Any], token: str | None = None) -> httpx.Response:
        try:
            return self._client.post(url, json=body, headers={"X-Auth-Token": token} if token else None)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CloudFault(f"{who} at {url} cannot be reached ({_why(error)})") from None


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _said(answer: httpx.Response) -> str:
    """Nova's own words: the message of its only member, else the beginning of the body."""
    try:
        text = next(iter(answer.json().values()))["message"]
    except (ValueError, StopIteration, KeyError, TypeError, AttributeError):
        text = answer.text
    return " ".join(str(text).split())[:300]
