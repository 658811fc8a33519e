"""One queue object, however many loops, threads and processes use it: each has its own connections."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
import redis.asyncio as redis_asyncio
from facts import until
from servers import Server

from aqueue import ConfigurationError, JobState, Queue, Settings, StoreUnavailable, Task, Worker

SECONDS = 10.0


def queue_of(server: Server) -> tuple[Queue, Task[[int], int]]:
    queue = Queue("q", url=server.url, settings=Settings(lease=1.5))

    @queue.task
    async def double(n: int) -> int:
        return 2 * n

    return queue, double


async def whole_round(queue: Queue, double: Task[[int], int], n: int) -> int:
    """Enqueue, work and wait, as one program would."""
    async with Worker(queue):
        return await (await double.enqueue(n)).result(timeout=SECONDS)


# loops


def test_one_queue_serves_one_run_after_the_other(server: Server) -> None:
    """Scripts and web views that call asyncio.run each time must not meet a dead loop's socket."""
    queue, double = queue_of(server)
    assert [asyncio.run(whole_round(queue, double, n)) for n in range(3)] == [0, 2, 4]

    async def closing() -> int:
        async with queue:
            return await whole_round(queue, double, 3)

    assert asyncio.run(closing()) == 6
    assert asyncio.run(whole_round(queue, double, 4)) == 8


def test_a_finished_loop_is_not_kept(server: Server, raw: redis.Redis) -> None:
    """A web view that calls asyncio.run per request must leak neither loops nor sockets."""
    _, double = queue_of(server)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def once() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await double.enqueue(1)

    before = len(raw.client_list())
    for _ in range(5):
        asyncio.run(once())
    asyncio.run(until(lambda: len(raw.client_list()) <= before, "all connections are closed"))
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


def test_two_loops_use_one_queue_at_once(server: Server) -> None:
    """A framework with a thread of its own, or a test runner with one loop per thread."""
    queue, double = queue_of(server)
    barrier, results = threading.Barrier(2), dict[int, list[int]]()

    async def rounds(start: int) -> list[int]:
        async with queue:
            jobs = [await double.enqueue(start + n) for n in range(50)]
            await asyncio.to_thread(barrier.wait, SECONDS)
            async with Worker(queue):
                return [await job.result(timeout=SECONDS) for job in jobs]

    def run(start: int) -> None:
        results[start] = asyncio.run(rounds(start))

    threads = [threading.Thread(target=run, args=(start,)) for start in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    assert results == {start: [2 * (start + n) for n in range(50)] for start in (0, 1000)}


async def test_a_closed_queue_opens_again(queue: Queue, raw: redis.Redis) -> None:
    """`close` gives connections back; it does not break what somebody still holds."""
    job = await queue.enqueue("work")
    await queue.close()
    await queue.close()
    assert await job.status() is JobState.QUEUED
    await job.cancel()
    async with queue:
        assert await job.status() is JobState.CANCELLED


async def test_closing_ends_waits_for_results(queue: Queue) -> None:
    """Who waits is told, and does not hang on a connection that is gone."""
    job = await queue.enqueue("work")
    waiting = asyncio.create_task(job.result(timeout=SECONDS))
    await until(lambda: queue._waiting, "the wait has begun")
    await asyncio.sleep(0)
    await queue.close()
    with pytest.raises(StoreUnavailable):
        await waiting


def test_without_a_loop_the_error_says_so(server: Server) -> None:
    """`coroutine.send` tricks and other event libraries are told what is missing."""
    queue, double = queue_of(server)
    with pytest.raises(ConfigurationError, match="running event loop"):
        double.enqueue(1).send(None)
    with pytest.raises(ConfigurationError, match="running event loop"):
        queue.unchecked_store().links  # noqa: B018  # the property opens


# processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_and_its_parent_both_go_on(server: Server) -> None:
    """Pre-forking servers open queues first; two processes on one socket would read each other's replies."""
    queue, double = queue_of(server)

    async def parent() -> list[int]:
        first = await double.enqueue(1)
        waiting = asyncio.create_task(first.result(timeout=SECONDS))
        await until(lambda: queue._waiting, "the wait has begun")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if asyncio.run(whole_round(queue, double, 20)) == 40 else 2
            finally:
                os._exit(code)  # nothing of pytest may run twice
        second = await double.enqueue(2)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        async with Worker(queue):
            return [await waiting, await second.result(timeout=SECONDS), await whole_round(queue, double, 3)]

    async def closing() -> list[int]:
        async with queue:
            return await parent()

    assert asyncio.run(closing()) == [2, 4, 6]


# a client of one's own


@pytest.fixture
async def given(server: Server) -> AsyncIterator[redis_asyncio.Redis]:
    """A client as people have it: with redis-py's own retries and decoding."""
    client = redis_asyncio.Redis(unix_socket_path=str(server.socket), decode_responses=True)
    yield client
    await client.aclose()


async def test_a_given_client_serves_queue_and_worker(given: redis_asyncio.Redis) -> None:
    """Its address is taken over and its retries are not, so nothing is sent twice behind our back."""
    async with Queue("q", client=given, settings=Settings(lease=1.5)) as queue:

        @queue.task
        async def double(n: int) -> int:
            return 2 * n

        assert await whole_round(queue, double, 4) == 8
        connection: Any = (await queue.unchecked_store().links.command("x"))._connection
        assert connection.retry._retries == 0
    assert await given.ping()
    assert await given.exists("aqueue:queues")


async def test_a_client_made_from_a_url_keeps_its_database(server: Server, raw: redis.Redis) -> None:
    """Jobs in another database than the one somebody named would be lost to them."""
    client = redis_asyncio.Redis.from_url(f"{server.url}?db=3")
    async with Queue("q", client=client) as queue:
        job = await queue.enqueue("work")
        await job.cancel()
    assert await client.exists(f"aqueue:{{q}}:job:{job.id}")
    assert raw.keys() == []
    await client.flushdb()
    await client.aclose()


# connections


async def test_a_worker_needs_few_connections(queue: Queue, server: Server, raw: redis.Redis) -> None:
    """Managed servers bill and limit connections; concurrency must not multiply them."""
    others = [Queue(name, url=server.url, settings=queue.settings) for name in ("r", "s")]
    queues = [queue, *others]
    await queue.close()
    await until(lambda: len(raw.client_list()) == 2, "only the connections of two fixtures are left")

    @queue.task
    async def work() -> None: ...

    async with Worker(*queues, concurrency=50):
        jobs = await queue.enqueue_many(work.call() for _ in range(200))
        for job in jobs:
            await job.result(timeout=SECONDS)
        parked = {f"aqueue:{{{one.name}}}:queued" for one in queues}

        def all_parked() -> bool:
            return sum(client["cmd"] == "blmove" for client in raw.client_list()) == len(parked)

        await until(all_parked, "every queue has a parked fetch")
        assert len(raw.client_list()) - 2 <= 3 + len(queues)
    for one in others:
        await one.close()
