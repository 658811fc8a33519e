"""BullMQ's worker and queue for Python."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from bullmq import Job, Queue, QueueEvents, Worker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, main, run_loop
from bench.peers.calls import named, pooled, terminated


class Bullmq(AsyncPeer):
    name = "bullmq"
    about = (
        "One Worker(concurrency=N) on uvloop; connection=a redis-py client with its pool, which drains more than twice "
        "what the single connection does that an address gets; bulk by addBulk in pipelines; results are kept and "
        "awaited with QueueEvents. The package rounds its wait for a delayed job up to whole seconds."
    )

    def client(self) -> Any:
        return redis.asyncio.from_url(pooled(self.config.url), decode_responses=True)

    async def open(self) -> None:
        self.queue: Any = Queue("bench", {"connection": self.client()})
        self.events: Any = None

    async def close(self) -> None:
        if self.events:
            await self.events.close()
        await self.queue.close()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.queue.add(task, named(number, payload), {})

    async def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        jobs: list[Any] = await self.queue.addBulk([{"name": task, "data": named(n, payload)} for n in numbers])
        return jobs

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.queue.add(task, named(number, None), {"delay": round(seconds * 1000)})

    async def result(self, handle: Any, timeout: float) -> Any:
        """Listen, then look, as waitUntilFinished of BullMQ for Node does; the Python package has only the parts."""
        if self.events is None:
            self.events = QueueEvents("bench", {"connection": self.client()})
        done: asyncio.Queue[Any] = asyncio.Queue()
        event = f"completed:{handle.id}"
        listener = self.events.on(event, lambda found, _id: done.put_nowait(found["returnvalue"]))
        try:
            job = await Job.fromId(self.queue, handle.id)
            if job.finishedOn:
                return json.loads(job.returnvalue) if isinstance(job.returnvalue, str) else job.returnvalue
            return await asyncio.wait_for(done.get(), timeout)
        finally:
            self.events.off(event, listener)

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        options = {"connection": self.client(), "concurrency": self.config.concurrency}
        worker: Any = Worker("bench", _process, options)
        await terminated()
        await worker.close()


async def _process(job: Any, _token: str) -> Any:
    return await bodies.ASYNC[job.name](**job.data)


if __name__ == "__main__":
    main(Bullmq)
