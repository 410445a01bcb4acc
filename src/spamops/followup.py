"""What follows a run, by whichever way it was run: alarms are raised or closed, the metrics written, people told. It comes
after the server was seen to and the history written, takes a bounded time, and raises nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from . import textfile
from .alarms import Desk
from .budget import Budget
from .ledger import Ledger
from .telling import Telling

log = logging.getLogger(__name__)


def after_run(
    ledger: Ledger, server: str, telling: Telling, plan: Budget, summary: Mapping[str, Any], at: datetime
) -> None:
    """See to what the end of a run means; `summary` as `Summary.as_dict` gives it."""
    try:
        desk = Desk(ledger, server, telling)
        desk.after_run(summary, at)
        finish(desk, plan, at)
    except Exception:  # a defect here must not change how the run ends
        log.exception("what follows the run failed")


def finish(desk: Desk, plan: Budget, at: datetime) -> None:
    """Write the metrics, then tell what is due."""
    if desk.telling.textfile is not None:
        textfile.write(desk.telling.textfile, desk.ledger, desk.server, plan, at)
    desk.tell(at)
