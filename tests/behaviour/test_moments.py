"""What layers are told, in which order, and that nothing they do with it touches a job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import pytest
import redis
from facts import until, until_state
from servers import Server, binaries

from aqueue import (
    Concurrency,
    ConfigurationError,
    Context,
    Discard,
    Job,
    JobState,
    Middleware,
    Queue,
    Retry,
    RetryLater,
    Settings,
    Worker,
    current_job,
    moments,
)
from aqueue.job import JobId, WorkerId
from aqueue.middleware import MOMENTS, Run
from aqueue.worker import herald

OF_PROCESSES: Final = {"on_process_start", "on_process_stop"}
"""Told by the command line alone, see tests/worker/test_process_moments.py."""
DEAD: Final = WorkerId("dead")
LIVELY: Final = (
    "completes", "discards", "answered", "flaky", "asks", "fails", "unsendable", "cancelled", "stolen",
    "nobody_knows", "stays",
)  # fmt: skip


@pytest.fixture
def engine() -> str:
    """Layers know no Redis; what scripts tell of is tried in tests/transitions, on every server."""
    return next(iter(binaries()))


@pytest.fixture(autouse=True)
def unknown_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose task nobody knows is looked at once, however long a test takes."""
    monkeypatch.setattr("aqueue.worker.executor.UNKNOWN_TASK_DELAY_SECONDS", 3600)


def on_all(do: Callable[[str, Any], Any], **more: Any) -> Any:
    """Make a layer that does the same at each moment."""

    def method(moment: str) -> Any:
        async def told(self: Middleware, event: Any) -> None:
            made = do(moment, event)
            if made is not None:
                await made

        return told

    return type("Layer", (Middleware,), {moment: method(moment) for moment in MOMENTS} | more)()


class Record:
    """What a layer was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.layer = on_all(lambda moment, event: self.told.append((moment, event)))

    def of(self, task: str) -> list[str]:
        return [moment for moment, event in self.told if getattr(event, "task", None) == task]

    def one(self, moment: str, task: str = "") -> Any:
        (event,) = [event for name, event in self.told if name == moment and (not task or event.task == task)]
        return event


class Answering(Middleware):
    """Answers in the place of one task."""

    async def around_run(self, context: Context, proceed: Run) -> Any:
        return "from a layer" if context.task == "answered" else await proceed()


class Story:
    """One worker to which everything happens that can happen."""

    def __init__(self, queue: Queue, raw: redis.Redis, record: Record) -> None:
        self.queue, self.raw, self.record = queue, raw, record
        self.go_on: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.runs: dict[str, int] = defaultdict(int)

        async def work(ctx: Context) -> Any:
            self.runs[ctx.task] += 1
            match ctx.task:
                case "discards":
                    raise Discard("not wanted")
                case "flaky" if ctx.attempt == 1:
                    raise OSError("once")
                case "asks" if self.runs[ctx.task] == 1:
                    raise RetryLater(0.01, count=False)
                case "fails":
                    raise OSError("always")
                case "unsendable":
                    return object()
                case "cancelled" | "stolen" | "limited" | "stays":
                    await self.go_on[ctx.task].wait()
                case _:
                    pass
            return ctx.task

        retry = Retry(max_attempts=2, backoff=0)
        names = "completes discards answered flaky asks fails unsendable cancelled stolen expires crashing stays"
        for name in names.split():
            queue.task(name=name, retry=retry)(work)
        queue.task(name="limited", limit=Concurrency(1))(work)

    async def play(self) -> dict[str, JobState]:
        """Give the states in which the jobs end up."""
        jobs = {"crashing": await self.queue.enqueue("crashing")}
        await self.queue.unchecked_store().settle_and_claim(DEAD, 1, [], 1)
        self.raw.zadd("aqueue:{q}:workers", {DEAD: 1})
        jobs["expires"] = await self.queue.remote("expires").options(ttl=0.001).enqueue()
        for name in LIVELY:
            jobs[name] = await self.queue.enqueue(name)
        jobs["limited"], jobs["later"] = [await self.queue.enqueue("limited") for _ in range(2)]
        async with Worker(self.queue, concurrency=20, grace=0) as worker:
            await until(lambda: all(self.runs[name] for name in ("cancelled", "stolen", "limited", "stays")))
            await jobs["cancelled"].cancel()
            me = self.record.one("on_worker_start").worker
            self.raw.hdel(f"aqueue:{{q}}:held:{me}", jobs["stolen"].id)
            await until(lambda: "on_limited" in self.record.of("limited"), "told of the limit")
            self.go_on["limited"].set()
            self.go_on["stolen"].set()
            waiting = ("stolen", "nobody_knows", "stays")
            for name, job in jobs.items():
                if name not in waiting:
                    await until_state(job, *[state for state in JobState if state.ended])
            await until_state(jobs["nobody_knows"], JobState.SCHEDULED)
            await until(lambda: "on_lease_lost" in self.record.of("stolen"), "told of the lost lease")
        assert worker.threads_left == 0
        states = {name: await job.status() for name, job in jobs.items() if name != "stolen"}
        self.raw.delete(*(f"aqueue:{{q}}:{kind}:{jobs['stolen'].id}" for kind in ("job", "payload")))
        await self.queue.purge()
        return states


ENDS: Final = {
    "crashing": JobState.COMPLETED, "expires": JobState.EXPIRED, "completes": JobState.COMPLETED,
    "discards": JobState.FAILED, "answered": JobState.COMPLETED, "flaky": JobState.COMPLETED, "fails": JobState.FAILED,
    "asks": JobState.COMPLETED,
    "unsendable": JobState.FAILED, "cancelled": JobState.CANCELLED, "nobody_knows": JobState.SCHEDULED,
    "stays": JobState.QUEUED, "limited": JobState.COMPLETED, "later": JobState.COMPLETED,
}  # fmt: skip
RUNS: Final = {
    "crashing": 1, "completes": 1, "discards": 1, "flaky": 2, "fails": 2, "asks": 2, "unsendable": 1, "cancelled": 1,
    "stolen": 1, "stays": 1, "limited": 2,
}  # fmt: skip
TOLD: Final = {
    "completes": ["on_started", "on_completed"],
    "discards": ["on_started", "on_skipped"],
    "answered": ["on_started", "on_skipped"],
    "flaky": ["on_started", "on_retry", "on_started", "on_completed"],
    "asks": ["on_started", "on_released", "on_started", "on_completed"],
    "fails": ["on_started", "on_retry", "on_started", "on_exhausted", "on_failed"],
    "unsendable": ["on_started", "on_failed"],
    "cancelled": ["on_started", "on_cancelled"],
    "stolen": ["on_started", "on_lease_lost"],
    "nobody_knows": ["on_released"],
    "stays": ["on_started", "on_released"],
    "expires": ["on_expired"],
}


async def play(server: Server, raw: redis.Redis, *layers: Middleware) -> Record:
    record = Record()
    async with Queue("q", url=server.url, middleware=[*layers, record.layer], settings=Settings(lease=1.5)) as queue:
        story = Story(queue, raw, record)
        queue.middleware.append(Answering())
        assert await story.play() == ENDS
        assert story.runs == RUNS
    assert {task: record.of(task) for task in TOLD} == TOLD
    assert sorted(record.of("crashing")) == ["on_completed", "on_crashed", "on_started"]
    assert sorted(record.of("limited")) == ["on_completed", "on_completed", "on_limited", "on_started", "on_started"]
    assert {moment for moment, _ in record.told} == set(MOMENTS) - OF_PROCESSES
    return record


async def test_every_moment_is_told_when_it_comes(server: Server, raw: redis.Redis) -> None:
    """A moment that is documented and never told is worse than one that is missing."""
    record = await play(server, raw)
    names = [moment for moment, _ in record.told if moment != "on_enqueued"]
    assert (names[0], names[-1]) == ("on_worker_start", "on_worker_stop")
    assert record.one("on_worker_start").queues == ("q",)
    assert record.one("on_skipped", "discards").state is JobState.FAILED
    assert record.one("on_skipped", "discards").reason == "not wanted"
    assert record.one("on_skipped", "answered").state is JobState.COMPLETED
    retrying, failed = record.one("on_retry", "fails"), record.one("on_failed", "fails")
    assert (retrying.attempt, retrying.max_attempts, failed.attempt, failed.exhausted) == (1, 2, 2, True)
    assert (failed.job_error.type, failed.job_error.message) == ("OSError", "always")
    assert isinstance(failed.error, OSError)
    assert failed.error.__traceback__ is not None
    assert record.one("on_exhausted").error is failed.error
    assert not record.one("on_failed", "unsendable").exhausted
    assert (record.one("on_released", "asks").reason, record.one("on_released", "asks").delay) == ("asked to", 0.01)
    assert record.one("on_released", "stays").reason == "shutdown"
    assert record.one("on_released", "nobody_knows").reason == "unknown task"
    crashed = record.one("on_crashed")
    assert (crashed.worker, crashed.failed, crashed.info.crashes) == (DEAD, False, 1)
    assert record.one("on_expired").info.state is JobState.EXPIRED
    assert record.one("on_limited").delay is None
    ran = record.one("on_completed", "flaky")
    assert ran.ran > 0
    assert ran.waited >= 0


@pytest.mark.parametrize("error", [ValueError("layer"), SystemExit("layer"), asyncio.CancelledError("layer")])
async def test_a_layer_that_raises_at_every_moment_loses_doubles_and_changes_nothing(
    server: Server, raw: redis.Redis, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a metrics hook must not eat jobs, nor the worker, nor what other layers are told."""

    def broken(_moment: str, _event: object) -> None:
        raise error

    await play(server, raw, on_all(broken))
    said = [record.getMessage() for record in caplog.records if record.name == "aqueue.middleware"]
    for moment in set(MOMENTS) - OF_PROCESSES:  # once each, however often it was
        assert len([line for line in said if f"middleware Layer.{moment} raised {type(error).__name__}" in line]) == 1


async def test_a_layer_that_hangs_at_every_moment_holds_up_nothing(
    server: Server, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The timeout of a layer is what bounds it; the inner layers are told first, the outer ones after it."""
    hanging = on_all(lambda *_: asyncio.sleep(3600), moment_timeout=0.02)
    await play(server, raw, hanging)
    assert "middleware Layer.on_completed took longer than 0.02 s" in caplog.text
    assert "middleware Layer.on_worker_stop took longer" in caplog.text


async def test_the_first_layer_is_the_outermost(server: Server) -> None:
    """It is told first of what begins and last of what has ended, as it is entered first and left last."""
    told: list[str] = []

    def layer(name: str) -> Middleware:
        made: Middleware = on_all(lambda moment, _: told.append(f"{moment} {name}"))
        return made

    async with Queue("q", url=server.url, middleware=[layer("a"), layer("b")]) as queue:

        @queue.task
        async def work() -> None: ...

        await work.enqueue()
        await Worker(queue, middleware=[layer("w")]).run(burst=True)

    def order(moment: str, names: str) -> list[str]:
        return [f"{moment} {name}" for name in names]

    assert told == [
        *order("on_enqueued", "ba"), *order("on_worker_start", "abw"), *order("on_started", "abw"),
        *order("on_completed", "wba"), *order("on_worker_stop", "wba"),
    ]  # fmt: skip


async def test_a_layer_of_two_queues_is_told_once_that_their_worker_starts(server: Server) -> None:
    """There is one worker; a pool that is opened then must not be opened twice."""
    record = Record()
    one, two = (Queue(name, url=server.url, middleware=[record.layer]) for name in ("one", "two"))
    async with one, two:
        await Worker(one, two, middleware=[record.layer]).run(burst=True)
    assert [moment for moment, _ in record.told] == ["on_worker_start", "on_worker_stop"]
    assert record.one("on_worker_stop").queues == ("one", "two")


async def test_a_batch_is_told_of_at_once(server: Server) -> None:
    """Ten thousand jobs in one call are no ten thousand moments."""
    record = Record()
    async with Queue("q", url=server.url, middleware=[record.layer]) as queue:

        @queue.task
        async def work(n: int) -> None: ...

        jobs = await queue.enqueue_many([work.call(n) for n in range(3)] + [work.options(key="k").call(3)])
        again = await work.options(key="k").enqueue(4)
        batch, single = [event for _, event in record.told]
        assert batch == moments.Enqueued(queue="q", tasks=("work",) * 4, jobs=tuple(jobs))
        assert (single.jobs, single.jobs[0].created) == ((again,), False)
        await queue.purge()


async def test_jobs_of_schedules_are_told_of_where_they_were_made(server: Server) -> None:
    """Once for each, by the worker whose tick has made it; one that is asked for, by who asked."""
    asking, first, second = Record(), Record(), Record()
    queues = [Queue("q", url=server.url, middleware=[record.layer]) for record in (asking, first, second)]
    done: asyncio.Queue[JobId] = asyncio.Queue()

    async def work(ctx: Context) -> None:
        assert ctx.job is not None
        done.put_nowait(ctx.job.id)

    for queue in queues:
        queue.task(work)
    async with queues[0] as queue, Worker(queues[1]), Worker(queues[2]):
        await queue.schedule(queue.remote("work").call(), id="often", every=0.1, repeat=4)
        slots = {await done.get() for _ in range(4)}
        asked = await queue.schedules.run("often", call="now")
    told = [event for record in (first, second) for moment, event in record.told if moment == "on_enqueued"]
    assert {tasks for event in told for tasks in event.tasks} == {"work"}
    assert sorted(job.id for event in told for job in event.jobs) == sorted(slots)
    assert asking.told == [("on_enqueued", moments.Enqueued(queue="q", tasks=("work",), jobs=(asked,)))]
    for queue in queues[1:]:
        await queue.close()


async def test_on_exhausted_is_told_again_if_its_worker_is_stopped_meanwhile(server: Server) -> None:
    """The callback undoes something, or tells somebody: rather twice than never."""
    told: list[tuple[int, JobState]] = []
    waits = asyncio.Event()

    class Undo(Middleware):
        async def on_exhausted(self, event: moments.Exhausted) -> None:
            told.append((event.attempt, await event.job.status()))
            if len(told) == 1:
                waits.set()
                await asyncio.sleep(3600)

    async with Queue("q", url=server.url, middleware=[Undo()]) as queue:

        @queue.task(retry=1)
        async def work() -> None:
            raise OSError

        job = await work.enqueue()
        async with Worker(queue, grace=0):
            await waits.wait()
        assert await job.status() is JobState.QUEUED
        await Worker(queue).run(burst=True)
        assert await job.status() is JobState.FAILED
    assert told == [(1, JobState.RUNNING), (1, JobState.RUNNING)]


@pytest.mark.parametrize("late", ["", "late"], ids=["raises", "times out"])
async def test_on_exhausted_outlasts_the_timeout_of_the_job(server: Server, late: str) -> None:
    """The deadline is that of the job's code; the callback has its own."""
    told: list[BaseException | None] = []

    class Undo(Middleware):
        async def on_exhausted(self, event: moments.Exhausted) -> None:
            await asyncio.sleep(0.2)
            told.append(event.error)

    async with Queue("q", url=server.url, middleware=[Undo()]) as queue:

        @queue.task(retry=1, timeout=0.1)
        async def work() -> None:
            if late:
                await asyncio.sleep(3600)
            raise OSError

        job = await work.enqueue()
        await Worker(queue).run(burst=True)
        assert await job.status() is JobState.FAILED
    (error,) = told
    assert isinstance(error, TimeoutError if late else OSError)
    assert isinstance(error.__cause__, asyncio.CancelledError if late else type(None))


async def test_what_a_layer_does_when_told_belongs_to_the_job(server: Server) -> None:
    """Its log lines bear the job's id, and what it enqueues the id of the request that led to it."""
    seen: list[Job[Any] | None] = []
    layer = on_all(lambda moment, _: seen.append(current_job()) if moment in ("on_started", "on_completed") else None)
    async with Queue("q", url=server.url, middleware=[layer]) as queue:

        @queue.task
        async def work() -> None: ...

        job = await work.enqueue()
        await Worker(queue).run(burst=True)
    assert seen == [job, job]
    assert current_job() is None


async def test_a_worker_that_stops_does_not_wait_for_ever_for_its_layers(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is told after the last job must have an end too."""
    monkeypatch.setattr(herald, "CLOSE_SECONDS", 0.05)
    layer = on_all(lambda moment, _: asyncio.sleep(3600) if moment == "on_completed" else None)
    async with Queue("q", url=server.url, middleware=[layer]) as queue:

        @queue.task
        async def work() -> None: ...

        job = await work.enqueue()
        await Worker(queue).run(burst=True)
        assert await job.status() is JobState.COMPLETED
    assert "1 moments were not told" in caplog.text


async def test_slow_layers_do_not_fill_the_memory(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is beyond the limit is left out, which is said once; the jobs go on."""
    monkeypatch.setattr(herald, "PENDING_LIMIT", 2)
    go_on, told = asyncio.Event(), []

    class Slow(Middleware):
        async def on_completed(self, event: moments.Completed) -> None:
            await go_on.wait()
            told.append(event)

    async with Queue("q", url=server.url, middleware=[Slow()]) as queue:

        @queue.task
        async def work() -> None: ...

        jobs = await queue.enqueue_many(work.call() for _ in range(7))
        async with Worker(queue) as worker:
            for job in jobs:
                await job.result(timeout=10)
            (lane,) = worker._lanes
            await until(lambda: not lane.running, "the worker knows, too, that all are stored")
            assert "too slow" in caplog.text
            go_on.set()
    assert len(told) == 2
    assert len([record for record in caplog.records if "too slow" in record.message]) == 1


async def test_layers_that_want_nothing_cost_nothing(server: Server) -> None:
    """No task, no event, no wrapping: the path of a job is that of a worker without middleware."""

    class Idle(Middleware):
        moment_timeout = 1

    worker_of: list[Any] = []
    async with Queue("q", url=server.url, middleware=[Idle()]) as queue:

        @queue.task
        async def work() -> str:
            worker_of.extend(t.get_name() for t in asyncio.all_tasks())
            return "done"

        assert not queue.producers.listen
        job = await work.enqueue()
        worker = Worker(queue, middleware=[Idle()])
        async with worker:
            assert await job.result(timeout=10) == "done"
            (lane,) = worker._lanes
            assert lane.executor.herald is None
            assert lane.executor._around == []
    assert "aqueue moment" not in worker_of


# bad input


class Fine(Middleware): ...


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Fine(), "takes a list of layers"),
        (None, "takes a list of layers"),
        ([Fine], r"write Fine\(\), not Fine"),
        ([object()], "is no middleware"),
        (["Fine"], "is no middleware"),
    ],
    ids=["one", "none", "class", "object", "text"],
)
async def test_what_is_no_layer_is_refused_where_it_is_written(given: Any, message: str) -> None:
    """A class in place of an instance would fail at the first job, or never be called."""
    with pytest.raises(ConfigurationError, match=message):
        Queue("q", middleware=given)
    with pytest.raises(ConfigurationError, match=message):
        Worker(Queue("q"), middleware=given)


async def told(_self: Middleware, _event: object) -> None: ...


def plain(_self: Middleware, _event: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("on_complete", told, "Layer.on_complete would never be called; write on_completed"),
        ("around_runs", told, "Layer.around_runs would never be called; write around_run"),
        ("on_started", plain, "Layer.on_started must be async; write `async def on_started`"),
    ],
)
def test_a_method_that_would_never_be_called_is_refused_where_it_is_written(
    name: str, method: Callable[..., Any], message: str
) -> None:
    """A misspelt moment would be silent for ever, and nobody could await one that is not async."""
    with pytest.raises(ConfigurationError, match=message):
        type("Layer", (Middleware,), {name: method})


def test_what_looks_like_no_moment_is_the_users_own() -> None:
    """A layer may have another base that is told of other things."""
    type("Layer", (Middleware,), {"on_message": plain, "on_timer": plain})
