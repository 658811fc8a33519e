"""What reaches a running job besides its arguments: the context, the current job, and dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from facts import until_state
from servers import binaries

from aqueue import AqueueError, Context, Depends, Job, JobFailed, JobState, Queue, Retry, Worker, current_job

log: list[str] = []


@pytest.fixture
def engine() -> str:
    """Injection knows no Redis; one server will do."""
    return next(iter(binaries()))


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


async def run(queue: Queue, job: Job[Any]) -> Any:
    await Worker(queue).run(burst=True)
    return await job.result(timeout=10)


async def test_the_context_says_what_is_known_of_the_run(queue: Queue) -> None:
    """A job that logs, or decides by its attempt, needs nothing else."""

    @queue.task(retry=Retry(max_attempts=7))
    async def look(before: int, ctx: Context, after: int) -> list[str | int]:
        assert ctx.job is not None
        return [ctx.task, ctx.job.id, ctx.attempt, ctx.max_attempts, ctx.crashes, before, after]

    untyped: Any = look  # a context that is not the first parameter is known at run time only
    job = await untyped.enqueue(1, after=2)
    assert await run(queue, job) == ["look", job.id, 1, 7, 0, 1, 2]


@pytest.mark.parametrize("keyword_only", [False, True])
async def test_the_context_may_stand_anywhere(queue: Queue, keyword_only: bool) -> None:  # noqa: FBT001
    """First, last or keyword-only: callers never see it."""

    async def last(n: int, m: int = 2, *, context: Context) -> list[int]:
        return [n, m, context.attempt]

    async def middle(n: int, context: Context, *rest: int) -> list[int]:
        return [n, *rest, context.attempt]

    task: Any = queue.task(last if keyword_only else middle)
    assert await run(queue, await task.enqueue(5, 6)) == [5, 6, 1]


async def test_the_current_job_is_known_where_no_context_was_passed(queue: Queue) -> None:
    """Libraries deep in the call stack may want to tag what they do."""

    async def deep() -> str:
        job = current_job()
        assert job is not None
        return job.id

    @queue.task
    async def work() -> list[str]:
        return [await deep(), await asyncio.create_task(deep())]

    job = await work.enqueue()
    assert await run(queue, job) == [job.id, job.id]
    assert current_job() is None


async def test_two_jobs_at_once_each_know_themselves(queue: Queue) -> None:
    """Context follows the task, not the worker."""
    both = asyncio.Barrier(2)

    @queue.task
    async def work() -> bool:
        mine = current_job()
        await both.wait()
        return mine is not None and current_job() is mine

    jobs = [await work.enqueue() for _ in range(2)]
    await Worker(queue, concurrency=2).run(burst=True)
    assert [await job.result() for job in jobs] == [True, True]


async def test_a_job_may_enqueue_and_wait_for_another(queue: Queue) -> None:
    """The worker's own queue is open already; nothing deadlocks as long as a slot is free."""

    @queue.task
    async def child(n: int) -> int:
        return n + 1

    @queue.task
    async def parent() -> int:
        return await (await child.enqueue(1)).result(timeout=10)

    async with Worker(queue, concurrency=2):
        assert await (await parent.enqueue()).result(timeout=10) == 2


def plain() -> str:
    log.append("plain")
    return "plain"


async def coroutine() -> str:
    return "coroutine"


def generator() -> Iterator[str]:
    log.append("open generator")
    try:
        yield "generator"
    finally:
        log.append("close generator")


async def async_generator(inner: str = Depends(generator)) -> AsyncIterator[str]:
    log.append("open async generator")
    yield f"async {inner}"
    log.append("close async generator")


class Service:
    async def __call__(self, context: Context) -> str:
        return f"service of {context.task}"


PROVIDERS: list[tuple[Callable[..., Any], str]] = [
    (plain, "plain"),
    (coroutine, "coroutine"),
    (generator, "generator"),
    (async_generator, "async generator"),
    (lambda: "lambda", "lambda"),
]


@pytest.mark.parametrize(("provider", "value"), PROVIDERS, ids=[value for _, value in PROVIDERS])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
async def test_every_kind_of_provider_provides(
    queue: Queue,
    provider: Callable[..., Any],
    value: str,
    is_async: bool,  # noqa: FBT001
) -> None:
    """What people know from web frameworks works here, for tasks of both kinds."""

    async def asynchronous(suffix: str, given: str = Depends(provider)) -> str:
        return given + suffix

    def threaded(suffix: str, given: str = Depends(provider)) -> str:
        return given + suffix

    task = queue.task(asynchronous) if is_async else queue.task(threaded)
    assert await run(queue, await task.enqueue("!")) == f"{value}!"


async def test_a_callable_object_provides_and_gets_the_context(queue: Queue) -> None:
    """Configured providers are objects."""

    @queue.task(retry=1)
    async def work(given: str = Depends(Service())) -> str:
        return given

    assert await run(queue, await work.enqueue()) == "service of work"


async def test_dependencies_close_in_reverse_order(queue: Queue) -> None:
    """A session must end before the connection it lives on."""

    @queue.task
    async def work(given: str = Depends(async_generator)) -> None:
        log.append(f"run with {given}")

    await run(queue, await work.enqueue())
    assert log == [
        "open generator", "open async generator", "run with async generator",
        "close async generator", "close generator",
    ]  # fmt: skip


async def test_a_dependency_is_provided_once_per_job(queue: Queue) -> None:
    """Two helpers of one job share its transaction; two jobs do not."""

    def number() -> list[int]:
        return []

    def left(n: list[int] = Depends(number)) -> list[int]:
        return n

    async def right(n: list[int] = Depends(number)) -> list[int]:
        return n

    seen = []

    @queue.task
    async def work(a: list[int] = Depends(left), b: list[int] = Depends(right), c: list[int] = Depends(number)) -> bool:
        seen.append(a)
        return a is b is c

    jobs = [await work.enqueue() for _ in range(2)]
    await Worker(queue).run(burst=True)
    assert [await job.result() for job in jobs] == [True, True]
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("how", ["raise", "timeout", "cancel"])
async def test_dependencies_close_however_the_job_ends(queue: Queue, how: str) -> None:
    """A connection that is not given back when a job fails is a leak that shows at night."""
    closed = asyncio.Event()

    async def connection() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.set()

    @queue.task(retry=1, timeout=0.05 if how == "timeout" else 60)
    async def work(_given: int = Depends(connection)) -> None:
        if how == "raise":
            raise ValueError
        await asyncio.Event().wait()

    async with Worker(queue):
        job = await work.enqueue()
        if how == "cancel":
            await until_state(job, "running")
            await job.cancel()
        await asyncio.wait_for(closed.wait(), 10)


async def test_a_provider_sees_the_error_of_the_job(queue: Queue) -> None:
    """That is how a transaction knows that it has to roll back."""

    async def transaction() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            log.append("rolled back")
            raise

    @queue.task(retry=1)
    async def work(_given: int = Depends(transaction)) -> None:
        raise ValueError("no")

    with pytest.raises(JobFailed, match="no"):
        await run(queue, await work.enqueue())
    assert log == ["rolled back"]


async def test_a_provider_that_swallows_the_error_does_not_make_it_a_success(queue: Queue) -> None:
    """A forgotten `raise` in a helper must not turn failed jobs into completed ones."""

    async def careless() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            log.append("seen")

    @queue.task(retry=1)
    async def work(_given: int = Depends(careless)) -> None:
        raise ValueError("no")

    with pytest.raises(JobFailed, match="no"):
        await run(queue, await work.enqueue())
    assert log == ["seen"]
    with pytest.raises(ValueError, match="no"):
        await work()


async def test_a_provider_that_fails_fails_the_job_and_closes_the_others(queue: Queue) -> None:
    """The job's function never starts, and what was opened before is given back."""

    def broken(_: str = Depends(generator)) -> int:
        raise ConnectionError("no database")

    @queue.task(retry=1)
    async def work(_given: int = Depends(broken)) -> None:
        log.append("run")

    with pytest.raises(JobFailed, match="no database"):
        await run(queue, await work.enqueue())
    assert log == ["open generator", "close generator"]


async def test_an_error_while_closing_fails_the_job(queue: Queue) -> None:
    """A commit that fails has lost the job's work."""

    async def session() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("commit failed")

    @queue.task(retry=1)
    async def work(_given: int = Depends(session)) -> None: ...

    with pytest.raises(JobFailed, match="commit failed"):
        await run(queue, await work.enqueue())


async def test_a_circle_of_dependencies_is_named(queue: Queue) -> None:
    """Recursion without end would take the worker with it."""

    def hen(egg: int = 0) -> int:
        return egg

    def egg(hen: int = Depends(hen)) -> int:
        return hen

    hen.__defaults__ = (Depends(egg),)

    @queue.task(retry=1)
    async def work(_given: int = Depends(hen)) -> None: ...

    with pytest.raises(JobFailed, match="hen -> egg -> hen"):
        await run(queue, await work.enqueue())
    with pytest.raises(AqueueError, match="hen -> egg -> hen"):
        await work()


async def test_injected_parameters_are_no_arguments(queue: Queue) -> None:
    """What travels is what the caller passed; a caller cannot pass a database by accident."""

    @queue.task
    async def work(context: Context, n: int, given: str = Depends(plain)) -> list[object]:
        return [n, given]

    job = await work.enqueue(1)
    info = await job.info()
    assert (info.args, info.kwargs) == ([1], {})
    assert list(work.signature.parameters) == ["n"]
    assert await job.status() is JobState.QUEUED
