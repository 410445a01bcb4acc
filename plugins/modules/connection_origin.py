#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: connection_origin
short_description: From which address, to which port, Ansible's SSH connection comes, as the host sees it
version_added: 0.1.0
description:
  - Reads C(SSH_CONNECTION) of the connection that Ansible has to the host, without sudo, which would hide it. Behind a jump host
    or address translation this is what a firewall on the host has to let in, and what the controller cannot know by itself.
  - With O(required), fails when the address is not in O(networks), so that a playbook stops before it locks itself out.
options:
  networks:
    description: IPv4 and IPv6 networks, one of which must hold the address. Empty for any.
    type: list
    elements: str
    default: []
  variable:
    description: Name of the variable that O(networks) came from, for the error message.
    type: str
    default: networks
  required:
    description: Whether to fail when the address is in none of O(networks), if there are any.
    type: bool
    default: true
attributes:
  check_mode:
    description: It only reads.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Stop here if the new rules would shut the controller out
  comses.spamops.connection_origin:
    networks: "{{ firewall_admin_cidrs }}"
    variable: firewall_admin_cidrs
  register: origin
"""

RETURN = r"""
address:
  description: The controller's (or the jump host's) address without an interface. Empty where the connection is not SSH.
  type: str
  returned: always
port:
  description: The port of the host that the connection came to. 0 where it is not SSH.
  type: int
  returned: always
inside:
  description: Whether one of O(networks) holds the address.
  type: bool
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """The work is the action plugin's, which is on the controller."""
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "str", "default": []},
            "variable": {"type": "str", "default": "networks"},
            "required": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.fail_json(
        msg="this is run by the action plugin of the same name, which was not found: is the collection whole?"
    )


if __name__ == "__main__":
    main()
