"""The latest batch, in the worker's memory: the only place where the checker keeps texts."""

from __future__ import annotations

import asyncio
import time

from .items import Item
from .sources.base import Source, SourceError


class Inbox:
    """Reads the source's batches. Of all texts only those of the latest batch are held.

    Whoever needs a batch says how old it may be; calls that wait for the same read share it, its failure too. Ages are
    counted from when a read began.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = asyncio.Lock()
        self._items: dict[str, Item] = {}
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure: SourceError | None = None

    async def read(self, max_age: float = 0.0) -> list[Item]:
        """The latest batch, read again unless it is at most `max_age` seconds old.

        Raises what the source raises.
        """
        asked_at = time.monotonic()
        async with self._lock:
            if self._read_at >= asked_at - max_age:
                return list(self._items.values())
            if self._failure is not None and self._failed_at >= asked_at:
                raise self._failure
            began = time.monotonic()
            try:
                items = await self._source.scheduled()
            except SourceError as error:
                self._failure, self._failed_at = error, began
                raise
            self._items, self._read_at = {item.id: item for item in items}, began
            return items

    def item(self, item_id: str, content_hash: str) -> Item | None:
        """The item, if the latest batch holds it with this very text."""
        item = self._items.get(item_id)
        return item if item is not None and item.content_hash == content_hash else None

    def holds(self, item_id: str) -> bool:
        """Whether the latest batch holds the item, with whatever text."""
        return item_id in self._items
