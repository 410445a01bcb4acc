# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Arguments for budgets, alarms and metrics, as the modules share them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

with contextlib.suppress(ImportError):  # the module says so, with the usual words
    from spamops.budget import Budget
    from spamops.errors import SettingsError
    from spamops.settings import notify_urls
    from spamops.telling import Telling

TELLING_SPEC: dict[str, Any] = {
    "service_units_per_hour": {"type": "float"},
    "budget_day_units": {"type": "float"},
    "budget_month_units": {"type": "float"},
    "budget_run_seconds": {"type": "float"},
    "notify_urls": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "notify_seconds": {"type": "float", "default": 20},
    "notify_repeat_seconds": {"type": "float", "default": 3600},
    "notify_digest_days": {"type": "int", "default": 0},
    "metrics_textfile": {"type": "path"},
}


def budget(parameters: dict[str, Any]) -> Budget:
    """What may be spent.

    Raises SettingsError for a limit in service units without a rate, and for one that is not above 0.
    """
    names = ("budget_day_units", "budget_month_units", "budget_run_seconds")
    for name in names:
        if parameters[name] is not None and parameters[name] <= 0:
            raise SettingsError(f"{name} must be more than 0")
    rate = parameters["service_units_per_hour"]
    if not rate and (parameters["budget_day_units"] or parameters["budget_month_units"]):
        raise SettingsError("budget_day_units and budget_month_units need service_units_per_hour, more than 0")
    return Budget(rate, *(parameters[name] for name in names))


def telling(parameters: dict[str, Any]) -> Telling:
    """Who is told, and how.

    Raises SettingsError.
    """
    try:
        urls = notify_urls("\n".join(parameters["notify_urls"]))
    except ValueError as error:
        raise SettingsError(f"notify_urls: {error}") from None
    path = parameters["metrics_textfile"]
    if path and not path.endswith(".prom"):
        raise SettingsError("metrics_textfile must end in .prom: node_exporter reads no other files")
    return Telling(
        urls=tuple(urls),
        seconds=parameters["notify_seconds"],
        repeat_seconds=parameters["notify_repeat_seconds"],
        digest_days=parameters["notify_digest_days"],
        textfile=Path(path) if path else None,
    )
