#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: django_allowed_hosts
short_description: Keep addresses in a Django site's allowed hosts
version_added: 0.1.0
description:
  - Puts host names or addresses into the list that Django compares the C(Host) header with, and takes out those that were put
    there before and are no longer wanted. What others put there stays, byte for byte, with every comment.
  - The list is found by the file's syntax tree; the file is never run. A list that this file does not show with certainty (a
    call such as C(env.list(...)), a value under a condition, a list that is changed in place) is refused with the reason, and
    nothing is changed.
  - >-
    What is ours is written down in a comment above the statement (or above the variable): C(# spamops added) with a colon and the
    entries.
  - The new file is compiled before it replaces the old one in one step; owner and mode are kept. It runs on the site's host and
    needs nothing there but Python.
  - Django reads its settings when it starts. Reload the site afterwards.
options:
  path:
    description: The file. In mode V(overlay) it is made when it is not there.
    type: path
    required: true
  mode:
    description:
      - V(settings) edits a Python settings file.
      - V(overlay) keeps a settings module of its own, which extends the module O(extends) and is to be named in
        C(DJANGO_SETTINGS_MODULE). The site's own files are left alone.
      - V(env) edits a variable in a C(.env) file, for sites that read their allowed hosts from the environment.
    type: str
    choices: [settings, overlay, env]
    default: settings
  hosts:
    description:
      - Names or addresses, without scheme, port and path. V(.example.org) stands for a domain with its subdomains, an IPv6
        address is written in brackets.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) puts O(hosts) into the list and takes out what was ours and is not among them.
      - V(absent) takes O(hosts) out, whoever put them there; without O(hosts), everything that is ours.
      - V(exact) makes the list consist of O(hosts) alone.
    type: str
    choices: [present, absent, exact]
    default: present
  extends:
    description: Dotted name of the settings module that the overlay extends. Needed in mode V(overlay).
    type: str
  variable:
    description: Name of the variable, in the settings or in the C(.env) file.
    type: str
    default: ALLOWED_HOSTS
  separator:
    description: What stands between the names in the variable of a C(.env) file.
    type: str
    default: ","
  owner:
    description: Word in the comment that marks what is ours. Two tasks with two words keep out of each other's way.
    type: str
    default: spamops
  allow_wildcard:
    description: Whether V(*), which lets every host in, may be among O(hosts).
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
    description: Shows the lines in question alone, because settings may hold secrets elsewhere.
    support: full
  idempotent:
    description: A list that is as wanted is left as it is.
    support: full
requirements:
  - "python >= 3.8 on the host"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Let the checker's server in, and no former address of it
  comses.spamops.django_allowed_hosts:
    path: /opt/site/core/settings/production.py
    hosts: [203.0.113.7]
    backup: true

- name: The same in a settings module of one's own
  comses.spamops.django_allowed_hosts:
    mode: overlay
    path: /opt/site/overlay/spamops_settings.py
    extends: core.settings.production
    hosts: [203.0.113.7, "[2001:db8::7]"]

- name: Take out what is ours
  comses.spamops.django_allowed_hosts:
    path: /opt/site/core/settings/production.py
    state: absent
"""

RETURN = r"""
hosts_before:
  description: Entries that were written out before.
  type: list
  elements: str
  returned: success
hosts:
  description: Entries that are written out now; in check mode, that would be.
  type: list
  elements: str
  returned: success
ours:
  description: Which of them this module put there.
  type: list
  elements: str
  returned: success
existed:
  description: Whether the file was there before.
  type: bool
  returned: success
backup_file:
  description: Path of the copy of the file as it was.
  type: str
  returned: when one was made
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils import allowed_hosts, dotenv_file, file_change
from ansible_collections.comses.spamops.plugins.module_utils.host_names import Refused, checked_hosts


def main():
    """Read the arguments, edit, replace the file."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "choices": ["settings", "overlay", "env"], "default": "settings"},
            "hosts": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent", "exact"], "default": "present"},
            "extends": {"type": "str"},
            "variable": {"type": "str", "default": "ALLOWED_HOSTS"},
            "separator": {"type": "str", "default": ","},
            "owner": {"type": "str", "default": "spamops"},
            "allow_wildcard": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
        },
        required_if=[("mode", "overlay", ["extends"])],
        supports_check_mode=True,
    )
    parameters = module.params
    path = file_change.real_path(module, parameters["path"])
    raw = file_change.read(module, path)
    try:
        _check_words(parameters)
        hosts = checked_hosts(parameters["hosts"], parameters["allow_wildcard"] or parameters["state"] == "absent")
        if parameters["state"] == "exact" and not hosts:
            raise Refused("state=exact without hosts would shut everybody out: name at least one")
        edit = {"settings": _settings, "overlay": _overlay, "env": _env}[parameters["mode"]]
        result, new = edit(raw, hosts, parameters)
    except Refused as refused:
        module.fail_json(msg="{} was left as it is: {}".format(parameters["path"], refused))
    facts = {
        "hosts_before": result.before,
        "hosts": result.after,
        "ours": result.owned_after,
        "existed": raw is not None,
    }
    changed = new != raw
    if changed and not module.check_mode:
        # A new overlay: the application, which need not run as root, has to import it. It holds no secret.
        backup = file_change.replace(module, path, new, existed=raw is not None, new_mode=0o644)
        if backup:
            facts["backup_file"] = backup
    for warning in result.warnings:
        module.warn(warning)
    diff = {
        "before": result.statement_before,
        "after": result.statement_after,
        "before_header": str(path),
        "after_header": str(path),
    }
    module.exit_json(changed=changed, diff=diff, **facts)


def _check_words(parameters):
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", parameters["variable"]):
        raise Refused("{!r} is no name of a variable".format(parameters["variable"]))
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", parameters["owner"]):
        raise Refused("owner {!r} must be one plain word".format(parameters["owner"]))
    extends = parameters["extends"]
    if extends and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", extends):
        raise Refused(f"extends {extends!r} is no dotted name of a module")
    if not parameters["separator"]:
        raise Refused("separator is empty")


def _settings(raw, hosts, parameters):
    if raw is None:
        raise Refused("there is no such file on this host")
    text, encoding, mark = allowed_hosts.decoded(raw)
    result = allowed_hosts.edit_settings(text, parameters["variable"], hosts, parameters["state"], parameters["owner"])
    return result, mark + result.text.encode(encoding)


def _overlay(raw, hosts, parameters):
    text = None if raw is None else allowed_hosts.decoded(raw)[0]
    result = allowed_hosts.edit_overlay(text, parameters["variable"], hosts, parameters["state"], parameters["extends"])
    return result, result.text.encode("utf-8")


def _env(raw, hosts, parameters):
    if raw is None:
        raise Refused("there is no such file on this host")
    return allowed_hosts.edit_env(
        dotenv_file.decoded(raw),
        parameters["variable"],
        hosts,
        parameters["state"],
        parameters["owner"],
        parameters["separator"],
    )


if __name__ == "__main__":
    main()
