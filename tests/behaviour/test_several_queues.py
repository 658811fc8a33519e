"""Several queues at one worker, by weight and with caps: who gets the slots, and that nothing is stranded for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from facts import until, until_state
from servers import Server

from aqueue import ConfigurationError, Queue, Settings, Task, Worker
from aqueue.store.client import Client
from aqueue.worker.fetcher import Fetcher

BACKLOG = 1200
SECONDS = 10.0


class Shop:
    """Three queues of one server, whose jobs note that they start."""

    def __init__(self, queues: list[Queue]) -> None:
        self.queues = queues
        self.started: list[str] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.tasks = [self._task(queue) for queue in queues]

    def _task(self, queue: Queue) -> Task[[], None]:
        @queue.task
        async def note() -> None:
            self.started.append(queue.name)
            self.running[queue.name] += 1
            self.most[queue.name] = max(self.most[queue.name], self.running[queue.name])
            try:
                await self.gate.wait()
                await asyncio.sleep(0)
            finally:
                self.running[queue.name] -= 1

        return note

    async def fill(self, *counts: int) -> None:
        for queue, task, count in zip(self.queues, self.tasks, counts, strict=False):
            await queue.enqueue_many([task.call() for _ in range(count)])


@pytest.fixture(autouse=True)
def no_server_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes on to its next queue where a server takes long; here that would be a pause of the machine."""
    monkeypatch.setattr("aqueue.worker.lane.LATE_SECONDS", 60)


@pytest.fixture
async def shop(server: Server) -> AsyncIterator[Shop]:
    async with (
        Queue("high", url=server.url, settings=Settings(lease=1.5)) as high,
        Queue("default", url=server.url, settings=Settings(lease=1.5)) as default,
        Queue("low", url=server.url, settings=Settings(lease=1.5)) as low,
    ):
        yield Shop([high, default, low])


@pytest.mark.parametrize("concurrency", [1, 10, 64])
async def test_starts_follow_the_weights_under_backlog(shop: Shop, concurrency: int) -> None:
    """Users reckon with the numbers that they have written."""
    high, default, low = shop.queues
    shop.gate.set()
    await shop.fill(BACKLOG, BACKLOG, BACKLOG)
    await Worker(high, default, low, weights={high: 6, default: 3, low: 1}, concurrency=concurrency).run(burst=True)
    assert Counter(shop.started) == {"high": BACKLOG, "default": BACKLOG, "low": BACKLOG}
    all_have_jobs = BACKLOG * 10 // 6
    seen = Counter(shop.started[:all_have_jobs])
    shares = {name: count / all_have_jobs for name, count in seen.items()}
    assert shares == pytest.approx({"high": 0.6, "default": 0.3, "low": 0.1}, rel=0.05)
    for first in range(0, all_have_jobs - 500, 100):  # nor does one wait for long and then get it all
        assert "low" in shop.started[first : first + 100 + concurrency]


async def test_an_empty_queue_leaves_its_share_to_the_others(shop: Shop) -> None:
    """All slots work as long as any queue has jobs."""
    high, default, low = shop.queues
    await shop.fill(0, 20, 20)
    async with Worker(high, default, low, weights={high: 1000, default: 1, low: 1}, concurrency=12):
        await until(lambda: len(shop.started) == 12, "every slot is taken")
        assert Counter(shop.started) == {"default": 6, "low": 6}
        shop.gate.set()
        await until(lambda: len(shop.started) == 40)
        await shop.fill(1)
        await until(lambda: len(shop.started) == 41, "a queue that was empty for long is served at once")


async def test_a_queue_at_its_cap_leaves_the_slots_to_the_others(shop: Shop) -> None:
    """Strict order with a cap: the slow queue may come first and still not take the whole worker."""
    high, default, _ = shop.queues
    await shop.fill(20, 20)
    async with Worker(high, default, caps={high: 2}, concurrency=6):
        await until(lambda: len(shop.started) == 6, "every slot is taken")
        assert shop.running == {"high": 2, "default": 4}
        shop.gate.set()
        await until(lambda: len(shop.started) == 40)
    assert shop.most["high"] == 2


async def test_caps_and_weights_together(shop: Shop) -> None:
    """What a cap keeps a queue from is shared out among the others as their weights say."""
    high, default, low = shop.queues
    await shop.fill(60, 60, 60)
    weights = {high: 6, default: 2, low: 1}
    async with Worker(high, default, low, weights=weights, caps={high: 3}, concurrency=12):
        await until(lambda: len(shop.started) == 12, "every slot is taken")
        assert shop.running == {"high": 3, "default": 6, "low": 3}
        shop.gate.set()
        await until(lambda: len(shop.started) == 180)
    assert shop.most["high"] == 3


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues at which a fetch is parked just now."""
    waiting: list[str] = []
    for name in ("park", "park_with_turn"):
        park = getattr(Client, name)

        async def watched(self: Client, *args: object, park: object = park) -> object:
            waiting.append(self.keys.queue)
            try:
                return await park(self, *args)  # type: ignore[operator]  # the method that is watched
            finally:
                waiting.remove(self.keys.queue)

        monkeypatch.setattr(Client, name, watched)
    return waiting


async def test_a_queue_at_its_cap_strands_no_job(
    shop: Shop, parked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that waits there would take the next job out of reach of the workers that are free."""
    monkeypatch.setattr("aqueue.worker.parking.PARK_SECONDS", 600)
    high, default, _ = shop.queues
    for queue in (high, default):
        object.__setattr__(queue.settings, "lease", 600.0)  # nobody else finds what is stranded
    async with Worker(high, default, caps={high: 2}, concurrency=20):
        await until(lambda: sorted(parked) == ["default", "high"], "it waits at both")
        await shop.fill(1)
        await until(lambda: shop.running["high"] == 1)
        await until(lambda: sorted(parked) == ["default", "high"], "it waits at both, for there is room")
        await shop.tasks[0].options(delay=0.05).enqueue()  # which comes by another way than the fetch
        await until(lambda: shop.running["high"] == 2)
        await until(lambda: parked == ["default"], "it waits no longer where it may start nothing")
        async with Worker(high, concurrency=1):
            await shop.fill(1)
            await until(lambda: shop.running["high"] == 3, "another worker has the job")
            job = await shop.tasks[0].enqueue()
            assert await job.status() == "queued"
            shop.gate.set()
            await until_state(job, "completed")
        await until(lambda: sorted(parked) == ["default", "high"], "it waits at both again")


async def test_a_queue_at_its_cap_keeps_the_worker_asleep(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that falls due there can start only when another ends; until then there is nothing to do, over and over."""
    rounds = 0
    take_round = Fetcher._round

    async def counted(self: Fetcher) -> bool:
        nonlocal rounds
        rounds += 1
        return await take_round(self)

    monkeypatch.setattr(Fetcher, "_round", counted)
    high = shop.queues[0]
    job = await shop.tasks[0].options(delay=0.2).enqueue()
    await shop.fill(1)
    async with Worker(high, caps={high: 1}, concurrency=4):
        await until(lambda: shop.running["high"] == 1)
        await asyncio.sleep(0.3)
        assert rounds < 10
        shop.gate.set()
        await until_state(job, "completed")


async def test_jobs_that_come_to_a_worker_at_rest_are_not_held_against_their_queue(shop: Shop) -> None:
    """They are leased without a portion; a queue must not be made to wait for having been alone."""
    high, default, _ = shop.queues
    shop.gate.set()
    async with Worker(high, default, weights={high: 1, default: 1}, concurrency=2):
        for _ in range(50):
            await (await shop.tasks[0].enqueue()).result(timeout=SECONDS)
        await high.pause()
        await default.pause()
        shop.gate.clear()
        await shop.fill(10, 10)
        shop.started.clear()
        await default.resume()
        await high.resume()
        shop.gate.set()
        await until(lambda: len(shop.started) == 20)
    assert "high" in shop.started[:6]


async def test_what_is_no_weight_and_no_cap_is_refused(shop: Shop) -> None:
    """A slip here is a queue that is never served."""
    high, default, low = shop.queues
    for weights, message in (
        ({high: 0, default: 1}, "whole number from 1 to 1,000,000, not 0; to run none of its jobs here, leave"),
        ({high: -1, default: 1}, "that of queue high must be a whole number"),
        ({high: 1.5, default: 1}, "not 1.5"),
        ({high: True, default: 1}, "not True"),
        ({high: "6", default: 1}, "not '6'"),
        ({high: 10**400, default: 1}, "whole number from 1 to 1,000,000"),
        ({high: 6}, "weights must name all queues of the worker or none, and default has none"),
        ({high: 6, default: 3, low: 1}, "names low, which is no queue of this worker"),
        ({"high": 6, default: 3}, "names 'high', which is no queue of this worker"),
        ([6, 3], "weights must map queues to numbers"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            Worker(high, default, weights=weights)  # type: ignore[arg-type]  # that is the point
        assert message in str(refused.value)
    for caps, message in (
        ({high: 0}, "caps: that of queue high must be a whole number from 1"),
        ({low: 2}, "caps names low, which is no queue of this worker"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            Worker(high, default, caps=caps)
        assert message in str(refused.value)
