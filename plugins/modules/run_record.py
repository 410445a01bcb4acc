#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Begin and end a check run in the controller's history, with its lock and its guard
version_added: 0.1.0
description:
  - With O(state=begun), takes the lock of the server (one run a server, also against C(spamops run)), opens the run in the
    history, and starts a guard. Should the playbook be ended by force (Ctrl-C, a killed job) before the run is ended here, the
    guard shelves the server.
  - With O(state=ended), writes what the tasks of the run returned into the history, and gives the lock back.
options:
  state:
    description: Whether the run begins or ends here.
    type: str
    choices: [begun, ended]
    required: true
  server:
    description: Id (better) or name of the server, as the run's other tasks have it.
    type: str
    required: true
  run:
    description: Number of the run, as returned at its beginning. Needed with O(state=ended). 0 for none, as in check mode.
    type: int
  state_dir:
    description: Folder of the history and the locks. Default as of the C(spamops) command.
    type: path
  shelve:
    description: Whether the guard shelves the server when the playbook dies.
    type: bool
    default: true
  shelve_timeout:
    description: Limit for that, in seconds.
    type: int
    default: 900
  touch:
    description: Whether the run looks at the server and changes its state. Without, only its time is limited by a budget.
    type: bool
    default: true
  wake:
    description: What M(comses.spamops.server_shelf) returned for waking the server.
    type: dict
    default: {}
  check:
    description: What M(comses.spamops.spamcheck_run) returned.
    type: dict
    default: {}
  shelved:
    description: What M(comses.spamops.server_shelf) returned for shelving it.
    type: dict
    default: {}
  holder_pid:
    description: Process that the run belongs to. Set by the collection's action plugin to the playbook's own.
    type: int
extends_documentation_fragment:
  - comses.spamops.cloud
  - comses.spamops.telling
attributes:
  check_mode:
    description: Locks and records nothing; an active run is reported all the same.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: A run is begun anew each time; one that is ended stays as it is.
    support: partial
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Begin the run
  comses.spamops.run_record:
    state: begun
    server: "{{ spamops_server }}"
    cloud: jetstream2
  register: record

- name: End it
  comses.spamops.run_record:
    state: ended
    server: "{{ spamops_server }}"
    run: "{{ record.run }}"
    wake: "{{ wake }}"
    check: "{{ check }}"
    shelved: "{{ shelved }}"
  register: ended
"""

RETURN = r"""
run:
  description: Number of the run in the history. 0 in check mode.
  type: int
  returned: always
summary:
  description: What the run came to, as C(spamops run --json) prints it.
  type: dict
  returned: with O(state=ended)
exit_code:
  description: What C(spamops run) would have ended with.
  type: int
  returned: with O(state=ended), and on failure
"""

import contextlib
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils.controller import (
    CLOUD_SPEC,
    ControllerModule,
    cloud_arguments,
    state_dir,
)
from ansible_collections.comses.spamops.plugins.module_utils.telling import TELLING_SPEC, budget, telling

with contextlib.suppress(ImportError):
    from spamops import followup, guard, lock, notify
    from spamops.alarms import FAILED_RUNS_THAT_TELL
    from spamops.errors import SettingsError, SpamopsError
    from spamops.ledger import Ledger
    from spamops.summary import Summary, summarise_tasks


def main() -> None:
    """Read the arguments, begin or end the run."""
    module = ControllerModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["begun", "ended"]},
            "server": {"type": "str", "required": True},
            "run": {"type": "int"},
            "state_dir": {"type": "path"},
            "shelve": {"type": "bool", "default": True},
            "shelve_timeout": {"type": "int", "default": 900},
            "touch": {"type": "bool", "default": True},
            "wake": {"type": "dict", "default": {}},
            "check": {"type": "dict", "default": {}},
            "shelved": {"type": "dict", "default": {}},
            "holder_pid": {"type": "int"},
            **CLOUD_SPEC,
            **TELLING_SPEC,
        },
        required_if=[("state", "ended", ["run"])],
        supports_check_mode=True,
    )
    module.require_spamops()
    try:
        facts = _begin(module) if module.params["state"] == "begun" else _end(module)
    except SpamopsError as error:
        module.fail_json(msg=str(error), exit_code=int(error.exit_code), run=module.params["run"])
    module.exit_json(**facts)


def _begin(module: ControllerModule) -> dict[str, Any]:
    parameters = module.params
    if module.check_mode:
        lock.require_free(state_dir(parameters), parameters["server"])
        return {"changed": True, "run": 0}
    told = telling(parameters)
    orders = guard.Orders(
        server=parameters["server"],
        state_dir=str(state_dir(parameters)),
        holder_pid=parameters["holder_pid"],
        shelve=parameters["shelve"],
        shelve_seconds=parameters["shelve_timeout"],
        rate=parameters["service_units_per_hour"],
        cloud_arguments=cloud_arguments(parameters),
        touch=parameters["touch"],
        telling=asdict(told) | {"textfile": str(told.textfile) if told.textfile else None},
        budget=asdict(budget(parameters)),
    )
    return {"changed": True, "run": guard.start(orders)}


def _end(module: ControllerModule) -> dict[str, Any]:
    parameters = module.params
    run, folder = parameters["run"], state_dir(parameters)
    ledger = Ledger(folder)
    row = ledger.run(run) if run else None
    now = datetime.now(UTC)
    summary: Summary = summarise_tasks(
        parameters["server"],
        parameters["wake"],
        parameters["check"],
        parameters["shelved"],
        now,
        parameters["service_units_per_hour"],
        run,
    )
    if run and row is None:
        # The history was removed during the run: what the server came to is told all the same.
        if (parameters["wake"] or parameters["shelved"]) and not module.check_mode:
            _tell(module, ledger, summary, now)
        raise SettingsError(f"there is no run {run} in {ledger.path}; see: spamops history")
    was_open = row is not None and row["ended_at"] is None
    if was_open and not module.check_mode:
        ledger.end(run, summary, now, parameters["check"].get("report") or None)
        guard.wait_until_gone(folder, parameters["server"])
        _tell(module, ledger, summary, now)
    return {"changed": was_open, "run": run, "summary": summary.as_dict(), "exit_code": summary.exit_code}


def _tell(module: ControllerModule, ledger: Any, summary: Any, now: datetime) -> None:
    parameters = module.params
    if summary.exit_code in FAILED_RUNS_THAT_TELL:
        notify.alarm(f"{summary.outcome}: {summary.reason}")
    followup.after_run(ledger, parameters["server"], telling(parameters), budget(parameters), summary.as_dict(), now)


if __name__ == "__main__":
    main()
