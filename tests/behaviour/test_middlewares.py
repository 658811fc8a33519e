"""The layers that come along, each with what it promises."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from facts import until
from servers import Server, binaries

from aqueue import ConfigurationError, Context, Discard, JobFailed, JobState, Queue, Retry, RetryLater, Worker, moments
from aqueue.job import JobId, WorkerId
from aqueue.middlewares import Correlation, ErrorReporter, Logging, Metrics, Observation, OnExhausted, correlation_id

NOW = Retry(max_attempts=2, backoff=0)


@pytest.fixture
def engine() -> str:
    """Layers know no Redis; one server will do."""
    return next(iter(binaries()))


# correlation


async def test_an_id_follows_a_request_through_all_its_jobs(server: Server) -> None:
    """From a web request to a job, to the job that this enqueues, in a thread, and after a retry."""
    request_id: ContextVar[str] = ContextVar("request_id")
    layers = [Correlation(request_id, header="request")]
    async with Queue("q", url=server.url, middleware=layers) as queue:

        @queue.task
        def last(ctx: Context) -> list[str]:
            return [request_id.get(), ctx.headers["request"]]

        @queue.task(retry=NOW)
        async def first(ctx: Context) -> str:
            if ctx.attempt == 1:
                raise OSError
            return (await last.enqueue()).id

        request_id.set("r-1")
        job = await first.enqueue()
        request_id.set("r-2")
        others = await queue.enqueue_many([last.call(), last.call()])
        async with Worker(queue):
            assert await queue.job(await job.result(timeout=10)).result(timeout=10) == ["r-1", "r-1"]
            assert [await other.result(timeout=10) for other in others] == [["r-2", "r-2"]] * 2


async def test_what_has_no_id_begins_one(server: Server) -> None:
    """A batch belongs together; two calls that know of no request do not."""
    async with Queue("q", url=server.url, middleware=[Correlation()]) as queue:

        @queue.task
        async def work() -> str | None:
            return correlation_id.get()

        jobs = [*await queue.enqueue_many([work.call(), work.call()]), await work.enqueue()]
        async with Worker(queue, middleware=[Correlation()]):
            one, two, three = [await job.result(timeout=10) for job in jobs]
            assert one == two != three
            assert one is not None
    assert correlation_id.get() is None


async def test_what_a_layer_enqueues_inherits_the_id_of_the_job(server: Server) -> None:
    """An alarm about a job is to be found under the request that led to it."""
    async with Queue("q", url=server.url) as queue:

        @queue.task
        async def alarm() -> str | None:
            return correlation_id.get()

        @queue.task(retry=1)
        async def work() -> None:
            raise OSError

        alarms = []

        async def compensate(_: moments.Exhausted) -> None:
            alarms.append(await alarm.enqueue())

        queue.middleware += [Correlation(), OnExhausted(compensate)]
        token = correlation_id.set("r-1")
        await work.enqueue()
        correlation_id.reset(token)
        await Worker(queue).run(burst=True)
        assert await alarms[0].result() == "r-1"


# errors


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_errors_are_reported_as_they_were_raised(server: Server, kind: str) -> None:
    """With the traceback through the user's own frames, and whether the job will be tried again."""
    seen: list[tuple[BaseException, moments.Unsuccessful]] = []

    def report(error: BaseException, event: moments.Unsuccessful) -> None:
        seen.append((error, event))

    async def report_async(error: BaseException, event: moments.Unsuccessful) -> None:
        report(error, event)

    layer = ErrorReporter(report if kind == "plain" else report_async)
    async with Queue("q", url=server.url, middleware=[layer]) as queue:

        @queue.task(retry=NOW)
        async def work() -> None:
            raise LookupError("really")

        @queue.task
        async def discard() -> None:
            raise Discard("on purpose")

        @queue.task(retry=NOW)
        async def later(ctx: Context) -> None:
            if ctx.attempt == 1:
                raise RetryLater(0)

        await work.enqueue()
        await discard.enqueue()
        await later.enqueue()
        async with Worker(queue):
            await until(lambda: len(seen) == 2)
            await until(lambda: _is_empty(queue))
    (error, event), (_, final) = seen
    assert type(error) is LookupError
    assert error.__traceback__ is not None
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace.tb_frame.f_code.co_name == "work"
    assert isinstance(event, moments.Retrying)
    assert isinstance(final, moments.Failed)
    assert (event.attempt, event.max_attempts, final.attempt) == (1, 2, 2)


async def _is_empty(queue: Queue) -> bool:
    stats = await queue.stats()
    return not (stats.queued or stats.running or stats.scheduled)


async def test_a_reporter_that_takes_the_error_alone_is_given_that_alone(server: Server) -> None:
    """`sentry_sdk.capture_exception` takes further parameters, none of which is ours."""
    seen: list[tuple[BaseException, object, dict[str, object]]] = []

    def capture_exception(error: BaseException | None = None, scope: object = None, **scope_args: object) -> None:
        assert error is not None
        seen.append((error, scope, scope_args))

    async with Queue("q", url=server.url, middleware=[ErrorReporter(capture_exception, only_final=True)]) as queue:

        @queue.task(retry=NOW)
        async def work() -> None:
            raise LookupError

        await work.enqueue()
        await Worker(queue).run(burst=True)
    ((error, scope, scope_args),) = seen
    assert isinstance(error, LookupError)
    assert (scope, scope_args) == (None, {})


async def test_a_job_that_killed_its_workers_is_reported() -> None:
    """Nothing was raised anywhere, and yet it is what one wants to hear of first."""
    seen: list[BaseException] = []
    job = Queue("q").job("j")
    crashed = moments.Crashed(job=job, task="t", info=None, worker=WorkerId("w"), silent_for=15.0, failed=True)
    layer = ErrorReporter(seen.append)
    await layer.on_crashed(crashed)
    (error,) = seen
    assert isinstance(error, JobFailed)
    assert (error.job_id, error.exception_type) == (JobId("j"), "WorkerCrashed")


async def test_a_plain_function_that_blocks_holds_up_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Trackers speak HTTP; it has a thread, and one that never comes back costs the worker nothing but that."""
    forever = threading.Event()

    class Impatient(ErrorReporter):
        moment_timeout = 0.05

    async with Queue("q", url=server.url, middleware=[Impatient(lambda _: forever.wait(3))]) as queue:

        @queue.task(retry=1)
        async def work() -> None:
            raise LookupError

        for _ in range(6):  # more than there are threads
            await work.enqueue()
        await Worker(queue).run(burst=True)
        assert (await queue.stats()).failed == 6
        await queue.purge(failed=True)
    assert "Impatient.on_failed took longer than 0.05 s" in caplog.text
    forever.set()


# exhausted


async def test_a_callback_is_called_for_its_tasks_before_the_failure_is_stored(server: Server) -> None:
    """And a callback that raises changes nothing."""
    called: list[tuple[str, JobState, list[Any] | None]] = []

    async def callback(event: moments.Exhausted) -> None:
        info = await event.job.info()
        called.append((event.task, info.state, info.args))
        raise OSError("no route to host")

    async with Queue("q", url=server.url, middleware=[OnExhausted(callback, tasks=["charge"])]) as queue:

        @queue.task(retry=NOW)
        async def charge(order: int) -> None:
            raise OSError

        @queue.task(retry=NOW)
        async def other() -> None:
            raise OSError

        jobs = [await charge.enqueue(7), await other.enqueue()]
        async with Worker(queue):
            for job in jobs:
                with pytest.raises(JobFailed):
                    await job.result(timeout=10)
    assert called == [("charge", JobState.RUNNING, [7])]


# metrics and lines


async def test_every_run_is_measured_once(server: Server) -> None:
    """Whoever counts outcomes must be able to add them up."""
    seen: list[Observation] = []
    async with Queue("q", url=server.url, middleware=[Metrics(seen.append)]) as queue:

        @queue.task(retry=NOW)
        async def flaky(ctx: Context) -> None:
            if ctx.attempt == 1:
                raise OSError

        @queue.task(retry=1)
        async def fails() -> None:
            raise OSError

        async with Worker(queue):
            await (await flaky.enqueue()).result(timeout=10)
            with pytest.raises(JobFailed):
                await (await fails.enqueue()).result(timeout=10)
    assert [(one.task, one.outcome) for one in seen] == [
        ("flaky", "retried"), ("flaky", "completed"), ("fails", "failed"),
    ]  # fmt: skip
    assert all(one.waited is not None and one.ran is not None and one.ran > 0 for one in seen)


async def test_every_moment_has_its_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """With fields that a structured log can search for."""
    caplog.set_level(logging.INFO, "my.jobs")
    async with Queue("q", url=server.url, middleware=[Logging("my.jobs"), Correlation()]) as queue:

        @queue.task(retry=NOW)
        async def fails() -> None:
            raise OSError("no\nroute")

        correlation_id.set("r-1")
        job = await fails.enqueue()
        async with Worker(queue):
            with pytest.raises(JobFailed):
                await job.result(timeout=10)
    lines: list[Any] = [record for record in caplog.records if record.name == "my.jobs"]
    assert [(line.event, line.levelname) for line in lines] == [
        ("enqueued", "INFO"), ("worker_start", "INFO"), ("started", "INFO"), ("retry", "WARNING"), ("started", "INFO"),
        ("exhausted", "WARNING"), ("failed", "ERROR"), ("worker_stop", "INFO"),
    ]  # fmt: skip
    failed = lines[6]
    assert re.fullmatch(rf"failed fails {job.id} attempt 2 in [\d.]+s: OSError: no", failed.getMessage())
    assert (failed.job_id, failed.task, failed.queue, failed.attempt) == (job.id, "fails", "q", 2)
    assert failed.headers == {"correlation_id": "r-1"}


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Correlation("request_id"), "takes a ContextVar, not 'request_id'"),  # type: ignore[arg-type]
        (lambda: Correlation(header=""), "header must be text"),
        (lambda: ErrorReporter("sentry"), "report must be a function"),  # type: ignore[arg-type]
        (lambda: OnExhausted(None), "callback must be a function"),  # type: ignore[arg-type]
        (lambda: OnExhausted(print, tasks="charge"), r"write \['charge'\]"),
        (lambda: Metrics(asyncio.sleep), "observe must be a plain function"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_right_is_refused_where_it_is_written(make: Callable[[], object], message: str) -> None:
    """Not at the first error of a night."""
    with pytest.raises(ConfigurationError, match=message):
        make()
