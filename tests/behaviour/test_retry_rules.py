"""Which failures are tried again and when, and what the record says of a job that was given up."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
import redis
from facts import until_state
from servers import Server

from aqueue import (
    ConfigurationError,
    Context,
    Discard,
    Encryption,
    Failure,
    Job,
    JobFailed,
    JobInfo,
    JobState,
    Queue,
    Retry,
    RetryLater,
    Settings,
    Signing,
    Worker,
)

KEY: Final = f"k1:{base64.b64encode(b'0123456789abcdef' * 2).decode()}"


class Busy(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Gone(Busy): ...


async def failed(job: Job[Any]) -> JobInfo:
    with pytest.raises(JobFailed):
        await job.result(timeout=10)
    return await job.info()


async def waited(queue: Queue, job: Job[Any], delay: float) -> bool:
    """Run what is due, and say whether the job then waits for so many seconds."""
    await Worker(queue).run(burst=True)
    info = await job.info()
    assert info.due_at is not None
    assert info.started_at is not None
    far = (info.due_at - info.started_at).total_seconds()
    return info.state is JobState.SCHEDULED and delay <= far < delay + 5


# which failures


RULES: Final[list[tuple[dict[str, Any], Callable[[], BaseException], int, Failure]]] = [
    ({}, lambda: Busy(503), 3, Failure.EXHAUSTED),
    ({"retry_on": Busy}, lambda: Gone(410), 3, Failure.EXHAUSTED),
    ({"retry_on": OSError}, lambda: Busy(503), 1, Failure.NOT_RETRIED),
    ({"no_retry_on": (KeyError, Busy)}, lambda: Gone(410), 1, Failure.NOT_RETRIED),
    ({"retry_on": Busy, "no_retry_on": Gone}, lambda: Gone(410), 1, Failure.NOT_RETRIED),
    ({"retry_on": Busy, "no_retry_on": Gone}, lambda: Busy(503), 3, Failure.EXHAUSTED),
    ({"when": lambda error, _: error.status >= 500}, lambda: Busy(503), 3, Failure.EXHAUSTED),
    ({"when": lambda error, _: error.status >= 500}, lambda: Busy(404), 1, Failure.NOT_RETRIED),
    ({"when": lambda _, attempt: attempt < 2}, lambda: Busy(503), 2, Failure.NOT_RETRIED),
    ({"retry_on": Busy}, lambda: ExceptionGroup("two", [Busy(503), Gone(410)]), 3, Failure.EXHAUSTED),
    ({"no_retry_on": Gone}, lambda: ExceptionGroup("two", [Busy(503), Gone(410)]), 1, Failure.NOT_RETRIED),
    ({"retry_on": OSError}, lambda: Discard("of no use"), 1, Failure.DISCARDED),
    ({"no_retry_on": Exception}, lambda: RetryLater(0, "asked for"), 3, Failure.EXHAUSTED),
    ({"retry_on": OSError}, lambda: RetryLater("soon"), 1, Failure.INVALID),
]


async def test_what_is_retried_and_why_it_ended(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """A 404 tried for ten minutes helps nobody; and whoever finds the job later is told which rule it was."""
    runs: dict[int, int] = dict.fromkeys(range(len(RULES)), 0)
    jobs: list[Job[None]] = []
    for number, (options, make, _, _) in enumerate(RULES):

        @queue.task(name=f"rule{number}", retry=Retry(max_attempts=3, backoff=0, **options))
        async def work(number: int = number, make: Callable[[], BaseException] = make) -> None:
            runs[number] += 1
            raise make()

        jobs.append(await work.enqueue())
    async with Worker(queue):
        infos = [await failed(job) for job in jobs]

    assert list(runs.values()) == [count for _, _, count, _ in RULES]
    assert [info.failure for info in infos] == [failure for _, _, _, failure in RULES]
    assert [info.attempt for info in infos] == [count for _, _, count, _ in RULES]
    assert "Busy: status 404 - not retried, failed for good" in caplog.text


async def test_a_predicate_that_raises_costs_no_attempt_and_is_shown(queue: Queue) -> None:
    """A slip in it must not end the jobs that it was to save; nor the worker."""
    runs = 0

    @queue.task(retry=Retry(max_attempts=2, backoff=0, when=lambda error, _: error.status >= 500))  # type: ignore[attr-defined]
    async def work() -> None:
        nonlocal runs
        runs += 1
        raise ValueError("no status here")

    def gives_up(error: BaseException, attempt: int) -> bool:
        raise SystemExit(f"{error}, attempt {attempt}")

    @queue.task(retry=Retry(max_attempts=2, backoff=0, when=gives_up))
    async def other() -> None:
        raise ValueError("and none here")

    async with Worker(queue):
        info = await failed(await work.enqueue())
        last = await failed(await other.enqueue())

    assert (runs, info.failure) == (2, Failure.EXHAUSTED)
    assert info.error is not None
    assert info.error.type == "ValueError"
    assert info.error.message.startswith(
        "no status here\n(Retry could not judge this, so it is retried: AttributeError:"
    )
    assert 'raise ValueError("no status here")' in info.error.traceback
    assert "error.status >= 500" in info.error.traceback
    assert last.error is not None
    assert "SystemExit: and none here, attempt 2" in last.error.message


async def test_a_predicate_knows_the_job(queue: Queue) -> None:
    """It may want to look at who asked for it."""
    seen = []

    def note(error: BaseException, attempt: int) -> bool:
        seen.append((str(error), attempt))
        return True

    @queue.task(retry=Retry(max_attempts=3, backoff=0, when=note))
    def work(context: Context) -> None:
        raise ValueError(f"run {context.attempt}")

    async with Worker(queue):
        await failed(await work.enqueue())
    assert seen == [("run 1", 1), ("run 2", 2), ("run 3", 3)]


async def test_timeouts_are_retried_or_not_whatever_is_said_of_errors(queue: Queue) -> None:
    """A run that was stopped may have done half of its work: some tasks must not begin again."""
    runs: list[str] = []

    async def hang(name: str) -> None:
        runs.append(name)
        await asyncio.Event().wait()

    never = Retry(max_attempts=2, backoff=0, retry_timeouts=False, retry_on=TimeoutError)
    again = Retry(max_attempts=2, backoff=0, no_retry_on=TimeoutError)
    once = queue.task(name="once", timeout=0.02, retry=never)(hang)
    twice = queue.task(name="twice", timeout=0.02, retry=again)(hang)

    @queue.task(retry=never)
    async def own() -> None:
        runs.append("own")
        raise TimeoutError("the upstream was slow")

    async with Worker(queue):
        infos = [await failed(job) for job in (
            await once.enqueue("once"), await twice.enqueue("twice"), await own.enqueue()
        )]  # fmt: skip

    assert sorted(runs) == ["once", "own", "own", "twice", "twice"]
    assert [info.failure for info in infos] == [Failure.NOT_RETRIED, Failure.EXHAUSTED, Failure.EXHAUSTED]
    assert [info.error.type for info in infos if info.error] == ["TimeoutError"] * 3


# when


async def test_delays_are_waited_for_as_listed(queue: Queue) -> None:
    """The record tells, so that nobody need wait for it here."""

    @queue.task(retry=Retry(delays=[100, "1h", 0.001]))
    async def work() -> None:
        raise ValueError

    job = await work.enqueue()
    assert await waited(queue, job, 100)
    assert (await job.info()).failure is None


async def test_without_bound_a_job_is_tried_until_it_succeeds(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """Some things come in the end."""

    @queue.task(retry=Retry(max_attempts=None, backoff=0))
    async def work(context: Context) -> bool:
        if context.attempt < 9:
            raise ValueError
        return context.attempt < context.max_attempts

    with caplog.at_level(logging.WARNING, "aqueue"):
        async with Worker(queue):
            assert await (await work.enqueue()).result(timeout=10) is True
    assert "ValueError - retry 9 in 0.0s" in caplog.text


# what one call may say


async def test_one_call_says_how_often_and_when_and_the_task_which(queue: Queue, server: Server) -> None:
    """The caller need not have the code: here it knows the task by name alone."""
    usual = Retry(max_attempts=5, delays=[300], no_retry_on=KeyError)

    @queue.task(retry=usual)
    async def work(wrong: str) -> None:
        raise KeyError if wrong == "key" else ValueError

    async with Queue("q", url=server.url) as caller:
        remote = caller.remote("work")
        plain = await remote.enqueue("value")
        once = await remote.options(retry=1).enqueue("value")
        number = await remote.options(retry=2).enqueue("value")
        listed = await remote.options(retry=Retry(delays=[40, 50])).enqueue("value")
        linear = await remote.options(retry=Retry(backoff=70, growth="linear", jitter="none")).enqueue("value")
        batch = await caller.enqueue_many([remote.options(retry=Retry(max_attempts=9, delays=[90])).call("key")])
        assert await waited(queue, plain, 300)
        assert await waited(queue, number, 300)
        assert await waited(queue, listed, 40)
        assert await waited(queue, linear, 70)
        assert (await failed(once)).failure is Failure.EXHAUSTED
        info = await failed(batch[0])
        assert (info.failure, info.attempt) == (Failure.NOT_RETRIED, 1)


async def test_a_number_leaves_the_rest_to_the_wider_scope(server: Server) -> None:
    """Of the call to the task, and of the task to the queue."""
    settings = Settings(retry=Retry(delays=[200], no_retry_on=KeyError))
    async with Queue("q", url=server.url, settings=settings) as queue:

        @queue.task(retry=3)
        async def work(context: Context, wrong: str) -> None:
            if context.max_attempts == 3:
                raise KeyError(wrong) if wrong == "key" else ValueError(wrong)

        job, key = await work.enqueue("value"), await work.enqueue("key")
        other = await work.options(retry=Retry(backoff=1)).options(retry=8).enqueue("value")
        assert await waited(queue, job, 200)
        assert (await failed(key)).failure is Failure.NOT_RETRIED
        await other.result(timeout=10)


@pytest.mark.parametrize(
    "options",
    [
        {"retry_on": OSError},
        {"no_retry_on": [OSError]},
        {"when": lambda error, attempt: True},
        {"retry_timeouts": False},
    ],
)
async def test_what_only_code_can_hold_is_refused_at_the_call(
    queue: Queue, raw: redis.Redis, options: dict[str, Any]
) -> None:
    """With the place where it belongs, and before anything is stored."""

    @queue.task
    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match=r"write them in @queue.task\(retry=Retry"):
        await work.options(retry=Retry(**options)).enqueue()
    assert raw.dbsize() == 0


async def test_a_job_of_an_older_release_is_retried_as_it_asked(queue: Queue, raw: redis.Redis) -> None:
    """Its headers know nothing of growth, delays and kinds of jitter."""

    @queue.task(retry=Retry(delays=[7], no_retry_on=KeyError))
    async def work(wrong: str) -> None:
        raise KeyError if wrong == "key" else ValueError

    jobs = [await work.enqueue(wrong) for wrong in ("value", "key")]
    for job, wrong in zip(jobs, ("value", "key"), strict=True):
        headers = {"max_attempts": 3, "backoff_ms": 60_000, "cap_ms": 600_000, "jitter": False}
        raw.set(f"aqueue:{{q}}:payload:{job.id}", json.dumps([1, "work", [wrong], {}, headers]))
    assert await waited(queue, jobs[0], 60)
    assert (await failed(jobs[1])).failure is Failure.NOT_RETRIED


@pytest.mark.parametrize("seal", [Signing(KEY), Encryption(KEY)], ids=["signed", "encrypted"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
async def test_sealed_jobs_are_retried_alike(server: Server, seal: Any, serializer: Any) -> None:
    """What a call says travels under the seal; why it was given up can be read with the key."""
    async with Queue("q", url=server.url, settings=Settings(seal=seal, serializer=serializer)) as queue:

        @queue.task(retry=Retry(max_attempts=2, backoff=0, when=lambda error, _: "later" in str(error)))
        async def work(word: str) -> None:
            raise ValueError(word)

        later = await work.options(retry=Retry(delays=[80])).enqueue("later")
        never, twice = await work.enqueue("never"), await work.enqueue("later")
        assert await waited(queue, later, 80)
        async with Worker(queue):
            assert (await failed(never)).failure is Failure.NOT_RETRIED
            assert (await failed(twice)).failure is Failure.EXHAUSTED


# what a job says itself


async def test_retry_later_uncounted_costs_no_attempt_however_often(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that looks whether something is there yet has not failed."""
    looks = 0

    @queue.task(retry=1)
    async def poll(context: Context) -> tuple[int, int]:
        nonlocal looks
        looks += 1
        if looks < 6:
            raise RetryLater(0.002, "no export yet", count=False)
        return looks, context.attempt

    with caplog.at_level(logging.INFO, "aqueue"):
        async with Worker(queue):
            assert await (await poll.enqueue()).result(timeout=10) == (6, 1)
    assert "RetryLater: no export yet - again in 0.0s" in caplog.text


async def test_retry_later_uncounted_says_why_it_waits(queue: Queue) -> None:
    """It is no failure, and still somebody will look for the reason."""

    @queue.task(retry=1)
    async def poll() -> None:
        raise RetryLater("1m", "no export yet", count=False)

    job = await poll.enqueue()
    assert await waited(queue, job, 60)
    info = await job.info()
    assert (info.attempt, info.crashes, info.failure) == (0, 0, None)
    assert info.error is not None
    assert (info.error.type, info.error.message) == ("RetryLater", "no export yet")


async def test_retry_later_uncounted_needs_a_delay(queue: Queue) -> None:
    """Nothing would ever end a job that asks to run on the spot."""

    @queue.task
    async def work(delay: float) -> None:
        raise RetryLater(delay, count=False)

    async with Worker(queue):
        for delay in (0, 0.0004):
            info = await failed(await work.enqueue(delay))
            assert info.failure is Failure.INVALID
            assert info.error is not None
            assert "needs a delay of at least a millisecond" in info.error.message


async def test_a_signal_alone_in_a_group_is_obeyed(queue: Queue) -> None:
    """A task group wraps whatever one of its tasks raises; beside other errors it is one among them."""

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def discards() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(give_up())
            await asyncio.Event().wait()

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def both(context: Context, errors: list[str]) -> int:
        if context.attempt == 2:
            return 2
        raise ExceptionGroup("two", [Discard() if error == "discard" else ValueError() for error in errors])

    @queue.task
    async def later() -> None:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [RetryLater(60)])])

    async def give_up() -> None:
        raise Discard("no such customer")

    job = await later.enqueue()
    assert await waited(queue, job, 60)
    async with Worker(queue):
        info = await failed(await discards.enqueue())
        assert info.failure is Failure.DISCARDED
        assert info.error is not None
        assert info.error.message == "no such customer"
        for errors in (["discard", "other"], ["other", "discard"]):
            assert await (await both.enqueue(errors)).result(timeout=10) == 2


class Dropped(Discard):
    def __init__(self, customer: int) -> None:
        self.customer = customer  # and nothing else: whoever derives from an exception may forget


class Postponed(RetryLater):
    delay = timedelta(seconds=60)
    count = False

    def __init__(self) -> None: ...


async def test_signals_may_be_derived_from(queue: Queue) -> None:
    """Without their constructor they say what the class says."""

    @queue.task
    async def drop() -> None:
        raise Dropped(7)

    @queue.task
    async def postpone() -> None:
        raise Postponed

    job = await postpone.enqueue()
    assert await waited(queue, job, 60)
    assert (await job.info()).attempt == 0
    async with Worker(queue):
        assert (await failed(await drop.enqueue())).failure is Failure.DISCARDED


# why it was given up


async def test_why_a_job_was_given_up_is_forgotten_when_it_runs_again(queue: Queue) -> None:
    """The record tells of the present."""
    gate = asyncio.Event()

    @queue.task(retry=1)
    async def work() -> str:
        if not gate.is_set():
            raise ValueError
        return "done"

    async with Worker(queue):
        job = await work.enqueue()
        assert (await failed(job)).failure is Failure.EXHAUSTED
        gate.set()
        await queue.rerun(job.id)
        assert await job.result(timeout=10) == "done"
    assert (await job.info()).failure is None


async def test_what_cannot_be_run_or_stored_says_so(queue: Queue, raw: redis.Redis) -> None:
    """No attempt would help, and none is made."""

    @queue.task
    async def work() -> object:
        return object()

    result, envelope = await work.enqueue(), await work.enqueue()
    raw.set(f"aqueue:{{q}}:payload:{envelope.id}", b"nonsense")
    async with Worker(queue):
        for job in (result, envelope):
            info = await failed(job)
            assert (info.failure, info.attempt) == (Failure.INVALID, 1)


async def test_a_word_of_a_later_release_is_none(queue: Queue, raw: redis.Redis) -> None:
    """Its error is still readable."""

    @queue.task(retry=1)
    async def work() -> None:
        raise ValueError("no")

    job = await work.enqueue()
    async with Worker(queue):
        await failed(job)
    for word in ('"bored"', "7", "null", "[]"):
        raw.hset(f"aqueue:{{q}}:job:{job.id}", "error", f'{{"type":"T","message":"m","failure":{word}}}')
        info = await job.info()
        assert info.failure is None
        assert info.error is not None
        assert "m" in info.error.message
    await until_state(job, "failed")
