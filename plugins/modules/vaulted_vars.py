#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vaulted_vars
short_description: Make and change single variables in a file that Ansible Vault encrypts
version_added: 0.1.0
description:
  - Keeps variables in a C(group_vars) file on the controller that is encrypted as a whole. New ones are made at random or given;
    those that are there stay as they are, unless they are named in O(replace).
  - The vault password is the one that the playbook was started with (C(--vault-password-file), C(--ask-vault-pass),
    C(ANSIBLE_VAULT_PASSWORD_FILE)). Without one the task fails, and nothing is written.
  - Nothing of the content is returned or shown. The file is replaced in one step, readable by its owner alone.
  - This is an action plugin; it does everything on the controller, whatever host the task is for.
options:
  path:
    description: The file. Its folder is made when it is not there.
    type: path
    required: true
  generate:
    description:
      - Kind by name of variables to make, where they are not there. V(key) is 64 hexadecimal digits, V(payload_key) is 32 bytes in
        base64.
    type: dict
    default: {}
  values:
    description: Value by name of variables to add, where they are not there.
    type: dict
    default: {}
  replace:
    description: Value by name of variables to set, whatever they are now.
    type: dict
    default: {}
  absent:
    description: Names of variables to remove.
    type: list
    elements: str
    default: []
  only_new:
    description: Whether a file that is there is left alone entirely.
    type: bool
    default: false
  comment:
    description: Text for the head of a new file.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows the names of variables alone.
    support: full
  idempotent:
    description: A variable that is there is not made anew.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Make the secrets, once
  comses.spamops.vaulted_vars:
    path: "{{ inventory_dir }}/group_vars/all/vault.yml"
    generate:
      vault_spamops_api_key: key
    only_new: true
"""

RETURN = r"""
names:
  description: Names of the variables that are in the file now.
  type: list
  elements: str
  returned: success
added:
  description: Names of those that were not there before.
  type: list
  elements: str
  returned: success
created:
  description: Whether the file was made.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule


def main():
    """The action plugin does the work; the module is its documentation."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "generate": {"type": "dict", "default": {}},
            "values": {"type": "dict", "default": {}, "no_log": True},
            "replace": {"type": "dict", "default": {}, "no_log": True},
            "absent": {"type": "list", "elements": "str", "default": []},
            "only_new": {"type": "bool", "default": False},
            "comment": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="comses.spamops.vaulted_vars was started without its action plugin: is the collection whole?")


if __name__ == "__main__":
    main()
