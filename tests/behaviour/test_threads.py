"""Plain functions: they run in threads, and are told to stop as far as threads can be."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from facts import until, until_state

from aqueue import Context, JobCancelled, JobFailed, JobState, Middleware, Queue, Worker, current_job
from aqueue.middleware import Run
from aqueue.worker.threads import Threads

MANY = 60
"""More than the 40 threads that anyio allows by default."""

request_id: ContextVar[str] = ContextVar("request_id", default="none")


@pytest.fixture
def hurried_threads() -> Iterator[None]:
    """Let threads take turns 50 times as often: busy ones starve the loop less, and meet it at more places."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 50)
    yield
    sys.setswitchinterval(before)


def doze() -> None:
    """Wait in C, as most blocking code does."""
    time.sleep(0.001)


def calculate() -> None:
    """Be busy in bytecode."""
    sum(range(100))


LOOPS = pytest.mark.parametrize("step", [doze, calculate])


# what a thread is given


async def test_a_plain_function_runs_beside_the_loop_and_knows_its_job(queue: Queue) -> None:
    """A blocking call must not stop other jobs; logging and tracing work by contextvars, in threads as well."""

    class Tracing(Middleware):
        async def around_run(self, context: Context, proceed: Run) -> Any:
            request_id.set("set by middleware")
            return await proceed()

    @queue.task
    def look(context: Context) -> list[object]:
        job = current_job()
        assert job is not None
        found = request_id.get()
        request_id.set("set by the job")
        return [job.id, context.attempt, found, threading.current_thread() is threading.main_thread()]

    jobs = [await look.enqueue(), await look.enqueue()]
    await Worker(queue, concurrency=1, middleware=[Tracing()]).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [[job.id, 1, "set by middleware", False] for job in jobs]
    assert current_job() is None
    assert request_id.get() == "none"


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


# how a thread is stopped


@LOOPS
async def test_a_timeout_interrupts_a_loop_in_a_thread(queue: Queue, step: Callable[[], None]) -> None:
    """Python code cannot be killed, but can be made to raise: what loops log every error and go on must not catch."""
    begun, cleaned = threading.Event(), threading.Event()

    @queue.task(timeout=0.1, retry=1)
    def resilient() -> None:
        try:
            begun.set()
            while True:
                try:
                    step()
                except Exception:  # noqa: BLE001
                    continue
        finally:
            cleaned.set()

    @queue.task
    def after() -> str:
        return "next"

    late, following = await resilient.enqueue(), await after.enqueue()
    async with Worker(queue, concurrency=1):
        with pytest.raises(JobFailed, match=r"timeout of 0\.1 s") as caught:
            await late.result(timeout=10)
        assert await following.result(timeout=10) == "next"

    assert caught.value.exception_type == "TimeoutError"
    assert cleaned.is_set() or not begun.is_set()  # a pause before the thread began may take all of the time


@LOOPS
async def test_a_cancel_interrupts_a_loop_in_a_thread(queue: Queue, step: Callable[[], None]) -> None:
    """Whoever cancels a job means it, whatever kind of function it is."""

    @queue.task
    def spin() -> None:
        while True:
            step()

    async with Worker(queue):
        job = await spin.enqueue()
        await until_state(job, "running")
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=10)


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


@pytest.mark.usefixtures("hurried_threads")
@pytest.mark.parametrize("when", ["at once", "running"])
async def test_cancels_that_race_with_the_start_leave_no_thread_running(queue: Queue, when: str) -> None:
    """Wherever the cancel meets the start, every job ends and no slot stays taken."""

    @queue.task
    def busy() -> None:
        while True:
            sum(range(10))

    worker = Worker(queue, concurrency=20 if when == "at once" else 5)
    jobs = await queue.enqueue_many(busy.call() for _ in range(20))
    async with worker:
        for job in jobs:
            if when == "running":
                await until_state(job, "running")
            await job.cancel()
        for job in jobs:
            with pytest.raises(JobCancelled):
                await job.result(timeout=10)
    assert worker.threads_left == 0


# what a thread raises


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
