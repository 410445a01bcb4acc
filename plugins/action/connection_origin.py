# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Ask the host where Ansible's connection comes from."""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible.plugins.action import ActionBase

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ActionModule(ActionBase):
    """See the documentation of the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Read the address; fail when it is not in the networks."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _dummy, options = self.validate_argument_spec(
            {
                "networks": {"type": "list", "elements": "str", "default": []},
                "variable": {"type": "str", "default": "networks"},
                "required": {"type": "bool", "default": True},
            }
        )
        # sudo drops SSH_CONNECTION, so this runs as the user who logged in.
        answer = self._low_level_execute_command('printf "%s" "$SSH_CONNECTION"', sudoable=False)
        if answer["rc"] != 0:
            return result | {"failed": True, "msg": f"the host did not tell SSH_CONNECTION: {answer['stderr']}"}
        try:
            address, port = origin(answer["stdout"])
            networks = [network(text, options["variable"]) for text in options["networks"]]
        except ValueError as error:
            return result | {"failed": True, "msg": str(error)}
        inside = bool(address) and any(address in one for one in networks)
        result |= {"changed": False, "address": str(address or ""), "port": port, "inside": inside}
        if options["required"] and address and networks and not inside:
            listed = ", ".join(options["networks"])
            message = (
                f"{options['variable']} would shut out the machine that this runs on: the host sees its connection come from "
                f"{address}, which is in none of {listed}. Nothing was changed. Add {address} (or its network) to "
                f"{options['variable']}."
            )
            return result | {"failed": True, "msg": message}
        return result


def origin(ssh_connection: str) -> tuple[Address | None, int]:
    """The client's address and the host's port in SSH_CONNECTION ("client port host port"); (None, 0) when it is empty.

    Raises ValueError when it is something else.
    """
    words = ssh_connection.split()
    if not words:
        return None, 0
    if len(words) != 4 or not words[3].isdigit():
        raise ValueError(f"SSH_CONNECTION of the host cannot be understood: {ssh_connection!r}")
    # fe80::1%eth0: the interface is the host's own affair
    address = ipaddress.ip_address(words[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address, int(words[3])


def network(text: str, variable: str) -> Network:
    """A network of a list; raises ValueError that names the variable."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"{variable}: {error}; write networks as 192.0.2.0/24 or 2001:db8::/32") from None
