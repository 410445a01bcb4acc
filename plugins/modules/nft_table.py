#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Put one nftables table in force, and take it back unless a new login still works
version_added: 0.1.0
description:
  - Replaces one table of family C(inet) in one transaction, and leaves the tables of others (fail2ban, Docker) alone.
  - Before the rules come into force, C(nft -c) reads them, and a timer on the host is armed that restores the previous ones. The
    controller then logs in anew, with the connection variables that Ansible has for the host, and only through that login is the
    timer disarmed and the file written to O(dest). So a reboot in between also brings the previous rules back.
  - Where no new login comes through, the previous rules are restored and the task fails.
  - While a change waits for that login, another one is refused.
  - A unit of systemd that loads O(dest) at boot can be written and enabled along with it, once the rules are confirmed.
  - Where the connection is not SSH (C(local), a container engine) there is no login to prove, and the rules are kept.
requirements:
  - nftables and systemd on the host
options:
  name:
    description: Name of the table.
    type: str
    required: true
  content:
    description: The table, as C(nft -f) reads it. Must replace the table itself, in the same file.
    type: str
    required: true
  dest:
    description: File that the rules are loaded from at boot. Its folder is made if it is not there.
    type: path
    required: true
  rollback_seconds:
    description: Seconds until the previous rules are restored if no new login comes through. 0 turns the guard off.
    type: int
    default: 60
  unit:
    description: Unit of systemd that loads O(dest) at boot, to be enabled and started.
    type: str
  unit_files:
    description: Files of systemd that this needs.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is written, with mode 0644. Its folder is made if it is not there.
        type: path
        required: true
      content:
        description: What is in it.
        type: str
        required: true
  step:
    description: Set by the collection's action plugin.
    type: str
    choices: [apply, confirm, withdraw]
    default: apply
attributes:
  check_mode:
    description: The rules are read by C(nft -c) where nftables is installed.
    support: full
  diff_mode:
    description: Shows the files.
    support: full
  idempotent:
    description: Does nothing when the file is the same and the table in force is the one that was loaded from it.
    support: full
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Put the rules in force
  comses.spamops.nft_table:
    name: spamops
    content: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
    dest: /etc/spamops/firewall.nft
"""

RETURN = r"""
reason:
  description: What differed, C(file) when it was the rules' file, C(live) the rules in force, and C(unit) only what loads them at boot.
  type: str
  returned: when changed
proven:
  description: Whether a new login has shown that the host is reachable with the new rules.
  type: bool
  returned: when the rules were loaded
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    """A module that does not write the whole of its files into the host's log at every run."""

    def _log_invocation(self) -> None:
        """Called once the arguments are read."""
        whole = self.params
        self.params = {name: value for name, value in whole.items() if name not in {"content", "unit_files"}}
        super()._log_invocation()
        self.params = whole


class Table:
    """One table, its file, and the timer that takes it back."""

    def __init__(self, module: AnsibleModule) -> None:
        parameters = module.params
        self.module = module
        self.name: str = parameters["name"]
        self.content: str = parameters["content"]
        self.file = Path(parameters["dest"])
        self.candidate = Path(f"{self.file}.candidate")
        self.loaded = Path(f"{self.file}.loaded")
        self.timer = f"nft-rollback-{self.name}"
        self.nft: str | None = module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"])

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One step at a time on a host, whoever begins it; the kernel lets the next one in when this process ends."""
        self.file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def apply(self) -> dict[str, Any]:
        """Load the rules where they are not in force; `pending` when a login has to confirm them."""
        live, stale = self.live(), self.stale_unit_files()
        before = _read(self.file)
        if before == self.content and live and live == _read(self.loaded):
            if not stale and self.unit_is_on():
                return {"changed": False}
            if not self.module.check_mode:
                self.see_to_unit()
            return {"changed": True, "reason": "unit", "diff": _diffs(stale)}
        facts: dict[str, Any] = {
            "changed": True,
            "reason": "live" if before == self.content else "file",
            "diff": _diffs([(self.file, before, self.content), *stale]),
        }
        self.read_by_nft()
        if self.module.check_mode:
            return facts
        guarded = self.module.params["rollback_seconds"] > 0
        way_back = self.way_back(live)
        # The timer first: until it is this change's, the candidate may be another one's, whose timer looks for it.
        if guarded:
            self.arm(way_back)
        elif self.timer_state() in {"waiting", "running"}:
            self.module.fail_json(msg="another change is waiting for its confirmation, so nothing was changed")
        try:
            self.write(self.candidate, self.content)
        except OSError as error:
            self.disarm()
            self.module.fail_json(msg=f"the rules could not be written, so nothing was changed: {error}")
        late = "the timer went off before the rules were loaded, so {}: set rollback_seconds higher, or find what slows the host"
        if guarded and self.timer_state() != "waiting":  # it found no candidate, and will not come again
            self.candidate.unlink(missing_ok=True)
            self.module.fail_json(msg=late.format("nothing was changed"))
        code, _dummy, errors = self.run_nft("-f", str(self.candidate))
        if code != 0:
            self.candidate.unlink(missing_ok=True)
            self.disarm()
            self.module.fail_json(msg=f"nft did not load the rules; the previous ones are in force: {errors}")
        if guarded and self.timer_state() != "waiting":  # nft took long, for a name, say, and may have been the last
            self.candidate.unlink(missing_ok=True)
            self.module.run_command(way_back)
            self.module.fail_json(msg=late.format("the previous ones were restored"))
        if not guarded:
            self.keep()
        return facts | {"pending": guarded, "proven": False}

    def confirm(self) -> dict[str, Any]:
        """Keep the rules; fails when the timer was quicker, or a reboot: then the login has shown nothing of them."""
        if _read(self.candidate) != self.content or self.timer_state() != "waiting":
            self.module.fail_json(msg="the rules were taken back before they were confirmed", taken_back=True)
        self.keep()
        return {"changed": True}

    def withdraw(self) -> dict[str, Any]:
        """Do at once what the timer would do later. Where it has, what waits by now is another change."""
        if _read(self.candidate) == self.content:
            self.systemctl("start", f"{self.timer}.service")
            self.disarm()
        return {"changed": True}

    def keep(self) -> None:
        """The candidate becomes what is loaded at boot. The timer's command moves it as well, so only one of the two succeeds."""
        try:
            self.candidate.rename(self.file)
        except FileNotFoundError:
            self.module.fail_json(msg="the rules were taken back before they were confirmed", taken_back=True)
        self.disarm()
        self.write(self.loaded, self.live())
        self.see_to_unit()

    def stale_unit_files(self) -> list[tuple[Path, str, str]]:
        """Path, content, and wanted content of each of the unit's files that has another one."""
        wanted = [(Path(one["path"]), one["content"]) for one in self.module.params["unit_files"]]
        return [(path, _read(path), content) for path, content in wanted if _read(path) != content]

    def unit_is_on(self) -> bool:
        """Whether the unit is started, and will be at the next boot."""
        unit = self.module.params["unit"]
        return not unit or all(self.systemctl(asked, "--quiet", unit) == 0 for asked in ("is-enabled", "is-active"))

    def see_to_unit(self) -> None:
        """Write the unit's files, enable and start it; fails where systemd does not."""
        stale = self.stale_unit_files()
        for path, _dummy, content in stale:
            self.write(path, content, mode=0o644)
        if stale:
            self.systemctl("daemon-reload", check=True)
        if not self.unit_is_on():
            self.systemctl("enable", "--quiet", "--now", self.module.params["unit"], check=True)

    def systemctl(self, *arguments: str, check: bool = False) -> int:
        """Its exit code; with `check`, fails when it is not 0."""
        code, _dummy, errors = self.module.run_command(["systemctl", *arguments])
        if check and code != 0:
            self.module.fail_json(msg=f"the rules are in force, but systemctl {' '.join(arguments)} failed: {errors}")
        return int(code)

    def way_back(self, live: str) -> str:
        """The command that restores what was in force."""
        if live and self.file.exists():
            return f"{self.nft} -f {shlex.quote(str(self.file))}"
        return f"{self.nft} delete table inet {shlex.quote(self.name)}"

    def arm(self, way_back: str) -> None:
        """Start the timer; fails, with nothing changed, when one is running or none can be had.

        Without a candidate, be it not written yet or be it kept, its command changes nothing."""
        seconds = self.module.params["rollback_seconds"]
        moved = f"mv -f {shlex.quote(str(self.candidate))} {shlex.quote(str(self.file))}.rejected"
        # A failed unit stays loaded, and systemd-run refuses its name. One that waits or runs is not touched by this.
        self.systemctl("reset-failed", f"{self.timer}.timer", f"{self.timer}.service")
        code, _dummy, errors = self.module.run_command(
            [
                "systemd-run",
                "--quiet",
                f"--unit={self.timer}",
                f"--on-active={seconds}s",
                "--property=Type=oneshot",
                "--timer-property=AccuracySec=100ms",  # one minute by default
                "--description=Restore the previous firewall rules",
                "/bin/sh",
                "-c",
                f"{moved} && {way_back}",
            ]
        )
        if code != 0:
            self.module.fail_json(
                msg=f"no timer could be armed that would restore the previous rules, so nothing was changed (is another change "
                f"waiting for its confirmation? it is over after {seconds} s at most): {errors}"
            )

    def timer_state(self) -> str:
        """`waiting`, `running` while it takes the rules back, else `dead` or `failed`."""
        asked = ["systemctl", "show", "--value", "--property=SubState", f"{self.timer}.timer"]
        _code, state, _errors = self.module.run_command(asked)
        return str(state).strip()

    def disarm(self) -> None:
        """Stop the timer, if there is one."""
        self.systemctl("stop", f"{self.timer}.timer")

    def read_by_nft(self) -> None:
        """Let nft read the rules without loading them; fails with what it says."""
        if self.nft is None:
            if self.module.check_mode:
                return  # a bare host: the package comes with the run
            self.module.fail_json(msg="nft was not found: install nftables")
        code, _dummy, errors = self.run_nft("-c", "-f", "-", data=self.content)
        if code != 0:
            self.module.fail_json(msg=f"nft refuses the rules, so nothing was changed: {errors}")

    def live(self) -> str:
        """A fingerprint of the table in force, without counters and without what packets put into its sets; "" for none.

        In numbers: the names of protocols depend on whether /etc/protocols is there, which a later package may bring."""
        if self.nft is None:
            return ""
        code, listed, _dummy = self.run_nft("-j", "-s", "-n", "list", "table", "inet", self.name)
        return (
            hashlib.sha256(json.dumps(_stable(json.loads(listed)["nftables"])).encode()).hexdigest()
            if code == 0
            else ""
        )

    def run_nft(self, *arguments: str, data: str | None = None) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        code, output, errors = self.module.run_command([self.nft or "nft", *arguments], data=data)
        return code, output, errors

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write a file whole or not at all; by default only root reads it."""
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        part = Path(f"{path}.part")
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _diffs(changes: list[tuple[Path, str, str]]) -> list[dict[str, str]]:
    return [
        {"before_header": str(path), "before": before, "after_header": str(path), "after": after}
        for path, before, after in changes
    ]


def _stable(value: Any) -> Any:
    """Of a listing, what the rules say: no handles, no order of a set's values, no elements that packets added."""
    if isinstance(value, dict):
        if "metainfo" in value:
            return None
        dropped = (
            {"handle"}
            if "interval" in value.get("flags", [])
            else {"handle", "elem"}
            if "type" in value
            else {"handle"}
        )
        return {
            key: sorted((_stable(one) for one in inner), key=str)
            if key in {"set", "elem"} and isinstance(inner, list)
            else _stable(inner)
            for key, inner in sorted(value.items())
            if key not in dropped
        }
    return [_stable(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Read the arguments, do the step."""
    module = QuietModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "rollback_seconds": {"type": "int", "default": 60},
            "unit": {"type": "str"},
            "unit_files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                },
            },
            "step": {"type": "str", "choices": ["apply", "confirm", "withdraw"], "default": "apply"},
        },
        supports_check_mode=True,
    )
    table = Table(module)
    steps = {"apply": table.apply, "confirm": table.confirm, "withdraw": table.withdraw}
    with contextlib.nullcontext() if module.check_mode else table.alone():
        module.exit_json(**steps[module.params["step"]]())


if __name__ == "__main__":
    main()
