"""What travels between API, workflow and activities through Temporal. No item's text is among it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .items import Verdict

WORKFLOW_ID_PATTERN = r"^check-spam-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"

WORKFLOW_NAME = "CheckSpamWorkflow"

Outcome = Literal["submitted", "gone", "superseded", "failed"]
"""How an item ends in a run: its verdict was accepted; its record no longer exists; the text that was judged is no
longer scheduled (edited, or a moderator decided); set aside with a reason."""

SITE_DOWN = "SiteDown"
SITE_REFUSED = "SiteRefused"
RUN_ENDS = frozenset({SITE_DOWN, SITE_REFUSED})
"""Types of failures after which no other item would fare better: the run ends as FAILED."""

HISTORY_EVENTS = 4000
"""Events after which the workflow continues as new. About ten events an item; Temporal warns from 10,240 on, and its
limit is 51,200. More often costs throughput, because what is in flight is waited for."""


AHEAD = 3
"""Items that a run has in work, for each that is classified: one at the classifier, one waiting at the worker's door so
that the classifier never idles while Temporal hands out the next, and one whose verdict is being sent."""


@dataclass(frozen=True, slots=True)
class Ref:
    """One version of one item, without its text."""

    item_id: str
    content_type: str
    content_hash: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells this version of this item from all others."""
        return self.item_id, self.content_hash


@dataclass(frozen=True)
class RunPlan:
    """The settings of one run, fixed when it starts. Times in seconds."""

    items_at_once: int = 1
    item_attempts: int = 5
    retry_seconds: float = 1.0
    give_up_after: int = 20
    classify_timeout_seconds: float = 1800.0
    site_timeout_seconds: float = 480.0
    heartbeat_timeout_seconds: float = 10.0
    history_events: int = HISTORY_EVENTS


@dataclass(frozen=True)
class Carried:
    """What a run takes along when it continues as new; the journal holds the rest."""

    rounds: int = 0
    set_aside_in_a_row: int = 0
    first_reason: str = ""


@dataclass(frozen=True)
class Judged:
    """What classifying came to: a verdict, or None where there was nothing to judge any more."""

    verdict: Verdict | None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Summary:
    """How a run ended: what the workflow returns."""

    status: str
    reason: str | None
    rounds: int
    found: int
    checked: int
    spam: int
    not_spam: int
    failed: int
    gone: int
    superseded: int
    left: int
    failed_ids: list[str] = field(default_factory=list)
