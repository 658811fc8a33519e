"""docket (pydocket on PyPI)."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from docket import Docket as Dock
from docket import Worker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, Config, main, run_loop
from bench.peers.calls import RESULT_SECONDS, pooled, positional, terminated

CHECK_INTERVAL = timedelta(milliseconds=1)
"""A worker with all slots busy sleeps for this before it looks for a free one; less than 1 ms would block for ever."""
RESOLUTION = timedelta(milliseconds=10)
"""Between two looks at the delayed jobs."""


class Docket(AsyncPeer):
    name = "docket"
    about = (
        "Worker(concurrency=N) on uvloop with minimum_check_interval=1 ms, since a full worker sleeps that long "
        "(default 250 ms), and scheduling_resolution=10 ms; a pool without redis-py's limit of 100 connections; bulk "
        "by add_many. These intervals cost about a thousand round trips per idle second."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dock: Any = Dock(name="bench", url=pooled(config.url), execution_ttl=timedelta(seconds=RESULT_SECONDS))
        for name, body in bodies.ASYNC.items():
            self.dock.register(body, names=[name])

    async def open(self) -> None:
        await self.dock.__aenter__()

    async def close(self) -> None:
        await self.dock.__aexit__(None, None, None)

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.dock.add(task)(*positional(number, payload))

    async def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        calls = [self.dock.call(task)(*positional(number, payload)) for number in numbers]
        added: list[Any] = await self.dock.add_many(calls)
        return added

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.dock.add(task, when=datetime.now(UTC) + timedelta(seconds=seconds))(number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return await handle.get_result(timeout=timedelta(seconds=timeout))

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        async with (
            self.dock,
            Worker(
                self.dock,
                concurrency=self.config.concurrency,
                minimum_check_interval=CHECK_INTERVAL,
                scheduling_resolution=RESOLUTION,
            ) as worker,
        ):
            running = asyncio.create_task(worker.run_forever())
            await terminated()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


if __name__ == "__main__":
    main(Docket)
