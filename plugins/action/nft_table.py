# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Confirm new rules through a new login from the controller, or see to it that the previous ones come back."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.comses.spamops.plugins.plugin_utils.login import can_prove, new_login

CONNECT_SECONDS = 5
"""The longest wait for one login: several fit into the time until the rollback."""
SLACK_SECONDS = 5
"""No login is begun this near to the rollback; and the rollback is waited for this much longer."""
SSH_WITHOUT_PROOF = ("paramiko", "libssh")
"""SSH connection plugins whose open connection would be used again where a new login is wanted."""


class ActionModule(ActionBase):
    """Run the module; when it loaded new rules, prove that they let the controller in."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; what it returned, or a failure that says why the previous rules are back."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        seconds = int(self._task.args.get("rollback_seconds", 60))
        transport = str(self._connection.transport)
        if seconds > 0 and any(name in transport for name in SSH_WITHOUT_PROOF):
            message = (
                f"The connection plugin {transport} cannot show that a new login works: set ansible_connection to ssh. "
                f"Nothing was changed."
            )
            return result | {"failed": True, "msg": message}
        began = time.monotonic()
        applied = self._step("apply", task_vars)
        if applied.get("failed") or not applied.pop("pending", False):
            return result | applied
        if not can_prove(self._connection):
            kept = self._step("confirm", task_vars)
            return result | (kept if kept.get("failed") else applied)
        reason = self._confirmed(task_vars, began + seconds - SLACK_SECONDS)
        if not reason:
            return result | applied | {"proven": True}
        state = self._taken_back(task_vars, began + seconds + SLACK_SECONDS)
        message = (
            f"The new firewall rules were not kept: no new login from the controller came through ({reason}). {state} "
            f"Look at firewall_admin_cidrs, firewall_ssh_ports and firewall_extra_rules."
        )
        return result | {"failed": True, "changed": False, "msg": message}

    def _step(self, step: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {**self._task.args, "step": step}
        answer: dict[str, Any] = self._execute_module(
            module_name="comses.spamops.nft_table", module_args=arguments, task_vars=task_vars, wrap_async=False
        )
        return answer

    def _confirmed(self, task_vars: dict[str, Any] | None, until: float) -> str:
        """Confirm through a new login; "" when done, else why not. At least one login is tried."""
        while True:
            try:
                with new_login(self._connection, CONNECT_SECONDS):
                    kept = self._step("confirm", task_vars)
            except AnsibleError as error:
                reason = " ".join(str(error).split())
            else:
                return str(kept.get("msg", "unknown")) if kept.get("failed") else ""
            if time.monotonic() > until - CONNECT_SECONDS:
                return reason
            time.sleep(1)

    def _taken_back(self, task_vars: dict[str, Any] | None, until: float) -> str:
        """Bring the previous rules back, over the connection that is still open or by waiting for the timer; the state then."""
        try:
            self._step("withdraw", task_vars)
        except AnsibleError:
            time.sleep(max(0.0, until - time.monotonic()))
        try:
            with new_login(self._connection, CONNECT_SECONDS):
                self._low_level_execute_command("true", sudoable=False)
        except AnsibleError as error:
            return f"The timer on the host restores the previous ones, but the host does not answer yet: {error}"
        return "The previous ones are in force again, and a new login works."
