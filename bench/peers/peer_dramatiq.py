"""Dramatiq: actors in threads, and coroutine actors on its AsyncIO middleware's event loop."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dramatiq
import uvloop
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers import bodies
from bench.peers.base import Config, SyncPeer, main
from bench.peers.calls import RESULT_SECONDS, pooled, positional, wait_for_sigterm

PREFETCH = 1_000
IDLE_MILLISECONDS = 10


class Dramatiq(SyncPeer):
    """Variants: threads, asyncio."""

    name = "dramatiq"
    about = (
        "dramatiq.Worker with N threads, default middleware and Results on Redis, queue_prefetch=1000 (default 2 N: a "
        "tenth of the rate at N = 1) and worker_timeout=10 ms, the longest pause between two polls (default 1 s), "
        "hiredis; asyncio: coroutine actors on uvloop, still one thread per running job; bulk by group.run(), which "
        "sends one by one."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        url = pooled(config.url)
        self.broker = RedisBroker(url=url)
        results = RedisBackend(url=url)
        self.broker.add_middleware(Results(backend=results, store_results=True, result_ttl=RESULT_SECONDS * 1000))
        if asynchronous := config.variant == "asyncio":
            self.broker.add_middleware(AsyncIO())
        dramatiq.set_broker(self.broker)
        table: dict[str, Any] = bodies.ASYNC if asynchronous else bodies.BLOCKING
        self.actors = {name: dramatiq.actor(body, actor_name=name, broker=self.broker) for name, body in table.items()}

    def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return self.actors[task].send(*positional(number, payload))

    def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        messages = [self.actors[task].message(*positional(number, payload)) for number in numbers]
        return list(dramatiq.group(messages, broker=self.broker).run().children)

    def delay(self, task: str, number: int, seconds: float) -> Any:
        return self.actors[task].send_with_options(args=(number,), delay=round(seconds * 1000))

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get_result(block=True, timeout=round(timeout * 1000))

    def work(self) -> None:
        if self.config.variant == "asyncio":
            uvloop.install()
        worker = dramatiq.Worker(self.broker, worker_threads=self.config.concurrency, worker_timeout=IDLE_MILLISECONDS)
        worker.queue_prefetch = PREFETCH  # what the variable dramatiq_queue_prefetch sets, if set before the import
        worker.start()
        wait_for_sigterm()
        worker.stop()


if __name__ == "__main__":
    main(Dramatiq)
