"""Celery with the pool of threads."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery as App

from bench.peers import bodies
from bench.peers.base import Config, SyncPeer, main
from bench.peers.calls import MANY_CONNECTIONS, RESULT_SECONDS, positional

PREFETCHED = 64
"""Messages, when there are few threads."""


class Celery(SyncPeer):
    name = "celery"
    about = (
        "Pool of threads, acks_late, prefetch of 64 messages or 4 per thread (its optimizing guide: 64 or more for "
        "short tasks), without gossip, mingle, heartbeat, events and rate limits; bulk by kombu's Producer.batch; "
        "results in Redis, awaited by pub/sub, which costs a SUBSCRIBE per enqueue."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.app: Any = App("bench", broker=config.url, backend=config.url, set_as_current=True)
        self.app.conf.update(
            task_default_queue="bench",
            task_acks_late=True,
            worker_prefetch_multiplier=max(4, PREFETCHED // config.concurrency),
            worker_disable_rate_limits=True,
            worker_hijack_root_logger=False,
            result_expires=RESULT_SECONDS,
            broker_pool_limit=100,
            redis_max_connections=MANY_CONNECTIONS,
            broker_connection_retry_on_startup=True,
        )
        self.tasks = {name: self.app.task(name=name)(body) for name, body in bodies.BLOCKING.items()}

    def close(self) -> None:
        self.app.close()

    def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return self.tasks[task].delay(*positional(number, payload))

    def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        with self.app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=len(numbers)):
            return [self.tasks[task].apply_async(positional(number, payload), producer=producer) for number in numbers]

    def delay(self, task: str, number: int, seconds: float) -> Any:
        return self.tasks[task].apply_async((number,), countdown=seconds)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get(timeout=timeout)

    def work(self) -> None:
        self.app.Worker(
            pool="threads",
            concurrency=self.config.concurrency,
            loglevel="WARNING",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()


if __name__ == "__main__":
    main(Celery)
