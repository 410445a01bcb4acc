"""An Ollama and its registry in one, with the faults that a real one cannot be made to have on order."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Line = dict[str, Any]

HOLD = {"hold": True}
"""In a pull: the line before is repeated, as the real server does, until the client goes away."""
CUT = {"cut": True}
"""In a pull: the connection ends without the end of the answer."""


def quiet(seconds: float) -> Line:
    """In a pull: nothing is said for so long."""
    return {"quiet": seconds}


def layer(completed: int, total: int = 100, digest: str = "sha256:" + "a" * 64) -> Line:
    """A line on the progress of a layer."""
    return {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total, "completed": completed}


SUCCESS: tuple[Line, ...] = (
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
)
WHOLE: tuple[Line, ...] = ({"status": "pulling manifest"}, layer(100), *SUCCESS)


class FaultyOllama:
    """Models are names and digests. A pull follows the next of `pulls`; the last one is for all that come after."""

    def __init__(self) -> None:
        """Nothing in the store, nothing in the registry."""
        self.models: dict[str, str] = {}
        self.offered: dict[str, bytes] = {}
        self.pulls: list[Iterable[Line]] = [WHOLE]
        self.pulled_digest = "d" * 64
        self.blobs: set[str] = set()
        self.busy = 0
        self.html = False
        self.requests: list[str] = []
        self.gone = threading.Event()
        fault = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _go(self) -> None:
                fault._answer(self)

            do_GET = do_POST = do_DELETE = do_HEAD = _go  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def offer(self, name: str, size: int = 100, digest: str = "sha256:" + "a" * 64) -> str:
        """Put a model into the registry; the digest of its manifest."""
        parts = [{"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size}]
        config = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": "sha256:" + "c" * 64,
            "size": 1,
        }
        media_type = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": parts}
        content = json.dumps(manifest, separators=(",", ":")).encode()
        self.offered[f"/v2/library/{name}/manifests/latest"] = content
        return hashlib.sha256(content).hexdigest()

    def asked(self, what: str) -> int:
        """How often something was asked for."""
        return sum(what in request for request in self.requests)

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        content = to.rfile.read(int(to.headers.get("Content-Length") or 0))
        body = json.loads(content) if content.startswith(b"{") else {}
        self.requests.append(f"{to.command} {to.path} {body.get('model') or body.get('source') or ''}".strip())
        if self.html:
            return self._reply(to, 200, b"<html>another server</html>")
        if self.busy and to.path.startswith("/api/"):
            self.busy -= 1
            return self._error(to, 503, "server busy, please try again.  maximum pending requests exceeded")
        if to.path in self.offered:
            return self._reply(to, 200, self.offered[to.path])
        if to.path == "/api/tags":
            listed = [{"name": name, "digest": digest, "size": 100} for name, digest in self.models.items()]
            return self._reply(to, 200, json.dumps({"models": listed}).encode())
        if to.path.startswith("/api/blobs/"):
            return self._reply(to, 200 if to.path.rsplit("/", 1)[1] in self.blobs else 404, b"")
        if to.path == "/api/delete":
            there = self.models.pop(_full(body["model"]), None)
            return self._reply(to, 200, b"") if there else self._error(to, 404, "model not found")
        if to.path == "/api/copy":
            self.models[_full(body["destination"])] = self.models[_full(body["source"])]
            return self._reply(to, 200, b"")
        if to.path == "/api/pull":
            return self._pull(to, str(body["model"]))
        return self._error(to, 404, "page not found")

    def _pull(self, to: BaseHTTPRequestHandler, model: str) -> None:
        script = self.pulls.pop(0) if len(self.pulls) > 1 else self.pulls[0]
        to.send_response(200)
        to.send_header("Content-Type", "application/x-ndjson")
        to.send_header("Transfer-Encoding", "chunked")
        to.end_headers()
        to.close_connection = True
        before: Line = {}
        try:
            for line in script:
                if line is CUT:
                    return
                if "quiet" in line:
                    time.sleep(line["quiet"])
                while line is HOLD:
                    self._say(to, before)
                    time.sleep(0.02)
                if line.get("status") == "success":
                    self.models[_full(model)] = self.pulled_digest
                if "quiet" not in line:
                    self._say(to, line)
                before = line
            to.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.gone.set()

    @staticmethod
    def _say(to: BaseHTTPRequestHandler, line: Line) -> None:
        content = json.dumps(line).encode() + b"\n"
        to.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        to.wfile.flush()

    def _error(self, to: BaseHTTPRequestHandler, status: int, text: str) -> None:
        self._reply(to, status, json.dumps({"error": text}).encode())

    @staticmethod
    def _reply(to: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
        to.send_response(status)
        to.send_header("Content-Length", str(len(content)))
        to.end_headers()
        if to.command != "HEAD":
            to.wfile.write(content)


def _full(name: str) -> str:
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
