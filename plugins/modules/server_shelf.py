#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: server_shelf
short_description: Wake or shelve an OpenStack server, from whatever state it is in
version_added: 0.1.0
description:
  - Brings a server to C(ACTIVE) or to C(SHELVED_OFFLOADED) (C(SHELVED) on clouds that never offload) and waits until Nova has
    nothing more in hand (C(task_state) is empty).
  - An unshelve that falls back to C(SHELVED_OFFLOADED), and a shelve that falls back to C(ACTIVE), are seen in the server's
    action log and named. Lack of capacity and passing faults of the cloud are retried within O(timeout).
  - A server in C(ERROR) is reported and left alone.
  - Runs on the controller. M(openstack.cloud.server_action) looks at the status alone, and is not meant for this.
options:
  server:
    description: Id (better) or name of the server.
    type: str
    required: true
  state:
    description: What the server is brought to.
    type: str
    choices: [active, shelved]
    required: true
  wait:
    description:
      - Whether to wait until the server is there.
      - Without waiting, the action is asked for once and nothing is retried.
    type: bool
    default: true
  timeout:
    description: Limit in seconds. 300 for V(active) and 900 for V(shelved) when not given.
    type: int
extends_documentation_fragment:
  - comses.spamops.cloud
  - comses.spamops.cloud.run
attributes:
  check_mode:
    description: Predicts without any call that changes something.
    support: full
  diff_mode:
    description: Shows the status before and after.
    support: full
  idempotent:
    description: A server that is there already is left as it is.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Wake the server
  comses.spamops.server_shelf:
    cloud: jetstream2
    server: 0f3c0f6e-8a0a-4a3e-9b6c-3d1f2a7f5b10
    state: active
  register: wake

- name: Shelve it, with an application credential
  comses.spamops.server_shelf:
    auth_type: v3applicationcredential
    auth:
      auth_url: https://keystone.example.org:5000/v3/
      application_credential_id: "{{ credential_id }}"
      application_credential_secret: "{{ credential_secret }}"
    server: spamcheck
    state: shelved
    timeout: 1200
"""

RETURN = r"""
status_before:
  description: Nova's status when the module first looked.
  type: str
  returned: when the server was found
  sample: SHELVED_OFFLOADED
status_after:
  description: Nova's status when the module last looked; in check mode the one it would have.
  type: str
  returned: when the server was found
  sample: ACTIVE
server_id:
  description: Id of the server.
  type: str
  returned: when the server was found
states:
  description: Every change of state that was seen, in order.
  type: list
  elements: dict
  returned: always
  contains:
    at:
      description: Time of day, ISO 8601 in UTC.
      type: str
    status:
      description: Nova's status.
      type: str
    task_state:
      description: Nova's task_state, or nothing.
      type: str
steps:
  description: Seconds that each step took.
  type: dict
  returned: always
may_cost:
  description: Whether the server may be running, for all that is known.
  type: bool
  returned: always
missing:
  description: Whether the failure is that there is no such server (any more), which costs nothing.
  type: bool
  returned: on failure
exit_code:
  description: What C(spamops run) would have ended with for this failure.
  type: int
  returned: on failure
notes:
  description: What was retried, and why.
  type: list
  elements: str
  returned: always
"""

import contextlib
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils.controller import (
    CLOUD_SPEC,
    RUN_SPEC,
    ControllerModule,
    cloud_arguments,
    run_clock,
    timed,
)

with contextlib.suppress(ImportError):
    from spamops import cloud, limits
    from spamops.errors import ServerMissing, SpamopsError


def main() -> None:
    """Read the arguments, bring the server there, return what was seen."""
    module = ControllerModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "state": {"type": "str", "required": True, "choices": ["active", "shelved"]},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int"},
            **CLOUD_SPEC,
            **RUN_SPEC,
        },
        supports_check_mode=True,
    )
    module.require_spamops()
    parameters = module.params
    goal = cloud.GOALS[parameters["state"]]
    default = limits.UNSHELVE_SECONDS if goal is cloud.ACTIVE else limits.SHELVE_SECONDS
    clock = run_clock(parameters)
    notes: list[str] = []
    steps: dict[str, float] = {}
    deadline = clock.deadline()
    server = None
    try:
        with timed(steps, "wake" if goal is cloud.ACTIVE else "shelve", clock):
            server = cloud.Server(
                cloud.connect(**cloud_arguments(parameters)),
                parameters["server"],
                clock=clock,
                on_note=notes.append,
                before_action=clock.check,
            )
            before = server.look()
            planned = server.planned(goal)
            after = before.status
            if module.check_mode:
                arrived = before.status in goal.reached and before.task_state is None
                after = before.status if arrived or not parameters["wait"] else goal.end
            elif parameters["wait"]:
                limit = parameters["timeout"] or default
                if goal is cloud.ACTIVE:
                    with deadline.named():
                        after = server.bring_to(goal, deadline.within(limit)).status
                else:  # shelving is never cut short by a budget
                    after = server.bring_to(goal, limit).status
            elif planned:
                after = server.ask(planned).status
    except SpamopsError as error:
        module.fail_json(
            msg=str(error),
            exit_code=int(error.exit_code),
            missing=isinstance(error, ServerMissing),
            **_facts(server, notes, steps),
        )
    module.exit_json(
        changed=server.asked or (module.check_mode and planned is not None),
        diff={"before": f"{before.status}\n", "after": f"{after}\n"},
        **_facts(server, notes, steps) | {"status_after": after},
    )


def _facts(server: cloud.Server | None, notes: list[str], steps: dict[str, float]) -> dict[str, Any]:
    facts: dict[str, Any] = {"states": [], "notes": notes, "steps": steps}
    facts["may_cost"] = server is not None and server.may_cost
    if server is not None and server.seen:
        facts["states"] = [
            {"at": seen.at.isoformat(timespec="milliseconds"), "status": seen.status, "task_state": seen.task_state}
            for seen in server.seen
        ]
        facts |= {
            "server_id": server.id,
            "status_before": server.seen[0].status,
            "status_after": server.seen[-1].status,
        }
    return facts


if __name__ == "__main__":
    main()
