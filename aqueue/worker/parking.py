"""The parked fetch of one lane: a connection of its own, on which at most one fetch waits at the server.

A fetch is never cancelled while it waits, since what it catches would be lost to sight: it is told to end, by the
server's own means, and then ends like one whose time is up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from aqueue.errors import StoreError
from aqueue.store.client import PARK_MARGIN_SECONDS, Client
from aqueue.store.link import Link

log = logging.getLogger("aqueue.worker")

PARK_SECONDS: Final = 2.0
"""How long a parked fetch waits at the server. Bounds what a connection that died unnoticed can catch."""
DOUBT_SECONDS: Final = PARK_SECONDS + PARK_MARGIN_SECONDS
"""A parked fetch whose connection broke may catch a job until then, which only reclaim would find."""
FAILED_SECONDS: Final = 0.5
"""Without a parked fetch the queue is looked at this often."""
UNBLOCK_PAUSE_SECONDS: Final = 0.005
END_SECONDS: Final = 1.0
"""A parked fetch that was told to end has ended by then, or its connection is in trouble."""


class Parking:
    """Where one lane parks."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.wanted = False
        """A fetch is parked, or is about to be, and has not been told to end."""
        self._sent = False
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._link_id: int | None = None
        self._lost_at: float | None = None
        """When the connection of a parked fetch broke; the server may not know, and go on serving it."""

    @property
    def seconds(self) -> float:
        """How long a fetch waits: it is over before the lease is, else nobody finds what a stopped worker catches."""
        return min(PARK_SECONDS, self._client.settings.lease / 2)

    @property
    def taken(self) -> bool:
        """A fetch is parked, or has been told to end and has not ended yet."""
        return self._task is not None and not self._task.done()

    def start(
        self, fetch: Callable[[Link], Awaitable[None]], *, failed: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        """Run `fetch` on the connection; `failed` is told at once of an error, `ended` when another may start."""
        self.wanted = True
        work = self._run(fetch, failed, ended)
        self._task = asyncio.get_running_loop().create_task(work, name=f"aqueue park {self._client.keys.queue}")

    async def _run(
        self, fetch: Callable[[Link], Awaitable[None]], failed: Callable[[], None], ended: Callable[[], None]
    ) -> None:
        try:
            await asyncio.sleep(0)  # a job that ends in its first step comes before, and may make another fetch wanted
            link = await self._open()
            self._sent = self.wanted
            await fetch(link)
        except (RedisError, OSError, StoreError) as error:
            log.debug("queue %s: parked fetch ended: %s", self._client.keys.queue, error)
            if not isinstance(error, ResponseError):
                self._lost_at = asyncio.get_running_loop().time()
            failed()
            await self._drop()
            await asyncio.sleep(FAILED_SECONDS)
        finally:
            self.wanted = self._sent = False
            ended()

    def tell_to_end(self) -> asyncio.Task[None]:
        """End the fetch; the task that is returned has done so when it ends, but for the answer."""
        self.wanted = False
        name = f"aqueue unpark {self._client.keys.queue}"
        self._telling = asyncio.get_running_loop().create_task(self._unblock(), name=name)
        return self._telling

    async def _unblock(self) -> None:
        try:
            while self._sent and self._link_id is not None:
                if await self._client.plain("CLIENT", "UNBLOCK", self._link_id):
                    break
                await asyncio.sleep(UNBLOCK_PAUSE_SECONDS)  # its BLMOVE is still on the way, or its reply is
        except StoreError as error:
            log.debug("queue %s: the parked fetch ends by its own time-out: %s", self._client.keys.queue, error)

    async def ended(self) -> None:
        """Return once no fetch is parked."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _open(self) -> Link:
        if self._link is None or not self._link.alive:
            self._link = await self._client.links.dedicated(self._client.keys.queued)
            self._link_id = await self._client.id_of(self._link)
        return self._link

    async def _drop(self) -> None:
        link, self._link, self._link_id = self._link, None, None
        if link is not None:
            await link.close()

    async def close(self) -> bool:
        """Give the connection back; say whether the server is known to have ended every fetch."""
        known = True
        if self._task is not None:
            _, still_parked = await asyncio.wait([self._task], timeout=END_SECONDS)
            known = not still_parked
        for task in (self._task, self._telling):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._drop()
        doubt = self._lost_at is not None and asyncio.get_running_loop().time() <= self._lost_at + DOUBT_SECONDS
        return known and not doubt
