#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_diagnosis
short_description: Collect what a server tells of itself into one file, without secrets and personal data
version_added: 0.1.0
description:
  - Logs in over SSH, with host keys checked, and collects the states of the checker's units, the journal of this boot, GPU, memory,
    disk, Ollama, Temporal, sockets and versions into a C(.tar.gz) that its owner alone can read. It changes nothing on the server.
  - Meant for the moment when a run failed and its server is about to be shelved. It takes O(timeout) at most, and does not fail
    when nothing can be collected, so that it stands in the way of nothing. What it returns then says why.
options:
  host:
    description: Address of the server.
    type: str
    required: true
  user:
    description: User there. Default as of C(ssh).
    type: str
  port:
    description: Port of sshd there.
    type: int
    default: 22
  key_file:
    description: Private key. Default are those of the agent, and the usual files.
    type: path
  known_hosts:
    description: File of host keys. Default is C(~/.ssh/known_hosts). A server that is not in it is refused.
    type: path
  timeout:
    description: Limit for all of it, in seconds. 0 collects nothing.
    type: float
    default: 30
  secrets:
    description: Values that must not appear in the file, beside those that look like secrets by themselves.
    type: list
    elements: str
    default: []
  reason:
    description: Why this is collected, noted in the file.
    type: str
    default: ""
extends_documentation_fragment:
  - comses.spamops.cloud.run
attributes:
  check_mode:
    description: Collects nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: Every time makes a new file. The newest ten stay.
    support: none
requirements:
  - "python >= 3.11"
  - "spamops, the Python package of this collection"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Collect what the server tells
  comses.spamops.server_diagnosis:
    host: 203.0.113.7
    user: ubuntu
    secrets: ["{{ vault_spamops_api_key }}"]
    reason: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
bundle:
  description: Path of the file on the controller.
  type: str
  returned: when it was made
fault:
  description: Why there is none.
  type: str
  returned: when it was not made
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils.controller import RUN_SPEC, ControllerModule, state_dir

with contextlib.suppress(ImportError):
    from spamops import diagnose
    from spamops.settings import SSH_WORD
    from spamops.ssh import SshTarget


def main() -> None:
    """Read the arguments, collect, return where the file is or why there is none."""
    module = ControllerModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "user": {"type": "str"},
            "port": {"type": "int", "default": 22},
            "key_file": {"type": "path", "no_log": False},
            "known_hosts": {"type": "path"},
            "timeout": {"type": "float", "default": 30},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "reason": {"type": "str", "default": ""},
            **RUN_SPEC,
        },
        supports_check_mode=True,
    )
    module.require_spamops()
    module.exit_json(**_facts(module.params, check_mode=module.check_mode))


def _facts(parameters: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    if check_mode or parameters["timeout"] <= 0:
        return {"changed": check_mode, "fault": "nothing was collected: it was not asked for"}
    for name in ("host", "user"):
        if parameters[name] and not SSH_WORD.fullmatch(parameters[name]):
            return {"changed": False, "fault": f"{name} must be a plain name or address"}
    target = SshTarget(
        parameters["host"],
        parameters["user"] or None,
        parameters["port"],
        Path(parameters["key_file"]) if parameters["key_file"] else None,
        Path(parameters["known_hosts"]) if parameters["known_hosts"] else None,
    )
    run = parameters["run"] or None
    path, fault = diagnose.collect_in_time(
        diagnose.Plan(target, tuple(parameters["secrets"]), parameters["timeout"]),
        state_dir(parameters) / diagnose.FOLDER,
        diagnose.bundle_name(run, datetime.now(UTC)),
        {"run": run, "reason": parameters["reason"]},
    )
    return {"changed": path is not None} | ({"bundle": str(path)} if path else {"fault": fault})


if __name__ == "__main__":
    main()
