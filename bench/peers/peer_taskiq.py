"""taskiq with taskiq-redis: its stream broker and its list broker."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from taskiq import TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, Config, main, run_loop
from bench.peers.calls import MANY_CONNECTIONS, RESULT_SECONDS, patient, positional, terminated

PREFETCH = 100
"""Messages that wait in the worker beyond those that run."""
POLL_SECONDS = 0.001
"""Between two looks for a result; taskiq knows no other way to wait."""


class Taskiq(AsyncPeer):
    """Variants: stream (acknowledges), list (does not)."""

    name = "taskiq"
    about = (
        "What `taskiq worker --max-async-tasks N --max-prefetch 100 --no-parse` runs, on uvloop, orjson for messages "
        "and results; stream acknowledges when the result is saved, list not at all; no bulk; results polled every "
        "millisecond (check_interval); delayed by ListRedisScheduleSource, whose scheduler looks once a second."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        common: dict[str, Any] = {"queue_name": "bench", "max_connection_pool_size": MANY_CONNECTIONS}
        if config.variant == "list":
            broker: Any = ListQueueBroker(patient(config.url), **common)
        else:
            broker = RedisStreamBroker(patient(config.url), consumer_id="0", **common)
        backend = RedisAsyncResultBackend(
            config.url,
            result_ex_time=RESULT_SECONDS,
            max_connection_pool_size=MANY_CONNECTIONS,
            serializer=ORJSONSerializer(),
        )
        self.broker: Any = broker.with_serializer(ORJSONSerializer()).with_result_backend(backend)
        self.tasks = {name: self.broker.register_task(body, task_name=name) for name, body in bodies.ASYNC.items()}
        self.scheduler: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.broker.startup()
        self.source = ListRedisScheduleSource(self.config.url)

    async def close(self) -> None:
        if self.scheduler:
            self.scheduler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.scheduler
        await self.source.shutdown()
        await self.broker.shutdown()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.tasks[task].kiq(*positional(number, payload))

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        if self.scheduler is None:
            self.scheduler = asyncio.create_task(self._schedule())
        due = datetime.now(UTC) + timedelta(seconds=seconds)
        return await self.tasks[task].schedule_by_time(self.source, due, number)

    async def _schedule(self) -> None:
        """Run the process that taskiq wants for delayed jobs; here a task, so that nothing else pays for it."""
        every = timedelta(seconds=1)
        await run_scheduler_task(TaskiqScheduler(self.broker, [self.source]), interval=every, loop_interval=every)

    async def result(self, handle: Any, timeout: float) -> Any:
        found = await handle.wait_result(check_interval=POLL_SECONDS, timeout=timeout)
        found.raise_for_error()
        return found.return_value

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        self.broker.is_worker_process = True
        receiver = Receiver(
            self.broker, max_async_tasks=self.config.concurrency, max_prefetch=PREFETCH, validate_params=False
        )
        stop = asyncio.Event()
        running = asyncio.create_task(receiver.listen(stop))
        await terminated()
        stop.set()
        await running
        await self.broker.shutdown()


if __name__ == "__main__":
    main(Taskiq)
