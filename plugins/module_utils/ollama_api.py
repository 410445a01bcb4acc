# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Ollama's HTTP API, with Python's standard library alone: the modules that use it run on the server itself."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DEFAULT_REGISTRY = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
BUSY_TRIES = 5
BUSY_SECONDS = 2.0
"""How often, and with which pause, a server whose queue is full (HTTP 503) is asked again."""


class OllamaError(Exception):
    """What failed, what came back, and what to do, for the operator."""


class Missing(OllamaError):
    """The server has no such model (HTTP 404)."""


class Silent(OllamaError):
    """The server, or the stream of a pull, has said nothing for too long."""


class Model(NamedTuple):
    """A model in the server's store: the digest of its manifest (`sha256:...`) and its size in bytes."""

    digest: str
    size: int


def full_name(name: str) -> str:
    """The name as the server lists it: with its tag, without the default registry and namespace.

    `llama3.1`, `library/llama3.1` and `registry.ollama.ai/library/llama3.1:latest` are all `llama3.1:latest`.
    """
    parts = name.removeprefix("https://").removeprefix("http://").split("/")
    if ":" not in parts[-1]:
        parts[-1] += ":latest"
    if len(parts) == 3 and parts[0].lower() == DEFAULT_REGISTRY:
        parts = parts[1:]
    if len(parts) == 2 and parts[0].lower() == DEFAULT_NAMESPACE:
        parts = parts[1:]
    return "/".join(parts)


class Ollama:
    """A server. Numbers are seconds."""

    def __init__(self, url: str, call_seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        """Talk to the server at `url`. Raises OllamaError when that is no address."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username:
            raise OllamaError("url must be an address such as http://127.0.0.1:11434, without a user name")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._kind, self._host, self._port, self._call_seconds = kind, parts.hostname, port, call_seconds
        self._prefix = parts.path.rstrip("/")
        self._where = f"Ollama at {parts.scheme}://{parts.netloc}"
        self._sleep = sleep

    def models(self) -> dict[str, Model]:
        """Every model in the store, by its full name in lower case (the server ignores case)."""
        listed = self._json("GET", "/api/tags").get("models") or []
        return {
            full_name(str(each["name"])).lower(): Model(_digest(str(each["digest"])), int(each.get("size", 0)))
            for each in listed
        }

    def show(self, name: str) -> dict[str, Any]:
        """What a model is made of. Raises Missing."""
        return self._json("POST", "/api/show", {"model": name})

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. Takes no room: the layers are shared."""
        self._json("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, name: str) -> None:
        """Remove a name, and the layers that no other uses. Raises Missing."""
        self._json("DELETE", "/api/delete", {"model": name})

    def has_blob(self, digest: str) -> bool:
        """Whether the store holds this layer."""
        try:
            self._json("HEAD", f"/api/blobs/{digest}")
        except Missing:
            return False
        return True

    def upload(self, path: Path, digest: str, seconds: float) -> None:
        """Hand a file over as a layer. The server hashes it and refuses another digest."""
        with path.open("rb") as file:
            size = str(path.stat().st_size)
            with self._request("POST", f"/api/blobs/{digest}", file, {"Content-Length": size}, seconds) as response:
                self._checked(response, response.read())

    @contextmanager
    def stream(self, path: str, body: dict[str, Any], seconds: float) -> Iterator[Stream]:
        """Lines of an answer that comes bit by bit; `seconds` is the longest silence. Raises OllamaError."""
        with self._request("POST", path, _encoded(body), _JSON, seconds) as response:
            if response.status != http.client.OK:
                self._checked(response, response.read())
            yield Stream(self, response, seconds)

    def silence(self, seconds: float) -> Silent:
        """The error for a server that has not said anything for this long."""
        return Silent(f"{self._where} said nothing for {seconds:g} s; see its journal: journalctl -u ollama")

    def cut_off(self, error: Exception) -> Silent:
        """The error for a connection that ended too early."""
        return Silent(f"{self._where}: the connection was cut ({type(error).__name__}); see journalctl -u ollama")

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        for attempt in range(1, BUSY_TRIES + 1):
            with self._request(method, path, None if body is None else _encoded(body), _JSON) as response:
                content = response.read()
                if response.status == http.client.SERVICE_UNAVAILABLE and attempt < BUSY_TRIES:
                    self._sleep(BUSY_SECONDS)
                    continue
                return self._checked(response, content)
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def _request(
        self, method: str, path: str, body: Any, headers: dict[str, str], seconds: float | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        limit = self._call_seconds if seconds is None else seconds
        connection = self._kind(self._host, self._port, timeout=limit)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise OllamaError(
                    f"{self._where} does not answer ({error}); start it (systemctl start ollama), or set url"
                ) from None
            try:
                connection.request(method, self._prefix + path, body, headers)
                response = connection.getresponse()
            except TimeoutError:
                raise self.silence(limit) from None
            except (OSError, http.client.HTTPException) as error:
                raise self.cut_off(error) from None
            with response:
                yield response
        finally:
            connection.close()

    def _checked(self, response: http.client.HTTPResponse, content: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(content) if content.strip() else {}
        except ValueError:
            answer = None
        said = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        if response.status == http.client.NOT_FOUND:
            raise Missing(f"{self._where}: {said or 'HTTP 404; is url the address of an Ollama server?'}")
        if response.status == http.client.SERVICE_UNAVAILABLE:
            raise OllamaError(
                f"{self._where} is busy (HTTP 503: {said}); try again later, or set OLLAMA_MAX_QUEUE higher"
            )
        if said or response.status >= http.client.BAD_REQUEST:
            raise OllamaError(f"{self._where} refused (HTTP {response.status}): {said or 'no reason given'}")
        if not isinstance(answer, dict):
            raise OllamaError(f"{self._where}: the answer is not Ollama's; is url right?")
        return answer


class Stream:
    """Lines of an answer."""

    def __init__(self, server: Ollama, response: http.client.HTTPResponse, seconds: float) -> None:
        """Read them with this patience (seconds of silence)."""
        self._server = server
        self._response = response
        self._seconds = seconds

    def be_patient(self, seconds: float) -> None:
        """From now on, so many seconds of silence are all right."""
        self._seconds = seconds
        # http.client has no way to change the limit of an answer that is being read.
        raw = getattr(getattr(self._response.fp, "raw", None), "_sock", None)
        if raw is not None:
            raw.settimeout(seconds)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each line, decoded. Raises Silent when none came in time or the connection was cut."""
        while True:
            try:
                line = self._response.readline()
            except TimeoutError:
                raise self._server.silence(self._seconds) from None
            except (OSError, http.client.HTTPException) as error:
                raise self._server.cut_off(error) from None
            if not line:
                return
            try:
                decoded = json.loads(line)
            except ValueError as error:
                raise self._server.cut_off(error) from None
            yield decoded if isinstance(decoded, dict) else {}


_JSON = {"Content-Type": "application/json"}


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _digest(text: str) -> str:
    return text if text.startswith("sha256:") else f"sha256:{text}"
