"""One queue object, however many loops, threads and processes use it: each has its own connections."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
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

from aqueue import ConfigurationError, JobState, Queue, Settings, StoreUnavailable, Worker

SECONDS = 10.0
FIXTURES = 2
"""Connections of the fixtures `server` and `raw`."""


async def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def unopened(server: Server) -> Queue:
    """A queue that nobody has opened yet, as a module defines it."""
    queue = Queue("q", url=server.url, settings=Settings(lease=1.5))
    queue.task(double)
    return queue


async def round_trip(queue: Queue, n: int) -> int:
    """Enqueue, work and wait, as one program would."""
    async with Worker(queue):
        return int(await (await queue.enqueue("double", n)).result(timeout=SECONDS))


async def closing_round_trip(queue: Queue, n: int) -> int:
    async with queue:
        return await round_trip(queue, n)


def waits(queue: Queue) -> int:
    """Count the jobs of this queue whose end is waited for here."""
    return sum(len(waiting._waiters) for waiting in queue._waiting.values())


def others(raw: redis.Redis) -> int:
    """Count the connections beside those of the fixtures."""
    return len(raw.client_list()) - FIXTURES


async def until_alone(raw: redis.Redis) -> None:
    """Return once the server has seen every other connection end: it drops them a turn of its loop late."""
    await until(lambda: others(raw) == 0, "only the connections of the fixtures are left")


# loops


def test_a_queue_works_in_one_loop_after_another(unopened: Queue) -> None:
    """Scripts and web views call asyncio.run more than once, seldom close what they opened, and must not meet a dead
    loop's socket."""
    left, closed = round_trip, closing_round_trip
    rounds = [left, left, closed, closed, left]
    assert [asyncio.run(use(unopened, n)) for n, use in enumerate(rounds)] == [0, 2, 4, 6, 8]


def test_a_worker_object_works_in_one_loop_after_another(unopened: Queue) -> None:
    """It may be made at import, like the queue."""
    worker = Worker(unopened)

    async def burst() -> int:
        job = await unopened.enqueue("double", 4)
        async with worker:
            result = await job.result(timeout=SECONDS)
        await unopened.close()
        return int(result)

    assert [asyncio.run(burst()) for _ in range(2)] == [8, 8]


def test_a_finished_loop_is_not_kept(unopened: Queue, raw: redis.Redis) -> None:
    """A web view that calls asyncio.run per request must leak neither loops nor sockets."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def once() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await unopened.enqueue("double", 1)

    for _ in range(5):
        asyncio.run(once())
    asyncio.run(until_alone(raw))
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


def test_a_queue_works_in_several_loops_at_once(unopened: Queue) -> None:
    """A web server with several threads shares the module's queue; each gets its own answers."""
    starts = (0, 1_000, 2_000, 3_000)
    together, results = threading.Barrier(len(starts), timeout=2 * SECONDS), dict[int, list[int]]()

    async def rounds(start: int) -> list[int]:
        async with unopened:
            await asyncio.to_thread(together.wait)
            jobs = [await unopened.enqueue("double", start + n) for n in range(50)]
            await asyncio.to_thread(together.wait)
            async with Worker(unopened):
                return [await job.result(timeout=2 * SECONDS) for job in jobs]

    def run(start: int) -> None:
        results[start] = asyncio.run(rounds(start))

    threads = [threading.Thread(target=run, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * SECONDS)
    assert results == {start: [2 * (start + n) for n in range(50)] for start in starts}


def test_without_a_loop_the_error_says_so(unopened: Queue) -> None:
    """Who drives a coroutine by hand, as some frameworks do, is told what is missing, and not in asyncio's words."""
    for call in (unopened.enqueue("double", 1), unopened.tasks["double"].enqueue(1)):
        with pytest.raises(ConfigurationError, match="running event loop"):
            call.send(None)
    with pytest.raises(ConfigurationError, match="running event loop"):
        unopened.unchecked_store().links  # noqa: B018  # the property opens


# closing


async def test_a_closed_queue_opens_again(queue: Queue) -> None:
    """`close` gives connections back; it does not break what somebody still holds, and may be called twice."""
    queue.task(double)
    job = await queue.enqueue("double", 1)
    await queue.close()
    await queue.close()
    assert await job.status() is JobState.QUEUED
    await job.cancel()
    async with queue:
        assert await job.status() is JobState.CANCELLED
    for n in range(3):
        assert await closing_round_trip(queue, n) == 2 * n


@pytest.mark.parametrize("moment", ["opening", "opened"])
async def test_closing_ends_waits_for_results(queue: Queue, moment: str) -> None:
    """Who waits is told, even while its subscription is being opened, and does not hang on what is gone."""
    job = await queue.enqueue("work")
    waiting = asyncio.create_task(job.result(timeout=SECONDS))
    while not queue._waiting:  # `until` would look again only after it has been opened
        await asyncio.sleep(0)
    if moment == "opened":
        await until(lambda: waits(queue) == 1, "the wait has begun")
    await queue.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting


async def test_closing_one_queue_leaves_others_of_the_same_server_alone(queue: Queue, server: Server) -> None:
    """They share connections, and must not notice."""
    other = Queue("other", url=server.url)
    other.task(double)
    queue.task(double)
    async with Worker(queue):
        for n in range(5):
            async with other:
                await other.enqueue("double", n)
            assert await (await queue.enqueue("double", n)).result(timeout=SECONDS) == 2 * n


async def test_closing_a_queue_closes_its_connections(unopened: Queue, raw: redis.Redis) -> None:
    """Connections that stay open are found by whoever pays for the server."""
    await until_alone(raw)
    assert await round_trip(unopened, 1) == 2
    assert others(raw) > 0
    await unopened.close()
    await until_alone(raw)


# processes


def fork(queue: Queue) -> int:
    """Fork here, run a round in the child, whose exit code is its result, and return its process id."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = asyncio.run(round_trip(queue, 20))
        finally:
            os._exit(code)  # nothing of pytest may run twice
    return child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("where", ["thread of the loop", "another thread"])
def test_a_forked_child_and_its_parent_both_go_on(unopened: Queue, where: str) -> None:
    """Pre-forking servers open queues first; two processes on one socket would read each other's replies."""

    async def parent() -> list[int]:
        jobs = [await unopened.enqueue("double", n) for n in range(10)]
        waiting = [asyncio.create_task(job.result(timeout=2 * SECONDS)) for job in jobs]
        await until(lambda: waits(unopened) == len(jobs), "the waits have begun")
        child = fork(unopened) if where == "thread of the loop" else await asyncio.to_thread(fork, unopened)
        late = await unopened.enqueue("double", 10)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 40
        async with Worker(unopened):
            answers = [*await asyncio.gather(*waiting), await late.result(timeout=SECONDS)]
        return [*answers, await round_trip(unopened, 11)]

    async def closing() -> list[int]:
        async with unopened:
            return await parent()

    assert asyncio.run(closing()) == [2 * n for n in range(12)]


def _child_of_multiprocessing(url: str) -> None:
    queue = Queue("q", url=url)
    queue.task(double)
    assert asyncio.run(closing_round_trip(queue, 5)) == 10


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_children_of_multiprocessing_may_use_the_same_server(queue: Queue, server: Server, method: str) -> None:
    """Both start methods are the default somewhere."""
    queue.task(double)
    assert await round_trip(queue, 1) == 2
    process = multiprocessing.get_context(method).Process(target=_child_of_multiprocessing, args=(server.url,))  # type: ignore[attr-defined]
    process.start()
    await asyncio.to_thread(process.join, 30)

    assert process.exitcode == 0
    assert await round_trip(queue, 2) == 4


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
        queue.task(double)
        assert await round_trip(queue, 4) == 8
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
    lower = [Queue(name, url=server.url, settings=queue.settings) for name in ("r", "s")]
    queues = [queue, *lower]
    await queue.close()
    await until_alone(raw)

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
        assert others(raw) <= 3 + len(queues)
    for one in lower:
        await one.close()
