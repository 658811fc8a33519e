"""What is too large, too deep or too strange to be sent: refused at the call with a reason, or carried as it is."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
import redis
from servers import Server

from aqueue import AqueueError, ConfigurationError, Job, JobFailed, NotSerializable, Queue, Retry, Settings, Worker
from aqueue.settings import LARGEST_BYTES
from faults.hostile import no_cry_for_help

MEGABYTE: Final = 1_000_000
HUGE: Final = 100 * MEGABYTE
COPIES: Final = 4
"""An encoder grows its buffer, and a message names what takes most of it."""
ONCE: Final = Settings(retry=Retry(max_attempts=1))


def nested(levels: int, leaf: object = None) -> object:
    value = leaf
    for _ in range(levels):
        value = [value]
    return value


def received(raw: redis.Redis) -> int:
    """Bytes that the server has read so far."""
    return int(dict(raw.info("stats"))["total_net_input_bytes"])


# size


async def test_an_argument_of_100_mb_is_refused_before_anything_is_sent(queue: Queue, raw: redis.Redis) -> None:
    """It would block the server for everybody; the caller learns the size, the culprit and the way out."""
    await queue.stats()
    data, before = "x" * HUGE, received(raw)
    tracemalloc.start()
    try:
        for call in (queue.enqueue("work", 1, data), queue.enqueue("work", data=data)):
            with pytest.raises(
                NotSerializable, match=r"take 1000000\d\d bytes, more than the 1048576 .*pass where it is"
            ):
                await call
        with pytest.raises(NotSerializable, match="argument 2 alone takes 100000002"):
            await queue.enqueue_many([queue.remote("work").call(1), queue.remote("work").call(1, data)])
        assert tracemalloc.get_traced_memory()[1] < COPIES * HUGE
    finally:
        tracemalloc.stop()
    assert received(raw) - before < MEGABYTE
    assert not raw.keys("*payload*")


@pytest.mark.parametrize("size", [8 * MEGABYTE, pytest.param(HUGE, marks=pytest.mark.chaos)])
async def test_with_the_limit_raised_it_goes_there_and_back(server: Server, raw: redis.Redis, size: int) -> None:
    """Whoever raises the limit means it; workers and waiters take what producers may send."""
    async with Queue("q", url=server.url, settings=Settings(max_bytes=2 * size)) as queue:

        @queue.task
        async def echo(data: str) -> str:
            return data

        job = await echo.enqueue("x" * size)
        neighbour = await echo.enqueue("y")
        async with Worker(queue):
            assert await job.result(timeout=60) == "x" * size
            assert await neighbour.result(timeout=60) == "y"
        raw.delete(f"aqueue:{{q}}:job:{job.id}")


def test_a_limit_beyond_that_of_the_server_is_refused() -> None:
    """Else it is a broken connection, half a minute later, that says so."""
    assert Settings(max_bytes=LARGEST_BYTES).max_bytes == LARGEST_BYTES
    with pytest.raises(ConfigurationError, match="max_bytes must be at most"):
        Settings(max_bytes=LARGEST_BYTES + 1)


async def test_a_result_of_100_mb_is_its_jobs_failure(queue: Queue) -> None:
    """It is not stored, and says what to do instead; the worker goes on."""

    @queue.task
    async def work(size: int) -> str:
        return "x" * size

    jobs = [await work.enqueue(size) for size in (HUGE, 1)]
    async with Worker(queue):
        with pytest.raises(JobFailed, match="takes 100000002 bytes, more than the 1048576 allowed; store it elsewhere"):
            await jobs[0].result(timeout=30)
        assert await jobs[1].result(timeout=30) == "x"


# depth


@pytest.mark.parametrize("levels", [1_000, 10_000, 100_000])
async def test_what_is_nested_too_deeply_is_refused_at_the_call(queue: Queue, raw: redis.Redis, levels: int) -> None:
    """No recursion of ours may end in a RecursionError of the caller's."""
    before = sorted(raw.keys())
    for leaf in (None, math.nan, "null"):
        with pytest.raises(NotSerializable, match=r"argument 2 of work cannot be sent .*recursion"):
            await queue.enqueue("work", None, nested(levels, leaf))
        with pytest.raises(NotSerializable, match=r"deep of work cannot be sent .*recursion"):
            await queue.enqueue("work", deep=nested(levels, leaf))
    assert sorted(raw.keys()) == before


@pytest.mark.parametrize("levels", [100, 500, 800])
async def test_what_the_encoder_takes_is_looked_through_to_the_last_level(queue: Queue, levels: int) -> None:
    """A float that JSON cannot hold is found there too, where Python itself could not descend."""
    job = await queue.enqueue("work", nested(levels))
    assert (await job.info()).args is not None
    with pytest.raises(NotSerializable, match="nan or inf"):
        await queue.enqueue("work", nested(levels, math.nan))
    await queue.purge()


DEEP: Final[dict[str, Callable[[bytes], bytes]]] = {
    "argument": lambda deep: b'[1,"work",[' + deep + b"],{},{}]",
    "keyword": lambda deep: b'[1,"work",[],{"value":' + deep + b"},{}]",
    "header": lambda deep: b'[1,"work",[1],{},{"extra":' + deep + b"}]",
    "unknown header": lambda deep: b'[1,"work",[1],{},{"later":' + deep + b"}]",
    "later element": lambda deep: b'[1,"work",[1],{},{},' + deep + b"]",
    "task": lambda deep: b"[1," + deep + b",[1],{},{}]",
}


@pytest.mark.parametrize("levels", [900, 10_000, 200_000])
async def test_a_worker_survives_depth(server: Server, raw: redis.Redis, levels: int) -> None:
    """It may come from another language's producer; it is that job's failure, and operators can look at it."""
    async with Queue("q", url=server.url, settings=ONCE) as queue:

        @queue.task
        async def work(value: Any) -> str:
            return "done"

        jobs = {where: await work.enqueue(1) for where in DEEP}
        for where, job in jobs.items():
            raw.set(f"aqueue:{{q}}:payload:{job.id}", DEEP[where](b"[" * levels + b"]" * levels))
            await job.info()
        await queue.jobs("queued")
        with no_cry_for_help():
            await Worker(queue).run(burst=True)
        for job in jobs.values():
            assert (await job.status()).ended
            await job.info()
        last = await work.enqueue(1)
        await Worker(queue).run(burst=True)
        assert await last.result() == "done"


async def test_a_result_that_is_nested_too_deeply_is_its_jobs_failure(queue: Queue) -> None:
    """Of the task's own making."""

    @queue.task
    async def work(levels: int) -> Any:
        return nested(levels)

    jobs = [await work.enqueue(levels) for levels in (10_000, 1)]
    async with Worker(queue):
        with pytest.raises(JobFailed, match="cannot be stored"):
            await jobs[0].result(timeout=30)
        assert await jobs[1].result(timeout=30) == [None]


# strange values

STRANGE: Final[list[Any]] = [
    "\ud800", "\udfff" * 100_000, "\x00" * 1000, "\U0010ffff", b"\xff\xfe" * 1000, b"", math.nan, math.inf, -math.inf,
    [math.nan], {"a": (1.0, math.inf)}, -0.0, 5e-324, 2**63, 2**64, 2**70, -(2**63) - 1, 10**5000, {1: 2}, {(1, 2): 3},
    {None: 1}, {b"\xff": 1}, {"\ud800": 1}, {math.nan: 1}, {1.5: 1}, {1, 2}, object(), type, lambda: None, 1j, ...,
    datetime.now(UTC), timedelta.max,
    datetime.max.replace(tzinfo=UTC), memoryview(b"x"), bytearray(b"x"), range(3), iter([]), Exception("x"),
]  # fmt: skip


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: type(value).__name__)
async def test_a_value_is_refused_or_arrives(server: Server, value: Any) -> None:
    """As what JSON makes of it, and never as something else; nobody needs to know which of the two in advance."""
    async with Queue("q", url=server.url, settings=ONCE) as queue:

        @queue.task
        async def echo(value: Any) -> Any:
            return value

        jobs: list[Job[Any]] = []
        for call in (echo.call(value), echo.call(value=[value, None])):
            try:
                jobs.append(await queue.submit(call))
            except NotSerializable as error:
                assert "value" in str(error) or "argument 1" in str(error)  # noqa: PT017  # others arrive
        await Worker(queue).run(burst=True)
        results = [await job.result(timeout=10) for job in jobs]
        plain = [msgspec.json.decode(msgspec.json.encode(value))] if jobs else []
        assert results == [*plain, *([one, None] for one in plain)]
        assert len(jobs) in (0, 2)


# options


ABSURD: Final[list[Any]] = [
    10**400, -(10**400), 1e308, -1e308, math.nan, math.inf, "9" * 1_000_000, "1" * 400 + "h", "\ud800", "", b"5", [],
    {}, object(), timedelta.max, timedelta.min,
    datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), 2**53, 2**63,
    True, None, Retry(max_attempts=1),
]  # fmt: skip
OPTIONS: Final = (
    "delay", "at", "key", "ttl", "timeout", "retry", "result_ttl", "failure_ttl", "durable", "priority", "limit",
    "unique",
)  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
async def test_an_absurd_option_is_refused_at_once_and_in_few_words(
    queue: Queue, raw: redis.Redis, option: str
) -> None:
    """Or it is none: then the job is stored, and can be read."""
    task = queue.remote("work")
    for value in ABSURD:
        before = sorted(raw.keys())
        given: Any = {option: value}
        try:
            job = await task.options(**given).enqueue(1)
        except AqueueError as error:
            assert len(str(error)) < 1000  # noqa: PT017  # some of them are taken
            assert sorted(raw.keys()) == before
        else:
            await job.info()
            await queue.delete(job.id)


SETTINGS_WITH_VALUES: Final = (
    "timeout", "result_ttl", "failure_ttl", "failure_cap", "lease", "crash_limit", "unknown_task_window",
    "blocked_loop_cap", "warn_bytes", "max_bytes", "retry", "limit", "priority_aging",
)  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS_WITH_VALUES)
async def test_absurd_settings_are_refused_or_work(server: Server, name: str) -> None:
    """What is taken must not come back from the server as an error of its own."""
    for value in ABSURD:
        given: Any = {name: value}
        try:
            settings = Settings(**given)
        except ConfigurationError as error:
            assert len(str(error)) < 1000  # noqa: PT017  # some of them are taken
            continue
        async with Queue("q", url=server.url, settings=settings) as queue:

            @queue.task(name="work")
            async def work(n: int) -> int:
                return n

            try:
                job = await work.enqueue(1)
            except NotSerializable:  # the limit may well be smaller than that
                continue
            async with Worker(queue):
                if settings.result_ttl:
                    assert await job.result(timeout=10) == 1


@pytest.mark.parametrize("name", ["max_attempts", "backoff", "cap"])
def test_an_absurd_retry_is_refused(name: str) -> None:
    """Its numbers go into envelopes and scripts, where they have to fit."""
    values: list[Any] = [10**400, 1e308, math.inf, math.nan, -1, "3 parsecs", [], 10**10]
    for value in values:
        given: Any = {name: value}
        with pytest.raises(ConfigurationError):
            Retry(**given)
