"""Plain functions: they run in threads, and are told to stop as far as threads can be."""

from __future__ import annotations

import sys
import threading
import time
from contextvars import ContextVar

import pytest
from facts import until_state

from aqueue import Context, JobCancelled, JobFailed, JobState, Queue, Worker, current_job

MANY = 60
"""More than the 40 threads that anyio allows by default."""

request_id: ContextVar[str] = ContextVar("request_id", default="none")


async def test_a_plain_function_runs_beside_the_loop(queue: Queue) -> None:
    """A blocking call must not stop the other jobs of its worker."""

    @queue.task
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    async with Worker(queue):
        assert await (await where.enqueue()).result(timeout=10) is False


async def test_the_job_is_known_in_its_thread(queue: Queue) -> None:
    """Logging and tracing work by contextvars, in threads as well."""

    @queue.task
    def look(context: Context) -> list[object]:
        job = current_job()
        assert job is not None
        return [job.id, context.attempt, request_id.get()]

    async with Worker(queue):
        job = await look.enqueue()
        assert await job.result(timeout=10) == [job.id, 1, "none"]


async def test_contextvars_are_copied_and_not_shared(queue: Queue) -> None:
    """What one job sets must not be there for the next in the same thread."""

    @queue.task
    def mark() -> str:
        before = request_id.get()
        request_id.set("mine")
        return before

    async with Worker(queue, concurrency=1):
        jobs = [await mark.enqueue() for _ in range(3)]
        assert [await job.result(timeout=10) for job in jobs] == ["none"] * 3


async def test_as_many_threads_as_slots_run_at_once(queue: Queue) -> None:
    """`concurrency` is the one number people set; no hidden pool may be smaller."""
    together = threading.Barrier(MANY, timeout=20)

    @queue.task(retry=1)
    def meet() -> int:
        return together.wait()

    async with Worker(queue, concurrency=MANY):
        jobs = await queue.enqueue_many(meet.call() for _ in range(MANY))
        assert sorted([await job.result(timeout=20) for job in jobs]) == list(range(MANY))


async def test_a_timeout_interrupts_a_loop_in_a_thread(queue: Queue) -> None:
    """Python code cannot be killed, but it can be made to raise."""
    ended = threading.Event()

    @queue.task(timeout=0.1, retry=1)
    def spin() -> None:
        try:
            while True:
                pass
        finally:
            ended.set()

    async with Worker(queue):
        job = await spin.enqueue()
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=10)

    assert caught.value.exception_type == "TimeoutError"
    assert ended.is_set()


async def test_a_cancel_interrupts_a_thread(queue: Queue) -> None:
    """Whoever cancels a job means it, whatever kind of function it is."""

    @queue.task
    def spin() -> None:
        while True:
            time.sleep(0.001)

    async with Worker(queue):
        job = await spin.enqueue()
        await until_state(job, "running")
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


async def test_except_exception_does_not_stop_an_interrupt(queue: Queue) -> None:
    """Loops that log every error and go on are common, and must still end."""

    @queue.task(timeout=0.1, retry=1)
    def resilient() -> None:
        while True:
            try:
                time.sleep(0.001)
            except Exception:  # noqa: BLE001
                continue

    async with Worker(queue):
        with pytest.raises(JobFailed, match=r"timeout of 0\.1 s"):
            await (await resilient.enqueue()).result(timeout=10)


async def test_the_slot_is_taken_until_the_thread_has_really_ended(queue: Queue) -> None:
    """Two runs of one job side by side would be worse than a late one."""
    order = []

    @queue.task(timeout=0.05, retry=1)
    def deaf() -> None:
        time.sleep(0.3)  # in C: no interrupt comes through
        order.append("deaf")

    @queue.task
    async def following() -> None:
        order.append("following")

    async with Worker(queue, concurrency=1):
        late = await deaf.enqueue()
        await (await following.enqueue()).result(timeout=10)
        with pytest.raises(JobFailed):
            await late.result(timeout=10)
    assert order[-1] == "following"
    assert await late.status() is JobState.FAILED


async def test_a_job_that_is_stopped_before_its_thread_begins_does_not_run(queue: Queue) -> None:
    """A cancel that comes in the first instant is a cancel all the same."""
    begun = []

    @queue.task
    def work() -> None:
        begun.append(1)
        while True:
            time.sleep(0.001)

    worker = Worker(queue, concurrency=20)
    jobs = await queue.enqueue_many(work.call() for _ in range(20))
    async with worker:
        for job in jobs:
            await job.cancel()
        for job in jobs:
            with pytest.raises(JobCancelled):
                await job.result(timeout=10)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration()])
async def test_whatever_a_thread_raises_is_the_jobs_failure(queue: Queue, error: BaseException) -> None:
    """`sys.exit()` in some library's main function must not end the worker."""

    @queue.task(retry=1)
    def leave() -> None:
        raise error

    @queue.task
    def work() -> int:
        return 1

    async with Worker(queue):
        job = await leave.enqueue()
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=10)
        assert await (await work.enqueue()).result(timeout=10) == 1

    assert type(error).__name__ in caught.value.exception_type + caught.value.traceback


async def test_sys_exit_in_a_direct_call_is_the_callers(queue: Queue) -> None:
    """Without a worker a task is a function, and its caller decides."""

    @queue.task
    def leave() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        await leave()


async def test_the_traceback_of_a_thread_is_kept(queue: Queue) -> None:
    """It starts in the task, not in the machinery that ran it."""

    @queue.task(retry=1)
    def fail() -> None:
        raise LookupError("gone")

    async with Worker(queue):
        with pytest.raises(JobFailed) as caught:
            await (await fail.enqueue()).result(timeout=10)

    assert "in fail" in caught.value.traceback
    assert "anyio" not in caught.value.traceback
    assert "aqueue/worker" not in caught.value.traceback
