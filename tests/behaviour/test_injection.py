"""What the worker fills in, and what may wrap a job: always closed, in order, and never in a caller's way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aqueue import Context, Depends, Job, JobFailed, Middleware, Queue, Worker
from aqueue.middleware import Outgoing, Run, Store


@pytest.fixture
def steps() -> list[str]:
    """What happened, in order."""
    return []


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


async def test_the_context_may_stand_anywhere(queue: Queue) -> None:
    """It is found by its annotation; a caller never sees it and passes the rest as usual."""

    @queue.task
    async def first(ctx: Context, n: int) -> list[Any]:
        return [ctx.task, ctx.attempt, n]

    @queue.task
    async def middle(n: int, ctx: Context, m: int = 2) -> list[Any]:
        return [ctx.task, n, m]

    @queue.task
    def last(n: int, *more: int, run: Context, **named: int) -> list[Any]:
        return [run.task, n, list(more), named]

    loose: Any = middle
    jobs = [
        await first.enqueue(1),
        await loose.enqueue(1),
        await loose.enqueue(1, 3),
        await loose.enqueue(n=1, m=4),
        await queue.enqueue("last", 1, 2, 3, x=4),
    ]
    await Worker(queue).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [
        ["first", 1, 1],
        ["middle", 1, 2],
        ["middle", 1, 3],
        ["middle", 1, 4],
        ["last", 1, [2, 3], {"x": 4}],
    ]


async def test_providers_nest_run_once_per_job_and_close_in_reverse(queue: Queue, steps: list[str]) -> None:
    """A session needs its pool until the session is closed, and two users of one session share it."""

    async def pool(ctx: Context) -> AsyncIterator[str]:
        steps.append("open pool")
        yield f"pool of {ctx.task}"
        steps.append("close pool")

    def session(pool: str = Depends(pool)) -> Iterator[list[str]]:
        steps.append("open session")
        yield [pool]
        steps.append("close session")

    def plain(session: list[str] = Depends(session)) -> list[str]:
        return session

    async def awaited() -> int:
        return 7

    @queue.task
    async def work(
        n: int,
        one: list[str] = Depends(session),
        two: list[str] = Depends(plain),
        number: int = Depends(awaited),
    ) -> tuple[bool, str, int]:
        steps.append("work")
        return one is two, one[0], n + number

    loose: Any = work
    jobs = [await loose.enqueue(1), await loose.enqueue(2)]
    await Worker(queue, concurrency=1).run(burst=True)

    assert [await job.result(timeout=10) for job in jobs] == [(True, "pool of work", 8), (True, "pool of work", 9)]
    assert steps == ["open pool", "open session", "work", "close session", "close pool"] * 2


async def test_providers_close_when_the_job_fails_and_cannot_hide_it(queue: Queue, steps: list[str]) -> None:
    """A transaction must be rolled back, and its guard must not turn a failure into a success."""

    async def outer() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            steps.append("outer saw it")

    def inner(outer: None = Depends(outer)) -> Iterator[None]:
        try:
            yield
        except ValueError:
            steps.append("inner saw it")
            raise

    @queue.task(retry=1)
    async def work(guard: None = Depends(inner)) -> None:
        raise ValueError("mine")

    @queue.task(retry=1)
    def plain(guard: None = Depends(outer)) -> None:
        raise ValueError("mine")

    jobs: list[Job[Any]] = [await work.enqueue(), await plain.enqueue()]
    await Worker(queue, concurrency=1).run(burst=True)

    assert [(await failure(job)).exception_type for job in jobs] == ["ValueError", "ValueError"]
    assert steps == ["inner saw it", "outer saw it", "outer saw it"]


async def test_a_provider_that_fails_fails_the_job_and_closes_what_was_open(queue: Queue, steps: list[str]) -> None:
    """The third connection refused must not leak the first two, and a broken clean-up is not a success."""

    def first() -> Iterator[None]:
        try:
            yield
        finally:
            steps.append("closed")

    def broken(first: None = Depends(first)) -> None:
        raise OSError("no database")

    def untidy() -> Iterator[None]:
        yield
        raise RuntimeError("cannot close")

    @queue.task(retry=1)
    async def unopened(db: None = Depends(broken)) -> None:
        steps.append("ran")

    @queue.task(retry=1)
    async def unclosed(db: None = Depends(untidy)) -> None: ...

    jobs: list[Job[Any]] = [await unopened.enqueue(), await unclosed.enqueue()]
    await Worker(queue).run(burst=True)

    assert [(await failure(job)).reason for job in jobs] == ["no database", "cannot close"]
    assert steps == ["closed"]


def chicken(egg: Any = None) -> None: ...


def egg(chicken: Any = Depends(chicken)) -> None: ...


async def test_providers_in_a_circle_are_refused(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with a word about the circle, not with a worker that recurses."""
    monkeypatch.setattr(chicken, "__defaults__", (Depends(egg),))

    @queue.task(retry=1)
    async def work(bird: Any = Depends(chicken)) -> None: ...

    job = await work.enqueue()
    await Worker(queue).run(burst=True)

    error = await failure(job)
    assert error.exception_type == "ConfigurationError"
    assert "chicken -> egg -> chicken" in error.reason


async def test_only_functions_provide(queue: Queue) -> None:
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

    job = await work.enqueue()
    await Worker(queue).run(burst=True)

    assert await job.result(timeout=10) == "work"


async def test_a_task_is_called_like_a_function(queue: Queue, steps: list[str]) -> None:
    """Unit tests of tasks need no worker, and may pass their own values by keyword."""

    def provider() -> Iterator[str]:
        yield "provided"
        steps.append("closed")

    @queue.task
    async def work(ctx: Context, n: int, db: str = Depends(provider)) -> tuple[str, int, str, Any]:
        return ctx.task, n, db, ctx.job

    @queue.task
    def plain(n: int, ctx: Context, db: str = Depends(provider)) -> tuple[str, int, str]:
        return ctx.task, n, db

    loose: Any = plain
    assert await work(1) == ("work", 1, "provided", None)
    assert await loose(2) == ("plain", 2, "provided")
    assert steps == ["closed", "closed"]
    assert await work(1, db="mine") == ("work", 1, "mine", None)
    assert await loose(n=2, db="mine", ctx=Context(task="fake")) == ("fake", 2, "mine")
    assert steps == ["closed", "closed"]


async def test_the_lifespan_opens_before_the_first_job_and_closes_after_the_last(
    queue: Queue, steps: list[str]
) -> None:
    """What is expensive is made once per worker; its own value wins over the queue's."""

    @asynccontextmanager
    async def lifespan(name: str) -> AsyncGenerator[str]:
        steps.append(f"open {name}")
        yield name
        steps.append(f"close {name}")

    @queue.task
    async def work(ctx: Context) -> str:
        steps.append("work")
        return str(ctx.state)

    queue.lifespan = lambda: lifespan("queue")
    job = await work.enqueue()
    await Worker(queue).run(burst=True)
    assert await job.result(timeout=10) == "queue"
    assert steps == ["open queue", "work", "close queue"]

    steps.clear()
    job = await work.enqueue()
    await Worker(queue, lifespan=lambda: lifespan("worker")).run(burst=True)
    assert await job.result(timeout=10) == "worker"
    assert steps == ["open queue", "open worker", "work", "close worker", "close queue"]


class Layer(Middleware):
    """Notes when it is entered and left, on both sides, and sends a header along."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps = name, steps

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        self.steps.append(f"{self.name}: send {len(calls)}")
        for call in calls:
            call.headers[self.name] = call.task
        jobs = await proceed(calls)
        self.steps.append(f"{self.name}: sent")
        return jobs

    async def around_run(self, context: Context, proceed: Run) -> Any:
        self.steps.append(f"{self.name}: run {context.task}")
        result = await proceed()
        self.steps.append(f"{self.name}: ran")
        return [self.name, result]


async def test_middleware_wraps_like_an_onion_on_both_sides(queue: Queue, steps: list[str]) -> None:
    """The first layer is outermost, the worker's lie inside the queue's, and headers travel to the job."""
    queue.middleware += [Layer("a", steps), Layer("b", steps)]

    @queue.task
    async def work(ctx: Context) -> Any:
        steps.append("work")
        return dict(ctx.headers)

    jobs = await queue.enqueue_many([work.call(), work.call()])
    assert steps == ["a: send 2", "b: send 2", "b: sent", "a: sent"]

    steps.clear()
    await jobs[1].cancel()
    await Worker(queue, middleware=[Layer("c", steps)]).run(burst=True)
    inwards, outwards = ["a: run work", "b: run work", "c: run work"], ["c: ran", "b: ran", "a: ran"]
    assert steps == [*inwards, "work", *outwards]
    assert await jobs[0].result(timeout=10) == ["a", ["b", ["c", {"a": "work", "b": "work"}]]]


async def test_middleware_that_raises_fails_the_job_or_refuses_the_call(queue: Queue, steps: list[str]) -> None:
    """It may veto on either side; on neither does that cost another job or the worker."""

    class Veto(Middleware):
        async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
            if any(call.args == ("unsendable",) for call in calls):
                raise PermissionError("not sent")
            return await proceed(calls)

        async def around_run(self, context: Context, proceed: Run) -> Any:
            result = await proceed()
            if result == "bad":
                raise PermissionError("not returned")
            return result

    queue.middleware.append(Veto())

    @queue.task(retry=1)
    async def work(name: str) -> str:
        return name

    with pytest.raises(PermissionError, match="not sent"):
        await work.enqueue("unsendable")
    bad, good = await work.enqueue("bad"), await work.enqueue("good")
    await Worker(queue).run(burst=True)

    error = await failure(bad)
    assert (error.exception_type, error.reason) == ("PermissionError", "not returned")
    assert await good.result(timeout=10) == "good"
