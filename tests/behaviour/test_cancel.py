"""Cancelling: wherever the job is, at once, and with an answer that says what it did."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
import redis
from facts import until, until_state

from aqueue import Cancellation, JobCancelled, JobNotFound, JobState, Queue, Retry, Settings, Worker


async def test_a_waiting_job_never_starts_after_its_cancel(queue: Queue, raw: redis.Redis) -> None:
    """Its id may still lie in the list; a worker that meets it must not care."""
    ran = []

    @queue.task
    async def work(n: int) -> None:
        ran.append(n)

    jobs = await queue.enqueue_many(work.call(n) for n in range(4))
    delayed = await work.options(delay=0.01).enqueue(9)
    assert [await job.cancel() for job in (*jobs[1:3], delayed)] == [Cancellation.CANCELLED] * 3
    await Worker(queue).run(burst=True)

    assert ran == [0, 3]
    assert await jobs[1].status() is await delayed.status() is JobState.CANCELLED
    assert raw.zcard("aqueue:{q}:scheduled") == 0
    assert (await queue.stats()).queued == 0


async def test_a_running_job_is_cancelled_at_once(queue: Queue) -> None:
    """It is told through its worker's channel, long before the next heartbeat."""
    cleaned = asyncio.Event()

    @queue.task
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with Worker(queue):
        job = await work.enqueue()
        await until_state(job, "running")
        assert await job.cancel() is Cancellation.REQUESTED
        await asyncio.wait_for(cleaned.wait(), 10)
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)

    info = await job.info()
    assert info.state is JobState.CANCELLED
    assert info.attempt == 0


async def test_the_heartbeat_cancels_what_the_channel_did_not(queue: Queue, raw: redis.Redis) -> None:
    """A message is lost with its connection; a job that was told to stop must stop all the same."""

    @queue.task
    async def work() -> None:
        await asyncio.Event().wait()

    async with Worker(queue):
        job = await work.enqueue()
        await until_state(job, "running")
        raw.hset(f"aqueue:{{q}}:job:{job.id}", "cancel", 1)
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


async def test_a_cancel_after_the_end_changes_nothing(queue: Queue) -> None:
    """The answer tells the two apart, so nobody has to guess from the state."""

    @queue.task
    async def work() -> int:
        return 1

    done, cancelled = await work.enqueue(), await work.enqueue()
    await cancelled.cancel()
    await Worker(queue).run(burst=True)

    assert await done.cancel() is Cancellation.TOO_LATE
    assert await cancelled.cancel() is Cancellation.CANCELLED  # as it was answered the first time
    assert await done.result() == 1


async def test_an_unknown_job_cannot_be_cancelled(queue: Queue) -> None:
    """A typing error should not look like success."""
    with pytest.raises(JobNotFound):
        await queue.job("nobody").cancel()


async def test_a_job_that_swallows_its_cancel_is_completed(queue: Queue) -> None:
    """What it did is done; to call it cancelled would be a lie."""
    told = asyncio.Event()

    @queue.task
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        told.set()
        return "finished all the same"

    async with Worker(queue):
        job = await stubborn.enqueue()
        await until_state(job, "running")
        await job.cancel()
        await asyncio.wait_for(told.wait(), 10)
        assert await job.result(timeout=10) == "finished all the same"


async def test_a_job_that_fails_while_it_is_cancelled_does_not_come_back(queue: Queue) -> None:
    """A retry of a job that somebody wanted gone is the last thing they expect."""

    @queue.task
    async def clumsy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    async with Worker(queue):
        job = await clumsy.enqueue()
        await until_state(job, "running")
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


async def test_a_cancelled_job_frees_its_slot(queue: Queue) -> None:
    """With one slot, the next job starts only if the cancelled one is really gone."""

    @queue.task
    async def work(wait: bool) -> str:  # noqa: FBT001
        if wait:
            await asyncio.Event().wait()
        return "next"

    async with Worker(queue, concurrency=1):
        stuck = await work.enqueue(wait=True)
        following = await work.enqueue(wait=False)
        await until_state(stuck, "running")
        await stuck.cancel()
        assert await following.result(timeout=10) == "next"


async def test_a_job_between_two_attempts_can_be_cancelled(queue: Queue) -> None:
    """Then it waits like any scheduled job."""

    @queue.task(retry=Retry(backoff=600, jitter=False))
    async def fail() -> None:
        raise ValueError

    job = await fail.enqueue()
    await Worker(queue).run(burst=True)

    assert await job.status() is JobState.SCHEDULED
    assert await job.cancel() is Cancellation.CANCELLED
    with pytest.raises(JobCancelled):
        await job.result(timeout=10)


async def test_a_cancelled_error_of_its_own_is_a_failure(queue: Queue) -> None:
    """Nobody cancelled the job: a future it awaited was cancelled, and that is an error like any other."""

    @queue.task(retry=1)
    async def work() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    job = await work.enqueue()
    await Worker(queue).run(burst=True)
    info = await job.info()

    assert info.state is JobState.FAILED
    assert info.error is not None
    assert "CancelledError" in info.error.type


async def test_a_cancelled_job_can_be_run_again(queue: Queue) -> None:
    """Cancelling was a slip; the arguments are still there."""

    @queue.task
    async def work(n: int) -> int:
        return n

    job = await work.enqueue(4)
    await job.cancel()
    await queue.rerun(job.id)
    await Worker(queue).run(burst=True)

    assert await job.result(timeout=10) == 4


async def test_many_cancels_at_once_each_hit_their_job(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """A user who cancels an import cancels a thousand jobs, some running and most not."""

    @queue.task
    async def work() -> None:
        await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING):
        async with Worker(queue, concurrency=20):
            jobs = await queue.enqueue_many(work.call() for _ in range(100))
            await until(lambda: _running(queue, 20), "20 running")
            answers = await asyncio.gather(*(job.cancel() for job in jobs))
            await until(lambda: _running(queue, 0), "none running")

    assert set(answers) == {Cancellation.CANCELLED, Cancellation.REQUESTED}
    assert {await job.status() for job in jobs} == {JobState.CANCELLED}
    assert not caplog.records


async def _running(queue: Queue, count: int) -> bool:
    return (await queue.stats()).running == count


async def test_a_cancelled_job_is_forgotten_after_its_lifetime(queue: Queue, raw: redis.Redis) -> None:
    """Cancelled jobs are listed nowhere; only their own TTL removes them."""

    @queue.task
    async def work() -> None: ...

    job = await work.enqueue()
    await job.cancel()

    lifetime = Settings().result_ttl
    assert lifetime - 10 < raw.ttl(f"aqueue:{{q}}:job:{job.id}") <= lifetime
    assert lifetime - 10 < raw.ttl(f"aqueue:{{q}}:payload:{job.id}") <= lifetime
