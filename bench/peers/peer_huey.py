"""Huey with worker threads."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from huey import RedisHuey

from bench.peers import bodies
from bench.peers.base import Config, SyncPeer, main
from bench.peers.calls import pooled, positional

POLL_SECONDS = 0.001


class Huey(SyncPeer):
    name = "huey"
    about = (
        "Consumer with N worker threads, blocking pops, no periodic tasks; scheduler at its shortest interval of 1 s; "
        "bulk by TaskWrapper.map, which sends one by one; results polled every millisecond (max_delay), since "
        "notify_result costs the worker a round trip per job. A job is lost when its worker dies."
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.huey: Any = RedisHuey("bench", url=pooled(config.url))
        self.tasks = {name: self.huey.task(name=name)(body) for name, body in bodies.BLOCKING.items()}

    def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return self.tasks[task](*positional(number, payload))

    def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        results: Any = self.tasks[task].map([positional(number, payload) for number in numbers])
        return list(results._results)  # noqa: SLF001  # a group has no other way to give up its members unread

    def delay(self, task: str, number: int, seconds: float) -> Any:
        return self.tasks[task].schedule(args=(number,), delay=seconds)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.get(blocking=True, timeout=timeout, max_delay=POLL_SECONDS)

    def work(self) -> None:
        self.huey.create_consumer(
            workers=self.config.concurrency,
            worker_type="thread",
            periodic=False,
            initial_delay=POLL_SECONDS,
            max_delay=POLL_SECONDS,
            graceful_signal="TERM",
        ).run()


if __name__ == "__main__":
    main(Huey)
