"""Limits by default, in seconds. Every way of running takes them from here."""

from __future__ import annotations

UNSHELVE_SECONDS = 300.0
"""To become ACTIVE."""
READY_SECONDS = 300.0
"""For the checker to answer after that."""
CHECK_SECONDS = 3600.0
"""For the workflow to end: what the CoMSES site's own command waits."""
STATUS_GRACE_SECONDS = 120.0
"""How long failing and garbled status answers are put up with."""
SHELVE_SECONDS = 900.0
"""To be shelved: the snapshot of a large disk takes minutes."""
API_SECONDS = 30.0
"""Of a single call, to the cloud or the checker."""
