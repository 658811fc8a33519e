"""Code around every enqueue and every run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from servers import Server, binaries

from aqueue import AqueueError, Context, Job, JobFailed, JobState, Middleware, NotSerializable, Queue, Retry, Worker
from aqueue.middleware import Outgoing, Run, Store


@pytest.fixture
def engine() -> str:
    """Middleware knows no Redis; one server will do."""
    return next(iter(binaries()))


class Onion(Middleware):
    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        self.log.append(f"{self.name} before enqueue")
        jobs = await proceed(calls)
        self.log.append(f"{self.name} after enqueue")
        return jobs

    async def around_run(self, context: Context, proceed: Run) -> Any:
        self.log.append(f"{self.name} before run")
        try:
            return await proceed()
        finally:
            self.log.append(f"{self.name} after run")


class Tracing(Middleware):
    def __init__(self) -> None:
        self.batches: list[int] = []

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        self.batches.append(len(calls))
        for call in calls:
            call.headers["trace"] = f"{call.task}{call.args}"
        return await proceed(calls)


class Raising(Middleware):
    def __init__(self, error: BaseException, *, where: str) -> None:
        self.error = error
        self.where = where

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        if self.where == "enqueue":
            raise self.error
        return await proceed(calls)

    async def around_run(self, context: Context, proceed: Run) -> Any:
        if self.where == "before":
            raise self.error
        result = await proceed()
        if self.where == "after":
            raise self.error
        return result


async def test_layers_lie_around_each_other_like_an_onion(server: Server) -> None:
    """The first is outermost: what it starts first it ends last. The worker's layers lie inside the queue's."""
    log: list[str] = []
    layers = [Onion("outer", log), Onion("inner", log)]
    async with Queue("q", url=server.url, middleware=layers) as queue:

        @queue.task
        async def work() -> None:
            log.append("work")

        await work.enqueue()
        await Worker(queue, middleware=[Onion("worker", log)]).run(burst=True)

    assert log == [
        "outer before enqueue", "inner before enqueue", "inner after enqueue", "outer after enqueue",
        "outer before run", "inner before run", "worker before run", "work",
        "worker after run", "inner after run", "outer after run",
    ]  # fmt: skip


async def test_headers_travel_with_the_job(server: Server) -> None:
    """A trace that starts in a web request goes on in the worker, attempt after attempt."""
    tracing = Tracing()
    async with Queue("q", url=server.url, middleware=[tracing]) as queue:

        @queue.task(retry=Retry(max_attempts=2, backoff=0))
        async def work(context: Context, n: int) -> str:
            if context.attempt == 1:
                raise ValueError
            return context.headers["trace"]

        async with Worker(queue):
            job = await work.enqueue(1)
            jobs = await queue.enqueue_many(work.call(n) for n in (2, 3))
            named = await queue.enqueue("work", 4)
            results = [await one.result(timeout=10) for one in (job, *jobs, named)]

    assert results == [f"work({n},)" for n in (1, 2, 3, 4)]
    assert tracing.batches == [1, 2, 1]


async def test_a_layer_may_change_the_result(server: Server) -> None:
    """What the outermost layer returns is what is stored."""

    class Doubling(Middleware):
        async def around_run(self, context: Context, proceed: Run) -> Any:
            return 2 * await proceed()

    async with Queue("q", url=server.url, middleware=[Doubling()]) as queue:

        @queue.task
        async def work() -> int:
            return 21

        job = await work.enqueue()
        await Worker(queue).run(burst=True)
        assert await job.result() == 42


async def test_every_layer_sees_the_batch_and_adds_its_header_and_its_result(server: Server) -> None:
    """Layers that know nothing of each other must not lose what another one did."""
    seen = []

    class Layer(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
            seen.append(f"{self.name}: send {len(calls)}")
            for call in calls:
                call.headers[self.name] = call.task
            return await proceed(calls)

        async def around_run(self, context: Context, proceed: Run) -> Any:
            seen.append(f"{self.name}: run {context.task}")
            return [self.name, await proceed()]

    async with Queue("q", url=server.url, middleware=[Layer("a"), Layer("b")]) as queue:

        @queue.task
        async def work(context: Context) -> Any:
            return dict(context.headers)

        kept, cancelled = await queue.enqueue_many([work.call(), work.call()])
        await cancelled.cancel()
        await Worker(queue, middleware=[Layer("c")]).run(burst=True)

        assert await kept.result(timeout=10) == ["a", ["b", ["c", {"a": "work", "b": "work"}]]]
    assert seen == ["a: send 2", "b: send 2", "a: run work", "b: run work", "c: run work"]


async def test_a_refusal_at_enqueue_stores_nothing(server: Server, raw: redis.Redis) -> None:
    """A quota that is spent must not leave half a job behind."""
    async with Queue("q", url=server.url, middleware=[Raising(PermissionError("quota"), where="enqueue")]) as queue:

        @queue.task
        async def work() -> None: ...

        with pytest.raises(PermissionError, match="quota"):
            await work.enqueue()
        with pytest.raises(PermissionError, match="quota"):
            await queue.enqueue_many(work.call() for _ in range(3))
    assert raw.keys() == []


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("error", [ValueError("layer"), SystemExit("layer"), asyncio.CancelledError("layer")])
async def test_a_raising_layer_fails_the_job_and_loses_nothing(
    server: Server, where: str, error: BaseException
) -> None:
    """A bug in a metrics hook must not eat jobs, nor the worker."""
    async with Queue("q", url=server.url, middleware=[Raising(error, where=where)]) as queue:

        @queue.task(retry=Retry(max_attempts=2, backoff=0))
        async def work() -> int:
            return 1

        async with Worker(queue):
            jobs = await queue.enqueue_many(work.call() for _ in range(3))
            for job in jobs:
                with pytest.raises(JobFailed, match="layer"):
                    await job.result(timeout=10)
                assert (await job.info()).attempt == 2


async def test_a_veto_costs_one_job_and_no_other(queue: Queue) -> None:
    """A layer may refuse by what it sees, before the job is stored or after it has run."""

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

    with pytest.raises(JobFailed) as caught:
        await bad.result(timeout=10)
    assert (caught.value.exception_type, caught.value.reason) == ("PermissionError", "not returned")
    assert await good.result(timeout=10) == "good"


async def test_a_layer_that_raises_first_and_not_again_costs_one_attempt(server: Server) -> None:
    """Failures of a layer are retried like the job's own."""
    errors = [ValueError("once")]

    class Flaky(Middleware):
        async def around_run(self, context: Context, proceed: Run) -> Any:
            if errors:
                raise errors.pop()
            return await proceed()

    async with Queue("q", url=server.url, middleware=[Flaky()]) as queue:

        @queue.task(retry=Retry(max_attempts=2, backoff=0))
        async def work() -> int:
            return 1

        async with Worker(queue):
            assert await (await work.enqueue()).result(timeout=10) == 1


@pytest.mark.parametrize("value", [7, None, object()], ids=["int", "none", "object"])
async def test_a_header_that_is_no_text_is_refused_at_the_call(server: Server, raw: redis.Redis, value: object) -> None:
    """Stored, it would make an envelope that no worker can read."""

    class Careless(Middleware):
        async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
            for call in calls:
                call.headers["user"] = value  # type: ignore[assignment]
            return await proceed(calls)

    async with Queue("q", url=server.url, middleware=[Careless()]) as queue:

        @queue.task
        async def work() -> None: ...

        with pytest.raises(NotSerializable, match="user"):
            await work.enqueue()
    assert raw.keys() == []


async def test_a_layer_that_stores_other_calls_is_told(server: Server) -> None:
    """Handles are matched to calls; a layer that drops one cannot be right."""

    class Dropping(Middleware):
        async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
            return await proceed(calls[1:])

    async with Queue("q", url=server.url, middleware=[Dropping()]) as queue:

        @queue.task
        async def work() -> None: ...

        with pytest.raises((AqueueError, ValueError)):
            await queue.enqueue_many(work.call() for _ in range(2))
        assert (await queue.stats()).queued == 0


async def test_a_run_that_never_proceeds_is_completed_by_its_layer(server: Server) -> None:
    """A cache may answer in the job's place."""
    ran = []

    class Cached(Middleware):
        async def around_run(self, context: Context, proceed: Run) -> Any:
            return "cached"

    async with Queue("q", url=server.url, middleware=[Cached()]) as queue:

        @queue.task
        async def work() -> str:
            ran.append(1)
            return "fresh"

        job = await work.enqueue()
        await Worker(queue).run(burst=True)
        assert await job.result() == "cached"
        assert await job.status() is JobState.COMPLETED
        assert ran == []
