"""What reaches a running job besides its arguments: the context, the current job, and dependencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from facts import until_state
from servers import binaries

from aqueue import ConfigurationError, Context, Depends, Job, JobFailed, JobState, Queue, Retry, Worker, current_job

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


async def failure(queue: Queue, job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await run(queue, job)
    return caught.value


# the context and the current job


async def test_the_context_says_what_is_known_of_the_run(queue: Queue) -> None:
    """A job that logs, or decides by its attempt, needs nothing else."""

    @queue.task(retry=Retry(max_attempts=7))
    async def look(before: int, ctx: Context, after: int) -> list[str | int]:
        assert ctx.job is not None
        return [ctx.task, ctx.job.id, ctx.attempt, ctx.max_attempts, ctx.crashes, before, after]

    untyped: Any = look  # a context that is not the first parameter is known at run time only
    job = await untyped.enqueue(1, after=2)
    assert await run(queue, job) == ["look", job.id, 1, 7, 0, 1, 2]


async def test_the_context_may_stand_anywhere(queue: Queue) -> None:
    """It is found by its annotation; a caller never sees it and passes the rest as usual."""

    @queue.task
    async def first(ctx: Context, n: int) -> list[Any]:
        return [ctx.task, ctx.attempt, n]

    @queue.task
    async def middle(n: int, ctx: Context, m: int = 2) -> list[Any]:
        return [ctx.task, ctx.attempt, n, m]

    @queue.task
    async def before_rest(n: int, ctx: Context, *rest: int) -> list[Any]:
        return [ctx.task, ctx.attempt, n, list(rest)]

    @queue.task
    async def by_keyword(n: int, m: int = 2, *, context: Context) -> list[Any]:
        return [context.task, context.attempt, n, m]

    @queue.task
    def in_a_thread(n: int, *more: int, run: Context, **named: int) -> list[Any]:
        return [run.task, run.attempt, n, list(more), named]

    loose: Any = queue  # a context that is not the first parameter is known at run time only
    middling: Any = middle
    jobs = [
        await first.enqueue(1),
        await middling.enqueue(1),
        await middling.enqueue(1, 3),
        await middling.enqueue(n=1, m=4),
        await loose.enqueue("before_rest", 5, 6),
        await loose.enqueue("by_keyword", 5, 6),
        await loose.enqueue("in_a_thread", 1, 2, 3, x=4),
    ]
    await Worker(queue).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [
        ["first", 1, 1],
        ["middle", 1, 1, 2],
        ["middle", 1, 1, 3],
        ["middle", 1, 1, 4],
        ["before_rest", 1, 5, [6]],
        ["by_keyword", 1, 5, 6],
        ["in_a_thread", 1, 1, [2, 3], {"x": 4}],
    ]


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


# what provides


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


async def test_only_functions_provide() -> None:
    """Depends(get_db()) for Depends(get_db) is the usual slip."""
    with pytest.raises(ValueError, match="function that provides"):
        Depends(None)  # type: ignore[arg-type]


async def test_a_provider_with_an_unreadable_annotation_still_gets_the_context(queue: Queue) -> None:
    """An import for type checkers only is common, and harmless in tasks."""

    def provider(ctx: Context, db: Missing = None) -> str:  # type: ignore[name-defined]  # noqa: F821
        return ctx.task

    @queue.task(retry=1)
    async def work(value: str = Depends(provider)) -> str:
        return value

    assert await run(queue, await work.enqueue()) == "work"


async def test_a_circle_of_dependencies_is_named(queue: Queue) -> None:
    """Recursion without end would take the worker with it."""

    def hen(egg: int = 0) -> int:
        return egg

    def egg(hen: int = Depends(hen)) -> int:
        return hen

    hen.__defaults__ = (Depends(egg),)

    @queue.task(retry=1)
    async def work(_given: int = Depends(hen)) -> None: ...

    error = await failure(queue, await work.enqueue())
    assert error.exception_type == "ConfigurationError"
    assert "hen -> egg -> hen" in error.reason
    with pytest.raises(ConfigurationError, match="hen -> egg -> hen"):
        await work()


async def test_a_task_is_called_like_a_function(queue: Queue) -> None:
    """Unit tests of tasks need no worker, and may pass their own values by keyword."""

    @queue.task
    async def work(ctx: Context, n: int, db: str = Depends(generator)) -> tuple[str, int, str, Any]:
        return ctx.task, n, db, ctx.job

    @queue.task
    def threaded(n: int, ctx: Context, db: str = Depends(generator)) -> tuple[str, int, str]:
        return ctx.task, n, db

    loose: Any = threaded
    assert await work(1) == ("work", 1, "generator", None)
    assert await loose(2) == ("threaded", 2, "generator")
    assert log == ["open generator", "close generator"] * 2
    assert await work(1, db="mine") == ("work", 1, "mine", None)
    assert await loose(n=2, db="mine", ctx=Context(task="fake")) == ("fake", 2, "mine")
    assert log == ["open generator", "close generator"] * 2


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


# opening and closing


async def test_providers_nest_run_once_per_job_and_close_in_reverse(queue: Queue) -> None:
    """A session needs its connection until it is closed; two users of one session share it, two jobs do not."""

    async def pool(ctx: Context) -> AsyncIterator[str]:
        log.append("open pool")
        yield f"pool of {ctx.task}"
        log.append("close pool")

    def session(pool: str = Depends(pool)) -> Iterator[list[str]]:
        log.append("open session")
        yield [pool]
        log.append("close session")

    async def transaction(session: list[str] = Depends(session)) -> AsyncIterator[list[str]]:
        log.append("open transaction")
        yield session
        log.append("close transaction")

    def by_function(session: list[str] = Depends(session)) -> list[str]:
        return session

    async def by_coroutine(session: list[str] = Depends(session)) -> list[str]:
        return session

    seen = []

    @queue.task
    async def work(
        n: int,
        a: list[str] = Depends(transaction),
        b: list[str] = Depends(session),
        c: list[str] = Depends(by_function),
        d: list[str] = Depends(by_coroutine),
    ) -> tuple[bool, str, int]:
        log.append("work")
        seen.append(a)
        return a is b is c is d, a[0], n

    jobs = [await work.enqueue(n) for n in (1, 2)]
    await Worker(queue, concurrency=1).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [(True, "pool of work", n) for n in (1, 2)]
    assert seen[0] is not seen[1]
    opened, closed = (
        ["open pool", "open session", "open transaction"],
        ["close transaction", "close session", "close pool"],
    )
    assert log == [*opened, "work", *closed] * 2


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


async def test_providers_see_the_error_of_the_job_and_cannot_hide_it(queue: Queue) -> None:
    """A transaction must be rolled back, and a forgotten `raise` must not turn a failed job into a completed one."""

    async def careless() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            log.append("swallowed")

    def transaction(_outer: int = Depends(careless)) -> Iterator[int]:
        try:
            yield 1
        except ValueError:
            log.append("rolled back")
            raise

    async def asynchronous(_outer: int = Depends(transaction)) -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError:
            log.append("rolled back asynchronously")
            raise

    @queue.task(retry=1)
    async def work(_given: int = Depends(asynchronous)) -> None:
        raise ValueError("mine")

    @queue.task(retry=1)
    def in_a_thread(_given: int = Depends(careless)) -> None:
        raise ValueError("mine")

    for task, seen in (
        (work, ["rolled back asynchronously", "rolled back", "swallowed"]),
        (in_a_thread, ["swallowed"]),
    ):
        error = await failure(queue, await task.enqueue())
        assert (error.exception_type, error.reason) == ("ValueError", "mine")
        assert log == seen
        log.clear()
        with pytest.raises(ValueError, match="mine"):
            await task()
        assert log == seen
        log.clear()


async def test_a_provider_that_fails_fails_the_job_and_closes_the_others(queue: Queue) -> None:
    """The job's function never starts, and what was opened before is given back."""

    def broken(_: str = Depends(generator)) -> int:
        raise ConnectionError("no database")

    @queue.task(retry=1)
    async def work(_given: int = Depends(broken)) -> None:
        log.append("run")

    assert (await failure(queue, await work.enqueue())).reason == "no database"
    assert log == ["open generator", "close generator"]


async def test_an_error_while_closing_fails_the_job(queue: Queue) -> None:
    """A commit that fails has lost the job's work."""

    async def session() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("commit failed")

    def untidy() -> Iterator[None]:
        yield
        raise RuntimeError("cannot close")

    @queue.task(retry=1)
    async def committed(_given: int = Depends(session)) -> None: ...

    @queue.task(retry=1)
    async def closed(_given: None = Depends(untidy)) -> None: ...

    assert (await failure(queue, await committed.enqueue())).reason == "commit failed"
    assert (await failure(queue, await closed.enqueue())).reason == "cannot close"
