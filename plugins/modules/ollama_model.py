#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_model
short_description: Models of an Ollama server
version_added: 0.1.0
description:
  - Pulls a model from a registry, makes one of a GGUF file, or removes one, through the HTTP API of an Ollama server.
  - Runs on the server's own host as a rule, and needs nothing there but Python.
  - A pull that stalls is taken up again where it was, and so is one that an earlier, interrupted task has begun.
  - The room on the disk is checked before anything is pulled, by the sizes that the registry's manifest names.
options:
  name:
    description:
      - Name of the model on the server. V(llama3.1), V(llama3.1:latest) and V(registry.ollama.ai/library/llama3.1) are the
        same.
    type: str
    required: true
  state:
    description:
      - With V(present), a model that is there is left as it is, and the registry is not asked, unless O(digest) or
        O(checksum) says that it is another one.
      - With V(latest), the registry or the file is compared with what is there.
      - With V(absent), the name is removed, and the layers that no other model uses.
    type: str
    choices: [present, absent, latest]
    default: present
  source:
    description: Where the model comes from.
    type: str
    choices: [registry, gguf]
    default: registry
  reference:
    description:
      - Name to pull by when it is not O(name), such as V(mirror.example.org/library/llama3.1) for a mirror. What was pulled is
        then given the name O(name).
    type: str
  digest:
    description:
      - Digest that the model must have, C(sha256:) and 64 digits, or the first 12 digits or more of it, which C(ollama list)
        shows. For O(source=registry).
      - A model that was pulled and has another digest is not kept, and what was there before stays.
    type: str
  insecure:
    description: Whether the registry is spoken to without TLS.
    type: bool
    default: false
  path:
    description: The GGUF file, on the host that the module runs on. For O(source=gguf).
    type: path
  checksum:
    description: Checksum that the file must have, C(sha256:) and 64 digits. For O(source=gguf).
    type: str
  template:
    description: Template of the prompt, in Go's syntax, for a model that is made of a file. Without it the file's own is used.
    type: str
  system:
    description: System message, for a model that is made of a file.
    type: str
  parameters:
    description: Parameters such as C(num_ctx) or C(stop), for a model that is made of a file.
    type: dict
  url:
    description: Base address of the server.
    type: str
    default: http://127.0.0.1:11434
  models_path:
    description:
      - The server's folder of models on this host. The room on its disk is checked before a pull.
      - Without it the room is not checked.
    type: path
  min_free_mb:
    description: What must stay free on that disk, in MiB.
    type: int
    default: 1024
  timeout:
    description: Limit for the whole pull, or for making the model, in seconds.
    type: int
    default: 7200
  stall_timeout:
    description: A pull in which no byte has come in for so many seconds is broken off and taken up again.
    type: float
    default: 60
  retries:
    description: How many tries in a row may bring no byte before the pull is given up.
    type: int
    default: 5
  call_timeout:
    description: Limit of a single call to the server, in seconds.
    type: int
    default: 30
attributes:
  check_mode:
    description: Looks at the server and the registry or the file, and changes nothing.
    support: partial
    details:
      - With O(state=latest), when the registry cannot be asked, a change is predicted.
      - Of a model that would be pulled the digest is not known.
  diff_mode:
    description: Shows the digest before and after.
    support: full
  idempotent:
    description: A second task changes nothing, unless the registry's model has changed meanwhile (O(state=latest)).
    support: full
requirements:
  - "python >= 3.10 on the host"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Have a model
  comses.spamops.ollama_model:
    name: llama3.2
    models_path: /var/lib/ollama/models

- name: Have exactly this model, from a mirror
  comses.spamops.ollama_model:
    name: llama3.1
    reference: mirror.example.org/library/llama3.1
    digest: 46e0c10c039e

- name: Make a model of a file
  comses.spamops.ollama_model:
    name: ours
    source: gguf
    path: /srv/models/ours.gguf
    parameters:
      num_ctx: 8192

- name: Remove a model
  comses.spamops.ollama_model:
    name: llama2
    state: absent
"""

RETURN = r"""
name:
  description: Full name of the model.
  type: str
  returned: always
  sample: llama3.1:latest
digest:
  description: Digest of the model's manifest. Empty when it is not known, or when there is no such model.
  type: str
  returned: success
size:
  description: Size of the model in bytes.
  type: int
  returned: success
bytes:
  description: How many bytes came in, as far as it can be told; those of layers that were not there before.
  type: int
  returned: always
layers:
  description: Layers that were pulled or uploaded.
  type: list
  elements: dict
  returned: always
  contains:
    digest:
      description: Digest of the layer.
      type: str
    total:
      description: Its size in bytes.
      type: int
    completed:
      description: What the server has of it, in bytes.
      type: int
attempts:
  description: How often a pull was begun or taken up again.
  type: int
  returned: always
statuses:
  description: What the server said on the way.
  type: list
  elements: str
  returned: always
notes:
  description: What could not be found out, and why.
  type: list
  elements: str
  returned: success
"""

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils.ollama_api import Model, Ollama, OllamaError, full_name
from ansible_collections.comses.spamops.plugins.module_utils.ollama_models import MIB, Outcome, Wanted, ensure, remove
from ansible_collections.comses.spamops.plugins.module_utils.ollama_pull import Limits, Progress

_NAME = re.compile(r"(?:https?://)?[A-Za-z0-9][\w.:/-]*")
_FOR_FILES = ("path", "checksum", "template", "system", "parameters")
_FOR_REGISTRIES = ("reference", "digest")


def main() -> None:
    """Read the arguments, see to the model, say what came of it."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "latest"], "default": "present"},
            "source": {"type": "str", "choices": ["registry", "gguf"], "default": "registry"},
            "reference": {"type": "str"},
            "digest": {"type": "str"},
            "insecure": {"type": "bool", "default": False},
            "path": {"type": "path"},
            "checksum": {"type": "str"},
            "template": {"type": "str"},
            "system": {"type": "str"},
            "parameters": {"type": "dict"},
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "models_path": {"type": "path"},
            "min_free_mb": {"type": "int", "default": 1024},
            "timeout": {"type": "int", "default": 7200},
            "stall_timeout": {"type": "float", "default": 60},
            "retries": {"type": "int", "default": 5},
            "call_timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    given = module.params
    if fault := _fault(given):
        module.fail_json(msg=fault)
    name = full_name(given["name"])
    progress = Progress()
    try:
        server = Ollama(given["url"], given["call_timeout"])
        outcome = _bring_about(server, given, progress, module.check_mode)
    except OllamaError as error:
        module.fail_json(msg=f"{name}: {error}", name=name, **progress.facts())
    after = outcome.after or Model("", 0)
    module.exit_json(
        changed=outcome.changed,
        name=name,
        digest=after.digest,
        size=after.size,
        notes=outcome.notes,
        diff={"before": _told(name, outcome.before), "after": _told(name, outcome.after)},
        **progress.facts(),
    )


def _bring_about(server: Ollama, given: dict[str, Any], progress: Progress, check: bool) -> Outcome:
    if given["state"] == "absent":
        return remove(server, given["name"], check)
    wanted = Wanted(
        name=given["name"],
        latest=given["state"] == "latest",
        reference=given["reference"] or "",
        digest=given["digest"] or "",
        insecure=given["insecure"],
        path=Path(given["path"]) if given["source"] == "gguf" else None,
        checksum=given["checksum"] or "",
        template=given["template"],
        system=given["system"],
        parameters=given["parameters"],
        models_path=Path(given["models_path"]) if given["models_path"] else None,
        free_bytes=given["min_free_mb"] * MIB,
    )
    limits = Limits(given["stall_timeout"], given["timeout"], given["retries"])
    return ensure(server, wanted, limits, progress, check)


def _fault(given: dict[str, Any]) -> str:
    """What is wrong with the arguments."""
    for option in ("name", "reference"):
        if given[option] is not None and not _NAME.fullmatch(given[option]):
            return f"{option} is not the name of a model: {given[option]!r}"
    if given["checksum"] is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}", given["checksum"]):
        return "checksum must be sha256: and 64 lower-case hexadecimal digits"
    if given["digest"] is not None and not re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", given["digest"]):
        return "digest must be 12 to 64 lower-case hexadecimal digits, with or without sha256: before them"
    if any(given[option] <= 0 for option in ("timeout", "stall_timeout", "call_timeout")):
        return "timeout, stall_timeout and call_timeout must be more than 0"
    if given["state"] == "absent":
        return ""
    foreign = _FOR_FILES if given["source"] == "registry" else _FOR_REGISTRIES
    if mixed := [option for option in foreign if given[option] is not None]:
        return f"with source={given['source']}, {' and '.join(mixed)} cannot be given"
    if given["source"] == "gguf" and given["path"] is None:
        return "with source=gguf, path is missing: the file on the host"
    return ""


def _told(name: str, model: Model | None) -> str:
    if model is None:
        return ""
    return f"{name} {model.digest or '(digest not known yet)'}\n"


if __name__ == "__main__":
    main()
