"""Whether runs come by themselves: a systemd timer, or an entry of cron."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from .findings import Finding, Tell, ok, skipped, warn
from .patient import Patient

TIMER = "spamops-check.timer"
SERVICE = "spamops-check.service"
CRON_FILES = (Path("/etc/cron.d"), Path("/etc/crontab"))
COMMAND = re.compile(r"^[^#\n]*(spamops\b.*\brun\b|run_check)", re.M)
SECONDS = 5.0


def timer(_patient: Patient, tell: Tell) -> None:
    """The timer, or cron's entry, on this machine."""
    tell(by_systemd() or by_cron() or _nothing())


def by_systemd() -> Finding | None:
    """What systemd says of the timer; None where there is none of that name."""
    if shutil.which("systemctl") is None:
        return None
    shown = _show(TIMER, "LoadState", "ActiveState", "UnitFileState", "NextElapseUSecRealtime", "LastTriggerUSec")
    if not shown or shown.get("LoadState") != "loaded":
        return None
    if shown.get("ActiveState") != "active":
        return warn("timer", f"{TIMER} is there and {shown.get('ActiveState')}", f"systemctl enable --now {TIMER}")
    if shown.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        return warn("timer", f"{TIMER} runs, but not after a reboot", f"systemctl enable {TIMER}")
    ended = _show(SERVICE, "Result", "ExecMainStatus", "ActiveState")
    told = f"{TIMER}: next {shown.get('NextElapseUSecRealtime') or 'not known'}, last {shown.get('LastTriggerUSec') or 'never'}"
    if ended.get("Result", "success") != "success" and ended.get("ActiveState") == "failed":
        return warn(
            "timer", f"{told}; its last run ended with {ended.get('ExecMainStatus')}", f"journalctl -u {SERVICE}"
        )
    return ok("timer", told)


def _show(unit: str, *properties: str) -> dict[str, str]:
    try:
        done = subprocess.run(
            ["systemctl", "show", "--no-pager", "-p", ",".join(properties), unit],  # noqa: S607 - as found on the path
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return (
        dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)
        if done.returncode == 0
        else {}
    )


def by_cron(places: tuple[Path, ...] = CRON_FILES) -> Finding | None:
    """An entry that runs a check in the system's tables or the user's own; None where there is none."""
    for place in places:
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            try:
                if path.is_file() and COMMAND.search(path.read_text(encoding="utf-8", errors="replace")):
                    return ok("timer", f"cron: {path}")
            except OSError:
                continue
    if shutil.which("crontab"):
        try:
            done = subprocess.run(
                ["crontab", "-l"],  # noqa: S607 - as found on the path
                capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        if done.returncode == 0 and COMMAND.search(done.stdout):
            return ok("timer", "cron: this user's own table")
    return None


def _nothing() -> Finding:
    if shutil.which("systemctl") is None and shutil.which("crontab") is None:
        return skipped("timer", "neither systemd nor cron is here")
    return warn(
        "timer",
        f"neither {TIMER} nor an entry of cron: runs are started by hand, or elsewhere (AWX)",
        "playbooks/schedule.yml makes a timer",
    )
