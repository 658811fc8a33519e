"""One queue object in several event loops, threads and processes: each has its own connections."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from facts import until
from servers import Server, binaries

from aqueue import ConfigurationError, Queue, Worker


@pytest.fixture
def engine() -> str:
    """Loops and processes know no server's make."""
    return next(iter(binaries()))


@pytest.fixture
def closed(server: Server) -> Queue:
    """A queue that nobody has opened yet, as a module defines it."""
    queue = Queue("q", url=server.url)
    queue.task(double)
    return queue


async def double(n: int) -> int:
    return 2 * n


async def round_trip(queue: Queue, n: int, *, close: bool = True) -> int:
    try:
        async with Worker(queue):
            job = await queue.enqueue("double", n)
            return int(await job.result(timeout=10))
    finally:
        if close:
            await queue.close()


@pytest.mark.parametrize("close", [True, False], ids=["closed", "left open"])
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_queue_works_in_one_loop_after_another(closed: Queue, close: bool) -> None:  # noqa: FBT001
    """Scripts and tests call asyncio.run more than once, and seldom close what they opened."""
    assert [asyncio.run(round_trip(closed, n, close=close)) for n in range(3)] == [0, 2, 4]


def test_a_worker_object_works_in_one_loop_after_another(closed: Queue) -> None:
    """It may be made at import, like the queue."""
    worker = Worker(closed)

    async def burst() -> int:
        job = await closed.enqueue("double", 4)
        async with worker:
            result = await job.result(timeout=10)
        await closed.close()
        return int(result)

    assert [asyncio.run(burst()) for _ in range(2)] == [8, 8]


def test_a_queue_works_in_two_loops_at_once(closed: Queue) -> None:
    """A web server with several threads shares the module's queue."""
    results, together = {}, threading.Barrier(4, timeout=20)

    async def meet(n: int) -> int:
        async with closed:
            await asyncio.to_thread(together.wait)
            jobs = [await closed.enqueue("double", n) for _ in range(20)]
            async with Worker(closed):
                answers = [await job.result(timeout=20) for job in jobs]
            assert set(answers) == {2 * n}
            return int(answers[0])

    def run(n: int) -> None:
        results[n] = asyncio.run(meet(n))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert results == {n: 2 * n for n in range(4)}


async def test_a_closed_queue_opens_again(queue: Queue) -> None:
    """Closing gives connections back; it is no promise never to be used again."""
    queue.task(double)
    for n in range(3):
        assert await round_trip(queue, n) == 2 * n
    await queue.close()
    await queue.close()


async def test_closing_one_queue_leaves_others_of_the_same_server_alone(queue: Queue, server: Server) -> None:
    """They share connections, and must not notice."""
    other = Queue("other", url=server.url)
    other.task(double)
    queue.task(double)
    async with Worker(queue):
        for n in range(5):
            async with other:
                await other.enqueue("double", n)
            assert await (await queue.enqueue("double", n)).result(timeout=10) == 2 * n


async def test_closing_a_queue_closes_its_connections(server: Server) -> None:
    """Connections that stay open are found by whoever pays for the server."""
    with server.client() as raw:
        before = len(raw.client_list())
        queue = Queue("q", url=server.url)
        queue.task(double)
        assert await round_trip(queue, 1, close=False) == 2
        assert len(raw.client_list()) > before
        await queue.close()
        await until(lambda: len(raw.client_list()) == before, "the server has seen every connection end")


def in_child(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Fork here, run a coroutine in the child, and return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = asyncio.run(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def test_a_forked_child_opens_its_own_connections(queue: Queue) -> None:
    """Prefork servers import the application first; two processes on one socket would read each other's replies."""
    queue.task(double)
    assert await round_trip(queue, 1, close=False) == 2

    async def child() -> int:
        job = await queue.enqueue("double", 20)
        async with Worker(queue):
            return int(await job.result(timeout=10))

    waiting = [asyncio.ensure_future((await queue.enqueue("double", n)).result(timeout=20)) for n in range(10)]
    assert await asyncio.to_thread(in_child, child) == 40
    async with Worker(queue):
        assert await asyncio.gather(*waiting) == [2 * n for n in range(10)]


def _child_of_multiprocessing(url: str) -> None:
    async def work() -> None:
        queue = Queue("q", url=url)
        queue.task(double)
        assert await round_trip(queue, 5) == 10

    asyncio.run(work())


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_children_of_multiprocessing_may_use_the_same_server(queue: Queue, server: Server, method: str) -> None:
    """Both start methods are the default somewhere."""
    queue.task(double)
    assert await round_trip(queue, 1, close=False) == 2
    process = multiprocessing.get_context(method).Process(target=_child_of_multiprocessing, args=(server.url,))  # type: ignore[attr-defined]
    process.start()
    await asyncio.to_thread(process.join, 30)

    assert process.exitcode == 0
    assert await round_trip(queue, 2, close=False) == 4


def test_without_a_loop_the_error_says_so(closed: Queue) -> None:
    """Driving a coroutine by hand is what some frameworks do; the message should not be asyncio's."""
    call = closed.enqueue("double", 1)
    with pytest.raises(ConfigurationError, match="event loop"):
        call.send(None)
