"""What happens to callers and workers when a connection is slow, is cut, or says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from servers import Server

from aqueue import Queue, Settings, Worker
from faults.proxy import Door, Fault, Lie, Proxy, Request, honest, nth


@pytest.fixture
async def door(proxy: Proxy) -> Door:
    return await proxy.door("worker")


async def test_a_resume_that_comes_before_the_worker_listens_is_felt_at_once(
    server: Server, proxy: Proxy, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its first turn and its subscription nobody could tell it; it has to look once more when it listens."""
    monkeypatch.setattr("aqueue.worker.lane.PAUSED_LOOK_SECONDS", 600)  # the net beneath, which is not to be needed
    proxy.decide = _delay_subscriptions
    async with Queue("q", url=server.url) as queue, Queue("q", url=door.url) as working:

        @working.task
        async def work() -> str:
            return "done"

        await queue.pause()
        job = await queue.enqueue("work")
        async with Worker(working):
            while "SSUBSCRIBE" not in {request.name for request in proxy.requests}:
                await (await queue.store()).plain("PING")
            await queue.resume()
            assert await job.result(timeout=30) == "done"
        await working.close()


def _delay_subscriptions(request: Request) -> Lie | None:
    return Fault.DELAY if request.name == "SSUBSCRIBE" else None


async def test_a_heartbeat_that_waits_for_its_server_does_not_blame_the_loop(
    proxy: Proxy, door: Door, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    """In an outage a beat takes longer than usual; nobody is to look for a blocking job then."""
    working = Queue("q", url=door.url)  # for which the worker waits; those who wait here are in a hurry
    async with Worker(working), _watched() as stood:
        proxy.decide = lambda request: Fault.LOST_REPLY if request.name == "extend" else None
        await until(lambda: len(proxy.lies) >= 3)
        proxy.decide = honest
        before = len(proxy.requests)
        await until(lambda: "extend" in {request.name for request in proxy.requests[before:]})
    await working.close()
    assert "has been blocked" not in caplog.text or max(stood) > working.settings.beat


@asynccontextmanager
async def _watched() -> AsyncGenerator[list[float]]:
    """Note for how long the loop stood still at a time: a busy machine does block it."""
    loop, stood = asyncio.get_running_loop(), [0.0]

    async def look() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            stood.append(loop.time() - before)

    looking = asyncio.create_task(look())
    try:
        yield stood
    finally:
        looking.cancel()


async def test_a_subscription_that_is_cut_off_at_once_costs_no_answer(server: Server, proxy: Proxy, door: Door) -> None:
    """Who begins to wait for a result is as patient as who enqueues."""
    async with Queue("q", url=door.url) as queue, Queue("q", url=server.url) as working:

        @working.task
        async def work() -> str:
            return "done"

        async with Worker(working):
            job = await queue.enqueue("work")
            proxy.decide = nth("SSUBSCRIBE", 1, Fault.CUT_BEFORE)
            assert await job.result(timeout=30) == "done"
            assert proxy.lies


async def test_what_comes_too_late_for_its_slots_goes_back(
    server: Server, proxy: Proxy, door: Door, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slots of a turn that nobody answers are lent to another server's queue, and are never taken twice."""
    monkeypatch.setattr("aqueue.store.link.Link.call.__kwdefaults__", {"timeout": 0.75})  # some calls are honest
    inside, most, gate = 0, 0, asyncio.Event()

    async def work(*, waits: bool) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if waits:
            await gate.wait()
        inside -= 1
        return "done"

    def decide(request: Request) -> Lie | None:
        return Fault.LOST_REPLY if request.name == "settle_and_claim" and most < 2 else None

    async with Queue("far", url=door.url) as far, Queue("near", url=server.url) as near:
        late = await far.enqueue_many(far.task(work).call(waits=False) for _ in range(2))
        others = await near.enqueue_many(near.task(work).call(waits=True) for _ in range(2))
        proxy.decide = decide
        async with Worker(far, near, concurrency=2), Queue("far", url=server.url) as looking:
            await until(lambda: inside == 2)
            async with asyncio.timeout(30):
                while (await looking.stats()).queued < 2:
                    await asyncio.sleep(0.01)
            gate.set()
            assert [await job.result(timeout=30) for job in (*late, *others)] == ["done"] * 4
            assert [(info.attempt, info.crashes) for info in [await job.info() for job in late]] == [(0, 0)] * 2
    assert proxy.lies
    assert most == 2


async def test_a_server_that_says_nothing_costs_no_other_queue_its_lease(
    server: Server, proxy: Proxy, door: Door
) -> None:
    """Leases are renewed apart: beats of one queue come while a beat of the other waits for its answer."""
    other = await proxy.door("other")

    def beats(name: str) -> int:
        return sum(request.name == "extend" and request.door == name for request in proxy.requests)

    settings = Settings(lease=1)
    async with (
        Queue("far", url=door.url, settings=settings) as far,
        Queue("near", url=other.url, settings=settings) as near,
        Worker(far, near),
    ):
        door.freeze()
        asked, renewed = beats("worker"), beats("other")
        await until(lambda: beats("other") >= renewed + 4)
        assert beats("worker") <= asked + 1, "it was asked again, so the others have waited for it"
        door.thaw()


# a parked fetch whose connection ended on one side only goes on at the server, first in line


SETTINGS = Settings(lease=1.5)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():
            await asyncio.sleep(0.005)


async def test_what_a_ghost_of_a_parked_fetch_has_caught_runs(server: Server, proxy: Proxy, door: Door) -> None:
    """The worker lives and waits in another fetch; nothing else comes along that would make it look."""
    proxy.decide = nth("BLMOVE", 1, Fault.GHOST)
    async with (
        Queue("q", url=server.url) as queue,
        Queue("q", url=door.url, settings=SETTINGS) as working,
    ):

        @working.task
        async def work() -> str:
            return "done"

        async with Worker(working):
            await until(lambda: [request.name for request in proxy.requests].count("BLMOVE") >= 2)
            job = await queue.enqueue("work")
            assert await job.result(timeout=30) == "done"


async def test_what_a_ghost_catches_after_its_worker_has_left_runs_elsewhere(
    server: Server, proxy: Proxy, door: Door
) -> None:
    """Nobody would look into the inbox of a worker that has said farewell."""
    proxy.decide = nth("BLMOVE", 1, Fault.GHOST)
    async with (
        Queue("q", url=server.url, settings=SETTINGS) as queue,
        Queue("q", url=door.url, settings=SETTINGS) as leaving,
    ):
        async with Worker(leaving):
            await until(lambda: bool(proxy.lies))
        job = await queue.enqueue("work")
        async with Queue("q", url=server.url, settings=SETTINGS) as other:

            @other.task
            async def work() -> str:
                return "done"

            async with Worker(other):
                assert await job.result(timeout=30) == "done"
