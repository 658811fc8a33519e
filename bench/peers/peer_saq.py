"""SAQ."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from saq import Queue, Worker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, main, run_loop
from bench.peers.calls import RESULT_SECONDS, named, pooled

PIECE_SECONDS = 0.05


class Saq(AsyncPeer):
    name = "saq"
    about = (
        "Worker(concurrency=N) on uvloop with blocking pops that never time out, max_concurrent_ops=100, hiredis; no "
        "bulk; results awaited with Job.refresh(until_complete) (pub/sub); due times are whole seconds, rounded up "
        "here, and looked at once a second. Queue.sweep() is called before the worker starts: its own first sweep (and "
        "one each minute) marks a job that was taken a moment ago as aborted, although it runs."
    )

    async def open(self) -> None:
        self.queue = Queue.from_url(pooled(self.config.url), name="bench", max_concurrent_ops=100)
        await self.queue.connect()

    async def close(self) -> None:
        await self.queue.disconnect()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.queue.enqueue(task, ttl=RESULT_SECONDS, **named(number, payload))

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.queue.enqueue(task, scheduled=math.ceil(time.time() + seconds), number=number)

    async def result(self, handle: Any, timeout: float) -> Any:
        """Wait in short pieces: refresh() looks first and subscribes then, so it can miss the end of the job."""
        end = time.monotonic() + timeout
        while not handle.completed:
            try:
                await handle.refresh(until_complete=PIECE_SECONDS)
            except TimeoutError:
                if time.monotonic() > end:
                    raise
        return handle.result

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        await self.open()
        functions = [(name, with_context(body)) for name, body in bodies.ASYNC.items()]
        await self.queue.sweep()  # else the sweep at the start aborts jobs that the worker has only just taken
        worker = Worker(self.queue, functions, concurrency=self.config.concurrency)
        try:
            await worker.start()
        finally:
            await self.close()


def with_context(body: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """SAQ gives every job its context first and the arguments by name."""

    async def job(_context: Any, **arguments: Any) -> Any:
        return await body(**arguments)

    return job


if __name__ == "__main__":
    main(Saq)
