"""Thousands of callers on a handful of connections: there is no pool that could be exhausted, and none to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import redis
from servers import Server

from aqueue import JobState, Queue, Worker
from faults.load import until

pytestmark = pytest.mark.timeout(180)

PRODUCER = 2
"""One for commands, one on which results are told."""
WORKER = 4
"""For commands, for the parked fetch, for the heartbeat of another thread, and one on which it is spoken to."""
OURS = 1
"""This test's own, to look."""


def connected(raw: redis.Redis) -> int:
    return int(dict(raw.info("clients"))["connected_clients"])


@asynccontextmanager
async def watched(raw: redis.Redis, every: float) -> AsyncGenerator[list[int]]:
    """Count the connections now and then."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(await asyncio.to_thread(connected, raw))
            await asyncio.sleep(every)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _callers_at_once(server: Server, raw: redis.Redis, *, callers: int, kills: int) -> None:
    async with Queue("q", url=server.url) as queue, Queue("q", url=server.url + "?client_name=worker") as working:

        @working.task
        async def work(n: int) -> int:
            return n

        async with Worker(working, concurrency=100):
            assert await (await queue.enqueue("work", 0)).result(timeout=30) == 0
            await until(lambda: connected(raw) == PRODUCER + WORKER + OURS)
            if not kills:  # no room for one more, so that nobody can have opened one meanwhile
                raw.config_set("maxclients", connected(raw))
            done = 0

            async def call(n: int) -> None:
                nonlocal done
                job = await queue.remote("work").options(delay=0.5 * (n % 2)).enqueue(n)
                status, info, result = await asyncio.gather(job.status(), job.info(), job.result(timeout=60))
                assert status in set(JobState)
                assert (info.task, result) == ("work", n)
                assert await job.status() is JobState.COMPLETED
                done += 1

            async with watched(raw, 0.02) as seen:
                calls = asyncio.gather(*(call(n) for n in range(callers)))
                killed = 0
                for n in range(kills):
                    await until(lambda part=n * callers // (kills + 1): done >= part)  # type: ignore[misc]
                    killed += sum(int(raw.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub"))
                await calls
        print(
            f"{callers} callers, {killed} connections killed in {kills} storms, at most {max(seen)} connections at once"
        )
        assert done == callers
        if not kills:
            assert max(seen) <= PRODUCER + WORKER + OURS
        else:
            assert killed >= kills
    stats = dict(raw.info("stats"))
    assert kills or stats["rejected_connections"] == 0


async def test_two_thousand_callers_share_what_few_connections_there_are(
    own_server: Server, raw_own: redis.Redis
) -> None:
    """The server takes no connection beyond those that are open, and nobody needs one."""
    await _callers_at_once(own_server, raw_own, callers=2000, kills=0)


async def test_storms_of_killed_connections_are_felt_by_no_caller(own_server: Server, raw_own: redis.Redis) -> None:
    """CLIENT KILL of everybody, again and again, while a thousand calls are on their way."""
    await _callers_at_once(own_server, raw_own, callers=1000, kills=10)


@pytest.mark.chaos
async def test_ten_thousand_callers_outlive_a_hundred_storms(own_server: Server, raw_own: redis.Redis) -> None:
    """The long form."""
    await _callers_at_once(own_server, raw_own, callers=10_000, kills=0)
    raw_own.config_set("maxclients", 1000)
    await _callers_at_once(own_server, raw_own, callers=10_000, kills=100)
