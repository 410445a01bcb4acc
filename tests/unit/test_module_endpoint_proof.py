"""The proof of an end's key and hosts, against the embedded site and a checker's door."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_module import Result, run_module

from spamops.sandbox.site import SandboxSite

KEY = "0123456789abcdef" * 4
OLD = "fedcba9876543210" * 4


@pytest.fixture
def site() -> Iterator[SandboxSite]:
    with SandboxSite(api_key=KEY, allowed_hosts=["127.0.0.1", "203.0.113.7"]) as site:
        yield site


def proof(url: str, kind: str = "site", **more: Any) -> Result:
    arguments = {"url": url, "kind": kind, "key": KEY, "timeout": 0.3, "times": 2, "call_timeout": 2}
    return run_module("endpoint_proof", {**arguments, **more})


def test_a_site_that_is_as_it_should_be_is_proven(site: SandboxSite) -> None:
    result = proof(site.url, allowed_hosts=["203.0.113.7"], disallowed_host="disallowed.invalid", dead_keys=[OLD])
    assert not result.failed
    assert [answer["status"] for answer in result["answers"]] == [200, 401, 401, 401, 401, 200, 400]
    assert KEY not in result.text + result.logged
    assert OLD not in result.text + result.logged


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"key": OLD}, "asked with the right key it answers 401 (the key is refused), not 200"),
        ({"dead_keys": [KEY]}, "a key that must be dead it answers 200 (it lets in whom it must not), not 401"),
        ({"allowed_hosts": ["198.51.100.1"]}, "Host 198.51.100.1 it answers 400 (the Host is not allowed), not 200"),
        ({"disallowed_host": "203.0.113.7"}, "which is not allowed it answers 200"),
        ({"host": "elsewhere.example"}, "the right key it answers 400"),
    ],
)
def test_whatever_is_wrong_is_named_without_a_key(site: SandboxSite, arguments: dict[str, Any], reason: str) -> None:
    result = proof(site.url, **arguments)
    assert result.failed
    assert reason in result["msg"]
    assert KEY not in result.text


def test_a_site_that_takes_the_well_known_word_is_found_out() -> None:
    with SandboxSite(api_key="unconfigured") as site:
        told = proof(site.url)["msg"]
    assert "asked with the word unconfigured it answers 200 (it lets in whom it must not)" in told


def test_a_site_that_does_not_answer_is_waited_for_and_then_named(site: SandboxSite) -> None:
    site.stop()
    assert "nothing (no answer)" in proof(site.url)["msg"]
    threading.Timer(0.5, site.start).start()
    assert not proof(site.url, timeout=20).failed


def test_the_key_may_come_from_a_file_on_the_machine_that_asks(site: SandboxSite, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    assert not proof(site.url, key=None, key_file=str(path)).failed
    path.write_text("\n")
    assert "empty" in proof(site.url, key=None, key_file=str(path))["msg"]


def test_an_address_with_a_password_in_it_is_refused() -> None:
    assert "without user and password" in proof("http://user:word@127.0.0.1")["msg"]


@pytest.fixture
def door() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A checker's door with the key KEY, and what it answers by path."""
    pages: dict[str, bytes] = {"/ok": b"{}", "/metrics": b"spamcheck_run_active 0.0\n"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("X-API-Key") == KEY
            self.send_response(200 if known and self.path in pages else 404 if known else 401)
            self.end_headers()
            self.wfile.write(pages.get(self.path, b"") if known else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", pages
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_checker_with_an_active_run_is_not_idle(door: tuple[str, dict[str, bytes]]) -> None:
    url, pages = door
    assert not proof(url, "checker", idle=True).failed
    assert not proof(url, "checker", key=OLD, other_keys=[KEY], idle=True, questions=False).failed
    pages["/metrics"] = b"# HELP\nspamcheck_run_active 1.0\n"
    assert "a check is running" in proof(url, "checker", idle=True)["msg"]
    assert "a check is running" in proof(url, "checker", key=OLD, other_keys=[KEY], idle=True)["msg"]
    assert "refuses every key" in proof(url, "checker", key=OLD, idle=True)["msg"]
    del pages["/metrics"]
    assert not proof(url, "checker", idle=True).failed, "another program tells nothing of runs"
