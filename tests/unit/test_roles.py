"""A role's defaults and its argument_specs say the same, so that neither the documentation nor the validation lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()) if (ROOT / "roles").is_dir() else []

KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "path": str,
    "raw": object,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "list": list,
    "dict": dict,
}


def read(role: str, name: str) -> Any:
    """One YAML file of a role; {} when it has none."""
    path = ROOT / "roles" / role / name
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def options(role: str) -> dict[str, Any]:
    """The documented variables of a role's main entry point."""
    found: dict[str, Any] = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented_with_the_same_value(role: str) -> None:
    defaults, documented = read(role, "defaults/main.yml"), options(role)
    assert set(documented) >= set(defaults), f"not in argument_specs: {sorted(set(defaults) - set(documented))}"
    for name, value in defaults.items():
        if isinstance(value, str) and "{{" in value:
            continue  # computed: the description says how
        assert documented[name].get("default") == value, f"{name}: argument_specs has another default"


@pytest.mark.parametrize("role", ROLES)
def test_every_documented_variable_has_a_default_or_is_required(role: str) -> None:
    defaults = read(role, "defaults/main.yml")
    for name, option in options(role).items():
        assert name in defaults or option.get("required"), f"{name} has no default and is not required"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_a_type_a_description_and_the_role_s_prefix(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_"), name
        assert option.get("description"), f"{name} has no description"
        if isinstance(option.get("default"), str) and "{{" in option["default"]:
            continue  # computed
        kind = KINDS[option["type"]]
        assert option.get("default") is None or isinstance(option["default"], kind), (
            f"{name}: the default is no {option['type']}"
        )


@pytest.mark.parametrize("role", ROLES)
def test_every_default_has_a_comment_above_it(role: str) -> None:
    lines = (ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line[:1].isalpha():
            assert lines[number - 1].startswith("#"), f"{line!r}: no comment says what it means"
