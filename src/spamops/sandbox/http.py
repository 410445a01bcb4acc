"""Serve an ASGI application on loopback from a thread: real sockets, a free port, a clean stop."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn


class PortInUse(Exception):
    """The wanted port is taken."""


class LoopbackServer:
    """One application on 127.0.0.1, or on another IPv4 `address` of this machine. `port` 0 takes a free one; the chosen port is
    known at once, before `start`."""

    def __init__(self, app: Any, port: int = 0, address: str = "127.0.0.1") -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address, port))
        except OSError as error:
            self._socket.close()
            raise PortInUse(f"port {port} on {address} cannot be used ({error.strerror}); use another, or 0") from None
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True, name=f"loopback-{self.port}"
        )

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        return f"http://{self._address}:{self.port}"

    def start(self) -> None:
        """Return when requests are answered."""
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop answering and free the port. May be called twice, or without a start."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()
