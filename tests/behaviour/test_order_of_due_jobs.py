"""Delays while workers are parked: a short delay must not wait for a longer one, nor for a parked fetch to end.

Nothing here measures time; that belongs to the benchmarks. What is checked is which of two facts came first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from facts import until_state
from servers import Server

from aqueue import JobState, Queue, Settings, Worker


@pytest.fixture
async def queue(server: Server) -> AsyncIterator[Queue]:
    """A queue whose heartbeat, the net beneath, comes too late to help."""
    async with Queue("q", url=server.url, settings=Settings(lease=600)) as queue:
        yield queue


async def test_a_short_delay_overtakes_a_long_one(queue: Queue) -> None:
    """Workers wait for the earliest due job, and the earliest may be the one that came last."""
    order = []

    @queue.task
    async def note(n: int) -> None:
        order.append(n)

    async with Worker(queue, concurrency=1):
        long = await note.options(delay=600).enqueue(600)
        jobs = [await note.options(delay=delay).enqueue(n) for n, delay in enumerate((0.3, 0.2, 0.1))]
        for job in jobs:
            await job.result(timeout=10)
        due_at = [str((await jobs[n].info()).due_at) for n in order]  # order is [2, 1, 0], unless we were held up
        assert len(order) == 3
        assert due_at == sorted(due_at)
        assert await long.status() is JobState.SCHEDULED


async def test_a_delay_is_over_before_a_parked_fetch_would_be(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that comes due must not wait for the end of a fetch that was parked before."""
    monkeypatch.setattr("aqueue.worker.parking.PARK_SECONDS", 600)

    @queue.task
    async def work() -> int:
        return 1

    async with Worker(queue, concurrency=3), Worker(queue, concurrency=3):
        await (await work.enqueue()).result(timeout=10)
        job = await work.options(delay=0.2).enqueue()
        assert await job.result(timeout=10) == 1
        info = await job.info()
        assert info.started_at is not None
        assert info.due_at is not None
        assert info.started_at >= info.due_at


async def test_due_jobs_start_although_the_queue_is_never_empty(queue: Queue) -> None:
    """A steady stream must not starve what was delayed."""
    started = asyncio.Event()

    @queue.task
    async def stream(n: int) -> None:
        if not started.is_set():
            await stream.enqueue(n + 1)

    @queue.task
    async def delayed() -> None:
        started.set()

    async with Worker(queue, concurrency=1):
        await stream.enqueue(0)
        await delayed.options(delay=0.1).enqueue()
        await asyncio.wait_for(started.wait(), 10)


async def test_due_jobs_become_queued_although_every_slot_is_busy(server: Server) -> None:
    """What is due counts as backlog, so that whoever scales workers by it sees it; here the heartbeat sees to it."""
    gate = asyncio.Event()
    async with Queue("q", url=server.url, settings=Settings(lease=1)) as queue:

        @queue.task
        async def work() -> None:
            await gate.wait()

        async with Worker(queue, concurrency=1):
            await until_state(await work.enqueue(), "running")
            job = await work.options(delay=0.05).enqueue()
            await until_state(job, "queued")
            gate.set()
            await job.result(timeout=10)
