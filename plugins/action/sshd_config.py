# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Lead a change of the SSH server: begin it on the host, log in anew from here, then confirm it or put everything back."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.comses.spamops.plugins.plugin_utils.login import can_prove, new_login

WORD = "spamops-login-proof"
TRIES = 2
"""A server that was told to read its configuration again may refuse a connection for a moment."""


class NoLogin(Exception):
    """A new login did not work; the message is ssh's."""


class ActionModule(ActionBase):
    """Run the module's steps around the proof."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run it; what it returns."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._connect_seconds = int(self._connection.get_option("timeout")) if can_prove(self._connection) else 0
        self._rollback_seconds = int(self._task.args.get("rollback_seconds", 60))
        prove = boolean(self._task.args.get("prove", True))
        if prove:
            refusal = self._refusal()
            if refusal:
                return {**result, "failed": True, "msg": f"Nothing was touched: {refusal}"}
        began = self._step("begin")
        moved_to = began.pop("try_ports", [0])
        old_ports = began.pop("old_ports", [])
        host_keys = began.pop("host_keys", [])
        if began.get("failed") or not began.get("changed") or self._task.check_mode or not prove:
            return {**result, **began}
        try:
            port = self._login_at_one_of(moved_to)
            if old_ports:
                with self._at(port):
                    finished = self._step("finish")
                    if finished.get("failed"):
                        return {**result, **finished}
                self._login(port)
        except (NoLogin, AnsibleError) as error:
            return {**result, **self._put_back(str(error), moved_to, host_keys)}
        with self._at(port):
            confirmed = self._step("confirm")
        if confirmed.get("failed"):
            return {**result, **confirmed}
        return {**result, **began, "port": port}

    def _refusal(self) -> str:
        if not can_prove(self._connection):
            return (
                f"over the connection '{self._connection.transport}' no new login can show that the host stays reachable. "
                "Use a connection by ansible.builtin.ssh, or set ssh_prove_login to false where a lock-out does no harm."
            )
        if self._connection.get_option("password") or self._play_context.password:
            return (
                "Ansible logs in with a password (ansible_password, ansible_ssh_pass or --ask-pass), and passwords are about to "
                "be turned off. Put a key into the user's authorized_keys (ssh-copy-id), then run this without the password."
            )
        if self._rollback_seconds < TRIES * self._connect_seconds:
            return (
                f"the host would undo the change after {self._rollback_seconds} seconds, before the proof has had its time: set "
                f"ssh_rollback_seconds to {TRIES * self._connect_seconds} or more, or ansible_timeout to less."
            )
        return ""

    def _step(self, step: str) -> dict[str, Any]:
        arguments = {**self._task.args, "step": step}
        returned: dict[str, Any] = self._execute_module(
            module_name="comses.spamops.sshd_config", module_args=arguments, task_vars=self._vars
        )
        return returned

    def _at(self, port: int) -> Any:
        return new_login(self._connection, self._connect_seconds, port or None)

    def _login_at_one_of(self, ports: list[int]) -> int:
        failures = []
        for port in ports:
            try:
                self._login(port)
            except NoLogin as failure:
                failures.append(str(failure))
            else:
                return port
        raise NoLogin("; ".join(failures))

    def _login(self, port: int) -> None:
        """Log in anew, at another port unless it is 0. Raises NoLogin."""
        trouble = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(1)
            try:
                with self._at(port):
                    code, out, err = self._connection.exec_command(f"echo {WORD}", sudoable=False)
            except AnsibleError as error:
                trouble = str(error)
                if "timed out" in trouble:
                    break
            else:
                if code == 0 and WORD.encode() in out:
                    return
                trouble = (
                    f"the login gives no shell (exit code {code}): {(err or out).decode(errors='replace').strip()}"
                )
        raise NoLogin(trouble)

    def _put_back(self, why: str, ports: list[int], host_keys: list[str]) -> dict[str, Any]:
        said = [f"a new login with Ansible's own user, key and options failed: {why.strip(' .:')}"]
        restored = self._restore()
        if restored["trouble"]:
            said.append(f"putting the previous configuration back failed: {restored['trouble']}")
        else:
            said.append("the previous configuration is back, byte for byte")
        unreached = [port for port in ports if port]
        if unreached and ("timed out" in why or "refused" in why or "No route" in why or "unreachable" in why):
            said.append(
                f"the server did listen at port {', '.join(map(str, unreached))}, so something on the way drops that port: let it "
                "through first (firewall_ssh_ports follows ssh_ports; the cloud's security group; the firewall of your network)"
            )
        if "Host key verification failed" in why or "IDENTIFICATION HAS CHANGED" in why:
            said.append(
                "the controller's known_hosts lacks the keys that the host would offer: " + " | ".join(host_keys)
            )
        return {
            "failed": True,
            "changed": False,
            "msg": "The SSH server is as it was: " + ". ".join(said) + ".",
            "journal": restored.get("journal", []),
        }

    def _restore(self) -> dict[str, Any]:
        """Have the host put everything back. Without a connection that was open before, there may be no way in until the host
        has done so by itself."""
        seconds = self._rollback_seconds
        until = time.monotonic() + seconds + self._connect_seconds
        while True:
            try:
                restored = self._step("restore")
            except AnsibleError as error:
                restored = {"msg": str(error)}
            if "trouble" in restored:  # what the step itself returns, and nothing that stands in its way
                return restored
            if time.monotonic() > until:
                return {"trouble": f"the host was not reachable {seconds} seconds later: {restored.get('msg')}"}
            time.sleep(2)
