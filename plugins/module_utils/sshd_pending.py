# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A change of files that undoes itself unless it is confirmed: after a time, and at the next boot.

What the files were is kept in a folder beside a shell script that puts it back. Renaming that folder decides who comes first,
the confirmation or the restoration, so that never both happen. Where either is cut off, the folder's name tells what is left:

  new        nothing was changed yet
  pending    to be restored, unless it is confirmed
  restoring  to be restored, and begun with: it is done again from its first step
  over       confirmed or restored, and to be removed: former host keys may be among it
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
OVER = STATE / "over"
SCRIPT = "restore.sh"
TIMER = "spamops-ssh-restore-timer"
BOOT_UNIT = Path("/etc/systemd/system/spamops-ssh-restore.service")
BOOT_LINK = Path("/etc/systemd/system/multi-user.target.wants") / BOOT_UNIT.name

BOOT_TEXT = """\
# There while a change of the SSH server waits for its confirmation, and gone afterwards.
[Unit]
Description=Put back the SSH server's previous configuration, as the new one was not confirmed
DefaultDependencies=no
RequiresMountsFor={state} /etc
After=local-fs.target
Before=sockets.target ssh.socket ssh.service

[Service]
Type=oneshot
ExecStart={command}
"""

# It may be cut off after any step, and is then begun anew. So the unit for the next boot stays until the files are back and on
# the disk; and what is over has no name under which it would be restored again, over what was changed since.
SCRIPT_TEXT = """\
#!/bin/sh
# Puts back what the files were before the change that nobody has confirmed. With "boot" the server is not running yet.
mv -T {pending} {restoring} 2>/dev/null || [ -d {restoring} ] || exit 0
cd {restoring} || exit 1
{commands}
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if [ "${{1:-}}" != boot ]; then
    {activate}
  fi
fi
sync
cd / && rm -rf {over} && mv -T {restoring} {over} || exit 1
rm -rf {over} {link} {unit}
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
"""


class Overtaken(Exception):
    """The previous configuration was put back before the confirmation came."""


def exists() -> bool:
    """Whether a change waits for its confirmation, or for the rest of its restoration."""
    # In this order: the one becomes the other at any time.
    return PENDING.is_dir() or RESTORING.is_dir()


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
        commands.append(f"rm -f {target}.new")
    (new / SCRIPT).write_text(
        SCRIPT_TEXT.format(
            pending=PENDING,
            restoring=RESTORING,
            over=OVER,
            commands="\n".join(commands),
            link=BOOT_LINK,
            unit=BOOT_UNIT,
            activate=activate,
        )
    )
    if at_boot:
        BOOT_UNIT.write_text(BOOT_TEXT.format(state=STATE, command=shlex.join(_restoration("boot"))))
        BOOT_LINK.parent.mkdir(exist_ok=True)
        BOOT_LINK.unlink(missing_ok=True)
        BOOT_LINK.symlink_to(BOOT_UNIT)
    os.sync()
    new.rename(PENDING)
    os.sync()


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
            # When it is killed. Not at once, or the server would be started too often in too short a time.
            "--property=Restart=on-failure",
            "--property=RestartSec=5",
            *_restoration(),
        ]
    )
    if code != 0:
        raise OSError(f"the timer that would restore the previous configuration cannot be set: {(err or out).strip()}")


def confirm(module: Any) -> None:
    """Keep the change. Raises Overtaken when it was undone already."""
    shutil.rmtree(OVER, ignore_errors=True)
    try:
        PENDING.rename(OVER)
    except FileNotFoundError as error:
        raise Overtaken(
            "the host has put the previous configuration back already, as no confirmation came in time"
        ) from error
    _disarm(module)


def restore(module: Any) -> str:
    """Put everything back now; what went wrong with it, "" as a rule. Does nothing when that was done already."""
    out, err = module.run_command(_restoration())[1:] if exists() else ("", "")
    if exists():
        return (err or out).strip() or f"see {RESTORING / SCRIPT}"
    _disarm(module)
    return ""


def settle(module: Any) -> str:
    """End what was cut off: a change that nobody confirmed is put back, and what is over is removed. Returns as `restore`."""
    trouble = restore(module)
    if not trouble:
        for left in STATE.glob("*"):
            shutil.rmtree(left, ignore_errors=True)
    return trouble


def _restoration(argument: str = "") -> list[str]:
    """The command that restores, from the folder that there is; one at a time. Without a folder it is over, and disarmed."""
    steps = [f"[ -d {folder} ] && exec /bin/sh {folder}/{SCRIPT} {argument}" for folder in (RESTORING, PENDING)]
    steps.append(f"rm -rf {OVER} {BOOT_LINK} {BOOT_UNIT}")
    # No semicolon: systemd spoils those of the timer's service when it is told to reload.
    return ["/usr/bin/flock", str(STATE), "/bin/sh", "-c", " || ".join(steps)]


def _disarm(module: Any) -> None:
    if Path("/run/systemd/system").is_dir():
        # The service too: it may be about to begin again, and would meet the next change.
        module.run_command(["systemctl", "stop", f"{TIMER}.timer", f"{TIMER}.service"])
    shutil.rmtree(OVER, ignore_errors=True)
    if BOOT_UNIT.exists() or BOOT_LINK.is_symlink():
        BOOT_LINK.unlink(missing_ok=True)
        BOOT_UNIT.unlink(missing_ok=True)
        module.run_command(["systemctl", "daemon-reload"])
