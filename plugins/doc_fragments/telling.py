# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Documentation of the arguments for budgets, alarms and metrics, shared by the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """Named and meant as the settings of the C(spamops) command."""

    DOCUMENTATION = r"""
options:
  service_units_per_hour:
    description: What the cloud bills an hour while the server is C(ACTIVE). Without it no service units are counted.
    type: float
  budget_day_units:
    description:
      - Service units that the server may cost from 00:00 to 24:00 UTC, counted from the history. Needs
        O(service_units_per_hour).
      - A run that may not begin fails here; one that reaches the limit is ended in time by its own tasks.
    type: float
  budget_month_units:
    description: The same of a calendar month, in UTC.
    type: float
  budget_run_seconds:
    description: How long the run may wake and check, all together.
    type: float
  notify_urls:
    description: Where alarms go, as Apprise's addresses. They hold secrets. Needed at the beginning and at the end.
    type: list
    elements: str
    default: []
  notify_seconds:
    description: Limit for all notifiers together, in seconds. The server was seen to before.
    type: float
    default: 20
  notify_repeat_seconds:
    description: Pause until an alarm that costs money is repeated, in seconds.
    type: float
    default: 3600
  notify_digest_days:
    description: A digest every so many days. 0 for none.
    type: int
    default: 0
  metrics_textfile:
    description: File for the textfile collector of node_exporter, which ends in C(.prom).
    type: path
"""
