"""Whoever opens connections and says nothing must not keep the site and the controller out."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from spamcheck import door

Serve = Callable[..., tuple[str, int]]
HALF_OPEN = 1300
"""More than a process has descriptors by default (1024)."""


async def _slow(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params.get("seconds", "0")))
    return PlainTextResponse("done")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server with limits as a test wants them; gives its address."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(**limits: Any) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        app = Starlette(routes=[Route("/", _slow)])
        server = uvicorn.Server(uvicorn.Config(app, http=door.guarded(**limits), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return str(listener.getsockname()[0]), int(listener.getsockname()[1])

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(timeout=10)


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes within `seconds`; what it says before that is read."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


def trickle(connection: socket.socket) -> None:
    """Send a byte now and then, until that fails."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        connection.sendall(b"a")
        time.sleep(0.05)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_head_is_closed(serve: Serve, said: bytes) -> None:
    with socket.create_connection(serve(head_seconds=0.3)) as connection:
        connection.sendall(said)
        assert closed(connection, 20)


def test_a_byte_now_and_then_does_not_keep_a_connection(serve: Serve) -> None:
    with socket.create_connection(serve(head_seconds=0.5)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            trickle(connection)


def test_a_body_that_never_ends_does_not_keep_a_connection(serve: Serve) -> None:
    with socket.create_connection(serve(head_seconds=0.5)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            trickle(connection)


def test_a_request_that_takes_long_is_answered(serve: Serve) -> None:
    host, port = serve(head_seconds=0.3)
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
        assert client.get("/", params={"seconds": "1"}).text == "done"
        assert client.get("/").text == "done"


def test_the_longest_waiting_makes_room(serve: Serve) -> None:
    address = serve(head_seconds=60, max_waiting=3)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(address)) for _ in range(4)]
        assert closed(waiting[0], 20)
        assert not any(closed(connection, 0.2) for connection in waiting[1:])
        assert httpx.get(f"http://{address[0]}:{address[1]}/", timeout=20).text == "done"


def test_half_open_connections_without_a_key_do_not_shut_the_api(
    processes: Any, free_port: Callable[[], int], http: httpx.Client
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * HALF_OPEN:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # what systemd and shells give by default
    try:
        process = processes("api", temporal_address=f"127.0.0.1:{free_port()}")
        api = process.address()
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * HALF_OPEN), hard))
        target = (str(urlsplit(api).hostname), int(urlsplit(api).port or 0))
        with contextlib.ExitStack() as stack:
            for _ in range(HALF_OPEN):
                connection = stack.enter_context(socket.create_connection(target, timeout=30))
                with contextlib.suppress(OSError):  # closed by now: it had its turn
                    connection.sendall(b"GET /ok HTTP/1.1\r\n")
            began = time.monotonic()
            assert http.get(f"{api}/ok").status_code == 503  # Temporal is down, the API is not
            assert time.monotonic() - began < 10
        assert "system resource" not in process.text()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
