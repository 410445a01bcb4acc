# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A change of files that undoes itself unless it is confirmed: after a time, and at the next boot.

What the files were is kept in a folder beside a shell script that puts it back. Renaming that folder decides who comes first,
the confirmation or the restoration, so that never both happen.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/spamops-ssh")
PENDING = STATE / "pending"
RESTORING = STATE / "restoring"
SCRIPT = "restore.sh"
TIMER = "spamops-ssh-restore-timer"
BOOT_UNIT = Path("/etc/systemd/system/spamops-ssh-restore.service")
BOOT_LINK = Path("/etc/systemd/system/multi-user.target.wants") / BOOT_UNIT.name

BOOT_TEXT = f"""\
# There while a change of the SSH server waits for its confirmation, and gone afterwards.
[Unit]
Description=Put back the SSH server's previous configuration, as the new one was not confirmed
DefaultDependencies=no
RequiresMountsFor={STATE} /etc
After=local-fs.target
Before=sockets.target ssh.socket ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh {PENDING}/{SCRIPT} boot
"""

SCRIPT_TEXT = """\
#!/bin/sh
# Puts back what the files were before the change that nobody has confirmed. With "boot" the server is not running yet.
mv -T {pending} {restoring} 2>/dev/null || exit 0
cd {restoring} || exit 1
{commands}
rm -f {link} {unit}
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if [ "${{1:-}}" != boot ]; then
    {activate}
  fi
fi
cd / && rm -rf {restoring}
"""


class Overtaken(Exception):
    """The previous configuration was put back before the confirmation came."""


def exists() -> bool:
    """Whether a change waits for its confirmation."""
    return PENDING.is_dir()


def keep(paths: Iterable[Path], activate: str, at_boot: bool) -> None:
    """Write down what these files are now. `activate` is the shell command that makes the server take them up again."""
    new = STATE / "new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700, parents=True)
    STATE.chmod(0o700)
    commands = []
    for number, path in enumerate(paths):
        target = shlex.quote(str(path))
        if path.exists():
            copy = new / str(number)
            shutil.copy2(path, copy)
            status = path.stat()
            os.chown(copy, status.st_uid, status.st_gid)
            commands.append(f"cp -p {number} {target}.restored && mv -f {target}.restored {target}")
        else:
            commands.append(f"rm -f {target}")
    (new / SCRIPT).write_text(
        SCRIPT_TEXT.format(
            pending=PENDING,
            restoring=RESTORING,
            commands="\n".join(commands),
            link=BOOT_LINK,
            unit=BOOT_UNIT,
            activate=activate,
        )
    )
    os.sync()
    new.rename(PENDING)
    if at_boot:
        BOOT_UNIT.write_text(BOOT_TEXT)
        BOOT_LINK.parent.mkdir(exist_ok=True)
        BOOT_LINK.unlink(missing_ok=True)
        BOOT_LINK.symlink_to(BOOT_UNIT)


def arm(module: Any, seconds: int) -> None:
    """Restore by itself after so many seconds, whatever becomes of the controller."""
    module.run_command(["systemctl", "reset-failed", f"{TIMER}.timer", f"{TIMER}.service"])
    code, out, err = module.run_command(
        [
            "systemd-run",
            "--quiet",
            f"--unit={TIMER}",
            f"--on-active={seconds}s",
            "--timer-property=AccuracySec=200ms",
            "--description=Put back the SSH server's previous configuration",
            "/bin/sh",
            str(PENDING / SCRIPT),
        ]
    )
    if code != 0:
        raise OSError(f"the timer that would restore the previous configuration cannot be set: {(err or out).strip()}")


def confirm(module: Any) -> None:
    """Keep the change. Raises Overtaken when it was undone already."""
    confirmed = STATE / "confirmed"
    shutil.rmtree(confirmed, ignore_errors=True)
    try:
        PENDING.rename(confirmed)
    except FileNotFoundError as error:
        raise Overtaken(
            "the host has put the previous configuration back already, as no confirmation came in time"
        ) from error
    _disarm(module)
    shutil.rmtree(confirmed)


def restore(module: Any) -> str:
    """Put everything back now; what went wrong with it, "" as a rule. Does nothing when that was done already."""
    code, out, err = module.run_command(["/bin/sh", str(PENDING / SCRIPT)]) if exists() else (0, "", "")
    _disarm(module)
    return "" if code == 0 else (err or out).strip()


def _disarm(module: Any) -> None:
    if Path("/run/systemd/system").is_dir():
        module.run_command(["systemctl", "stop", f"{TIMER}.timer"])
    if BOOT_UNIT.exists():
        BOOT_LINK.unlink(missing_ok=True)
        BOOT_UNIT.unlink()
        module.run_command(["systemctl", "daemon-reload"])
