"""A network that is slow, far away, cut again and again, or cut in two, while there is work."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
import redis

from aqueue import Retry, Settings, Worker
from faults.load import Load, until
from faults.proxy import Door, Fault, Lie, Proxy, Request, honest

pytestmark = pytest.mark.timeout(300)

LEASE = 1.5
SETTINGS = Settings(lease=LEASE, retry=Retry(max_attempts=3, backoff=0.01))


@pytest.fixture
async def doors(proxy: Proxy) -> tuple[Door, Door]:
    return await proxy.door("producer"), await proxy.door("worker")


def now_and_then(chance: float, seed: int) -> Callable[[Request], Lie | None]:
    """Cut the connection around so large a part of all calls."""
    dice = random.Random(seed)
    ways = (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.GHOST)
    return lambda request: dice.choice(ways) if dice.random() < chance else None


async def _far_away_and_cut(
    proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis, *, round_trip: float, cuts: float, seconds: float
) -> None:
    producer, worker = doors
    for door in doors:
        door.latency_seconds = round_trip / 2
    async with Load(producer.url, worker_url=worker.url, settings=SETTINGS) as load:
        async with load.worker():
            await load.more(10)
            proxy.decide = now_and_then(cuts, seed=1)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await load.more(10)
            await until(lambda: len(proxy.lies) >= 5)
            proxy.decide = honest
            for door in doors:
                door.latency_seconds = 0
        crashes = load.count_crashes(raw)
        assert await load.wrong(raw) == []
    calls = Counter(request.name for request, _ in proxy.lies)
    print(f"{round_trip * 1000:g} ms, {len(proxy.lies)} of {len(proxy.requests)} calls cut in {seconds:g} s, "
          f"{dict(calls)}, {load.history.asked} jobs, {len(load.history.acknowledged)} acknowledged, "
          f"{load.history.runs('start').total()} runs, {crashes} crashes, {len(load.refusals)} refusals")  # fmt: skip
    assert load.refusals == []
    assert crashes == 0


async def test_a_server_far_away_behind_a_line_that_breaks(
    proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis
) -> None:
    """Every call takes its time, and one in twenty ends the connection: nothing is lost, doubled, or even refused."""
    await _far_away_and_cut(proxy, doors, raw, round_trip=0.05, cuts=0.05, seconds=1)


@pytest.mark.chaos
async def test_a_minute_of_200_ms_and_one_cut_in_a_hundred(
    proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis
) -> None:
    """The long form."""
    await _far_away_and_cut(proxy, doors, raw, round_trip=0.2, cuts=0.01, seconds=60)


async def _partitions(proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis, *, rounds: int) -> None:
    """Cut off one of two workers for longer than its lease, again and again, and then the producer."""
    producer, first = doors
    second = await proxy.door("second")
    settings = Settings(lease=LEASE, retry=Retry(max_attempts=3, backoff=0.01), crash_limit=rounds + 3)
    async with (
        Load(producer.url, worker_url=first.url, settings=settings, pace=0.02) as load,
        load.working_at(second.url) as other,
    ):
        async with load.worker(), Worker(other, concurrency=10):
            for n in range(rounds):
                alone = (first, second)[n % 2]
                await load.more(20)
                alone.freeze()
                await load.more(20)  # the other goes on
                await until(lambda: raw.zcard("aqueue:{load}:workers") == 1)
                alone.thaw()
                await until(lambda: raw.zcard("aqueue:{load}:workers") == 2)
            producer.freeze()
            await until(lambda: raw.llen("aqueue:{load}:queued") == 0)
            producer.thaw()
            await load.more(20)
        crashes = load.count_crashes(raw)
        assert await load.wrong(raw) == []
    print(f"{rounds} partitions, {load.history.asked} jobs, {load.history.runs('start').total()} runs, "
          f"{crashes} leases lost, {len(load.refusals)} refusals")  # fmt: skip
    assert crashes >= rounds // 4, "hardly a job was running on a worker when it was cut off"


async def test_a_worker_that_is_cut_off_loses_its_jobs_to_the_other(
    proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis
) -> None:
    """It hears nothing and is heard by nobody; what it sent meanwhile arrives when its jobs are long elsewhere."""
    await _partitions(proxy, doors, raw, rounds=1)


@pytest.mark.chaos
async def test_partitions_again_and_again(proxy: Proxy, doors: tuple[Door, Door], raw: redis.Redis) -> None:
    """The long form."""
    await _partitions(proxy, doors, raw, rounds=20)


async def _throttled(doors: tuple[Door, Door], raw: redis.Redis, *, runs: int, bytes_per_second: int) -> None:
    producer, worker = doors
    async with Load(producer.url, worker_url=worker.url, settings=SETTINGS) as load:
        async with load.worker():
            for slow in ((worker,), (producer,), doors):
                for door in slow:
                    door.bytes_per_second = bytes_per_second
                await load.more(runs)
                for door in slow:
                    door.bytes_per_second = None
        assert await load.wrong(raw) == []
        assert load.refusals == []


async def test_a_narrow_line_is_slow_and_no_more(doors: tuple[Door, Door], raw: redis.Redis) -> None:
    """Requests and replies come in small pieces, at the worker's, at the producer's, and at both."""
    await _throttled(doors, raw, runs=20, bytes_per_second=30_000)


@pytest.mark.chaos
async def test_a_narrow_line_for_long(doors: tuple[Door, Door], raw: redis.Redis) -> None:
    """The long form."""
    await _throttled(doors, raw, runs=300, bytes_per_second=15_000)
