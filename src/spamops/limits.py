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

REAP_GRACE_SECONDS = 600.0
"""How long a server may be on without a live run: to wake and for the checker to answer, for a controller elsewhere."""
REAP_WORKING_SECONDS = 7200.0
"""How long a server may be on without a live run although it works: a check of an hour, and all around it, for somebody else."""

NOTIFY_SECONDS = 20.0
"""For all notifiers together: what a broken one delays a run by at most, after the server was seen to."""
NOTIFY_REPEAT_SECONDS = 3600.0
"""How often an alarm that needs a person now is repeated."""

DIAGNOSE_SECONDS = 30.0
"""For collecting what the server tells after a failed run, before it is shelved. The server is paid for meanwhile."""
