# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Find the port at which a host lets Ansible in."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.comses.spamops.plugins.plugin_utils.login import can_prove, new_login


class ActionModule(ActionBase):
    """Try one port after the other."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Try; what was found."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        validated = self.validate_argument_spec(
            {
                "ports": {"type": "list", "elements": "int", "required": True},
                "connect_timeout": {"type": "int", "default": 5},
            }
        )
        arguments = validated[1]
        if not can_prove(self._connection):
            return {**result, "changed": False, "port": 0}
        failures = []
        for port in dict.fromkeys([0, *arguments["ports"]]):
            try:
                # A connection that is still open (ControlPersist) would answer at a port that the server has left.
                with new_login(self._connection, arguments["connect_timeout"], port or None):
                    self._connection.exec_command("true", sudoable=False)
            except AnsibleError as error:
                failures.append(f"at {port or 'the port of the inventory'}: {error}")
            else:
                return {**result, "changed": False, "port": port}
        raise AnsibleConnectionFailure("no login is possible " + "; ".join(failures))
