"""Whether the rules in force are those that were loaded, whatever packets did to counters and sets since."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).parents[2] / ".collections"


@pytest.fixture(scope="module")
def stable() -> Any:
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    module = importlib.import_module("ansible_collections.comses.spamops.plugins.modules.nft_table")
    return module._stable


def rule(*ports: int, handle: int = 7) -> dict[str, Any]:
    """A rule as nft lists it."""
    match = {
        "match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [*ports]}}
    }
    return {
        "rule": {"family": "inet", "table": "t", "chain": "input", "handle": handle, "expr": [match, {"accept": None}]}
    }


def named_set(*elements: str, flags: list[str] | None = None) -> dict[str, Any]:
    """A named set as nft lists it."""
    return {
        "set": {"name": "s", "table": "t", "type": "ipv4_addr", "handle": 3, "flags": flags or [], "elem": [*elements]}
    }


def test_handles_versions_and_the_order_of_a_set_are_no_difference(stable: Any) -> None:
    assert stable([{"metainfo": {"version": "1.0.6"}}, rule(22, 2222)]) == stable(
        [{"metainfo": {"version": "1.1.3"}}, rule(2222, 22, handle=9)]
    )


def test_what_packets_added_is_no_difference(stable: Any) -> None:
    assert stable([named_set("192.0.2.1", flags=["timeout"])]) == stable([named_set("192.0.2.9", flags=["timeout"])])


def test_another_port_another_network_or_a_missing_rule_is_one(stable: Any) -> None:
    assert stable([rule(22)]) != stable([rule(2222)])
    assert stable([rule(22), rule(80)]) != stable([rule(22)])
    assert stable([named_set("192.0.2.1", flags=["interval"])]) != stable([named_set("192.0.2.2", flags=["interval"])])
