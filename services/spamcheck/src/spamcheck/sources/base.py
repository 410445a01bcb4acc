"""Where items come from and where verdicts go: one small interface, a file for each platform beside this one."""

from __future__ import annotations

from typing import Protocol

from ..items import Item, Verdict


class Source(Protocol):
    """A platform that schedules items and takes verdicts."""

    async def scheduled(self) -> list[Item]:
        """One batch of what is scheduled now. The same items come again until a verdict was taken.

        Raises SiteUnreachable, SiteRefused or SiteFaulty.
        """

    async def submit(self, item_id: str, verdict: Verdict) -> None:
        """Hand one verdict over.

        Raises the same, and ItemGone, ItemRefused or ItemFaulty for this one item.
        """

    async def aclose(self) -> None:
        """Close connections."""


class SourceError(Exception):
    """Something went wrong with the site. The message is for the operator: what, and what to fix. Never content or keys."""


class SiteUnreachable(SourceError):
    """No answer: connection refused or cut, time-out, 502, 503, 504. Worth another try."""


class SiteFaulty(SourceError):
    """The site answered with an error of its own to the whole batch (500), or with something that is not its contract."""


class SiteRefused(SourceError):
    """The site refuses us: key, Host, address. Trying again does not help; the message says what to set."""


class ItemGone(SourceError):
    """The record no longer exists (404)."""


class ItemRefused(SourceError):
    """The site refuses this verdict for good (400 with named fields, 413, 415)."""


class ItemFaulty(SourceError):
    """The site fails on this one record (500). Worth another try, then it is set aside."""
