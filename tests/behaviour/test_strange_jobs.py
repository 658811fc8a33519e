"""Jobs that no worker should die of: unknown, unreadable, ill-behaved, oversized."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import redis
from facts import until, until_state
from servers import Server

from aqueue import Context, Discard, Job, JobFailed, JobState, Queue, Retry, RetryLater, Settings, Task, Worker

HUGE = 5_000_000


@pytest.fixture(autouse=True)
def quick_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of unknown tasks are looked at again soon."""
    monkeypatch.setattr("aqueue.worker.executor.UNKNOWN_TASK_DELAY_SECONDS", 0.05)


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


async def still_works(queue: Queue) -> bool:
    """Say whether the queue's worker runs the next job."""
    return await (await queue.task(probe).enqueue()).result(timeout=10) == "well"


async def probe() -> str:
    return "well"


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    queue: Queue, server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy producers are newer than workers for a while; no job may be lost to that."""
    async with Queue("q", url=server.url) as newer:

        @queue.task
        async def send_mail() -> None: ...

        @newer.task
        async def send_mails(context: Context, n: int) -> list[int]:
            return [n, context.attempt, context.crashes]

        with caplog.at_level(logging.WARNING, "aqueue"):
            async with Worker(queue):
                jobs = [await newer.enqueue("send_mails", n) for n in range(2)]
                await until(lambda: "send_mails" in caplog.text, "the warning")
                for job in jobs:
                    await until_state(job, "scheduled")
        (warning,) = [record.getMessage() for record in caplog.records]
        assert "no task 'send_mails'" in warning
        assert "did you mean send_mail" in warning

        monkeypatch.setattr("aqueue.worker.executor.UNKNOWN_TASK_DELAY_SECONDS", 600)
        await Worker(queue).run(burst=True)
        infos = [await job.info() for job in jobs]
        assert [(info.state, info.attempt, info.crashes) for info in infos] == [(JobState.SCHEDULED, 0, 0)] * 2
        raw.zadd("aqueue:{q}:scheduled", {job.id: 1 for job in jobs})
        async with Worker(newer):
            assert [await job.result(timeout=10) for job in jobs] == [[n, 1, 0] for n in range(2)]


async def test_a_task_that_stays_unknown_fails_in_the_end(server: Server) -> None:
    """A name that was mistyped would otherwise go round for ever."""
    async with Queue("q", url=server.url, settings=Settings(unknown_task_window=0)) as queue:

        @queue.task
        async def send_mail() -> None: ...

        async with Worker(queue):
            job = await queue.enqueue("send_mial")
            error = await failure(job)

    assert error.exception_type == "UnknownTask"
    assert "'send_mial' is not registered" in error.reason
    assert "send_mail" in error.reason
    assert (await job.info()).crashes == 0


async def test_the_window_starts_anew_when_the_task_was_known_meanwhile(server: Server, raw: redis.Redis) -> None:
    """A job between two attempts must survive a roll-back that lasts a moment, hours after the first deploy."""
    settings = Settings(unknown_task_window=60)
    async with (
        Queue("q", url=server.url, settings=settings) as old,
        Queue("q", url=server.url, settings=settings) as new,
    ):

        @new.task(retry=Retry(max_attempts=2, backoff=0))
        async def work(context: Context) -> int:
            if context.attempt == 1:
                raise ValueError
            return context.attempt

        job = await work.enqueue()
        await Worker(old).run(burst=True)
        assert await job.status() is JobState.SCHEDULED
        raw.hset(f"aqueue:{{q}}:job:{job.id}", "unknown_ms", 1)  # unknown since 1970
        async with Worker(new, max_jobs=1):
            await until(lambda: _attempted(job), "one attempt")
        await Worker(old).run(burst=True)
        assert await job.status() in (JobState.SCHEDULED, JobState.QUEUED)
        async with Worker(new):
            assert await job.result(timeout=10) == 2


async def _attempted(job: Job[Any]) -> bool:
    return (await job.info()).attempt == 1


GARBAGE = {
    "empty": b"",
    "binary": b"\xff\xfe",
    "control": b"\x00\xc3\xbf",
    "text": b"nonsense",
    "object": b"{}",
    "short": b"[1]",
    "no version": b'["x"]',
    "types": b"[1,2,[],{},{}]",
    "no such version": b'[0,"work",[],{},{}]',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("garbage", list(GARBAGE.values()), ids=list(GARBAGE))
async def test_an_unreadable_envelope_is_that_jobs_failure(queue: Queue, raw: redis.Redis, garbage: bytes) -> None:
    """Whatever lies there, it is one job's problem, and no retry can mend it."""

    @queue.task
    async def work(n: int) -> int:
        return n

    jobs = [await work.enqueue(n) for n in range(3)]
    raw.set(f"aqueue:{{q}}:payload:{jobs[1].id}", garbage)
    async with Worker(queue):
        error = await failure(jobs[1])
        assert [await jobs[n].result(timeout=10) for n in (0, 2)] == [0, 2]
        assert await still_works(queue)

    assert error.exception_type == "BadArguments"
    assert "envelope" in error.reason
    info = await jobs[1].info()
    assert (info.state, info.crashes) == (JobState.FAILED, 0)
    assert info.attempt <= 1


async def test_an_envelope_that_is_too_new_waits_for_a_newer_worker(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy over a change of the wire, the old workers must not fail what the new ones can read."""
    settings = Settings(unknown_task_window=60)
    async with Queue("q", url=server.url, settings=settings) as queue:

        @queue.task
        async def work(n: int) -> int:
            return n

        job = await work.enqueue(5)
        raw.set(f"aqueue:{{q}}:payload:{job.id}", b'[2,"work",[5],{},{}]')
        with caplog.at_level(logging.WARNING, "aqueue"):
            async with Worker(queue):
                await until(lambda: "newer aqueue" in caplog.text, "the warning")
                await until_state(job, "scheduled")
        assert len(caplog.records) == 1
        info = await job.info()
        assert (info.attempt, info.crashes) == (0, 0)
        with monkeypatch.context() as newer:
            newer.setattr("aqueue.store.codec.WIRE_VERSION", 2)
            async with Worker(queue):
                assert await job.result(timeout=10) == 5


async def test_an_envelope_that_stays_too_new_fails_in_the_end(server: Server, raw: redis.Redis) -> None:
    """The upgrade was rolled back; the error says what to do."""
    async with Queue("q", url=server.url, settings=Settings(unknown_task_window=0)) as queue:
        job = await queue.enqueue("work", 5)
        raw.set(f"aqueue:{{q}}:payload:{job.id}", b'[2,"work",[5],{},{}]')
        async with Worker(queue):
            error = await failure(job)
    assert error.exception_type == "EnvelopeTooNew"
    assert "upgrade the worker" in error.reason


async def test_a_missing_envelope_is_that_jobs_failure(queue: Queue, raw: redis.Redis) -> None:
    """Somebody deleted a key by hand."""

    @queue.task
    async def work() -> None: ...

    job = await work.enqueue()
    raw.delete(f"aqueue:{{q}}:payload:{job.id}")
    async with Worker(queue):
        assert (await failure(job)).exception_type == "BadArguments"
        assert await still_works(queue)


@pytest.mark.parametrize(
    ("args", "kwargs", "word"),
    [((), {}, "n"), ((1, 2, 3), {}, "work"), (("text",), {}, "int"), ((1,), {"other": 1}, "other")],
    ids=["missing", "too many", "type", "name"],
)
async def test_arguments_that_do_not_fit_are_that_jobs_failure(
    queue: Queue, server: Server, args: tuple[Any, ...], kwargs: dict[str, Any], word: str
) -> None:
    """The producer has another version of the code; the error says what was expected."""
    async with Queue("q", url=server.url) as producer:

        @queue.task
        async def work(n: int, m: int = 0) -> int:
            return n + m

        async with Worker(queue):
            job = await producer.remote("work").options(retry=1).enqueue(*args, **kwargs)
            error = await failure(work.job(job.id))
            assert await still_works(queue)

    assert error.exception_type == "BadArguments"
    assert word in error.reason


async def test_a_result_that_cannot_be_stored_is_a_failure_without_retry(queue: Queue) -> None:
    """The work is done; to do it again would give the same."""
    runs = 0

    @queue.task
    async def work(what: str) -> object:
        nonlocal runs
        runs += 1
        return object() if what == "object" else "x" * 2_000_000 if what == "large" else "\udcff"

    async with Worker(queue):
        errors = [await failure(await work.enqueue(what)) for what in ("object", "large", "surrogate")]
        assert await still_works(queue)

    assert runs == 3
    assert [error.exception_type for error in errors] == ["NotSerializable"] * 3
    assert "object" in errors[0].reason
    assert "2000002 bytes" in errors[1].reason


async def test_a_result_larger_than_the_limit_fails_the_job(server: Server) -> None:
    """The limit is the queue's, and the message says which it is."""
    async with Queue("q", url=server.url, settings=Settings(max_bytes=100)) as queue:

        @queue.task
        async def work(n: int) -> str:
            return "x" * n

        jobs = [await work.enqueue(n) for n in (98, 99)]
        await Worker(queue).run(burst=True)
        assert len(await jobs[0].result()) == 98
        with pytest.raises(JobFailed, match="101 bytes, more than the 100 allowed"):
            await jobs[1].result()


# what a job may raise


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def leave() -> NoReturn:
    sys.exit(3)


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def exit_generator() -> NoReturn:
    raise GeneratorExit


def cancelled() -> NoReturn:
    raise asyncio.CancelledError


def unprintable() -> NoReturn:
    raise Unprintable


def surrogate() -> NoReturn:
    raise OSError(os.fsdecode(b"cannot open \xff.txt"))


def missing_file() -> NoReturn:
    raise FileNotFoundError("name\udcff.txt")


def verbose() -> NoReturn:
    raise ValueError("x" * HUGE)


def recursive() -> None:
    recursive()


def stop_iteration() -> NoReturn:
    raise StopIteration


def stop_async_iteration() -> NoReturn:
    raise StopAsyncIteration


BAD: list[tuple[Callable[[], None], str, str]] = [
    (leave, "SystemExit", "3"),
    (interrupt, "KeyboardInterrupt", ""),
    (exit_generator, "GeneratorExit", ""),
    (cancelled, "CancelledError", ""),
    (unprintable, "Unprintable", "RuntimeError"),
    (surrogate, "OSError", "\\udcff.txt"),
    (missing_file, "FileNotFoundError", "name\\udcff.txt"),
    (verbose, "ValueError", "xxx"),
    (recursive, "RecursionError", "recursion"),
    (stop_iteration, "StopIteration", ""),
    (stop_async_iteration, "StopAsyncIteration", ""),
]


@pytest.mark.parametrize(("function", "name", "word"), BAD, ids=[name for _, name, _ in BAD])
@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_whatever_a_job_raises_is_that_jobs_failure(
    queue: Queue, function: Callable[[], None], name: str, word: str, kind: str
) -> None:
    """Nothing that user code does may end the worker, or run the job again at once and for ever."""

    async def coroutine() -> None:
        function()

    task: Task[[], Any] = queue.task(retry=1, name="bad")(coroutine if kind == "coroutine" else function)
    async with Worker(queue):
        job = await task.enqueue()
        error = await failure(job)
        assert await still_works(queue)

    left_a_coroutine = "RuntimeError" if name == "StopIteration" else name  # PEP 479
    assert error.exception_type.rpartition(".")[2] == left_a_coroutine
    assert name in error.exception_type + error.traceback
    assert word in error.reason
    assert len(error.reason) + len(error.traceback) < 100_000
    assert (await job.info()).attempt == 1


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


# jobs that go their own way


async def test_a_job_that_swallows_its_timeout_is_completed(queue: Queue) -> None:
    """A timeout can only ask; the answer of a job that does not listen is still its answer, and once is enough."""

    @queue.task(timeout=0.05, retry=2)
    async def deaf() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "what?"
        return "never"

    async with Worker(queue):
        job = await deaf.enqueue()
        await until_state(job, "completed", "failed", "scheduled")
        assert await job.status() is JobState.COMPLETED
        assert await job.result(timeout=10) == "what?"
        assert await still_works(queue)


async def test_a_job_that_leaves_tasks_behind_does_not_stop_the_worker(queue: Queue) -> None:
    """Fire and forget inside a job is not nice, and not fatal."""
    left = []

    @queue.task
    async def untidy() -> None:
        left.append(asyncio.create_task(asyncio.Event().wait()))

    async with Worker(queue):
        await (await untidy.enqueue()).result(timeout=10)
        assert await still_works(queue)
    left[0].cancel()


async def test_a_job_may_stop_its_own_worker(queue: Queue) -> None:
    """Its own settle still has to be stored."""

    @queue.task
    async def last() -> int:
        worker.stop()
        return 1

    worker = Worker(queue)
    job = await last.enqueue()
    await asyncio.wait_for(worker.run(), 10)
    assert await job.result() == 1


@pytest.mark.parametrize(
    "field", ["enqueued_ms", "attempt", "crashes", "expires_ms", "unknown_ms", "state", None], ids=str
)
async def test_a_damaged_record_costs_nobody_else_their_job(queue: Queue, raw: redis.Redis, field: str | None) -> None:
    """A claim takes many jobs in one script, which cannot be rolled back: it must not fail in the middle."""

    @queue.task
    async def work(n: int) -> int:
        return n

    jobs = await queue.enqueue_many(work.call(n) for n in range(5))
    key = f"aqueue:{{q}}:job:{jobs[2].id}"
    if field is None:  # another program wrote over the whole key
        raw.delete(key)
        raw.set(key, "x")
    else:
        raw.hset(key, field, "x")
    try:
        async with Worker(queue):
            assert [await job.result(timeout=10) for n, job in enumerate(jobs) if n != 2] == [0, 1, 3, 4]
            assert await still_works(queue)
    finally:
        raw.delete(key, f"aqueue:{{q}}:payload:{jobs[2].id}")
