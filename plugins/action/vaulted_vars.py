# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Make and change variables in an encrypted file on the controller. The vault's password is known to the playbook's process
alone, so this is an action plugin and no module."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import AnsibleVaultError, VaultLib
from ansible.plugins.action import ActionBase

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GENERATORS = {
    "key": lambda: secrets.token_hex(32),
    "payload_key": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
}


class ActionModule(ActionBase):
    """Decrypt, change, encrypt, replace."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do it; names alone are returned."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _dummy, arguments = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "generate": {"type": "dict", "default": {}},
                "values": {"type": "dict", "default": {}},
                "replace": {"type": "dict", "default": {}},
                "absent": {"type": "list", "elements": "str", "default": []},
                "only_new": {"type": "bool", "default": False},
                "comment": {"type": "str", "default": ""},
            }
        )
        path = Path(arguments["path"]).absolute()
        before = self._read(path)
        if before is not None and arguments["only_new"]:
            return result | {"changed": False, "created": False, "added": [], "names": sorted(_loaded(before, path))}
        after = _changed(before, arguments, path)
        changed = after != before
        if changed and not self._task.check_mode:
            self._write(path, after)
        names = [sorted(_loaded(text, path)) if text else [] for text in (before, after)]
        shown = ["".join(f"{name}: (encrypted)\n" for name in each) for each in names]
        added = [name for name in names[1] if name not in names[0]]
        result |= {"changed": changed, "created": before is None, "added": added, "names": names[1]}
        return result | {"diff": {"before": shown[0], "after": shown[1], "before_header": str(path)}}

    @property
    def _vault(self) -> VaultLib:
        vault: VaultLib = self._loader._vault
        if not vault.secrets:
            raise AnsibleActionFail(
                "no vault password: start the playbook with --vault-password-file FILE or --ask-vault-pass; nothing was written"
            )
        return vault

    def _read(self, path: Path) -> str | None:
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            self._vault  # noqa: B018 - fail before anything is made
            return None
        if not raw.startswith(b"$ANSIBLE_VAULT"):
            raise AnsibleActionFail(
                f"{path} is not encrypted: encrypt it with ansible-vault encrypt; it was left alone"
            )
        try:
            text: str = self._vault.decrypt(raw).decode("utf-8")
        except AnsibleVaultError as error:
            raise AnsibleActionFail(f"{path} could not be decrypted with the vault password that was given") from error
        return text

    def _write(self, path: Path, text: str) -> None:
        encrypted = self._vault.encrypt(text)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(encrypted)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _changed(before: str | None, arguments: dict[str, Any], path: Path) -> str:
    text = before
    if text is None:
        head = [f"# {line}".rstrip() for line in arguments["comment"].splitlines()]
        text = "\n".join(["---", *head, ""])
    there = _loaded(text, path)
    for name in arguments["absent"]:
        if name in there:
            text = _without(text, name, path)
    for name, value in arguments["replace"].items():
        if name in there and there[name] == value:
            continue
        text = _with(_without(text, name, path) if name in there else text, name, value)
    for name, value in arguments["values"].items():
        if name not in there:
            text = _with(text, name, value)
    for name, kind in arguments["generate"].items():
        if kind not in GENERATORS:
            raise AnsibleActionFail(f"generate: {name} is to be {kind!r}, but there are only {', '.join(GENERATORS)}")
        if name not in there:
            text = _with(text, name, GENERATORS[kind]())
    _loaded(text, path)
    return text


def _loaded(text: str, path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The error's own text quotes the line, which holds a secret.
        raise AnsibleActionFail(f"the decrypted content of {path} is not plain YAML; it was left alone") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise AnsibleActionFail(f"the decrypted content of {path} holds no variables; it was left alone")
    return values


def _with(text: str, name: str, value: Any) -> str:
    if not NAME.fullmatch(name):
        raise AnsibleActionFail(f"{name!r} is no name of a variable")
    gap = "" if not text or text.endswith("\n") else "\n"
    # JSON's strings are YAML's too; values from a playbook are of kinds that the YAML writer does not know.
    return f"{text}{gap}{name}: {json.dumps(value)}\n"


def _without(text: str, name: str, path: Path) -> str:
    """The text without the variable's line; other lines and comments stay."""
    lines = text.splitlines(keepends=True)
    found = [index for index, line in enumerate(lines) if line.startswith((f"{name}:", f'"{name}":', f"'{name}':"))]
    kept = "".join(line for index, line in enumerate(lines) if index not in found)
    expected = {key: value for key, value in _loaded(text, path).items() if key != name}
    if len(found) != 1 or _loaded(kept, path) != expected:
        raise AnsibleActionFail(f"{name} is not written on one line of {path}: change it with ansible-vault edit")
    return kept
