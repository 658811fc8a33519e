"""How a process waits for many jobs at once.

One channel per process and queue. A waiter listens first, then asks for the state and to be told: an end can fall
before the asking, which then sees it, or after it, and is then told; there is no gap. What was missed while the
connection was away is asked again, and every few seconds everything is, as a net. A job whose ttl passes while somebody
waits for it is ended from here: there may be no worker to do it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from typing import Final

from aqueue.errors import StoreError, StoreUnavailable
from aqueue.job import JobId, JobState
from aqueue.store.client import BATCH, Client
from aqueue.store.mailbox import Listener
from aqueue.store.records import Ended

log = logging.getLogger("aqueue.store")

RECHECK_SECONDS: Final = 5.0
"""A notification is lost only with its connection; this bounds what that may cost."""


class Waiting(Listener):
    """Everybody in this event loop who waits for jobs of one queue."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = uuid.uuid4().hex
        self._waiters: dict[JobId, set[asyncio.Future[Ended]]] = {}
        self._unasked: set[JobId] = set()
        self._work = asyncio.Event()
        self._listening = asyncio.Lock()
        self._listens = False
        self._asker: asyncio.Task[None] | None = None
        self._closed: StoreUnavailable | None = None

    async def wait(self, job_id: JobId) -> Ended:
        """Return how the job ended, once it has. Errors: StoreUnavailable if nobody can be asked at all."""
        await self._listen()
        if self._closed is not None:  # while it was being connected
            raise self._closed
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(future)
        self._ask([job_id])
        try:
            return await future
        finally:
            waiters = self._waiters.get(job_id)
            if waiters is not None:
                waiters.discard(future)
                if not waiters:
                    del self._waiters[job_id]

    async def _listen(self) -> None:
        async with self._listening:
            if self._listens:
                return
            await self._client.links.listen(self._client.keys.channel(self._name), self)
            self._listens = True

    def heard(self, message: str) -> None:
        verb, _, rest = message.partition(" ")
        name, _, rest = rest.partition(" ")
        state, _, result = rest.partition(" ")
        job_id = JobId(name)
        if verb != "ended" or job_id not in self._waiters:
            return
        if state == JobState.COMPLETED and result:  # small ones come along
            self._deliver([job_id], [Ended(JobState.COMPLETED, result.encode("utf-8", "surrogateescape"), None)])
        else:
            self._ask([job_id])

    def restored(self) -> None:
        self._ask(self._waiters)

    def moved(self) -> None:
        self._listens = False
        self._ask(self._waiters)  # which listens anew before

    def _ask(self, job_ids: Iterable[JobId]) -> None:
        self._unasked.update(job_ids)
        self._work.set()
        if self._asker is None or self._asker.done():
            self._asker = asyncio.get_running_loop().create_task(self._keep_asking(), name="aqueue result waiter")

    async def _keep_asking(self) -> None:
        """Ask for everything that was asked of us, in batches, until nobody waits any more."""
        while self._waiters:
            try:
                async with asyncio.timeout(RECHECK_SECONDS):
                    await self._work.wait()
            except TimeoutError:
                self._unasked.update(self._waiters)
            self._work.clear()
            while self._unasked:
                batch = [self._unasked.pop() for _ in range(min(BATCH, len(self._unasked)))]
                try:
                    await self._listen()
                    answers = await self._client.ended(batch, self._name)
                    self._deliver(batch, answers)
                    await self._expire(batch, answers)
                except StoreUnavailable as error:
                    log.debug("results are asked for again in %.0f s: %s", RECHECK_SECONDS, error)
                except StoreError as error:
                    self._fail(batch, error)

    def _deliver(self, job_ids: list[JobId], answers: list[Ended]) -> None:
        for job_id, answer in zip(job_ids, answers, strict=True):
            if answer.state is None or answer.state.ended:
                for future in self._waiters.get(job_id, ()):
                    if not future.done():
                        future.set_result(answer)

    async def _expire(self, job_ids: list[JobId], answers: list[Ended]) -> None:
        """End those whose ttl has passed, and look at others at the moment when it will have."""
        for job_id, answer in zip(job_ids, answers, strict=True):
            if answer.left is None or answer.left > RECHECK_SECONDS:  # the net comes sooner
                continue
            if answer.left > 0:
                asyncio.get_running_loop().call_later(answer.left, self._ask_anew, job_id)
                continue
            try:
                await self._client.expire(job_id)  # and its end is told as any other
            except StoreError as error:  # which is no reason why others should not hear of their jobs
                log.debug("the ttl of job %s has passed, and it is ended later: %s", job_id, error)

    def _ask_anew(self, job_id: JobId) -> None:
        if job_id in self._waiters:
            self._ask([job_id])

    def _fail(self, job_ids: list[JobId], error: Exception) -> None:
        for job_id in job_ids:
            for future in self._waiters.get(job_id, ()):
                if not future.done():
                    future.set_exception(error)

    async def close(self) -> None:
        """End the wait of everybody who still waits, with StoreUnavailable."""
        self._closed = StoreUnavailable(
            "The queue was closed while this result was waited for; keep it open until then."
        )
        self._fail(list(self._waiters), self._closed)
        async with self._listening:  # a subscription that is being opened is closed with the others, not left behind
            pass
        if self._asker is not None:
            self._asker.cancel()
            await asyncio.gather(self._asker, return_exceptions=True)
