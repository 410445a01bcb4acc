"""This side: settings, secrets, the folder of the history, and what the history tells."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .. import budget, lock, settings
from ..alarms import REPEATED, TITLES
from ..errors import LedgerError, SettingsError
from ..ledger import Ledger
from ..settings import Settings
from .findings import Finding, Tell, fail, ok, skipped, warn
from .patient import Patient

LEAST_DISK_BYTES = 20 * 1024 * 1024
"""A run's history and its report."""
LOW_DISK_BYTES = 500 * 1024 * 1024
LEAST_KINDS_OF_CHARACTERS = 10
"""A random key of 32 hexadecimal digits has fewer different characters once in some ten thousand keys."""
STALE_DAYS = 7
NO_SETTINGS = "the settings are faulty"


def settings_and_secrets(patient: Patient, tell: Tell) -> None:
    """Faults of the settings, the key's strength, who can read the secret files."""
    chosen = patient.settings
    if chosen is None:
        tell(fail("settings", patient.fault or NO_SETTINGS, "every setting is explained in docs/settings.md"))
        tell(skipped("key", NO_SETTINGS))
        tell(skipped("secret files", NO_SETTINGS))
        return
    where = patient.config or "the environment and secret files alone"
    tell(ok("settings", f"{where}: {len(chosen.model_fields_set)} settings, server {chosen.server}"))
    tell(_key(chosen))
    tell(_secret_files(chosen))


def _key(chosen: Settings) -> Finding:
    key = chosen.api_key.get_secret_value()
    advice = "make a new one, with playbooks/rotate_key.yml, or openssl rand -hex 32 on both ends"
    commonest = Counter(key).most_common(1)[0][1]
    if len(set(key)) < LEAST_KINDS_OF_CHARACTERS or commonest > len(key) / 2:
        return warn("key", f"{len(key)} characters, but only {len(set(key))} different ones: not random", advice)
    if any(word in key.lower() for word in ("changeme", "example", "password", "secret", "0123456789", "abcdefgh")):
        return warn("key", "it holds a well-known word or sequence: not random", advice)
    return ok("key", f"{len(key)} characters, looks random")


def _secret_files(chosen: Settings) -> Finding:
    name = "secret files"
    faults = []
    paths = [path for path in _with_secrets(chosen) if path.exists()]
    for path in paths:
        mode, owner = stat.S_IMODE(path.stat().st_mode), path.stat().st_uid
        if mode & stat.S_IWOTH:
            return fail(name, f"{path} can be written by every user of this machine", f"chmod o-w {path}")
        if mode & stat.S_IROTH and path.is_file():
            faults.append(f"{path} can be read by every user of this machine: chmod 0640 or less")
        elif path.is_file() and mode & stat.S_IWGRP:
            faults.append(f"{path} can be written by its group: chmod g-w")
        if owner not in (0, os.geteuid()):
            faults.append(f"{path} belongs to user {owner}, who can change it: chown")
    if faults:
        return warn(name, "; ".join(faults), "what others can read is no secret any more: make new ones afterwards")
    if not paths:
        return skipped(name, "none: secrets come from the environment")
    return ok(name, f"{len([path for path in paths if path.is_file()])} files, for their owner alone")


def _with_secrets(chosen: Settings) -> list[Path]:
    """Files that hold secrets, and the folder in which somebody could put another one in their place."""
    found = []
    if chosen.secrets_dir is not None:
        found += [chosen.secrets_dir, *(chosen.secrets_dir / name for name in settings.SECRET_FILES.values())]
    found += [chosen.ssh_key_file] if chosen.ssh_key_file else []
    if chosen.application_credential_secret is None:
        named = os.environ.get("OS_CLIENT_CONFIG_FILE")
        folders = (Path(), Path("~/.config/openstack").expanduser(), Path("/etc/openstack"))
        usual = (folder / name for folder in folders for name in ("clouds.yaml", "secure.yaml"))
        # os.path: in a current folder that this user may not enter (sudo -u in somebody's home) there is none for them.
        found += [path for path in ([Path(named)] if named else usual) if os.path.isfile(path)]  # noqa: PTH113
    return found


def state(patient: Patient, tell: Tell) -> None:
    """The folder of the history, and what it tells of the last runs, of alarms and of the budget."""
    chosen = patient.settings
    try:
        folder = chosen.state_dir if chosen else settings.state_dir_of(patient.config)
    except SettingsError as error:
        for name in ("state folder", "history", "alarms", "budget"):
            tell(skipped(name, str(error)))
        return
    tell(_folder(folder))
    ledger, now = Ledger(folder), datetime.now(UTC)
    try:
        runs = ledger.runs(limit=20)
        tell(_history(runs, now))
        tell(_alarms(ledger, chosen))
        tell(_budget(ledger, chosen, now))
    except LedgerError as error:
        advice = "move ledger.db away: the next run begins a new history"
        for name in ("history", "alarms", "budget"):
            tell(fail(name, str(error), advice if name == "history" else None))


def _folder(folder: Path) -> Finding:
    name = "state folder"
    if folder.exists() and not folder.is_dir():
        return fail(name, f"{folder} is no folder", "set state_dir")
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        return fail(name, f"{folder} cannot be written by this user", "run as the user of the runs, or set state_dir")
    free = shutil.disk_usage(there).free
    told = f"{folder}: {free // (1024 * 1024):,} MiB free"
    if free < LEAST_DISK_BYTES:
        return fail(name, told, "make room: a run needs its history")
    if free < LOW_DISK_BYTES:
        return warn(name, told, "make room soon")
    if folder.exists() and folder.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return warn(name, f"{folder} is open to every user of this machine", f"chmod 0700 {folder}")
    return ok(name, told if folder.exists() else f"{told}; it is made by the first run")


def _history(runs: list[dict[str, Any]], now: datetime) -> Finding:
    name = "history"
    checks = [run for run in runs if run["started_by"] != "reap"]
    if not checks:
        return ok(name, "no run yet")
    last = checks[0]
    at = str(last["started_at"])[:16].replace("T", " ")
    if last["ended_at"] is None:
        return ok(name, f"run {last['id']} of {at} UTC has not ended")
    good = next((run for run in checks if run["exit_code"] in (0, 6)), None)
    failed = next((number for number, run in enumerate(checks) if run["exit_code"] in (0, 6)), len(checks))
    if last["exit_code"] not in (0, 6):
        return warn(
            name,
            f"the last {failed} runs failed; the last one, {last['id']} of {at} UTC: {last['reason'] or last['outcome']}",
            f"spamops show {last['id']}; docs/faults.md tells what each fault means",
        )
    if good is not None and now - datetime.fromisoformat(good["ended_at"]) > timedelta(days=STALE_DAYS):
        return warn(name, f"the last run was {at} UTC", "what was posted since then was not checked: see to the timer")
    return ok(
        name, f"run {last['id']} of {at} UTC: {str(last['outcome']).replace('_', ' ')}, {last['checked'] or 0} checked"
    )


def _alarms(ledger: Ledger, chosen: Settings | None) -> Finding:
    if chosen is None:
        return skipped("alarms", NO_SETTINGS)
    found = ledger.open_alarms(chosen.server)
    if not found:
        return ok("alarms", "none open")
    told = "; ".join(f"{TITLES.get(row['kind'], row['kind'])} (since {row['opened_at'][:16]}Z)" for row in found)
    advice = "docs/alarms.md tells what each means and what to do"
    if any(row["kind"] in REPEATED for row in found):
        return fail("alarms", told, advice)
    return warn("alarms", told, advice)


def _budget(ledger: Ledger, chosen: Settings | None, now: datetime) -> Finding:
    name = "budget"
    if chosen is None:
        return skipped(name, NO_SETTINGS)
    if chosen.service_units_per_hour is None:
        return warn(
            name, "service_units_per_hour is not set: nothing is counted", "look your flavor's rate up, and set it"
        )
    since = budget.month_of(now)[0]
    left = budget.left(chosen.budget, ledger.runs_since([chosen.server], since), now)
    if not left:
        return warn(name, "no limit is set", "set budget_day_units and budget_month_units: a fault then costs no more")
    told = ", ".join(f"{this.spent:.3g} of {this.limit:g} service units this {this.period} (UTC)" for this in left)
    if any(this.units <= 0 for this in left):
        return fail(name, f"spent: {told}", "a run would be refused until the period is over; raise the limit, or wait")
    return ok(name, told)


def run_is_active(chosen: Settings) -> bool:
    """Whether a run of this server holds its lock."""
    return lock.holder(chosen.state_dir, chosen.server) is not None
