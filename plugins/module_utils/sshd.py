# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the modules ask of OpenSSH's server on a host. Runs on the host, with the Python of any supported system."""

from __future__ import annotations

import base64
import ipaddress
import os
import pwd
import re
import struct
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

SSHD = "/usr/sbin/sshd"
MAIN_CONFIG = Path("/etc/ssh/sshd_config")
DROP_INS = Path("/etc/ssh/sshd_config.d")
PRIVILEGE_SEPARATION = Path("/run/sshd")

Effective = dict  # of lower-case keyword to the list of its values, as `sshd -T` prints them


class Login(NamedTuple):
    """The SSH login through which this module runs."""

    user: str
    address: str
    local_address: str
    local_port: int

    def specification(self) -> str:
        """For `sshd -T -C`."""
        return f"user={self.user},host={self.address},addr={self.address},laddr={self.local_address},lport={self.local_port}"


class SshdError(Exception):
    """The server's program refused something; the message is for the operator."""


def current_login(process: int | None = None) -> Login | None:
    """The login that this process descends from; None when it was not started over SSH (or not seen: needs root).

    sudo takes SSH_CONNECTION away, and whoever started the server by hand has left theirs in it, so the process that counts
    is the one right below the server.
    """
    process = process or os.getpid()
    while process > 1:
        folder = Path("/proc") / str(process)
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
            server = (Path("/proc") / str(parent) / "comm").read_text() if parent else ""
            if server.startswith("sshd"):
                for variable in environment:
                    if variable.startswith(b"SSH_CONNECTION="):
                        address, _port, local_address, local_port = variable.decode().partition("=")[2].split()
                        user = pwd.getpwuid(folder.stat().st_uid).pw_name
                        return Login(user, address, local_address, int(local_port))
        except (OSError, ValueError, KeyError, IndexError):
            return None
        process = parent
    return None


def server_version(module: Any) -> str:
    """Version of OpenSSH as "9.2"; "" when it cannot be told."""
    # sshd -V is not known before 9.2, the client's is: both come from one source package.
    said = "".join(module.run_command(["ssh", "-V"])[1:])
    found = re.search(r"OpenSSH_(\d+\.\d+)", said)
    return found.group(1) if found else ""


def known(module: Any, kind: str) -> list[str]:
    """The algorithms of a kind (`ssh -Q`) that the installed version knows."""
    code, out = module.run_command(["ssh", "-Q", kind])[:2]
    return out.split() if code == 0 else []


def effective(module: Any, config: Path, login: str | None = None) -> Effective:
    """The settings in force with this configuration file, for everybody or for one login. Raises SshdError."""
    # A socket-activated server has this folder only while it runs.
    PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    argv = [SSHD, "-T", "-f", str(config)]
    if login:
        argv += ["-C", login]
    code, out, err = module.run_command(argv)
    if code != 0:
        raise SshdError((err or out).strip())
    settings: Effective = {}
    for line in out.splitlines():
        keyword, value = line.partition(" ")[::2]
        settings.setdefault(keyword.lower(), []).append(value.strip())
    return settings


def words(settings: Effective, keyword: str) -> list[str]:
    """All words of a setting, which may be given on several lines."""
    return [word for value in settings.get(keyword, []) for word in value.split() if word != "none"]


def one(settings: Effective, keyword: str) -> str:
    """The value of a setting that has one."""
    return settings.get(keyword, [""])[0]


def listen_ports(settings: Effective) -> set[int]:
    """The ports that the server listens on, wherever."""
    return {int(address.rpartition(":")[2]) for address in settings.get("listenaddress", [])}


def units(module: Any) -> dict[str, dict[str, str]]:
    """What systemd says of ssh.service and ssh.socket; empty where it does not run."""
    if not Path("/run/systemd/system").is_dir():
        return {}
    code, out = module.run_command(
        ["systemctl", "show", "ssh.service", "ssh.socket", "--property=Id,ActiveState,Accept,Listen"]
    )[:2]
    if code != 0:
        return {}
    found = {}
    for block in out.split("\n\n"):
        pairs = [line.partition("=")[::2] for line in block.splitlines() if line]
        facts = dict(pairs)
        # Listen is given once an address.
        facts["Listen"] = " ".join(value for name, value in pairs if name == "Listen")
        if "Id" in facts:
            found[facts["Id"]] = facts
    return found


def socket_active(found: dict[str, dict[str, str]]) -> bool:
    """Whether systemd's socket, not the server, holds the port."""
    return found.get("ssh.socket", {}).get("ActiveState") == "active"


def socket_ports(found: dict[str, dict[str, str]]) -> set[int]:
    """The ports that ssh.socket listens on."""
    return {int(port) for port in re.findall(r":(\d+) \(Stream\)", found["ssh.socket"]["Listen"])}


def ports_listening() -> set[int]:
    """The TCP ports of this host that accept connections."""
    ports = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A":
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def refusals(settings: Effective, login: Login) -> list[str]:
    """Why these settings (of `effective` with this login) would not let it in again, as far as can be told beforehand."""
    return [*_listed(settings, login), *_methods(settings, login), *_keys(settings, login)]


def _listed(settings: Effective, login: Login) -> Iterable[str]:
    account = pwd.getpwnam(login.user)
    groups = _groups(login.user, account.pw_gid)
    deny_users, allow_users = words(settings, "denyusers"), words(settings, "allowusers")
    deny_groups, allow_groups = words(settings, "denygroups"), words(settings, "allowgroups")
    who = f"{login.user}, who is logged in from {login.address},"
    if any(_user_matches(pattern, login) for pattern in deny_users):
        yield f"DenyUsers ({' '.join(deny_users)}) names {login.user}, as whom Ansible is logged in"
    if allow_users and not any(_user_matches(pattern, login) for pattern in allow_users):
        yield f"AllowUsers ({' '.join(allow_users)}) does not let {who} in"
    if any(fnmatchcase(group, pattern) for pattern in deny_groups for group in groups):
        yield f"DenyGroups ({' '.join(deny_groups)}) names a group of {login.user}: {' '.join(groups)}"
    if allow_groups and not any(fnmatchcase(group, pattern) for pattern in allow_groups for group in groups):
        yield f"AllowGroups ({' '.join(allow_groups)}) holds none of the groups of {who} which are {' '.join(groups)}"


def _groups(user: str, primary: int) -> list[str]:
    import grp

    names = []
    for number in os.getgrouplist(user, primary):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


def _user_matches(pattern: str, login: Login) -> bool:
    name, at, where = pattern.rpartition("@")
    if not at:
        return fnmatchcase(login.user, pattern)
    if not fnmatchcase(login.user, name):
        return False
    try:
        return ipaddress.ip_address(login.address.partition("%")[0]) in ipaddress.ip_network(where, strict=False)
    except ValueError:
        # A host's name counts with UseDNS alone, which is not asked for here.
        return fnmatchcase(login.address, where)


def _methods(settings: Effective, login: Login) -> Iterable[str]:
    methods = words(settings, "authenticationmethods")
    if methods and not any(method in {"any", "publickey"} for method in methods):
        yield f"AuthenticationMethods ({' '.join(methods)}) asks for more than a key"
    if one(settings, "pubkeyauthentication") == "no":
        yield "PubkeyAuthentication is off"
    if login.user == "root" and one(settings, "permitrootlogin") in {"no", "forced-commands-only"}:
        yield f"PermitRootLogin is {one(settings, 'permitrootlogin')}, and Ansible is logged in as root"


def _keys(settings: Effective, login: Login) -> Iterable[str]:
    if words(settings, "authorizedkeyscommand") or words(settings, "trustedusercakeys"):
        return
    account = pwd.getpwnam(login.user)
    files = [_authorized(pattern, account) for pattern in words(settings, "authorizedkeysfile")]
    keys = [key for path in files for key in _read_keys(path)]
    shown = ", ".join(map(str, files)) or "none"
    if not keys:
        yield f"AuthorizedKeysFile: there is no key of {login.user} in {shown}"
        return
    accepted = set(
        one(settings, "pubkeyacceptedalgorithms").split(",") + one(settings, "pubkeyacceptedkeytypes").split(",")
    )
    least = int(one(settings, "requiredrsasize") or 1024)
    if not any(_signs(kind) & accepted and (kind != "ssh-rsa" or rsa_bits(blob) >= least) for kind, blob in keys):
        kinds = ", ".join(
            sorted({f"{kind} ({rsa_bits(blob)} bits)" if kind == "ssh-rsa" else kind for kind, blob in keys})
        )
        yield f"none of the keys of {login.user} ({kinds}) is of an accepted kind (PubkeyAcceptedAlgorithms, RequiredRSASize)"


def _authorized(pattern: str, account: pwd.struct_passwd) -> Path:
    tokens = {"%%": "%", "%h": account.pw_dir, "%u": account.pw_name, "%U": str(account.pw_uid)}
    return Path(account.pw_dir) / re.sub("%[%huU]", lambda found: tokens[found.group()], pattern)


def _read_keys(path: Path) -> list[tuple[str, bytes]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    keys = []
    for line in text.splitlines():
        found = re.search(r"(?:^|\s)((?:sk-)?(?:ssh|ecdsa)-[^\s\"]+)\s+(AAAA[A-Za-z0-9+/=]+)", line)
        if found and not line.lstrip().startswith("#"):
            keys.append((found.group(1), base64.b64decode(found.group(2) + "==")))
    return keys


def _signs(kind: str) -> set[str]:
    """The signature algorithms of a kind of key."""
    return {"rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"} if kind == "ssh-rsa" else {kind}


def rsa_bits(blob: bytes) -> int:
    """Length of the modulus of an RSA public key in SSH's encoding; 0 when it is not one."""
    fields, rest = [], blob
    while len(rest) >= 4:
        length = struct.unpack(">I", rest[:4])[0]
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return int.from_bytes(fields[2], "big").bit_length() if len(fields) == 3 and fields[0] == b"ssh-rsa" else 0
