# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What is to be written for the OpenSSH server, and whether it may be. Runs on the host; changes nothing."""

from __future__ import annotations

import re
import shutil
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from ansible_collections.comses.spamops.plugins.module_utils import sshd

SOCKET_DROP_IN = Path("/etc/systemd/system/ssh.socket.d/spamops.conf")
MODULI = Path("/etc/ssh/moduli")
HOST_KEYS = {"ed25519": Path("/etc/ssh/ssh_host_ed25519_key"), "rsa": Path("/etc/ssh/ssh_host_rsa_key")}


class Refused(Exception):
    """Nothing was touched; the message says why."""


class Plan:
    """What is to be written, and what for."""

    def __init__(self, module):
        self.module = module
        self.units = sshd.units(module)
        self.login = sshd.current_login()
        self.drop_in = Path(module.params["path"])
        self.wanted = self._wanted_files()
        self.settings = self._settings_in_force()
        self.ports = sshd.listen_ports(self.settings)
        self.ports_before = self._ports_before()
        self._require_login()
        self.by_socket = sshd.socket_active(self.units)
        self.running = self.by_socket or self.units.get("ssh.service", {}).get("ActiveState") == "active"
        if self.by_socket and (SOCKET_DROP_IN.exists() or sshd.socket_ports(self.units) != self.ports):
            self.wanted[SOCKET_DROP_IN] = (_socket_text(self.settings["listenaddress"]), 0o644)
        self.weak_keys = {kind: why for kind in HOST_KEYS for why in [self._weakness(kind)] if why}

    def changed_files(self):
        """The files that differ from what they should be."""
        return {
            path: new
            for path, new in self.wanted.items()
            if read(path) != new[0] or permissions(path) not in (None, new[1])
        }

    def touched(self):
        """Every path whose content will be another one."""
        keys = [HOST_KEYS[kind] for kind in self.weak_keys]
        return [*self.changed_files(), *keys, *(key.with_suffix(".pub") for key in keys)]

    def old_ports(self):
        """Ports that are to be given up; they stay until the new ones are proven."""
        return sorted(self.ports_before - self.ports)

    def changes(self):
        """For the operator."""
        said = [f"{'write' if new[0] is not None else 'remove'} {path}" for path, new in self.changed_files().items()]
        said += [f"make {HOST_KEYS[kind]}: {why}" for kind, why in self.weak_keys.items()]
        if self.ports != self.ports_before:
            said.append(f"ports: {numbers(self.ports_before)} -> {numbers(self.ports)}")
        return said

    def diff(self):
        """For --diff."""
        shown = []
        for path, new in self.changed_files().items():
            before, after = read(path), new[0]
            if path.name.startswith("moduli"):
                before, after = (f"{len((text or '').splitlines())} lines\n" for text in (before, after))
            shown.append(
                {"before": before or "", "after": after or "", "before_header": str(path), "after_header": str(path)}
            )
        for kind, why in self.weak_keys.items():
            header = str(HOST_KEYS[kind])
            shown.append(
                {"before": f"{why}\n", "after": "a new key\n", "before_header": header, "after_header": header}
            )
        return shown

    def activation(self):
        """The shell command that makes the server take up what is on the disk."""
        # Restarted, not told to reload: a reload returns before the old configuration is gone, and the proof might meet that one.
        # Sessions outlive the server either way (KillMode=process).
        if not self.by_socket:
            return "systemctl restart ssh.service"
        if SOCKET_DROP_IN in self.wanted:
            # The socket cannot be opened anew while the server holds it.
            return "systemctl stop ssh.service; systemctl restart ssh.socket"
        return "systemctl try-restart ssh.service"

    def _wanted_files(self):
        parameters = self.module.params
        files = {self.drop_in: (parameters["content"], 0o600)}
        if parameters["banner_path"]:
            files[Path(parameters["banner_path"])] = (parameters["banner"] or None, 0o644)
        if parameters["moduli_path"] and MODULI.exists():
            files[Path(parameters["moduli_path"])] = (_long_moduli(read(MODULI), parameters["moduli_bits"]), 0o644)
        return files

    def _settings_in_force(self):
        content = self.module.params["content"]
        with tempfile.TemporaryDirectory(prefix="spamops-ssh-") as folder:
            main, alone = _rehearsal(Path(folder), self.drop_in, content)
            try:
                settings = sshd.effective(self.module, main)
                wanted = sshd.effective(self.module, alone)
                self.personal = sshd.effective(self.module, main, self.login.specification()) if self.login else None
            except sshd.SshdError as error:
                told = str(error).replace(folder, "/etc/ssh")
                raise Refused(f"the configuration would not be valid: {told}") from error
        self._require_in_force(settings, wanted)
        return settings

    def _require_in_force(self, settings, wanted):
        keywords = [line.split()[0].lower() for line in _global_part(self.module.params["content"])]
        lost = []
        for keyword in dict.fromkeys(keywords):
            if keyword in wanted and sorted(settings.get(keyword, [])) != sorted(wanted[keyword]):
                where = ", ".join(_places(keyword, self.drop_in)) or "an earlier file"
                lost.append(f"{keyword} would be '{' '.join(settings.get(keyword, []))}' because of {where}")
        if not lost:
            return
        if not _included(self.drop_in):
            raise Refused(
                f"{sshd.MAIN_CONFIG} does not include the drop-ins: make 'Include {sshd.DROP_INS}/*.conf' its first line"
            )
        raise Refused(
            f"{self.drop_in} would not be in force: {'; '.join(lost)}. Remove the setting there, or set the role's variable"
        )

    def _require_login(self):
        if self.login is None:
            return
        reasons = sshd.refusals(self.personal, self.login)
        if reasons:
            raise Refused(f"{self.login.user} could not log in again: {'; '.join(reasons)}")

    def _ports_before(self):
        if sshd.socket_active(self.units):
            return sshd.socket_ports(self.units)
        try:
            return sshd.listen_ports(sshd.effective(self.module, sshd.MAIN_CONFIG))
        except sshd.SshdError as error:
            raise Refused(f"the present configuration of the server is not valid, mend it first: {error}") from error

    def _weakness(self, kind):
        path = HOST_KEYS[kind]
        if not path.exists():
            return "there is none"
        code, out, err = self.module.run_command(["ssh-keygen", "-l", "-f", str(path)])
        if code != 0:
            raise Refused(f"the host key {path} cannot be read: {err.strip()}")
        least = self.module.params["rsa_bits"] if kind == "rsa" else 256
        return f"it has {out.split()[0]} bits" if int(out.split()[0]) < least else ""


def _rehearsal(folder, drop_in, content):
    """Copies of the main file and its drop-ins with the new one among them; and the new one alone."""
    drop_ins = folder / "sshd_config.d"
    drop_ins.mkdir()
    for path in sshd.DROP_INS.glob("*.conf") if sshd.DROP_INS.is_dir() else []:
        shutil.copyfile(path, drop_ins / path.name)
    alone = drop_ins / drop_in.name
    alone.write_text(content)
    main = folder / "sshd_config"
    lines = read(sshd.MAIN_CONFIG).splitlines() if sshd.MAIN_CONFIG.exists() else []
    main.write_text("\n".join(_redirected(line, drop_ins) for line in lines) + "\n")
    return main, alone


def _redirected(line, drop_ins):
    if not re.match(r"\s*Include\b", line, re.IGNORECASE):
        return line
    return re.sub(r"(?<![\w/])(/etc/ssh/)?sshd_config\.d/", f"{drop_ins}/", line)


def _included(drop_in):
    for line in (read(sshd.MAIN_CONFIG) or "").splitlines():
        words = line.replace('"', " ").replace("=", " ").split()
        if words and words[0].lower() == "include":
            patterns = [word if word.startswith("/") else f"/etc/ssh/{word}" for word in words[1:]]
            if any(fnmatchcase(str(drop_in), pattern) for pattern in patterns):
                return True
    return False


def _global_part(content):
    lines = []
    for line in content.splitlines():
        text = line.strip()
        if re.match(r"match\b", text, re.IGNORECASE):
            break
        if text and not text.startswith("#"):
            lines.append(text)
    return lines


def _places(keyword, drop_in):
    """Where else a setting is made, as FILE:LINE."""
    others = sorted(path for path in sshd.DROP_INS.glob("*.conf") if path != drop_in) if sshd.DROP_INS.is_dir() else []
    return [
        f"{path}:{number}"
        for path in [*others, sshd.MAIN_CONFIG]
        for number, line in enumerate((read(path) or "").splitlines(), 1)
        if re.match(rf"\s*{re.escape(keyword)}\b", line, re.IGNORECASE)
    ]


def _long_moduli(text, bits):
    """The lines of a moduli file whose groups have at least so many bits. The fifth field is the length less one."""
    kept, groups = [], 0
    for line in text.splitlines(keepends=True):
        fields = line.split()
        if not fields or line.startswith("#"):
            kept.append(line)
        elif len(fields) == 7 and int(fields[4]) + 1 >= bits:
            kept.append(line)
            groups += 1
    if not groups:
        raise Refused(f"{MODULI} holds no group of {bits} bits or more: restore the package's file, or ask for less")
    return "".join(kept)


def _socket_text(addresses):
    """Of `sshd -T`: 0.0.0.0:22 and [::]:22 together are every address, which systemd calls 22."""
    everywhere = {a.rpartition(":")[2] for a in addresses if a.startswith("0.0.0.0:")}
    everywhere &= {a.rpartition(":")[2] for a in addresses if a.startswith("[::]:")}
    streams = [a for a in addresses if not a.startswith(("0.0.0.0:", "[::]:"))]
    streams += [a for a in addresses if a.startswith(("0.0.0.0:", "[::]:")) and a.rpartition(":")[2] not in everywhere]
    head = "# Where the SSH server listens, as sshd_config says. Written by spamops.\n[Socket]\nListenStream=\n"
    return head + listen_everywhere(everywhere) + "".join(f"ListenStream={stream}\n" for stream in streams)


def listen_everywhere(ports):
    """Lines of a socket's unit for these ports at every address."""
    # Ubuntu's unit names both wildcards and says ipv6-only, with which a port alone would be closed to IPv4.
    both = "BindIPv6Only=both\n" if ports else ""
    return both + "".join(f"ListenStream={port}\n" for port in sorted(ports, key=int))


def read(path):
    """The text of a file; None where there is none."""
    return path.read_text() if path.exists() else None


def permissions(path):
    """The permissions of a file; None where there is none."""
    return path.stat().st_mode & 0o7777 if path.exists() else None


def numbers(ports):
    """For the operator."""
    return ", ".join(map(str, sorted(ports)))
