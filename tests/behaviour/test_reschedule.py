"""`job.reschedule(...)`: a job that waits is given another time; and what becomes of one that nobody starts in time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import redis
from facts import until, until_state
from servers import binaries

from aqueue import Concurrency, ConfigurationError, JobExpired, JobFailed, JobNotFound, Queue, RetryLater, Worker

HOUR_MS = 3_600_000


@pytest.fixture
def engine() -> str:
    """The script's own tests take all servers."""
    return next(iter(binaries()))


async def test_a_job_comes_when_it_is_told_to(queue: Queue) -> None:
    """Put off, and brought forward, at an idle worker."""
    ran: list[str] = []

    @queue.task
    async def work(name: str) -> None:
        ran.append(name)

    far = await work.options(delay=3600).enqueue("far")
    await queue.pause()
    near = await work.enqueue("near")
    before = datetime.now(UTC).replace(microsecond=0)
    due = await near.reschedule(delay="2h")
    assert timedelta(hours=2) <= due - before < timedelta(hours=2, minutes=1)
    assert (await near.info()).due_at == due
    await queue.resume()
    async with Worker(queue):
        assert await far.reschedule(delay=0.2) < due
        await far.result(timeout=10)
        assert ran == ["far"]
        assert await near.reschedule(at=datetime.now(UTC) - timedelta(days=1)) < due
        await near.result(timeout=10)
    assert ran == ["far", "near"]
    years = await work.enqueue("later")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=730)
    assert await years.reschedule(at=at) == at
    assert (await years.info()).due_at == at


async def test_only_a_job_that_waits_can_be_put_off(queue: Queue) -> None:
    """The error says what to do about one that does not."""
    gate = asyncio.Event()

    @queue.task
    async def work() -> None:
        await gate.wait()

    job = await work.enqueue()
    async with Worker(queue):
        await until_state(job, "running")
        with pytest.raises(ConfigurationError, match="is running; cancel it"):
            await job.reschedule(delay=1)
        gate.set()
        await job.result(timeout=10)
    with pytest.raises(ConfigurationError, match="has ended; run it again, or enqueue it anew"):
        await job.reschedule(delay=1)
    with pytest.raises(JobNotFound):
        await queue.job("nobody").reschedule(delay=1)
    for options in ({}, {"delay": 1, "at": datetime.now(UTC)}):
        with pytest.raises(ConfigurationError, match="give exactly one of them"):
            await job.reschedule(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at must carry a time zone"):
        await job.reschedule(at=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ConfigurationError, match="delay must be between"):
        await job.reschedule(delay=-1)


async def test_who_waits_for_a_limit_or_a_retry_can_be_put_off(queue: Queue) -> None:
    """The limit is free for others meanwhile, and the attempts stay what they are."""
    gate, ran = asyncio.Event(), list[str]()

    @queue.task(limit=Concurrency(1), retry=2)
    async def work(name: str) -> None:
        ran.append(name)
        if name == "again" and ran.count(name) == 1:
            raise RetryLater(3600)
        if name == "again":
            raise ValueError("the last time")
        await gate.wait()

    async with Worker(queue):
        await work.enqueue("first")
        await until(lambda: ran)
        second, third, again = [await work.enqueue(name) for name in ("second", "third", "again")]

        async def all_held_back() -> bool:
            return (await queue.stats()).held_back == 3

        await until(all_held_back)
        await second.reschedule(delay=3600)
        gate.set()
        await third.result(timeout=10)
        await until_state(again, "scheduled")
        await again.reschedule(delay=0)
        with pytest.raises(JobFailed, match="the last time"):
            await again.result(timeout=10)
        assert ran == ["first", "third", "again", "again"]
        await second.reschedule(delay=0)
        await second.result(timeout=10)


async def test_a_job_that_nobody_waits_for_expires_when_a_worker_meets_it(queue: Queue) -> None:
    """Until then nobody has decided, and the job is queued; afterwards its ttl is what became of it."""

    @queue.task(ttl=0.05)
    async def work() -> None: ...

    job = await work.enqueue()
    await asyncio.sleep(0.1)
    assert await job.status() == "queued"
    await Worker(queue).run(burst=True)
    assert await job.status() == "expired"
    with pytest.raises(JobExpired):
        await job.result(timeout=30)


async def test_a_put_off_job_has_its_whole_ttl_again(queue: Queue, raw: redis.Redis) -> None:
    """It counts from when the job is due."""

    @queue.task(ttl="1h")
    async def work() -> str:
        return "in time"

    job = await work.enqueue()
    record = f"aqueue:{{q}}:job:{job.id}"
    for field in ("enqueued_ms", "expires_ms"):
        raw.hincrby(record, field, -2 * HOUR_MS)  # it has waited for longer than it was to
    due = await job.reschedule(delay=0.1)
    assert int(str(raw.hget(record, "expires_ms"))) == round(due.timestamp() * 1000) + HOUR_MS
    async with Worker(queue):
        assert await job.result(timeout=10) == "in time"
