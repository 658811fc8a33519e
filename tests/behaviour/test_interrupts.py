"""Whatever a job does to the thread, the loop or the process it runs in: the job ends, and the worker lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from contextvars import ContextVar
from typing import Any

import pytest
import redis
from facts import until, until_state

from aqueue import Discard, Job, JobCancelled, JobFailed, JobState, Queue, RetryLater, Worker, current_job
from aqueue.context import Context
from aqueue.middleware import Middleware, Run
from aqueue.worker.threads import Threads

flavour: ContextVar[str] = ContextVar("flavour", default="none")


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


# threads


async def test_a_plain_function_sees_its_job_and_its_context(queue: Queue) -> None:
    """Log lines and tracing spans of the thread belong to the job; what it sets stays there."""

    class Flavoured(Middleware):
        async def around_run(self, context: Context, proceed: Run) -> Any:
            flavour.set("set by middleware")
            return await proceed()

    @queue.task
    def work() -> tuple[str, str, bool]:
        found, job = flavour.get(), current_job()
        flavour.set("set by the job")
        return found, "" if job is None else job.id, threading.current_thread() is threading.main_thread()

    jobs = [await work.enqueue(), await work.enqueue()]
    await Worker(queue, concurrency=1, middleware=[Flavoured()]).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [("set by middleware", job.id, False) for job in jobs]
    assert current_job() is None
    assert flavour.get() == "none"


async def test_a_timeout_interrupts_a_loop_in_a_thread(queue: Queue) -> None:
    """`except Exception` must not catch it, its clean-up must run, and the slot must come free."""
    cleaned = threading.Event()

    @queue.task(timeout=0.1, retry=1)
    def busy() -> None:
        try:
            while True:
                with contextlib.suppress(Exception):
                    sum(range(100))
        finally:
            cleaned.set()

    @queue.task
    def after() -> str:
        return "next"

    busy_job, next_job = await busy.enqueue(), await after.enqueue()
    async with Worker(queue, concurrency=1):
        error = await failure(busy_job)
        assert await next_job.result(timeout=10) == "next"

    assert error.exception_type == "TimeoutError"
    assert "0.1 s" in error.reason
    assert cleaned.is_set()


async def test_a_cancel_interrupts_a_loop_in_a_thread(queue: Queue) -> None:
    """A thread cannot be cancelled, but Python code in it can."""

    @queue.task
    def busy() -> None:
        while True:
            sum(range(100))

    async with Worker(queue):
        job = await busy.enqueue()
        await until_state(job, "running")
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


async def test_a_cancel_before_the_thread_began_is_honoured() -> None:
    """There is nothing to interrupt yet; the function must not start after all."""
    ran, gate, threads = [], threading.Event(), Threads(1)
    first = asyncio.create_task(threads.run(gate.wait))
    second = asyncio.create_task(threads.run(lambda: ran.append(2)))
    await until(lambda: threads.unfinished == 2, "both have been asked for")
    second.cancel()
    await asyncio.sleep(0)
    gate.set()

    results = await asyncio.gather(first, second, return_exceptions=True)
    assert results[0] is True
    assert isinstance(results[1], asyncio.CancelledError)
    assert ran == []
    assert threads.unfinished == 0


async def test_cancels_that_race_with_the_start_leave_no_thread_running(queue: Queue) -> None:
    """Wherever the cancel meets the start, every job ends and no slot stays taken."""

    @queue.task
    def busy() -> None:
        while True:
            sum(range(10))

    worker = Worker(queue, concurrency=5)
    async with worker:
        jobs = await queue.enqueue_many(busy.call() for _ in range(20))
        for job in jobs:
            await until_state(job, "running")
            await job.cancel()
        for job in jobs:
            with pytest.raises(JobCancelled):
                await job.result(timeout=10)
    assert worker.threads_left == 0


# what a job may raise


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration, StopAsyncIteration]
)
async def test_no_exception_ends_the_worker(queue: Queue, kind: type[BaseException]) -> None:
    """sys.exit in a library call must cost one job, not the process with nine others."""

    @queue.task(retry=1)
    async def on_the_loop() -> None:
        raise kind

    @queue.task(retry=1)
    def in_a_thread() -> None:
        raise kind

    @queue.task(retry=1)
    def leaving() -> None:
        sys.exit(3)

    @queue.task
    async def good() -> str:
        return "alive"

    async with Worker(queue, concurrency=2):
        bad = [await on_the_loop.enqueue(), await in_a_thread.enqueue(), await leaving.enqueue()]
        errors = [await failure(job) for job in bad]
        assert await (await good.enqueue()).result(timeout=10) == "alive"

    expected = "RuntimeError" if kind in (StopIteration, StopAsyncIteration) else kind.__name__
    assert {error.exception_type.rpartition(".")[2] for error in errors[:2]} <= {expected, kind.__name__}
    assert (errors[2].exception_type, errors[2].reason) == ("SystemExit", "3")


async def test_a_job_that_swallows_its_timeout_is_completed(queue: Queue) -> None:
    """It has finished in its own way; to run it again would be a double run."""

    @queue.task(timeout=0.05)
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    job = await stubborn.enqueue()
    async with Worker(queue):
        await until_state(job, "completed", "failed", "scheduled")
    assert await job.status() is JobState.COMPLETED
    assert await job.result(timeout=10) == "done"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def test_an_exception_that_cannot_be_printed_is_a_failed_job(queue: Queue) -> None:
    """Its class is told, and why its message is missing."""

    @queue.task(retry=1)
    async def work() -> None:
        raise Unprintable

    job = await work.enqueue()
    async with Worker(queue):
        error = await failure(job)
    assert error.exception_type.endswith("Unprintable")
    assert "RuntimeError" in error.reason


async def test_an_exception_with_a_lone_surrogate_is_a_failed_job(queue: Queue) -> None:
    """Undecodable file names look like this, and JSON cannot hold them."""

    @queue.task(retry=1)
    async def work() -> None:
        raise FileNotFoundError("name\udcff.txt")

    job = await work.enqueue()
    async with Worker(queue):
        error = await failure(job)
    assert error.exception_type == "FileNotFoundError"
    assert "name\\udcff.txt" in error.reason


async def test_a_signal_with_a_reason_that_is_no_text_is_a_failed_job(queue: Queue) -> None:
    """`raise Discard(error)` is an easy slip; it must not run for ever, nor cost the worker."""

    @queue.task(retry=1)
    async def discarded() -> None:
        raise Discard(ValueError("why"))  # type: ignore[arg-type]

    @queue.task(retry=1)
    async def later() -> None:
        raise RetryLater(0, reason=ValueError("why"))  # type: ignore[arg-type]

    jobs: list[Job[Any]] = [await discarded.enqueue(), await later.enqueue()]
    async with Worker(queue):
        for job in jobs:
            assert "why" in (await failure(job)).reason


# being stopped


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def test_released_jobs_keep_their_order(queue: Queue) -> None:
    """A deploy must not send the oldest jobs to the end of the queue."""
    started: list[int] = []
    holding = True

    @queue.task
    async def work(n: int) -> None:
        started.append(n)
        if holding:
            await wait_for_ever()

    jobs = await queue.enqueue_many(work.call(n) for n in range(8))
    async with Worker(queue, concurrency=6, grace=0):
        await until(lambda: len(started) == 6, "six have started")
    assert [await job.status() for job in jobs] == [JobState.QUEUED] * 8
    assert [(info.attempt, info.crashes) for info in [await job.info() for job in jobs]] == [(0, 0)] * 8

    started.clear()
    holding = False
    await Worker(queue, concurrency=1).run(burst=True)
    assert started == list(range(8))


async def test_a_cancelled_run_gives_its_jobs_back_uncounted(queue: Queue, raw: redis.Redis) -> None:
    """A host that cancels its task group is a shutdown, not a crash of the jobs."""
    queue.task(wait_for_ever)
    jobs = [await queue.enqueue("wait_for_ever") for _ in range(2)]
    running = asyncio.create_task(Worker(queue).run())
    for job in jobs:
        await until_state(job, "running")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    infos = [await job.info() for job in jobs]
    assert [(info.state, info.attempt, info.crashes) for info in infos] == [(JobState.QUEUED, 0, 0)] * 2
    assert raw.zcard("aqueue:{q}:workers") == 0


async def test_an_embedded_worker_leaves_its_host_alone(queue: Queue) -> None:
    """Signals and logging belong to the application that embeds it."""

    def host() -> tuple[Any, ...]:
        root = logging.getLogger()
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        ours = logging.getLogger("aqueue")
        return handlers, list(root.handlers), root.level, root.filters[:], ours.handlers[:], ours.level, ours.propagate

    @queue.task
    async def work() -> str:
        return "done"

    before = host()
    async with Worker(queue):
        assert await (await work.enqueue()).result(timeout=10) == "done"
        assert host() == before
    assert host() == before


async def test_a_paused_queue_starts_nothing_and_a_resumed_one_at_once(queue: Queue) -> None:
    """What runs goes on; a resume is told, not found out by looking every two seconds."""
    begun, gate = asyncio.Event(), asyncio.Event()
    other = Queue("other", url=queue._url)

    @queue.task
    async def slow() -> str:
        begun.set()
        await gate.wait()
        return "went on"

    @queue.task
    async def work() -> str:
        return "started"

    @other.task
    async def marker() -> str:
        return "seen"

    async with other, Worker(queue, other):
        running = await slow.enqueue()
        await begun.wait()
        assert await queue.pause()
        waiting = await work.enqueue()
        assert await (await marker.enqueue()).result(timeout=10) == "seen"
        gate.set()
        assert await running.result(timeout=10) == "went on"
        assert await (await marker.enqueue()).result(timeout=10) == "seen"
        assert await waiting.status() is JobState.QUEUED
        assert await queue.resume()
        assert await waiting.result(timeout=1) == "started"
