#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_config
short_description: Change the OpenSSH server's configuration without being locked out
version_added: 0.1.0
description:
  - Writes a drop-in of C(sshd_config), a banner, moduli, missing or weak host keys and the ports of C(ssh.socket), all in one go.
  - First it looks whether the whole configuration is valid, whether the drop-in is in force (another file may come first), and
    whether the user as whom Ansible is logged in would be let in again. Where not, it fails and has touched nothing.
  - Then the change takes effect, with a timer on the host that undoes it. A new login, made by the controller with all of
    Ansible's connection variables and without any connection that is open already, stops the timer. While that is tried the
    server listens at its previous ports too, beside the new ones.
  - Without that login the previous configuration is put back, byte for byte, and the task fails and says why. The host does the
    same by itself when the controller is gone, and at its next boot.
  - Needs root on the host, Debian's or Ubuntu's C(ssh.service) or C(ssh.socket), and M(ansible.builtin.ssh) as connection plugin.
options:
  path:
    description: The drop-in.
    type: path
    required: true
  content:
    description: What it holds.
    type: str
    required: true
  banner_path:
    description: File of the banner.
    type: path
  banner:
    description: Text of the banner. Empty for none, and then the file is removed.
    type: str
    default: ''
  moduli_path:
    description: File for the groups of C(/etc/ssh/moduli) that are long enough.
    type: path
  moduli_bits:
    description: Least length of a group, in bits.
    type: int
    default: 3072
  rsa_bits:
    description: An RSA host key shorter than this, in bits, is replaced by one of this length. An Ed25519 key is made where none is.
    type: int
    default: 4096
  prove:
    description: Whether a new login is made from the controller. Without it nothing shows that one is possible.
    type: bool
    default: true
  rollback_seconds:
    description: Seconds until the host puts the previous configuration back, when the controller has not confirmed the new one.
    type: int
    default: 60
  step:
    description: What the collection's action plugin asks for. Leave it.
    type: str
    choices: [begin, finish, confirm, restore]
    default: begin
attributes:
  check_mode:
    description: Checks everything that can be checked beforehand, and says what would change. No login is made.
    support: full
  diff_mode:
    description: Shows the text files; of keys and moduli it says what would be done.
    support: full
  idempotent:
    description: Nothing is done when everything is as it should be.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Harden the server
  comses.spamops.sshd_config:
    path: /etc/ssh/sshd_config.d/00-spamops.conf
    content: "{{ lookup('ansible.builtin.template', 'sshd.conf.j2') }}"
  register: changed

- name: Go on at the new port
  ansible.builtin.set_fact:
    ansible_port: "{{ changed.port }}"
  when: changed.port | default(0) != 0
"""

RETURN = r"""
port:
  description: Port at which the controller has proven the login, when it is another one than before. 0 otherwise.
  type: int
  returned: success
changes:
  description: What was done, or would be, in words.
  type: list
  elements: str
  returned: success
journal:
  description: The server's last words on the login that failed.
  type: list
  elements: str
  returned: on failure after the change took effect
"""

import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils import sshd, sshd_pending
from ansible_collections.comses.spamops.plugins.module_utils.sshd_pending import Overtaken
from ansible_collections.comses.spamops.plugins.module_utils.sshd_plan import (
    HOST_KEYS,
    SOCKET_DROP_IN,
    Plan,
    Refused,
    listen_everywhere,
    numbers,
    permissions,
    read,
)

LISTEN_SECONDS = 10.0


def main() -> None:
    """One step."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "banner_path": {"type": "path"},
            "banner": {"type": "str", "default": ""},
            "moduli_path": {"type": "path"},
            "moduli_bits": {"type": "int", "default": 3072},
            "rsa_bits": {"type": "int", "default": 4096},
            "prove": {"type": "bool", "default": True},
            "rollback_seconds": {"type": "int", "default": 60},
            "step": {"type": "str", "default": "begin", "choices": ["begin", "finish", "confirm", "restore"]},
        },
        supports_check_mode=True,
    )
    steps = {"begin": _begin, "finish": _finish, "confirm": _confirm, "restore": _restore}
    try:
        steps[module.params["step"]](module)
    except Refused as refusal:
        module.fail_json(msg=f"Nothing was touched: {refusal}.")


def _begin(module):
    if not module.check_mode:
        # Of a run that was cut off. Its change is as unproven as it will be when the timer ends.
        trouble = sshd_pending.settle(module)
        if trouble:
            raise Refused(f"an earlier change cannot be put back from {sshd_pending.STATE}: {trouble}")
    plan = Plan(module)
    facts = {"changes": plan.changes(), "diff": plan.diff(), "port": 0}
    if not plan.touched():
        module.exit_json(changed=False, **facts)
    if module.check_mode:
        module.exit_json(changed=True, **facts)
    prove = module.params["prove"]
    if prove and not plan.running:
        raise Refused(
            "the server runs neither as ssh.service nor by ssh.socket, so it cannot be told to take the change up"
        )
    keys = _make_keys(plan)
    sshd_pending.keep(plan.touched(), plan.activation() if plan.running else ":", at_boot=prove)
    try:
        if prove:
            sshd_pending.arm(module, module.params["rollback_seconds"])
        _install_keys(keys)
        _write(plan, keep_old_ports=prove)
        _activate(plan, plan.ports | (plan.ports_before if prove else set()))
        if not prove:
            sshd_pending.confirm(module)
    except (OSError, Overtaken) as error:
        trouble = sshd_pending.restore(module)
        module.fail_json(
            msg=f"The change failed and the previous configuration is back{': ' + trouble if trouble else ''}: {error}"
        )
    connected = plan.login.local_port if plan.login else 0
    moving = bool(connected) and connected not in plan.ports
    module.exit_json(
        changed=True,
        try_ports=sorted(plan.ports) if moving else [0],
        old_ports=plan.old_ports(),
        host_keys=[text.strip() for path in HOST_KEYS.values() for text in [read(path.with_suffix(".pub"))] if text],
        **facts,
    )


def _finish(module):
    """Give up the previous ports, now that a new one is proven."""
    plan = Plan(module)
    try:
        _write(plan, keep_old_ports=False)
        _activate(plan, plan.ports)
    except OSError as error:
        trouble = sshd_pending.restore(module)
        module.fail_json(
            msg=f"The change failed and the previous configuration is back{': ' + trouble if trouble else ''}: {error}"
        )
    module.exit_json(changed=True)


def _confirm(module):
    try:
        sshd_pending.confirm(module)
    except Overtaken as error:
        module.fail_json(msg=f"Nothing is changed: {error}.")
    module.exit_json(changed=True)


def _restore(module):
    journal = module.run_command(
        ["journalctl", "--no-pager", "-o", "cat", "-n", "8", "-t", "sshd", "-t", "sshd-session"]
    )[1]
    trouble = sshd_pending.restore(module)
    module.exit_json(
        changed=True, trouble=trouble, listening=sorted(sshd.ports_listening()), journal=journal.splitlines()
    )


def _write(plan, keep_old_ports):
    extra = plan.old_ports() if keep_old_ports else []
    for path, (text, mode) in plan.wanted.items():
        new = text
        if path == plan.drop_in and extra:
            new = "".join(f"Port {port}\n" for port in extra) + text
        if path == SOCKET_DROP_IN:
            new = text + listen_everywhere(extra)
        if new is None:
            path.unlink(missing_ok=True)
        elif read(path) != new or permissions(path) != mode:
            _replace(path, new, mode)


def _activate(plan, ports):
    """Raises OSError when the server does not take the change up."""
    if not plan.running:
        return
    plan.module.run_command(["systemctl", "daemon-reload"])
    code, out, err = plan.module.run_command(["/bin/sh", "-c", plan.activation()])
    if code != 0:
        raise OSError(f"the server does not take it up: {(err or out).strip()}")
    until = time.monotonic() + LISTEN_SECONDS
    while not ports <= sshd.ports_listening():
        if time.monotonic() > until:
            missing = numbers(ports - sshd.ports_listening())
            raise OSError(f"the server does not listen at {missing} (is the port taken by something else?)")
        time.sleep(0.05)


def _make_keys(plan):
    """New host keys, made before anything is changed as an RSA key takes its time."""
    folder = sshd_pending.STATE / "keys"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    made = {}
    for kind in plan.weak_keys:
        made[kind] = folder / HOST_KEYS[kind].name
        bits = ["-b", str(plan.module.params["rsa_bits"])] if kind == "rsa" else []
        argv = ["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "", "-f", str(made[kind])]
        plan.module.run_command(argv, check_rc=True)
    return made


def _install_keys(made):
    for kind, path in made.items():
        target = HOST_KEYS[kind]
        _replace(target, path.read_text(), 0o600)
        _replace(target.with_suffix(".pub"), path.with_suffix(".pub").read_text(), 0o644)
    shutil.rmtree(sshd_pending.STATE / "keys", ignore_errors=True)


def _replace(path, text, mode):
    """Write a file so that it is whole at every moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


if __name__ == "__main__":
    main()
