"""Attempts: which ends count, how many there are, and what a job may say about them itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis
from facts import until_ended, until_state

from aqueue import Context, Discard, Job, JobFailed, JobState, Queue, Retry, RetryLater, Worker

AT_ONCE = Retry(max_attempts=3, backoff=0)


async def outcome(job: Job[object]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


async def test_a_failing_job_runs_as_often_as_allowed(queue: Queue) -> None:
    """`max_attempts` counts the first run; the last error is the one that is kept."""
    attempts = []

    @queue.task(retry=AT_ONCE)
    async def fail(context: Context) -> None:
        attempts.append((context.attempt, context.max_attempts))
        raise ValueError(f"attempt {context.attempt}")

    async with Worker(queue):
        job = await fail.enqueue()
        error = await outcome(job)

    assert attempts == [(1, 3), (2, 3), (3, 3)]
    assert (error.exception_type, error.reason) == ("ValueError", "attempt 3")
    info = await job.info()
    assert (info.state, info.attempt, info.crashes) == (JobState.FAILED, 3, 0)
    assert [failed.id for failed in await queue.jobs("failed")] == [job.id]


async def test_a_job_that_succeeds_in_the_end_is_completed(queue: Queue, raw: redis.Redis) -> None:
    """Nothing of the failures before may stick to it."""

    @queue.task(retry=AT_ONCE)
    async def flaky(context: Context) -> int:
        if context.attempt < 3:
            raise ValueError
        return context.attempt

    async with Worker(queue):
        job = await flaky.enqueue()
        assert await job.result(timeout=10) == 3

    assert (await job.info()).state is JobState.COMPLETED
    assert await queue.jobs("failed") == []
    assert raw.exists("aqueue:{q}:scheduled") == 0


async def test_between_attempts_a_job_is_scheduled_and_says_why(queue: Queue) -> None:
    """Whoever looks at the queue sees the error now, and not only when all is lost."""

    @queue.task(retry=Retry(backoff=100, jitter=False))
    async def fail() -> None:
        raise ValueError("mend me")

    job = await fail.enqueue()
    await Worker(queue).run(burst=True)
    info = await job.info()

    assert (info.state, info.attempt) == (JobState.SCHEDULED, 1)
    assert info.error is not None
    assert (info.error.type, info.error.message) == ("ValueError", "mend me")
    assert info.due_at is not None
    assert info.started_at is not None
    assert timedelta(seconds=99) < info.due_at - info.started_at < timedelta(seconds=110)


async def test_a_timeout_counts_as_a_failed_attempt(queue: Queue) -> None:
    """A job that hangs now may well succeed in a minute."""

    @queue.task(timeout=0.05, retry=Retry(max_attempts=2, backoff=0))
    async def hang(context: Context) -> str:
        if context.attempt == 1:
            await asyncio.Event().wait()
        return "second time lucky"

    async with Worker(queue):
        job = await hang.enqueue()
        assert await job.result(timeout=10) == "second time lucky"
        lost = await hang.options(retry=1).enqueue()
        error = await outcome(lost)

    assert error.exception_type == "TimeoutError"
    assert "0.05 s" in error.reason


async def test_a_timeout_error_of_the_job_itself_is_told_apart(queue: Queue) -> None:
    """Both are TimeoutError; only one is ours, and only one names our option."""

    @queue.task(timeout=5, retry=1)
    async def fail() -> None:
        raise TimeoutError("the upstream was slow")

    async with Worker(queue):
        error = await outcome(await fail.enqueue())

    assert (error.exception_type, error.reason) == ("TimeoutError", "the upstream was slow")
    assert "in fail" in error.traceback


async def test_timeout_zero_is_no_timeout(queue: Queue) -> None:
    """Some jobs may take all day, and say so."""
    gate = asyncio.Event()

    @queue.task(timeout=0.01)
    async def work() -> int:
        await gate.wait()
        return 1

    async with Worker(queue):
        patient = await work.options(timeout=0).enqueue()
        await until_state(patient, "running")
        hasty = await work.options(retry=1).enqueue()
        await until_ended(hasty)
        gate.set()
        assert await patient.result(timeout=10) == 1


async def test_retry_later_waits_exactly_as_long_as_asked(queue: Queue, raw: redis.Redis) -> None:
    """A server that answers "come back in 60 seconds" knows better than any back-off."""

    @queue.task
    async def busy(delay: float | str) -> None:
        raise RetryLater(delay, "rate limited")

    @queue.task
    async def busy_timedelta() -> None:
        raise RetryLater(timedelta(minutes=1))

    jobs = [await busy.enqueue(60), await busy.enqueue("1m"), await busy_timedelta.enqueue()]
    await Worker(queue).run(burst=True)

    for job in jobs:
        info = await job.info()
        assert info.due_at is not None
        assert info.started_at is not None
        assert timedelta(seconds=60) <= info.due_at - info.started_at < timedelta(seconds=70)
        assert info.attempt == 1
    error = (await jobs[0].info()).error
    assert error is not None
    assert (error.type, error.message) == ("RetryLater", "rate limited")


async def test_retry_later_is_bounded_by_the_attempts(queue: Queue) -> None:
    """A job that asks for ever would stay for ever."""
    runs = 0

    @queue.task(retry=AT_ONCE)
    async def busy() -> None:
        nonlocal runs
        runs += 1
        raise RetryLater(0, "not yet")

    async with Worker(queue):
        error = await outcome(await busy.enqueue())

    assert runs == 3
    assert (error.exception_type, error.reason) == ("RetryLater", "not yet")


async def test_a_senseless_delay_fails_the_job_with_the_reason(queue: Queue) -> None:
    """The error names the slip, and no worker dies of it."""

    @queue.task
    async def odd() -> None:
        raise RetryLater("soon")

    async with Worker(queue):
        error = await outcome(await odd.enqueue())

    assert error.exception_type == "ConfigurationError"
    assert "RetryLater" in error.reason


async def test_discard_ends_the_job_without_another_attempt(queue: Queue) -> None:
    """The customer is gone: no attempt will find them."""
    runs = 0

    @queue.task(retry=AT_ONCE)
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise Discard("no such customer")

    async with Worker(queue):
        error = await outcome(await work.enqueue())

    assert runs == 1
    assert (error.exception_type, error.reason) == ("Discard", "no such customer")


async def test_control_signals_work_from_threads_and_from_afar(queue: Queue) -> None:
    """They may be raised deep inside a library's callback."""

    @queue.task(retry=AT_ONCE)
    def plain(context: Context) -> int:
        if context.attempt == 1:
            raise RetryLater
        raise Discard

    async with Worker(queue):
        job = await plain.enqueue()
        assert (await outcome(job)).exception_type == "Discard"
    assert (await job.info()).attempt == 2


async def test_a_failed_job_starts_afresh_when_it_is_run_again(queue: Queue) -> None:
    """The bug is mended; the job deserves all its attempts."""
    mended = False

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def work(context: Context) -> int:
        if not mended:
            raise ValueError
        return context.attempt

    async with Worker(queue):
        job = await work.enqueue()
        await outcome(job)
        mended = True
        await queue.rerun(job.id)
        assert await job.result(timeout=10) == 1
    assert await queue.jobs("failed") == []


async def test_a_retried_job_takes_its_turn_and_blocks_nobody(queue: Queue) -> None:
    """One slot, a failing job with a long back-off: the rest of the queue goes on."""

    @queue.task(retry=Retry(backoff=600, jitter=False))
    async def work(fail: bool) -> str:  # noqa: FBT001
        if fail:
            raise ValueError
        return "done"

    async with Worker(queue, concurrency=1):
        failing = await work.enqueue(fail=True)
        assert await (await work.enqueue(fail=False)).result(timeout=10) == "done"
        assert await failing.status() is JobState.SCHEDULED


async def test_an_exception_group_is_a_failure_like_any_other(queue: Queue) -> None:
    """Task groups raise them, and their tracebacks are worth keeping."""

    @queue.task(retry=1)
    async def work() -> None:
        raise ExceptionGroup("two things", [ValueError("one"), KeyError("two")])

    async with Worker(queue):
        error = await outcome(await work.enqueue())

    assert error.exception_type == "ExceptionGroup"
    assert "ValueError: one" in error.traceback
    assert "KeyError: 'two'" in error.traceback
