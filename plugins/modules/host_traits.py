#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: host_traits
short_description: Tell what a Debian-like host has that hardening must take into account
version_added: 0.1.0
description:
  - Looks, in one round trip, at which packages are installed, and at whether the host is a container, has an NVIDIA GPU, has
    AppArmor, forwards packets for containers or virtual machines, and whether a reboot is due.
  - Needs nothing on the host but Python and C(dpkg-query); M(ansible.builtin.package_facts) needs C(python3-apt), which a bare
    host lacks.
options: {}
attributes:
  check_mode:
    description: Nothing is changed anyway.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  facts:
    description: Sets facts.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Look at the host
  comses.spamops.host_traits:

- name: Tell that a reboot is due
  ansible.builtin.debug:
    msg: "{{ ansible_facts['spamops_host'].reboot_reasons }}"
  when: ansible_facts['spamops_host'].reboot_due
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: complex
  contains:
    packages:
      description: Installed packages, name to a list of versions, in the form of M(ansible.builtin.package_facts).
      type: dict
      returned: always
    spamops_host:
      description: What was found.
      type: complex
      returned: always
      contains:
        apparmor:
          description: Whether the running kernel has AppArmor turned on.
          type: bool
          returned: always
        container:
          description: Whether the host shares its kernel with another one.
          type: bool
          returned: always
        forwards:
          description: Whether an engine of containers or virtual machines is there, which needs packets to be forwarded.
          type: bool
          returned: always
        nvidia_gpu:
          description: Whether an NVIDIA GPU (PCI vendor 10de, class 03) or its driver is there.
          type: bool
          returned: always
        reboot_due:
          description: Whether an update waits for a reboot.
          type: bool
          returned: always
        reboot_reasons:
          description: Why, in words; packages, or a newer kernel than the running one.
          type: list
          elements: str
          returned: always
"""

import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

NVIDIA = "0x10de"
ENGINES = ("containerd", "dockerd", "incusd", "k3s", "kubelet", "libvirtd", "lxd", "podman", "virtqemud")
"""Programs that need packets to be forwarded to what they run."""
FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/snap/bin")


def main() -> None:
    """Look and tell."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    packages = _packages(module)
    container = _container()
    reasons = [] if container else _reboot_reasons(Path("/"), os.uname().release)
    traits = {
        "apparmor": _text(Path("/sys/module/apparmor/parameters/enabled")) == "Y",
        "container": container,
        "forwards": any(Path(folder, engine).exists() for folder in FOLDERS for engine in ENGINES),
        "nvidia_gpu": _nvidia_gpu(Path("/")),
        "reboot_due": bool(reasons),
        "reboot_reasons": reasons,
    }
    module.exit_json(changed=False, ansible_facts={"packages": packages, "spamops_host": traits})


def _text(path: Path) -> str:
    """What is in a file, without white space around it; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _packages(module: AnsibleModule) -> dict[str, list[dict[str, str]]]:
    """The installed packages, in the form of ansible.builtin.package_facts."""
    form = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n"
    _code, out, _err = module.run_command(["dpkg-query", "--show", "--showformat", form], check_rc=True)
    found: dict[str, list[dict[str, str]]] = {}
    for line in out.splitlines():
        status, name, version, arch = line.split("\t")
        if status == "installed":
            found.setdefault(name, []).append({"name": name, "version": version, "arch": arch, "source": "apt"})
    return found


def _container() -> bool:
    """As systemd has found when it booted; otherwise by what engines leave behind."""
    if Path("/run/systemd/container").exists() or Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return True
    return "container=" in _text(Path("/proc/1/environ")).replace("\0", "\n")


def _nvidia_gpu(root: Path) -> bool:
    """A display controller (PCI class 03) of NVIDIA, or a driver that has found one."""
    if (root / "proc/driver/nvidia/version").exists():
        return True
    return any(
        _text(device / "vendor") == NVIDIA and _text(device / "class").startswith("0x03")
        for device in (root / "sys/bus/pci/devices").glob("*")
    )


def _numbers(release: str) -> list[Any]:
    """A kernel's release, such that later ones sort last."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d.\-+~]+", release)]


def _flavour(release: str) -> str:
    """What is left of a kernel's release without its numbers: amd64, cloud-amd64, generic."""
    return re.sub(r"^[\d.\-+~]+", "", release)


def _reboot_reasons(root: Path, running: str) -> list[str]:
    """Why a reboot is due: what packages have asked for, and a newer kernel of the running one's kind."""
    reasons = []
    if (root / "run/reboot-required").exists():
        asked = sorted(set(_text(root / "run/reboot-required.pkgs").split()))
        reasons.append(f"packages ask for it: {', '.join(asked)}" if asked else "a package asks for it")
    installed = [path.name.partition("-")[2] for path in (root / "boot").glob("vmlinuz-*")]
    same = [release for release in installed if _flavour(release) == _flavour(running)]
    newest = max(same, key=_numbers, default=running)
    if _numbers(newest) > _numbers(running):
        reasons.append(f"kernel {newest} is installed and {running} is running")
    return reasons


if __name__ == "__main__":
    main()
