#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_info
short_description: Tell what the OpenSSH server of a host knows
version_added: 0.1.0
description:
  - Returns the version of OpenSSH, the algorithms and the settings that it knows, so that a configuration can be made for it.
  - Needs root on the host.
options: {}
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
- name: Ask the server what it knows
  comses.spamops.sshd_info:
  register: sshd
"""

RETURN = r"""
installed:
  description: Whether there is an OpenSSH server.
  type: bool
  returned: always
version:
  description: Version as V(9.2). Empty when it is not installed.
  type: str
  returned: always
key_exchanges:
  description: Key exchanges that it knows, whether it offers them or not.
  type: list
  elements: str
  returned: always
ciphers:
  description: Ciphers that it knows.
  type: list
  elements: str
  returned: always
macs:
  description: Message authentication codes that it knows.
  type: list
  elements: str
  returned: always
signatures:
  description: Signature algorithms of keys and certificates that it knows.
  type: list
  elements: str
  returned: always
keywords:
  description: Settings that it knows, in lower case; of those without a default only V(debianbanner) is looked for.
  type: list
  elements: str
  returned: always
user:
  description: User as whom Ansible is logged in by SSH. Empty over another connection.
  type: str
  returned: always
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils import sshd


def main() -> None:
    """Ask, return."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    installed = Path(sshd.SSHD).exists()
    facts = {"installed": installed, "version": sshd.server_version(module) if installed else ""}
    kinds = {"key_exchanges": "kex", "ciphers": "cipher", "macs": "mac", "signatures": "key-sig"}
    for name, kind in kinds.items():
        facts[name] = sshd.known(module, kind) if installed else []
    try:
        facts["keywords"] = sorted(sshd.effective(module, Path("/dev/null"))) if installed else []
    except sshd.SshdError as error:
        module.fail_json(msg=f"sshd -T does not answer (are there host keys in /etc/ssh?): {error}")
    # Debian's own setting, which sshd -T does not tell of.
    if installed and module.run_command([sshd.SSHD, "-t", "-f", "/dev/null", "-o", "DebianBanner=no"])[0] == 0:
        facts["keywords"].append("debianbanner")
    login = sshd.current_login()
    module.exit_json(changed=False, user=login.user if login else "", **facts)


if __name__ == "__main__":
    main()
