"""Every key has a lifetime or a cap: whatever becomes of many jobs, the store returns to what it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
from servers import Server

from aqueue import Context, Discard, Queue, Retry, Settings, Worker
from aqueue.task import Call
from faults.fleet import wait_until

SETTINGS = Settings(result_ttl=1, failure_ttl=1, lease=1.5)
LONGEST_MS = 10_000
"""The longest lifetime here: of the stub of a job whose result is not kept."""


async def mixed_fates(queue: Queue, count: int) -> None:
    """Enqueue jobs of every fate, in equal parts, and run what runs."""

    @queue.task
    async def fine(n: int) -> int:
        return n

    @queue.task
    async def second_time(context: Context) -> None:
        if context.attempt == 1:
            raise ValueError("first")

    @queue.task(retry=1)
    async def wrong() -> None:
        raise Discard("of no use")

    @queue.task(retry=Retry(max_attempts=2, backoff=0.05), failure_ttl=-1)
    async def remembered() -> None:
        raise ValueError("for ever")

    kinds: list[Callable[[int], Call[Any]]] = [
        fine.call,
        lambda n: fine.options(result_ttl=0).call(n),
        lambda n: fine.options(key=f"key {n}").call(n),
        lambda n: fine.options(delay=0.05).call(n),
        lambda n: fine.options(ttl=0.001, delay=0.001).call(n),
        lambda _: second_time.options(retry=Retry(max_attempts=2, backoff=0.1)).call(),
        lambda _: wrong.call(),
        lambda _: wrong.options(failure_ttl=0).call(),
        lambda _: wrong.options(failure_ttl=0.5).call(),
        lambda _: remembered.call(),
        lambda _: remembered.options(failure_ttl=1).call(),
        lambda _: remembered.options(failure_ttl=0).call(),
        lambda n: fine.options(delay=600).call(n),
    ]
    handles = await queue.enqueue_many(kinds[n % len(kinds)](n) for n in range(count))
    for job in handles[len(kinds) - 1 :: len(kinds)]:
        await job.cancel()

    async def ended() -> bool:
        stats = await queue.stats()
        return stats.queued + stats.scheduled + stats.running == 0

    async with Worker(queue, concurrency=100):
        while not await ended():
            await asyncio.sleep(0.05)
        await queue.failed.rerun_all(task="remembered", delay=0.1)
        while not await ended():
            await asyncio.sleep(0.05)
    assert await queue.failed.purge(task="remembered") >= count // len(kinds)  # what was to stay for ever


def let_time_pass(client: redis.Redis, base: set[str]) -> None:
    """End what has a lifetime, and leave what has none."""
    for key in set(map(str, client.keys("*"))) - base:
        left_ms = int(client.pttl(key))
        assert left_ms <= LONGEST_MS, f"{key} would stay for {left_ms} ms"
        if left_ms > 0:
            client.pexpire(key, 1)


async def _returns_to_its_base(server: Server, count: int, *, waiting: bool) -> None:
    async with Queue("keys", url=server.url, settings=SETTINGS) as queue:
        with server.client() as client:
            await mixed_fates(queue, count)
            peak = client.dbsize()
            base = {"aqueue:queues", "aqueue:{keys}:stats", "aqueue:{keys}:failed", "aqueue:{keys}:pruned"}
            if not waiting:
                let_time_pass(client, base)
            wait_until(lambda: set(client.keys("*")) <= base, 60, "all keys of jobs and workers have gone")
            store = await queue.store()
            async with asyncio.timeout(60):
                while client.zcard("aqueue:{keys}:failed"):  # its entries fall due a failure_ttl after their end
                    client.delete("aqueue:{keys}:pruned")  # else the next pass is due in a minute
                    await store.prune()
                    await asyncio.sleep(0.02)
            left = sorted(client.keys("*"))
            stats = client.hgetall("aqueue:{keys}:stats")
            print(f"{count} jobs: {peak} keys at the end of the run, then {left}; {stats}")


async def test_the_key_count_returns_to_its_base(own_server: Server) -> None:
    """A queue that forgets to clean up fills the server in weeks, far from any test."""
    await _returns_to_its_base(own_server, 1_800, waiting=False)


@pytest.mark.chaos
async def test_fifty_thousand_jobs_leave_nothing(own_server: Server) -> None:
    """The long form."""
    await _returns_to_its_base(own_server, 50_000, waiting=True)
