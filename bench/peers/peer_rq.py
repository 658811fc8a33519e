"""RQ: its worker that runs jobs in the same process, and the one that forks for each job."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import redis
from rq import Queue, SimpleWorker, Worker

from bench.peers.base import SyncPeer, main
from bench.peers.calls import RESULT_SECONDS, positional

WORKERS = {"": SimpleWorker, "simple": SimpleWorker, "fork": Worker}


class Rq(SyncPeer):
    """Variants: simple (SimpleWorker), fork (Worker). Either runs one job at a time, whatever the concurrency."""

    name = "rq"
    about = (
        "RQ runs one job at a time per process, so the concurrency has no effect; hiredis, log_job_description=False, "
        "scheduler process on (with_scheduler) for delayed jobs; bulk by Queue.enqueue_many in one pipeline; results "
        "awaited with latest_result (XREAD)."
    )

    def open(self) -> None:
        self.redis = redis.Redis.from_url(self.config.url)
        self.queue = Queue("bench", connection=self.redis, result_ttl=RESULT_SECONDS)

    def close(self) -> None:
        self.redis.close()

    def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return self.queue.enqueue(_path(task), *positional(number, payload))

    def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        path = _path(task)
        jobs: list[Any] = self.queue.enqueue_many(
            [Queue.prepare_data(path, positional(number, payload)) for number in numbers]
        )
        return jobs

    def delay(self, task: str, number: int, seconds: float) -> Any:
        return self.queue.enqueue_in(timedelta(seconds=seconds), _path(task), number)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.latest_result(timeout=math.ceil(timeout)).return_value

    def work(self) -> None:
        self.open()
        worker = WORKERS[self.config.variant]([self.queue], connection=self.redis, log_job_description=False)
        worker.work(logging_level="WARNING", with_scheduler=True)


def _path(task: str) -> str:
    return f"bench.peers.bodies.{task}"


if __name__ == "__main__":
    main(Rq)
