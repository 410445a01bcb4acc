#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_reach
short_description: Find the port at which a host lets Ansible in
version_added: 0.1.0
description:
  - Tries to log in at the port of the inventory, then at others, with all of Ansible's connection variables.
  - For hosts whose SSH port is changed by M(comses.spamops.sshd_config) and that may or may not have been changed yet.
  - Does nothing over connections other than M(ansible.builtin.ssh).
options:
  ports:
    description: The other ports, tried in this order.
    type: list
    elements: int
    required: true
  connect_timeout:
    description: Limit of a try in seconds.
    type: int
    default: 5
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Find the port
  comses.spamops.ssh_reach:
    ports: [2222]
  register: reached

- name: Use it
  ansible.builtin.set_fact:
    ansible_port: "{{ reached.port }}"
  when: reached.port != 0
"""

RETURN = r"""
port:
  description: Port that answered; 0 when it is the one of the inventory.
  type: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """All of it is done on the controller, by the action plugin of this name."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "required": True},
            "connect_timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="comses.spamops.ssh_reach runs on the controller alone, by its action plugin")


if __name__ == "__main__":
    main()
