"""What the guards against lock-outs make of SSH_CONNECTION."""

from __future__ import annotations

import importlib
import ipaddress
import sys
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).parents[2] / ".collections"


@pytest.fixture(scope="module")
def plugin() -> Any:
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    return importlib.import_module("ansible_collections.comses.spamops.plugins.action.connection_origin")


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.5 40000 198.51.100.7 2222", "192.0.2.5", 2222),
        ("2001:db8::1 40000 2001:db8::2 22", "2001:db8::1", 22),
        ("fe80::1%eth0 40000 fe80::2%eth0 22", "fe80::1", 22),
        ("::ffff:192.0.2.5 40000 ::ffff:198.51.100.7 22", "192.0.2.5", 22),
    ],
)
def test_the_address_that_a_rule_must_admit(plugin: Any, text: str, address: str, port: int) -> None:
    assert plugin.origin(text) == (ipaddress.ip_address(address), port)


def test_no_ssh_connection_is_no_origin(plugin: Any) -> None:
    assert plugin.origin("") == (None, 0)


@pytest.mark.parametrize("text", ["192.0.2.5", "a b c d", "192.0.2.5 1 192.0.2.6 port", "nobody 1 192.0.2.6 22"])
def test_what_cannot_be_understood_is_refused(plugin: Any, text: str) -> None:
    with pytest.raises(ValueError):
        plugin.origin(text)


def test_a_network_that_is_none_names_its_variable(plugin: Any) -> None:
    assert plugin.network("192.0.2.9/24", "firewall_admin_cidrs") == ipaddress.ip_network("192.0.2.0/24")
    with pytest.raises(ValueError, match=r"firewall_admin_cidrs: .*192\.0\.2\.0/24"):
        plugin.network("example.org", "firewall_admin_cidrs")
