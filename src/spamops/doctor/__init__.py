"""`spamops doctor`: one pass over everything that a run needs. It wakes nothing, changes nothing and costs nothing."""

from __future__ import annotations

from .findings import Finding, Level
from .runner import examine

__all__ = ["Finding", "Level", "examine"]
