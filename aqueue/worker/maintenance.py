"""Upkeep of a queue, by every worker and led by none.

Each pass is one bounded script that any number of workers may run at once. Nobody polls: the heartbeat's answers
say when the next lease of another worker ends and whether due jobs are left lying, and only then is anything done.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from aqueue.errors import StoreError
from aqueue.store.client import BATCH
from aqueue.store.records import Beat
from aqueue.worker.journal import Journal
from aqueue.worker.lane import Lane

log = logging.getLogger("aqueue.worker")

PRUNE_SECONDS: Final = 60.0
RECLAIM_JITTER_SECONDS: Final = 0.3
"""All workers learn of the same deadline; the first to come does the work."""
RETRY_SECONDS: Final = 1.0


class Maintenance:
    """The upkeep of one queue by this worker."""

    def __init__(self, lane: Lane, journal: Journal) -> None:
        self._lane = lane
        self._journal = journal
        self._reclaim_at: float | None = None
        self._overdue = False
        self._prune_at = 0.0
        self._news = asyncio.Event()

    def take_beat(self, beat: Beat) -> None:
        """Learn when there will be something to do."""
        now = asyncio.get_running_loop().time()
        jitter = random.uniform(0.01, RECLAIM_JITTER_SECONDS)  # noqa: S311  # spreads load, guards nothing
        self._reclaim_at = None if beat.next_reclaim is None else now + beat.next_reclaim + jitter
        self._overdue = beat.next_due == 0
        self._news.set()

    async def run(self) -> None:
        """Do what is due, for ever."""
        loop = asyncio.get_running_loop()
        self._prune_at = loop.time() + random.uniform(0, PRUNE_SECONDS)  # noqa: S311  # spreads load, guards nothing
        while True:
            deadline = min(self._prune_at, self._reclaim_at or self._prune_at)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self._tick(loop.time())
            except StoreError as error:
                log.debug("upkeep of queue %s is tried again: %s", self._lane.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("upkeep of queue %s went wrong, please report this", self._lane.name)
                await asyncio.sleep(RETRY_SECONDS)

    async def _tick(self, now: float) -> None:
        if self._reclaim_at is not None and now >= self._reclaim_at:
            await self._reclaim()
            self._reclaim_at = None
        if self._overdue:
            while await self._lane.client.promote() == BATCH:
                pass
            self._overdue = False
        if now >= self._prune_at:
            while await self._lane.client.prune() == BATCH:
                pass
            self._prune_at = now + PRUNE_SECONDS

    async def _reclaim(self) -> None:
        remain = True
        while remain:
            workers, remain = await self._lane.client.reclaim()
            for gone in workers:
                self._journal.gone(self._lane.name, gone)
                if self._lane.executor.herald is not None:
                    self._lane.executor.herald.crashed(gone)
