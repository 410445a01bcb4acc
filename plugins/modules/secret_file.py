#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_file
short_description: Keep a secret in a file, written in place
version_added: 0.1.0
description:
  - Writes a secret into a file B(in place), so that the file stays the same one (the same inode) and a container into which it is
    mounted sees the new secret. Ansible's M(ansible.builtin.copy) replaces the file by renaming, and the container keeps the old one.
  - A secret that is empty, too short, a well-known word or a placeholder is refused.
  - The file is readable by its owner, and at most by its group. No copy of the old secret is kept.
  - Two secrets are compared by their fingerprints, from which a strong secret cannot be found.
options:
  path:
    description: The file. Its folder must be there.
    type: path
    required: true
  content:
    description: The secret; blanks around it are left out. Without it the file is looked at alone.
    type: str
  state:
    description: Whether the file is there. With V(present) and no O(content) nothing is changed.
    type: str
    choices: [present, absent]
    default: present
  least:
    description: Number of characters that the secret must have.
    type: int
    default: 32
  mode:
    description:
      - Mode of the file. With V(keep) a file that is there keeps its own, without what everybody may do; a new one gets V(0600).
    type: str
    choices: ["0600", "0640", "0400", "0440", keep]
    default: "0600"
  file_owner:
    description: Name or number of the user who owns the file. As it is, when not given.
    type: str
  file_group:
    description: Name or number of the group of the file. As it is, when not given.
    type: str
attributes:
  check_mode:
    description: Says what would change, and changes nothing.
    support: full
  diff_mode:
    description: Shows fingerprints and modes, never secrets.
    support: full
  idempotent:
    description: A file with this secret, mode and owner is left as it is.
    support: full
requirements:
  - "python >= 3.8 on the host"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Give the site the key
  comses.spamops.secret_file:
    path: /opt/site/build/secrets/llm_spam_check_api_key
    content: "{{ vault_spamops_api_key }}"
    file_owner: comses
  no_log: true
"""

RETURN = r"""
fingerprint:
  description: Fingerprint of the secret in the file; in check mode, that would be. Empty where there is none.
  type: str
  returned: success
  sample: 3a1f09c2d4e5
previous_fingerprint:
  description: Fingerprint of the secret that was there. Empty where there was none.
  type: str
  returned: success
fault:
  description: Why what was in the file is no usable secret. Empty where it was one.
  type: str
  returned: success
mode_before:
  description: Mode of the file that was there.
  type: str
  returned: success
owner_before:
  description: Number of the user who owned the file that was there. Empty where there was none.
  type: str
  returned: success
group_before:
  description: Number of the group that owned the file that was there. Empty where there was none.
  type: str
  returned: success
"""

import os
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils.file_change import read, real_path
from ansible_collections.comses.spamops.plugins.module_utils.secrets_rules import fault_of, fingerprint


def main():
    """Read the arguments, look, write."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "least": {"type": "int", "default": 32},
            "mode": {"type": "str", "choices": ["0600", "0640", "0400", "0440", "keep"], "default": "0600"},
            "file_owner": {"type": "str"},
            "file_group": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    path = real_path(module, parameters["path"])
    raw = read(module, path)
    before = _about(path, raw)
    mode = parameters["mode"]
    if mode == "keep":
        mode = "0600" if raw is None else f"{int(before['mode'], 8) & 0o770:04o}"
    if parameters["state"] == "absent":
        if raw is not None and not module.check_mode:
            path.unlink()
        _end(module, before, _about(path, None), "", raw is not None)
    content = parameters["content"]
    former_fault = fault_of((raw or b"").decode("utf-8", "replace"), parameters["least"]) or ""
    if content is None:
        _end(module, before, before, former_fault, False)
    fault = fault_of(content, parameters["least"])
    if fault:
        module.fail_json(msg=f"the secret for {parameters['path']} {fault}; nothing was changed")
    wanted = content.strip().encode("ascii")
    # The site strips blanks itself: a file that somebody wrote with a line end holds the same secret.
    same = raw is not None and raw.strip() == wanted
    if not same and not module.check_mode:
        _write(module, path, wanted, int(mode, 8))
    attributes = {
        "path": str(path),
        "mode": mode,
        "owner": parameters["file_owner"],
        "group": parameters["file_group"],
        "secontext": [None, None, None],
        "attributes": None,
    }
    changed = not same
    if raw is not None or not module.check_mode:
        changed = module.set_fs_attributes_if_different(attributes, changed)
    after = {"fingerprint": fingerprint(content), "mode": mode}
    _end(module, before, after, former_fault, changed)


def _about(path, raw):
    if raw is None:
        return {"fingerprint": "", "mode": "", "owner": "", "group": ""}
    found = path.stat()
    return {
        "fingerprint": fingerprint(raw.decode("utf-8", "replace")) if raw.strip() else "",
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "owner": str(found.st_uid),
        "group": str(found.st_gid),
    }


def _end(module, before, after, fault, changed):
    shown = [f"fingerprint {about['fingerprint'] or '-'}, mode {about['mode'] or '-'}\n" for about in (before, after)]
    module.exit_json(
        changed=changed,
        fingerprint=after["fingerprint"],
        previous_fingerprint=before["fingerprint"],
        mode_before=before["mode"],
        owner_before=before["owner"],
        group_before=before["group"],
        fault=fault,
        diff={"before": shown[0], "after": shown[1]},
    )


def _write(module, path, content, mode):
    """In place: one write of the whole, then the rest of a longer old secret is cut off."""
    try:
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, mode)  # before the secret is in it
            os.pwrite(descriptor, content, 0)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        module.fail_json(msg=f"{Path(path)} cannot be written: {error.strerror}")


if __name__ == "__main__":
    main()
