"""Producers and a worker that go on while a test does something to their server, and the history of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import redis

from aqueue import Context, JobNotFound, Queue, Retry, Settings, StoreError, Worker
from faults.history import History, complaints, remains

PRODUCERS: Final = 4
DRAIN_SECONDS: Final = 60.0
"""Ends a test that has failed."""


FORGOTTEN: Final = (
    "was acknowledged and is nowhere",
    "has run and has no record",
    "ran ",
    "was started while",
    "counted",
)
"""Complaints that are no fault of ours when the server itself has gone back to an earlier state."""


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(DRAIN_SECONDS):
        while not fact():
            await asyncio.sleep(0.02)


class Load:
    """Enqueues and runs short jobs until its block ends, then lets the queue run empty."""

    def __init__(
        self,
        url: str,
        *,
        worker_url: str | None = None,
        settings: Settings | None = None,
        name: str = "load",
        producers: int = PRODUCERS,
        pace: float = 0.001,
    ) -> None:
        """Let jobs take up to four times `pace` seconds."""
        self._settings = settings or Settings(retry=Retry(max_attempts=3, backoff=0.01))
        self._pace = pace
        self._producers = producers
        self.history = History()
        self.refusals: list[StoreError] = []
        """What producers were told instead of being served."""
        self.queue = Queue(name, url=url, settings=self._settings)
        self.working = self.working_at(worker_url or url)
        self._producing: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._progress = asyncio.Event()

    def working_at(self, url: str) -> Queue:
        """Give the queue as a worker sees it that comes by this way; whoever asks for more than one closes them."""
        working = Queue(self.queue.name, url=url, settings=self._settings)

        @working.task
        async def work(context: Context, n: int) -> int:
            assert context.job is not None
            job_id = context.job.id
            self.history.start(job_id)
            self._progress.set()
            try:
                await asyncio.sleep(self._pace * (n % 5))
            except asyncio.CancelledError:
                self.history.cause(job_id)
                raise
            if n % 7 == 0 and context.attempt == 1:
                self.history.cause(job_id)
                raise ValueError("the first time it fails")
            self.history.end(job_id)
            return n

        return working

    async def _produce(self, number: int) -> None:
        n = number
        while not self._stopping.is_set():
            n += PRODUCERS
            try:
                self.history.asked += 3
                one = await self.queue.enqueue("work", n)
                two = await self.queue.enqueue_many([self.queue.remote("work").options(delay=0.01 * d).call(n)
                                                     for d in range(2)])  # fmt: skip
                self.history.acknowledged.update(job.id for job in (one, *two))
                with contextlib.suppress(JobNotFound):  # of a server that forgets; the history shows it
                    await one.result(timeout=DRAIN_SECONDS)
                    self.history.told.add(one.id)
            except StoreError as error:
                self.refusals.append(error)
                await asyncio.sleep(0.01)

    async def more(self, runs: int = 30) -> None:
        """Return once so many more runs have begun."""
        goal = len(self.history.events) + 2 * runs
        async with asyncio.timeout(DRAIN_SECONDS):
            while len(self.history.events) < goal:
                self._progress.clear()
                await self._progress.wait()

    async def wrong(self, raw: redis.Redis) -> list[str]:
        """Stop producing, let the queue run empty, and say what must not have happened."""
        async with Worker(self.working):
            await self.rest()
        return complaints(self.history, remains(raw, self.queue.name))

    async def rest(self) -> None:
        """Stop producing and return when the queue is empty, if there is a worker."""
        self._stopping.set()
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(*self._producing)
            while True:
                stats = await self.queue.stats()
                if not stats.queued + stats.scheduled + stats.running:
                    break
                await asyncio.sleep(0.02)

    def count_crashes(self, raw: redis.Redis) -> int:
        """Take the crashes that stand in the records for causes of second runs, and say how many they were."""
        crashes = 0
        for key in map(str, raw.scan_iter("aqueue:{load}:job:*", count=1000)):
            times = int(str(raw.hget(key, "crashes") or 0))
            self.history.causes[key.rpartition(":")[2]] += times
            crashes += times
        return crashes

    def worker(self, **options: Any) -> Worker:
        return Worker(self.working, concurrency=10, **options)

    async def __aenter__(self) -> Self:
        await self.queue.store()
        self._producing = [asyncio.create_task(self._produce(number)) for number in range(self._producers)]
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._stopping.set()
        for producer in self._producing:
            producer.cancel()
        await asyncio.gather(*self._producing, return_exceptions=True)
        await self.queue.close()
        await self.working.close()
