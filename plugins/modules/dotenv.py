#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: dotenv
short_description: Set and remove single variables in a .env file
version_added: 0.1.0
description:
  - Sets variables in a C(.env) file and leaves every other byte as it is, comments, quotes, order and line ends included. Names
    that are not there are added at the end.
  - The file is read as python-dotenv and Docker Compose read it, with C(export), quoted values over several lines and comments
    behind values. Values are written so that these and a shell read them back the same; a value that cannot be is refused.
  - Not for secrets, because values are shown at C(-vvv) and in differences. The file may hold others' secrets; their lines are
    never shown.
options:
  path:
    description: The file.
    type: path
    required: true
  values:
    description:
      - Value by name. A variable that is there several times is set everywhere, because readers differ about which one counts.
    type: dict
    default: {}
  absent:
    description: Names of variables to remove.
    type: list
    elements: str
    default: []
  create:
    description: Whether to make the file, for its owner alone, when it is not there.
    type: bool
    default: false
  backup:
    description: Whether to keep a copy of the file as it was, beside it and with its mode.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows the variables in question alone, because the file may hold secrets elsewhere.
    support: full
  idempotent:
    description: A variable that has its value, however it is written, is left as it is.
    support: full
requirements:
  - "python >= 3.8 on the host"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Tell the site where the checker is
  comses.spamops.dotenv:
    path: /opt/site/.env
    values:
      LLM_SPAM_CHECK_API_URL: http://203.0.113.7:8001
      LLM_SPAM_CHECK_JETSTREAM_SERVER_ID: 00000000-0000-4000-8000-000000000000
"""

RETURN = r"""
names:
  description: Names of the variables that were set or removed; in check mode, that would be.
  type: list
  elements: str
  returned: success
previous:
  description: What the variables of this task were before, where the file said so plainly.
  type: dict
  returned: success
backup_file:
  description: Path of the copy of the file as it was.
  type: str
  returned: when one was made
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils import dotenv_file, file_change
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused


def main():
    """Read the arguments, edit, replace the file."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "values": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "create": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    path = file_change.real_path(module, parameters["path"])
    raw = file_change.read(module, path)
    if raw is None and not parameters["create"]:
        module.fail_json(
            msg="{} does not exist on this host: name the right file, or set create".format(parameters["path"])
        )
    before = dotenv_file.decoded(raw or b"")
    values = {name: "" if value is None else str(value) for name, value in parameters["values"].items()}
    absent = [name for name in parameters["absent"] if name not in values]
    try:
        after = dotenv_file.without(dotenv_file.with_values(before, values), absent)
        names = sorted(name for name in list(values) + absent if _lines(before, name) != _lines(after, name))
        previous = {name: dotenv_file.value_of(before, name) for name in list(values) + absent}
    except Refused as refused:
        module.fail_json(msg="{} was left as it is: {}".format(parameters["path"], refused))
    new = dotenv_file.encoded(after)
    changed = raw is None or new != raw
    facts = {"names": names, "previous": previous}
    if changed and not module.check_mode:
        backup = file_change.replace(module, path, new, existed=raw is not None)
        if backup:
            facts["backup_file"] = backup
    shown = ["".join(line for name in names for line in _lines(text, name)) for text in (before, after)]
    module.exit_json(
        changed=changed,
        diff={"before": shown[0], "after": shown[1], "before_header": str(path), "after_header": str(path)},
        **facts,
    )


def _lines(text, name):
    """The lines of one variable."""
    return [
        text[setting.start : setting.end].rstrip("\r\n") + "\n"
        for setting in dotenv_file.settings_of(text)
        if setting.name == name
    ]


if __name__ == "__main__":
    main()
