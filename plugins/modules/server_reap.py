#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_reap
short_description: Shelve a server that is on although nobody uses it
version_added: 0.1.0
description:
  - Looks at the server. One that is on, although no run of this controller lives and nobody did anything to it for
    O(grace), is asked what it is doing. It is left alone while its checker works, up to O(working_limit), and shelved when it
    is idle or cannot be reached.
  - Runs whose controller died are closed in the history with what they cost. Alarms are raised, repeated and closed, and the
    metrics written.
  - Does what C(spamops reap) does.
options:
  server:
    description: Id (better) or name of the server.
    type: str
    required: true
  url:
    description: Base address of the checker, such as V(http://203.0.113.7:8001).
    type: str
    required: true
  api_key:
    description: Key of the checker, 32 characters or more. Sent as C(X-API-Key), never logged.
    type: str
    required: true
  state_dir:
    description: Folder of the history and the locks. Default as of the C(spamops) command.
    type: path
  grace:
    description: How long the server may be on without a live run, in seconds.
    type: float
    default: 600
  working_limit:
    description: The same while its checker works, or answers without telling, in seconds.
    type: float
    default: 7200
  shelve_timeout:
    description: Limit for the shelving, in seconds.
    type: float
    default: 900
  status_grace:
    description: How long a checker that does not answer is asked again before it counts as away, in seconds.
    type: float
    default: 120
extends_documentation_fragment:
  - comses.spamops.cloud
  - comses.spamops.telling
attributes:
  check_mode:
    description: Looks and tells what would be done; shelves nothing, raises no alarm.
    support: full
  diff_mode:
    description: Shows the status before and after.
    support: full
  idempotent:
    description: A server that is shelved is left as it is.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Shelve the server if nobody uses it
  comses.spamops.server_reap:
    cloud: jetstream2
    server: 0f3c0f6e-8a0a-4a3e-9b6c-3d1f2a7f5b10
    url: http://203.0.113.7:8001
    api_key: "{{ vault_spamcheck_api_key }}"
    grace: 900
"""

RETURN = r"""
action:
  description: What was done, or in check mode would be.
  type: str
  returned: always
  sample: left_alone
reason:
  description: Why.
  type: str
  returned: always
exit_code:
  description: What C(spamops reap) would have ended with.
  type: int
  returned: always
status_before:
  description: Nova's status when the module looked.
  type: str
  returned: when the server was found
status_after:
  description: Nova's status when the module last looked; in check mode the one it would have.
  type: str
  returned: when the server was found
doing:
  description: What the checker does, as far as it was asked and could tell.
  type: str
  returned: always
  sample: idle
unattended_seconds:
  description: How long nobody had done anything to the server.
  type: float
  returned: always
active_seconds:
  description: How long it was billed in that time, or since the dead run began.
  type: float
  returned: always
service_units:
  description: What that cost. Nothing without a rate.
  type: float
  returned: always
settled:
  description: Numbers of runs that were closed because their controller had died.
  type: list
  elements: int
  returned: always
"""

import contextlib
from dataclasses import asdict

from ansible_collections.comses.spamops.plugins.module_utils.controller import (
    CLOUD_SPEC,
    ControllerModule,
    cloud_arguments,
    state_dir,
)
from ansible_collections.comses.spamops.plugins.module_utils.telling import TELLING_SPEC, budget, telling

with contextlib.suppress(ImportError):
    from spamops import reap, settings
    from spamops.cloud import SHELVED
    from spamops.errors import ExitCode, SpamopsError
    from spamops.ledger import Ledger


def main() -> None:
    """Read the arguments, look, shelve what nobody uses."""
    module = ControllerModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "api_key": {"type": "str", "required": True, "no_log": True},
            "state_dir": {"type": "path"},
            "grace": {"type": "float", "default": 600},
            "working_limit": {"type": "float", "default": 7200},
            "shelve_timeout": {"type": "float", "default": 900},
            "status_grace": {"type": "float", "default": 120},
            **CLOUD_SPEC,
            **TELLING_SPEC,
        },
        supports_check_mode=True,
    )
    module.require_spamops()
    parameters = module.params
    try:
        option = "api_key"
        key = settings.usable_key(parameters[option])
        option = "url"
        settings.require_no_userinfo(parameters[option])
    except ValueError as error:
        module.fail_json(msg=f"{option} {error}", exit_code=int(ExitCode.FAULTY_SETTINGS))
    try:
        plan = reap.Plan(
            server=parameters["server"],
            ledger=Ledger(state_dir(parameters)),
            checker_url=parameters["url"],
            api_key=key,
            cloud_arguments=cloud_arguments(parameters),
            grace_seconds=parameters["grace"],
            working_seconds=parameters["working_limit"],
            shelve_seconds=parameters["shelve_timeout"],
            api_seconds=parameters["api_timeout"],
            patience_seconds=parameters["status_grace"],
            budget=budget(parameters),
            telling=telling(parameters),
        )
    except SpamopsError as error:
        module.fail_json(msg=str(error), exit_code=int(error.exit_code))
    result = reap.reap(plan, dry_run=module.check_mode)
    facts = asdict(result) | {"action": str(result.action)}
    if result.action == reap.Action.WOULD_SHELVE:
        facts["status_after"] = SHELVED.end
    changed = result.action in (reap.Action.SHELVED, reap.Action.WOULD_SHELVE) or bool(result.settled)
    diff = {"before": f"{result.status_before}\n", "after": f"{facts['status_after']}\n"}
    if result.exit_code:
        module.fail_json(msg=result.reason, **facts)
    module.exit_json(changed=changed, diff=diff, **facts)


if __name__ == "__main__":
    main()
