"""Joins the enqueues of one turn of the event loop into one script call.

A web application enqueues from many requests at once; each would cost a round trip of its own. Nobody waits for
company: who comes alone leaves at once, what else is there when the loop comes round leaves together, and every
caller gets its own answer or error.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from aqueue.errors import StoreError
from aqueue.job import JobId
from aqueue.store.records import NewJob

Send: TypeAlias = Callable[[Sequence[NewJob]], Awaitable[list[JobId]]]

BATCH_JOBS: Final = 25
"""More would save next to nothing; and while the server stores these, the loop makes the next ones."""
BATCH_BYTES: Final = 256 * 1024
"""Large payloads gain nothing from company; a small job must not wait behind many of them."""


class Coalescer:
    """The enqueues of one event loop that have not left yet."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[tuple[NewJob, asyncio.Future[JobId]]] = []
        self._bytes = 0
        self._alone = False
        """Somebody is on the way without company."""
        self._leaving: set[asyncio.Task[None]] = set()

    async def enqueue(self, job: NewJob) -> JobId:
        """Store one job and return the id that stands for it.

        A caller that is cancelled meanwhile cannot know whether its job was stored, as without company.
        Errors: as `send`, an error of its own for each caller.
        """
        if not (self._alone or self._waiting or self._leaving):
            self._alone = True
            try:
                (stands,) = await self._send([job])
            finally:
                self._alone = False
            return stands
        loop = asyncio.get_running_loop()  # not kept: this object must not outlive it
        known: asyncio.Future[JobId] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._leave)
        self._waiting.append((job, known))
        self._bytes += len(job.envelope)
        if len(self._waiting) >= BATCH_JOBS or self._bytes >= BATCH_BYTES:
            self._leave()
        return await known

    def _leave(self) -> None:
        if self._waiting:  # else it has left already, being full
            batch, self._waiting, self._bytes = self._waiting, [], 0
            task = asyncio.get_running_loop().create_task(self._deliver(batch), name="aqueue enqueue")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _deliver(self, batch: list[tuple[NewJob, asyncio.Future[JobId]]]) -> None:
        try:
            ids = await self._send([job for job, _ in batch])
        except asyncio.CancelledError:  # the loop is being closed
            for _, stands in batch:
                stands.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the callers
            for _, stands in batch:
                if not stands.done():
                    stands.set_exception(_own(error))
        else:
            for (_, stands), job_id in zip(batch, ids, strict=True):
                if not stands.done():
                    stands.set_result(job_id)


def _own(error: Exception) -> Exception:
    """Give one caller an error that no other caller's traceback grows into."""
    if not isinstance(error, StoreError):
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own
