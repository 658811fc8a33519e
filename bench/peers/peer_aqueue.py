"""aqueue itself, measured like its peers; the further variants price single features."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

from aqueue import Context, Middleware, Queue, Retry, Worker
from aqueue.middleware import Run
from bench.peers import bodies
from bench.peers.base import AsyncPeer, Config, main, run_loop, trace


class Counting(Middleware):
    """The least that a middleware can do around a run."""

    def __init__(self) -> None:
        self.runs = 0

    async def around_run(self, context: Context, proceed: Run) -> Any:
        self.runs += 1
        return await proceed()


async def flaky(ctx: Context, number: int) -> int:
    """Fail the first time, so that every job takes the retry path once."""
    trace().note(number)
    if ctx.attempt == 1:
        raise ValueError(number)
    return number


class Aqueue(AsyncPeer):
    """Variants: "" plain; "key": each job has a unique key; "middleware": one around each run."""

    name = "aqueue"
    about = (
        "All defaults; one Worker(concurrency=N) per process on uvloop, results stored for an hour, acknowledged when "
        "they end; enqueue_many in bulk."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        layers = [Counting()] if config.variant == "middleware" else []
        self.queue = Queue("bench", url=config.url, middleware=layers)
        self.tasks: dict[str, Any] = {name: self.queue.task(name=name)(body) for name, body in bodies.ASYNC.items()}
        at_once = Retry(max_attempts=2, backoff=0)
        self.tasks["flaky"] = self.queue.task(name="flaky", retry=at_once)(flaky)

    async def open(self) -> None:
        await self.queue.store()

    async def close(self) -> None:
        await self.queue.close()

    def _task(self, task: str, number: int) -> Any:
        one = self.tasks[task]
        return one.options(key=str(number)) if self.config.variant == "key" else one

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self._task(task, number).enqueue(*_arguments(number, payload))

    async def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        calls = (self._task(task, number).call(*_arguments(number, payload)) for number in numbers)
        return await self.queue.enqueue_many(calls)

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.tasks[task].options(delay=seconds).enqueue(number)

    async def result(self, handle: Any, timeout: float) -> Any:
        return await handle.result(timeout=timeout)

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        worker = Worker(self.queue, concurrency=self.config.concurrency, max_jobs=self.config.max_jobs or None)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        async with self.queue:
            await worker.run()


def _arguments(number: int, payload: str | None) -> tuple[Any, ...]:
    return (number,) if payload is None else (number, payload)


if __name__ == "__main__":
    main(Aqueue)
