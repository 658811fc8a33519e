"""streaq."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from streaq import Worker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, Config, main
from bench.peers.calls import RESULT_SECONDS, positional

PREFETCH = 100
"""Tasks that wait in the worker beyond those that run."""


class Streaq(AsyncPeer):
    name = "streaq"
    about = (
        "Worker(concurrency=N, prefetch=100) on uvloop, silent tasks; bulk by enqueue_many in one pipeline. Each "
        "result() ends 100 ms late: the Redis client it uses waits in vain for the reply to UNSUBSCRIBE."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.worker: Any = Worker(
            config.url,
            concurrency=config.concurrency,
            prefetch=PREFETCH,
            queue_name="bench",
            anyio_kwargs={"use_uvloop": True},
        )
        options: dict[str, Any] = {"ttl": RESULT_SECONDS, "silent": True}
        self.tasks = {name: self.worker.task(name=name, **options)(body) for name, body in bodies.ASYNC.items()}

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(self.worker)

    async def close(self) -> None:
        await self.stack.aclose()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.tasks[task].enqueue(*positional(number, payload))

    async def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        tasks = [self.tasks[task].enqueue(*positional(number, payload)) for number in numbers]
        await self.worker.enqueue_many(tasks)
        return tasks

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.tasks[task].enqueue(number).start(delay=timedelta(seconds=seconds))

    async def result(self, handle: Any, timeout: float) -> Any:
        found = await handle.result(timeout=math.ceil(timeout))
        return found.result

    def work(self) -> None:
        self.worker.run_sync()


if __name__ == "__main__":
    main(Streaq)
