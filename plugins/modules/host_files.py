#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_files
short_description: Bring a set of small files on a host to what they should be, in one round trip
version_added: 0.1.0
description:
  - Writes files whole, or mends single lines of files that a package owns, or removes files, and says which ones it changed.
  - What would be one task (or one turn of a loop) a file is one round trip for all of them, so a role with twenty drop-ins
    takes half a second instead of ten.
  - Every new text is tried with its O(files[].validate) before the first file is written; each file is replaced atomically.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. A folder that is missing is made, with mode 0755.
        type: path
        required: true
      content:
        description: The whole text of the file.
        type: str
      lines:
        description:
          - Lines to be in the file, for files that are not written whole.
          - An empty or missing file counts as one without lines.
        type: list
        elements: dict
        suboptions:
          regexp:
            description: Python regular expression, searched in each line. The first line that it matches is replaced.
            type: str
            required: true
          line:
            description: What that line becomes. It is appended when no line matches, unless O(files[].lines[].replace_only).
            type: str
            required: true
          replace_only:
            description: Leave the file as it is when no line matches.
            type: bool
            default: false
      state:
        description: Whether the file is there.
        type: str
        choices: [present, absent]
        default: present
      if_exists:
        description: Touch the file only where it is there already.
        type: bool
        default: false
      mode:
        description: Permissions, as an octal string. Default 0644 for a file with O(files[].content); otherwise as it is.
        type: str
      owner:
        description: Owner. Default root for a file with O(files[].content); otherwise as it is.
        type: str
      group:
        description: Group. Default root for a file with O(files[].content); otherwise as it is.
        type: str
      validate:
        description: Command that reads the new text from the path put for C(%s) and ends with 0 when it is sound.
        type: str
  pending:
    description:
      - File on the host that holds the paths of changed files, one a line, until somebody removes it. As long as it is there, its
        paths count as changed in every run, so that what a change needs is done by the next run when this one is cut off before.
      - It is written before the first file is. Have it removed by the last handler, when all changes have taken effect.
    type: path
attributes:
  check_mode:
    description: Says what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows each file.
    support: full
  idempotent:
    description: A file that is as asked is not touched.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Write the drop-ins
  comses.spamops.host_files:
    files:
      - path: /etc/sysctl.d/90-site.conf
        content: "{{ lookup('ansible.builtin.template', 'sysctl.conf.j2') }}"
      - path: /etc/sudoers.d/site
        content: "Defaults use_pty\n"
        mode: "0440"
        validate: /usr/sbin/visudo -cf %s
      - path: /etc/login.defs
        lines:
          - { regexp: '^UMASK\s', line: "UMASK 027" }
    # The last handler removes it.
    pending: /var/lib/site/pending
  register: drop_ins
  notify: Have the drop-ins take effect
"""

RETURN = r"""
changed_paths:
  description:
    - The files that were changed (or would be, in check mode), for handlers that concern one of them.
    - Those that an earlier run has left in O(pending) come first.
  type: list
  elements: str
  returned: always
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

LINE_SPEC = {
    "regexp": {"type": "str", "required": True},
    "line": {"type": "str", "required": True},
    "replace_only": {"type": "bool", "default": False},
}
FILE_SPEC = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "lines": {"type": "list", "elements": "dict", "options": LINE_SPEC},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "if_exists": {"type": "bool", "default": False},
    "mode": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "validate": {"type": "str"},
}


def main() -> None:
    """Work out every new text, try them, then write."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": FILE_SPEC,
                "mutually_exclusive": [("content", "lines")],
            },
            "pending": {"type": "path"},
        },
        supports_check_mode=True,
    )
    wanted = [entry for entry in module.params["files"] if not entry["if_exists"] or Path(entry["path"]).exists()]
    texts = [(entry, *_before_and_after(module, entry)) for entry in wanted]
    for entry, before, after in texts:
        if after is not None and after != before and entry["validate"]:
            _try(module, entry, after)
    left = _left(module)
    _remember(module, left, [entry["path"] for entry, before, after in texts if after != before])
    changed_paths, diffs = [], []
    for entry, before, after in texts:
        attributes_diff: dict[str, Any] = {"before": {}, "after": {}}
        if _settle(module, entry, before, after, attributes_diff):
            changed_paths.append(entry["path"])
            diffs.append(
                {
                    "before": before or "",
                    "after": after or "",
                    "before_header": entry["path"],
                    "after_header": entry["path"],
                }
            )
            changes = {key: value for key, value in attributes_diff["after"].items() if key != "path"}
            if changes:
                old = {key: attributes_diff["before"].get(key) for key in changes}
                header = f"{entry['path']} (attributes)"
                diffs.append({"before": old, "after": changes, "before_header": header, "after_header": header})
    _remember(module, left, changed_paths)
    due = list(dict.fromkeys(left + changed_paths))
    module.exit_json(changed=bool(due), changed_paths=due, diff=diffs)


def _left(module: AnsibleModule) -> list[str]:
    """The paths whose changes an earlier run has not seen take effect."""
    pending = module.params["pending"]
    return Path(pending).read_text(encoding="utf-8").splitlines() if pending and Path(pending).exists() else []


def _remember(module: AnsibleModule, left: list[str], paths: list[str]) -> None:
    """Add paths to those that were left."""
    if module.params["pending"] and not module.check_mode and set(paths) - set(left):
        _write(module, module.params["pending"], "".join(f"{path}\n" for path in dict.fromkeys(left + paths)))


def _before_and_after(module: AnsibleModule, entry: dict[str, Any]) -> tuple[str | None, str | None]:
    """The text that is there and the one that should be; None for no file."""
    path = Path(entry["path"])
    if path.is_dir():
        module.fail_json(msg=f"{path} is a folder, not a file")
    before = None
    if path.is_symlink() or path.exists():
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                before = file.read()
        except FileNotFoundError:
            before = ""  # a link that leads nowhere
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be read: {error}")
    if entry["state"] == "absent":
        return before, None
    if entry["content"] is not None:
        return before, entry["content"]
    if entry["lines"] is not None:
        return before, _with_lines(before or "", entry["lines"])
    if before is None:
        module.fail_json(msg=f"{path} is not there, and neither content nor lines say what should be in it")
    return before, before


def _with_lines(text: str, lines: list[dict[str, Any]]) -> str:
    """The text with each line in it."""
    have = text.splitlines()
    for entry in lines:
        found = next((number for number, line in enumerate(have) if re.search(entry["regexp"], line)), None)
        if found is not None:
            have[found] = entry["line"]
        elif not entry["replace_only"]:
            have.append(entry["line"])
    new = "".join(f"{line}\n" for line in have)
    return text if new.rstrip("\n") == text.rstrip("\n") else new


def _temporary(module: AnsibleModule, text: str) -> str:
    """A file with this text that nobody else can read."""
    descriptor, name = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)
    return name


def _write(module: AnsibleModule, path: str, text: str) -> None:
    """Put a file with this text in its place, in one step."""
    folder = Path(path).parent
    if not folder.is_dir():
        folder.mkdir(mode=0o755, parents=True)
    module.atomic_move(_temporary(module, text), path)


def _try(module: AnsibleModule, entry: dict[str, Any], text: str) -> None:
    """Fail, with nothing written, when the validator refuses the text or is not there (other than in check mode)."""
    command = entry["validate"]
    if "%s" not in command:
        module.fail_json(msg=f"validate of {entry['path']} has no %s for the file: {command}")
    program = command.split()[0]
    if not Path(program).exists():
        if module.check_mode:
            return  # the package with the validator comes first; on a bare host it is not there yet
        module.fail_json(msg=f"{program}, which should check {entry['path']}, is not there")
    name = _temporary(module, text)
    code, out, err = module.run_command(command.replace("%s", name))
    Path(name).unlink()
    if code != 0:
        module.fail_json(msg=f"{entry['path']} would be faulty: {(err or out).strip()}", rc=code)


def _settle(
    module: AnsibleModule, entry: dict[str, Any], before: str | None, after: str | None, diff: dict[str, Any]
) -> bool:
    """Write or remove one file and see to its owner and mode. True when something changed."""
    path = entry["path"]
    if after is None:
        if before is None:
            return False
        if not module.check_mode:
            Path(path).unlink()
        return True
    changed = after != before
    if changed and not module.check_mode:
        _write(module, path, after)
    if before is None and module.check_mode:
        return True
    whole = entry["content"] is not None
    arguments = module.load_file_common_arguments(
        {
            "path": path,
            "mode": entry["mode"] or ("0644" if whole else None),
            "owner": entry["owner"] or ("root" if whole else None),
            "group": entry["group"] or ("root" if whole else None),
        }
    )
    return bool(module.set_fs_attributes_if_different(arguments, changed, diff=diff))


if __name__ == "__main__":
    main()
