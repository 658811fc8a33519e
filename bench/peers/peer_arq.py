"""arq."""

# pyright: reportMissingImports=false
# Measured in an environment of its own; not installed where types are checked.

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from bench.peers import bodies
from bench.peers.base import AsyncPeer, main, run_loop
from bench.peers.calls import MANY_CONNECTIONS, RESULT_SECONDS, positional

POLL_SECONDS = 0.001
"""arq takes jobs only when it polls, so this bounds its rate at low concurrency; 0 would spin."""


class Arq(AsyncPeer):
    name = "arq"
    about = (
        "Worker(max_jobs=N, poll_delay=1 ms) on uvloop (the default of 500 ms starts N jobs per half second), hiredis; "
        "no bulk; results polled every millisecond too. The poll costs some hundred round trips per idle second."
    )

    def settings(self) -> Any:
        settings = RedisSettings.from_dsn(self.config.url)
        settings.max_connections = MANY_CONNECTIONS
        return settings

    async def open(self) -> None:
        self.pool = await create_pool(self.settings())

    async def close(self) -> None:
        await self.pool.aclose()

    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        return await self.pool.enqueue_job(task, *positional(number, payload))

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        return await self.pool.enqueue_job(task, number, _defer_by=seconds)

    async def result(self, handle: Any, timeout: float) -> Any:
        return await handle.result(timeout=timeout, poll_delay=POLL_SECONDS)

    def work(self) -> None:
        run_loop(self._work())

    async def _work(self) -> None:
        worker = Worker(
            [func(with_context(body), name=name) for name, body in bodies.ASYNC.items()],
            redis_settings=self.settings(),
            max_jobs=self.config.concurrency,
            poll_delay=POLL_SECONDS,
            keep_result=RESULT_SECONDS,
            log_results=False,
        )
        with contextlib.suppress(asyncio.CancelledError):  # how arq answers SIGTERM
            await worker.async_run()
        await worker.close()


def with_context(body: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """arq gives every job its context first."""

    async def job(_context: dict[Any, Any], *arguments: Any) -> Any:
        return await body(*arguments)

    return job


if __name__ == "__main__":
    main(Arq)
