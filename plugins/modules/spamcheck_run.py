#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: spamcheck_run
short_description: Run the spam check on a checker that is on, and fetch its report
version_added: 0.1.0
description:
  - Waits until the checker is ready, starts its workflow (or joins the one that is active), waits for B(any) terminal status
    (C(COMPLETED), C(FAILED), C(CANCELED), C(TERMINATED), C(TIMED_OUT)), and fetches the report before the server goes away.
  - Long polls, progress and reports are used where the checker has them.
  - The module fails when the workflow ends other than C(COMPLETED). Items that failed one by one are counted, not a failure.
options:
  url:
    description: Base address of the checker, such as V(http://203.0.113.7:8001).
    type: str
    required: true
  api_key:
    description: Key of the checker, 32 characters or more. Sent as C(X-API-Key), never logged.
    type: str
    required: true
  timeout:
    description: Limit for the workflow to end, in seconds.
    type: int
    default: 3600
  ready_timeout:
    description: Limit for the checker to become ready before that, in seconds.
    type: int
    default: 300
  status_grace:
    description: How long failing or garbled status answers are put up with, in seconds.
    type: int
    default: 120
  call_timeout:
    description: Limit of a single call to the checker, in seconds.
    type: int
    default: 30
extends_documentation_fragment:
  - comses.spamops.cloud.run
attributes:
  check_mode:
    description: Looks whether the checker is ready, and starts nothing.
    support: partial
    details: What is scheduled is known to the site alone, so a change is always predicted, and no difference shown.
  diff_mode:
    description: Shows the counts of the check.
    support: full
  idempotent:
    description: Every run reads what is scheduled on the site now; an active check is joined, not doubled.
    support: partial
requirements:
  - "python >= 3.11"
  - "spamops, the Python package of this collection"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Check everything scheduled
  comses.spamops.spamcheck_run:
    url: http://203.0.113.7:8001
    api_key: "{{ vault_spamcheck_api_key }}"
    timeout: 7200
  register: check

- name: Say what came of it
  ansible.builtin.debug:
    msg: "{{ check.counts.checked }} checked, {{ check.counts.spam }} spam, {{ check.counts.failed }} failed"
"""

RETURN = r"""
workflow_id:
  description: Temporal's id of the workflow.
  type: str
  returned: when one was started
workflow_status:
  description: Temporal's status of the workflow.
  type: str
  returned: when it ended
  sample: COMPLETED
ready:
  description: Whether the checker is ready.
  type: bool
  returned: in check mode
counts:
  description: Numbers of items.
  type: dict
  returned: when the workflow ended
  contains:
    checked:
      description: Items with a verdict.
      type: int
    spam:
      description: Of these, spam.
      type: int
    not_spam:
      description: Of these, not spam.
      type: int
    failed:
      description: Items that were set aside.
      type: int
progress:
  description: Counts of the last status answer.
  type: dict
  returned: when the workflow ended
report:
  description: The checker's report. Ids, hashes and verdicts, no texts. Empty where the checker gives none.
  type: dict
  returned: when the workflow ended
steps:
  description: Seconds that each step took.
  type: dict
  returned: always
exit_code:
  description: What C(spamops run) would have ended with for this failure.
  type: int
  returned: on failure
notes:
  description: What was waited for or retried, and why.
  type: list
  elements: str
  returned: always
"""

import contextlib
from typing import Any

from ansible_collections.comses.spamops.plugins.module_utils.controller import (
    RUN_SPEC,
    ControllerModule,
    run_clock,
    timed,
)

with contextlib.suppress(ImportError):
    from spamops import settings, summary
    from spamops.attached import RunClock
    from spamops.checker import Checker, WorkflowStatus
    from spamops.errors import CheckerError, ExitCode, SpamopsError


def main() -> None:
    """Read the arguments, run the check, return what came of it."""
    module = ControllerModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "api_key": {"type": "str", "required": True, "no_log": True},
            "timeout": {"type": "int", "default": 3600},
            "ready_timeout": {"type": "int", "default": 300},
            "status_grace": {"type": "int", "default": 120},
            "call_timeout": {"type": "int", "default": 30},
            **RUN_SPEC,
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
    notes: list[str] = []
    facts: dict[str, Any] = {"notes": notes, "steps": {}}
    clock = run_clock(parameters)
    checker = Checker(
        parameters["url"], key, call_seconds=parameters["call_timeout"], clock=clock, on_note=notes.append
    )
    try:
        if module.check_mode:
            reason = checker.readiness()
            notes += [f"would wait for the checker: {reason}"] if reason else []
            module.exit_json(changed=True, ready=reason is None, **facts)
        _check(checker, clock, parameters, facts)
    except SpamopsError as error:
        module.fail_json(msg=str(error), exit_code=int(error.exit_code), **facts)
    finally:
        checker.close()
    counts = facts["counts"]
    told = "".join(f"{name}: {count}\n" for name, count in counts.items())
    module.exit_json(changed=counts["checked"] > 0, diff={"before": "", "after": told}, **facts)


def _check(checker: Checker, clock: RunClock, parameters: dict[str, Any], facts: dict[str, Any]) -> None:
    steps, deadline = facts["steps"], clock.deadline()
    with timed(steps, "ready", clock), deadline.named():
        checker.wait_until_ready(deadline.within(parameters["ready_timeout"]))
    clock.check()
    with timed(steps, "check", clock), deadline.named():
        deadline.within(parameters["timeout"])  # with nothing left, nothing is started
        facts["workflow_id"] = workflow_id = checker.start()
        clock.note_workflow(workflow_id)
        try:
            limit = deadline.within(parameters["timeout"])
            status = checker.wait_for_end(workflow_id, limit, parameters["status_grace"])
        except CheckerError:
            # Cut off: what was done until now is on the server alone, which is about to go away.
            _add_facts(facts, checker.last, checker.last_report(workflow_id))
            raise
    report = None
    with timed(steps, "report", clock):
        try:
            report = checker.report(workflow_id)
        except CheckerError as error:
            facts["notes"].append(f"warning: {error}")
    _add_facts(facts, status, report)
    summary.require_completed(workflow_id, status, report)


def _add_facts(facts: dict[str, Any], status: WorkflowStatus, report: dict[str, Any] | None) -> None:
    facts |= {"workflow_status": status.status, "progress": status.progress}
    counted = summary.Summary(server="")
    summary.add_check(counted, status.status, status.progress, report)
    # Below a name of their own: a `failed` at the top would be the task's, and a count above 0 its failure.
    facts["counts"] = {name: getattr(counted, name) for name in ("checked", "spam", "not_spam", "failed")}
    facts["report"] = report or {}


if __name__ == "__main__":
    main()
