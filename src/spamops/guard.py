"""The guard of a run that a playbook does: Ansible ends at Ctrl-C without its `always` section, so a small process of its own
holds the server's lock while the playbook lives, and shelves the server when the playbook dies before the run was ended.

`start` is what the module run_record calls. The process gets its orders, which hold the credential, through a pipe.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from . import budget, followup, notify, uptime
from .budget import Budget
from .cloud import SHELVED, Server, connect
from .errors import (
    BudgetSpent,
    CloudError,
    ExitCode,
    LedgerError,
    RunActive,
    ServerMissing,
    SettingsError,
    SpamopsError,
)
from .ledger import Ledger
from .lock import ServerLock, holder
from .summary import Summary, add_states, finish
from .telling import Telling

POLL_SECONDS = 0.5
HANDSHAKE_SECONDS = 60.0
"""Until a guard has told the number of its run, and what its notifiers may take where the budget is spent."""
LOOK_SECONDS = 5.0
"""A call of the guard's first look at the cloud, of which there are four at most: what does not answer then is the run's own
to wait for, which has the patience."""
SECOND_LOOK_SECONDS = 2.0
"""After a shelving, so long until the server is looked at once more: a call of the dead playbook may have been on its way."""


@dataclass(frozen=True)
class Orders:
    """What a guard has to know. `holder_pid` is the playbook's process; times in seconds, the rate in service units an hour.
    `touch` False: the run changes nothing of the server, which is then not even looked at. `notify_*` and `textfile` as in
    Telling, `budget_*` as in Budget."""

    server: str
    state_dir: str
    holder_pid: int
    shelve: bool
    shelve_seconds: float
    rate: float | None
    cloud_arguments: dict[str, Any]
    touch: bool = True
    telling: dict[str, Any] = field(default_factory=dict, repr=False)
    budget: dict[str, Any] = field(default_factory=dict)


def start(orders: Orders) -> int:
    """Start a guard; the number of the run that it opened.

    Raises RunActive, BudgetSpent, SettingsError.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "spamops.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
    )
    try:
        seconds = HANDSHAKE_SECONDS + telling_of(orders.telling).seconds
        output, _ = process.communicate(json.dumps(asdict(orders)).encode(), timeout=seconds)
        answer = json.loads(output or b"{}")
    except (subprocess.TimeoutExpired, ValueError) as error:
        process.kill()
        raise SettingsError("the guard of the run did not start; nothing was touched") from error
    if "run" in answer:
        return int(answer["run"])
    kinds: dict[Any, type[SpamopsError]] = {ExitCode.RUN_ACTIVE: RunActive, ExitCode.BUDGET_SPENT: BudgetSpent}
    raise kinds.get(answer.get("exit_code"), SettingsError)(
        answer.get("error") or "the guard of the run did not start; nothing was touched"
    )


def wait_until_gone(state_dir: Path, server: str, limit: float = 5.0) -> None:
    """Return when the guard of a run that was just ended has given the lock back, or after `limit` seconds."""
    deadline = time.monotonic() + limit
    while holder(state_dir, server) is not None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 10)


def main() -> None:
    """Hold the lock, open the run, tell its number on stdout, then watch from a process that nobody waits for."""
    os.umask(0o077)  # as the command does
    orders = Orders(**json.load(sys.stdin))
    lock = ServerLock(Path(orders.state_dir), orders.server)
    ledger = Ledger(Path(orders.state_dir))
    try:
        if _playbook(orders.holder_pid) is None:
            raise SettingsError("the playbook was ended before its run began; nothing was touched")
        lock.acquire(orders.holder_pid)
        server, id_lock = _lock_id(orders)
        run = ledger.begin(orders.server, "playbook", datetime.now(UTC), orders.rate)
        _keep_to_the_budget(orders, run, ledger, server)
    except SpamopsError as error:
        json.dump({"error": str(error), "exit_code": int(error.exit_code)}, sys.stdout)
        return
    # The caller waits for the end of stdout and of this process: a child goes on, with the lock's descriptor.
    if os.fork() != 0:
        json.dump({"run": run}, sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    _detach(Path(orders.state_dir))
    try:
        _watch(orders, run, ledger)
    finally:
        lock.release()
        if id_lock is not None:
            id_lock.release()


def _lock_id(orders: Orders) -> tuple[Server | None, ServerLock | None]:
    """Lock the id too where the server was given by its name: another run may have been given the id. A cloud that does not
    answer now is left to the run itself.

    Raises RunActive.
    """
    if not orders.touch:
        return None, None
    try:
        server = Server(connect(**orders.cloud_arguments | {"api_timeout": _first_look(orders)}), orders.server)
        server.look(limit=0)
    except CloudError:
        return None, None
    if server.id is None or server.id == orders.server:
        return server, None
    lock = ServerLock(Path(orders.state_dir), server.id)
    lock.acquire(orders.holder_pid)
    return server, lock


def _first_look(orders: Orders) -> float:
    return min(LOOK_SECONDS, float(orders.cloud_arguments.get("api_timeout") or LOOK_SECONDS))


def _keep_to_the_budget(orders: Orders, run: int, ledger: Ledger, server: Server | None) -> None:
    """Note how long the run may go on, for its tasks.

    Raises BudgetSpent, with the run ended and the alarm raised, when it may not begin.
    """
    plan, now = Budget(**orders.budget), datetime.now(UTC)
    names = [orders.server, *([server.id] if server is not None and server.id else [])]
    if server is not None:
        uptime.settle_dead(ledger, server, names, run, now, orders.rate)
    try:
        rows = [row for row in ledger.runs_since(names, budget.month_of(now)[0]) if row["id"] != run]
        if not orders.touch:
            plan = Budget(run_seconds=plan.run_seconds)
        allowed = budget.allowance(plan, rows, now, reserve_seconds=budget.shelving_seconds(rows))
        if allowed.seconds is not None:
            ledger.set_deadline(run, now + timedelta(seconds=allowed.seconds), allowed.why)
    except BudgetSpent as error:
        summary = Summary(server=orders.server, run=run)
        if server is not None:
            add_states(summary, server.seen, now, orders.rate)
        finish(summary, ExitCode.BUDGET_SPENT, str(error))
        _record(ledger, run, summary)
        notify.alarm(f"run {run}: {error}")
        _follow_up(orders, ledger, summary)
        raise


def _follow_up(orders: Orders, ledger: Ledger, summary: Summary) -> None:
    followup.after_run(
        ledger, orders.server, telling_of(orders.telling), Budget(**orders.budget), summary.as_dict(), datetime.now(UTC)
    )


def telling_of(values: dict[str, Any]) -> Telling:
    """A Telling from what went through a pipe."""
    path = values.get("textfile")
    return Telling(**values | {"urls": tuple(values.get("urls") or ()), "textfile": Path(path) if path else None})


def _detach(state_dir: Path) -> None:
    # SIGTERM too: what stops a whole service or session (systemd, AWX) ends the playbook, and that is the guard's hour. It
    # goes by itself once the run is over.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    with contextlib.suppress(OSError):  # without its log the guard still guards
        logging.basicConfig(
            filename=state_dir / "guard.log",
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
            level=logging.INFO,
        )


def _watch(orders: Orders, run: int, ledger: Ledger) -> None:
    playbook = _playbook(orders.holder_pid)
    while True:
        if not _still_open(ledger, run):
            return
        if playbook is None or not _lives(playbook):
            break
        time.sleep(POLL_SECONDS)
    if _still_open(ledger, run):  # it may have ended between the two looks
        _clean_up(orders, run, ledger)


def _playbook(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _still_open(ledger: Ledger, run: int) -> bool:
    try:
        return ledger.is_open(run)
    except LedgerError:
        return True


def _clean_up(orders: Orders, run: int, ledger: Ledger) -> None:
    summary = Summary(server=orders.server, run=run)
    finish(summary, ExitCode.TERMINATED, "the playbook was ended before the run was")
    # Closing the row first stops what the dead playbook may have left running: it looks at the row before it acts.
    _record(ledger, run, summary)
    notify.alarm(f"run {run}: the playbook was ended before the run was; shelving {orders.server}")
    if orders.shelve:
        reason = _shelve(orders, summary)
        if reason:
            notify.alarm(f"run {run}: THE SERVER IS NOT SHELVED: {reason}")
            finish(summary, ExitCode.SERVER_NOT_SHELVED, reason)
        _record(ledger, run, summary)
    _follow_up(orders, ledger, summary)


def _shelve(orders: Orders, summary: Summary) -> str | None:
    server: Server | None = None
    try:
        server = Server(connect(**orders.cloud_arguments), orders.server)
        server.bring_to(SHELVED, orders.shelve_seconds)
        time.sleep(SECOND_LOOK_SECONDS)
        server.bring_to(SHELVED, orders.shelve_seconds)
    except ServerMissing:
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, a person has to know that the server may be on
        return str(error)
    finally:
        if server is not None:
            add_states(summary, server.seen, datetime.now(UTC), orders.rate)
    return None


def _record(ledger: Ledger, run: int, summary: Summary) -> None:
    try:
        ledger.end(run, summary, datetime.now(UTC), reopen=True)
    except LedgerError:
        logging.getLogger("spamops.guard").exception("run %s", run)


if __name__ == "__main__":
    main()
