"""Keystone's calls of the embedded cloud, below /identity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import keystone
from .keystone import Keystone, Token

_CREDENTIALS = "/identity/v3/users/{user_id}/application_credentials"


class IdentityApi:
    """Discovery, logins, tokens and catalog over HTTP. `url` is the cloud's base address."""

    def __init__(self, service: Keystone, url: str) -> None:
        self._keystone = service
        self._url = url

    def routes(self) -> list[Route]:
        """Every call."""
        return [
            *with_and_without_slash("/identity", self._versions),
            *with_and_without_slash("/identity/v3", self._version),
            Route("/identity/v3/auth/tokens", self._log_in, methods=["POST"]),
            Route("/identity/v3/auth/tokens", self._show_token, methods=["GET"]),
            Route("/identity/v3/auth/catalog", self._show_catalog, methods=["GET"]),
            Route(_CREDENTIALS, self._list_credentials, methods=["GET"]),
            Route(_CREDENTIALS, self._make_credential, methods=["POST"]),
            Route(_CREDENTIALS + "/{credential_id}", self._show_credential, methods=["GET"]),
            Route(_CREDENTIALS + "/{credential_id}", self._delete_credential, methods=["DELETE"]),
        ]

    async def _versions(self, _: Request) -> Response:
        document = {"versions": {"values": [keystone.version_document(self._url)]}}
        return JSONResponse(document, 300, {"Location": f"{self._url}/identity/v3/"})

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": keystone.version_document(self._url)})

    async def _log_in(self, request: Request) -> Response:
        try:
            text, token = self._keystone.log_in(await read_json(request))
        except keystone.Refused as refused:
            return identity_error(refused.status, refused.message)
        document = self._keystone.token_document(token, self._url, catalog="nocatalog" not in request.query_params)
        return JSONResponse(document, 201, {"X-Subject-Token": text, "Vary": "X-Auth-Token"})

    async def _show_token(self, request: Request) -> Response:
        if self._keystone.validate(request.headers.get("x-auth-token", "")) is None:
            return identity_error(401, keystone.UNAUTHORIZED)
        subject = request.headers.get("x-subject-token", "")
        token = self._keystone.validate(subject)
        if token is None:
            return identity_error(404, "Could not find token.")
        return JSONResponse(self._keystone.token_document(token, self._url), headers={"X-Subject-Token": subject})

    async def _show_catalog(self, request: Request) -> Response:
        if self._keystone.validate(request.headers.get("x-auth-token", "")) is None:
            return identity_error(401, keystone.UNAUTHORIZED)
        return JSONResponse({"catalog": self._keystone.catalog(self._url), "links": {"self": str(request.url)}})

    # Application credentials: a user's own, made by a login that is not itself a restricted one

    def _owner_or_error(self, request: Request, *, changes: bool) -> Token | Response:
        token = self._keystone.validate(request.headers.get("x-auth-token", ""))
        if token is None:
            return identity_error(401, keystone.UNAUTHORIZED)
        if request.path_params["user_id"] != self._keystone.user_id:
            return identity_error(403, "You are not authorized to perform the requested action.")
        if changes and token.credential is not None:
            return identity_error(403, keystone.RESTRICTED)
        return token

    async def _list_credentials(self, request: Request) -> Response:
        token = self._owner_or_error(request, changes=False)
        if isinstance(token, Response):
            return token
        name = request.query_params.get("name")
        found = [one for one in self._keystone.credentials if name in (None, one.name)]
        documents = [self._keystone.credential_document(one) for one in found]
        return JSONResponse({"application_credentials": documents, "links": {"self": str(request.url)}})

    async def _make_credential(self, request: Request) -> Response:
        token = self._owner_or_error(request, changes=True)
        if isinstance(token, Response):
            return token
        try:
            credential = self._keystone.make(await read_json(request), token)
        except keystone.Refused as refused:
            return identity_error(refused.status, refused.message)
        # The secret is told this once.
        document = self._keystone.credential_document(credential) | {"secret": credential.secret}
        return JSONResponse({"application_credential": document}, 201)

    async def _show_credential(self, request: Request) -> Response:
        token = self._owner_or_error(request, changes=False)
        if isinstance(token, Response):
            return token
        wanted = request.path_params["credential_id"]
        for one in self._keystone.credentials:
            if one.id == wanted:
                return JSONResponse({"application_credential": self._keystone.credential_document(one)})
        return identity_error(404, f"Could not find Application Credential: {wanted}.")

    async def _delete_credential(self, request: Request) -> Response:
        token = self._owner_or_error(request, changes=True)
        if isinstance(token, Response):
            return token
        try:
            self._keystone.remove(request.path_params["credential_id"])
        except KeyError:
            return identity_error(404, "Could not find Application Credential.")
        return Response(status_code=204)


def identity_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error in Keystone's form; the services that check tokens use it too."""
    title = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}[status]
    return JSONResponse({"error": {"code": status, "message": message, "title": title}}, status, headers)


def with_and_without_slash(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> list[Route]:
    """The path with and without a slash at its end, as discovery asks for either."""
    return [Route(path, endpoint, methods=["GET"]), Route(path + "/", endpoint, methods=["GET"])]


async def read_json(request: Request) -> Any:
    """The request's body, or None when it is not JSON."""
    try:
        return await request.json()
    except ValueError:
        return None
