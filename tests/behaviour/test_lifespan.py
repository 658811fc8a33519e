"""What a worker opens once and every job may use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from servers import Server, binaries

from aqueue import Context, Queue, Worker

WHERE = "tests"


@pytest.fixture
def engine() -> str:
    """Lifespans know no Redis; one server will do."""
    return next(iter(binaries()))


@dataclass
class Pool:
    name: str
    log: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Pool]:
        self.log.append("open")
        try:
            yield self
        finally:
            self.log.append("close")


async def test_what_a_lifespan_yields_reaches_the_jobs(server: Server) -> None:
    """A connection pool is opened once per worker, and not once per job."""
    pool = Pool("main")
    async with Queue("q", url=server.url, lifespan=pool.open) as queue:

        @queue.task
        async def work(context: Context) -> str:
            assert isinstance(context.state, Pool)
            context.state.log.append("job")
            return context.state.name

        jobs = [await work.enqueue() for _ in range(2)]
        assert pool.log == []
        await Worker(queue).run(burst=True)

        assert [await job.result() for job in jobs] == ["main", "main"]
        assert pool.log == ["open", "job", "job", "close"]


async def test_the_lifespan_ends_after_the_last_job(server: Server) -> None:
    """A job that runs through the grace still needs its database."""
    pool = Pool("main")
    async with Queue("q", url=server.url, lifespan=pool.open) as queue:

        @queue.task
        async def work(context: Context) -> None:
            worker.stop()
            pool.log.append("job")

        worker = Worker(queue)
        async with worker:
            await (await work.enqueue()).result(timeout=10)
        assert pool.log == ["open", "job", "close"]


async def test_a_worker_may_bring_its_own_lifespan(queue: Queue) -> None:
    """The embedding application has its pool already. It opens inside the queue's, and its value wins."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(name: str) -> AsyncGenerator[str]:
        log.append(f"open {name}")
        yield name
        log.append(f"close {name}")

    @queue.task
    async def work(context: Context) -> str:
        log.append("work")
        return str(context.state)

    job = await work.enqueue()
    await Worker(queue, lifespan=lambda: lifespan("worker")).run(burst=True)
    assert await job.result(timeout=10) == "worker"
    assert log == ["open worker", "work", "close worker"]

    log.clear()
    queue.lifespan = lambda: lifespan("queue")
    job = await work.enqueue()
    await Worker(queue, lifespan=lambda: lifespan("worker")).run(burst=True)
    assert await job.result(timeout=10) == "worker"
    assert log == ["open queue", "open worker", "work", "close worker", "close queue"]


async def test_each_queue_has_its_own_state(server: Server) -> None:
    """Two queues in one worker are two applications that share a process."""
    one, two = Pool("one"), Pool("two")
    async with (
        Queue("one", url=server.url, lifespan=one.open) as first,
        Queue("two", url=server.url, lifespan=two.open) as second,
    ):

        async def work(context: Context) -> str:
            return str(context.state.name)

        jobs = [await queue.task(work).enqueue() for queue in (first, second)]
        await Worker(first, second).run(burst=True)
        assert [await job.result() for job in jobs] == ["one", "two"]


async def test_a_lifespan_that_fails_stops_the_worker_before_it_claims(server: Server) -> None:
    """Without its database every job would fail; better that none starts, and that what was opened is closed."""
    pool = Pool("main")

    @asynccontextmanager
    async def broken() -> AsyncGenerator[None]:
        raise ConnectionError("no database")
        yield

    async with (
        Queue("one", url=server.url, lifespan=pool.open) as first,
        Queue("two", url=server.url, lifespan=broken) as second,
    ):

        @second.task
        async def work() -> None: ...

        job = await work.enqueue()
        with pytest.raises(ConnectionError, match="no database"):
            await Worker(first, second).run()
        with pytest.raises(ConnectionError, match="no database"):
            async with Worker(first, second):
                pytest.fail("it must not start")
        assert await job.status() == "queued"
        assert pool.log == ["open", "close"] * 2


async def test_without_a_lifespan_there_is_no_state(queue: Queue) -> None:
    """None is easier to find than an attribute error."""

    @queue.task
    async def work(context: Context) -> bool:
        return context.state is None

    job = await work.enqueue()
    await Worker(queue).run(burst=True)
    assert await job.result() is True
