"""A real registry on loopback (Debian's docker-registry), behind a front as the vendor's has one.

Ollama fetches a layer only from another host name than the registry's, so the front redirects it; and on order it lets a layer
stall in the middle.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30
PROGRAM = os.environ.get("SPAMOPS_REGISTRY") or shutil.which("docker-registry")
"""Read when this file is loaded: the tests' environment is cleared of SPAMOPS_ names."""

CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"}}
"""


class Registry:
    """`address` is for pushes, `front` for pulls; both are HOST:PORT and speak HTTP without TLS."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in `folder`. Raises RuntimeError when there is no docker-registry."""
        if PROGRAM is None:
            raise RuntimeError("docker-registry was not found")
        self.stalls = 0
        self.stalled = threading.Event()
        self.ranges: list[str] = []
        self.requests: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "registry.yml"
        configuration.write_text(CONFIGURATION.format(folder=folder / "store", address=self.address))
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, "serve", configuration], stdout=log, stderr=log)
        registry = self

        class Front(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _go(self) -> None:
                registry._answer(self)

            do_GET = do_HEAD = _go  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        self._front_port = self._server.server_address[1]
        self.front = f"127.0.0.1:{self._front_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return self
        self.__exit__()
        raise RuntimeError(f"docker-registry did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def __exit__(self, *exception: object) -> None:
        self.stalls = -1
        self._process.terminate()
        self._process.wait(10)
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{to.command} {to.path}")
        host = (to.headers.get("Host") or "").partition(":")[0]
        if to.command == "GET" and "/blobs/" in to.path and host != "localhost":
            to.send_response(307)
            to.send_header("Location", f"http://localhost:{self._front_port}{to.path}")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        passed_on = {name: to.headers[name] for name in ("Accept", "Range") if to.headers[name]}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(to.command, to.path, headers=passed_on)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        to.send_response(response.status)
        for name in ("Content-Type", "Docker-Content-Digest", "Content-Range"):
            if response.getheader(name):
                to.send_header(name, response.getheader(name) or "")
        to.send_header("Content-Length", response.getheader("Content-Length") or str(len(content)))
        to.end_headers()
        if "/blobs/" in to.path and to.command == "GET":
            self.ranges.append(to.headers.get("Range", ""))
            # The weights, and not the few bytes of the configuration.
            if self.stalls > 0 and len(content) > 100_000:
                self.stalls -= 1
                self._stall(to, content)
                return
        to.wfile.write(content)

    def _stall(self, to: BaseHTTPRequestHandler, content: bytes) -> None:
        to.close_connection = True
        to.wfile.write(content[: len(content) // 2])
        to.wfile.flush()
        self.stalled.set()
        to.connection.settimeout(0.1)
        while self.stalls >= 0:  # until the client goes away
            try:
                if to.connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except OSError:
                return
