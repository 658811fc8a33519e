"""How a worker takes jobs in: what is parked at the server, and how much a turn asks for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from facts import until, until_state
from servers import Server

from aqueue import Queue, Worker
from aqueue.store.client import Client
from aqueue.worker.fetcher import LEAST_SHARE

SECONDS = 10.0


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parked at the server just now: fetches alone, and fetches with a turn behind."""
    waiting: list[str] = []

    def watch(name: str, what: str) -> None:
        park = getattr(Client, name)

        async def watched(self: Client, *args: Any) -> Any:
            waiting.append(what)
            try:
                return await park(self, *args)
            finally:
                waiting.remove(what)

        monkeypatch.setattr(Client, name, watched)

    watch("park", "fetch")
    watch("park_with_turn", "turn")
    return waiting


async def test_a_worker_at_rest_parks_with_its_next_turn(queue: Queue, parked: list[str]) -> None:
    """The server leases a job to it the moment it comes; while jobs run, turns are needed to settle them."""
    gate = asyncio.Event()

    @queue.task
    async def gated() -> None:
        await gate.wait()

    async with Worker(queue, concurrency=2):
        await until(lambda: parked == ["turn"], "it is parked with a turn")
        job = await gated.enqueue()
        await until_state(job, "running")
        await until(lambda: parked == ["fetch"], "it is parked without one")
        gate.set()
        await job.result(timeout=SECONDS)
        await until(lambda: parked == ["turn"], "it is parked with a turn again")


async def test_a_job_that_comes_to_a_worker_at_rest_needs_one_turn_to_start(
    queue: Queue, parked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn that was parked has leased it; another one is taken only to settle."""
    turns: list[int] = []
    take_turn = Client.settle_and_claim

    async def counted(self: Client, *args: Any) -> Any:
        turns.append(len(args[2]))
        return await take_turn(self, *args)

    monkeypatch.setattr(Client, "settle_and_claim", counted)

    @queue.task
    async def work(n: int) -> int:
        return n

    async with Worker(queue, concurrency=2):
        for n in range(5):
            await until(lambda: parked == ["turn"], "it is parked with a turn")
            turns.clear()
            assert await (await work.enqueue(n)).result(timeout=SECONDS) == n
            await until(lambda: parked == ["turn"], "it is parked with a turn again")
            assert turns == [1]


async def test_several_queues_at_rest_share_the_slots(queue: Queue, server: Server, parked: list[str]) -> None:
    """Parked turns hold slots of their own, so together they cannot start more jobs than there are slots."""
    lower = Queue("lower", url=server.url, settings=queue.settings)
    running = most = 0
    release = asyncio.Event()

    async def held() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    one, two = queue.task(held), lower.task(held)
    async with lower, Worker(queue, lower, concurrency=4):
        await until(lambda: parked == ["turn", "turn"], "both are parked with a turn")
        jobs = await queue.enqueue_many(one.call() for _ in range(5))
        jobs += await lower.enqueue_many(two.call() for _ in range(5))
        await until(lambda: running == 4, "every slot is taken")
        release.set()
        for job in jobs:
            await job.result(timeout=SECONDS)
    assert most == 4


async def test_a_parked_turn_takes_no_more_than_max_jobs(queue: Queue, parked: list[str]) -> None:
    """What is parked counts as claimed until it is known."""

    @queue.task
    async def work() -> None: ...

    worker = asyncio.create_task(Worker(queue, concurrency=10, max_jobs=3).run())
    await until(lambda: parked == ["turn"], "it is parked with a turn")
    await queue.enqueue_many(work.call() for _ in range(8))
    await asyncio.wait_for(worker, SECONDS)
    assert (await queue.stats()).queued == 5


async def test_turns_are_small_where_jobs_last(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many slots that come free at once, the first are filled while the others are settled."""
    slots = 48
    asked: list[int] = []
    take_turn = Client.settle_and_claim

    async def noted(self: Client, *args: Any) -> Any:
        asked.append(args[3])
        return await take_turn(self, *args)

    monkeypatch.setattr(Client, "settle_and_claim", noted)
    gate, running = asyncio.Event(), 0

    @queue.task
    async def gated() -> None:
        nonlocal running
        running += 1
        await gate.wait()

    jobs = await queue.enqueue_many(gated.call() for _ in range(2 * slots))
    async with Worker(queue, concurrency=slots):
        await until(lambda: running == slots, "every slot is taken")
        assert max(asked) == slots // 2
        asked.clear()
        gate.set()
        for job in jobs:
            await job.result(timeout=SECONDS)
    assert max(asked[:3]) == max(LEAST_SHARE, slots // 12)
