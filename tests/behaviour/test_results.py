"""What a caller gets back: values of the right type, errors that say why, and never silence."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
import redis
from facts import until, until_state
from servers import Server

from aqueue import (
    AqueueError,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    Queue,
    ResultTimeout,
    StoreError,
    StoreUnavailable,
    Worker,
)

SECONDS = 10.0
"""A result that comes at all comes within milliseconds."""
WAITERS = 1000


def shard_channels(raw: redis.Redis) -> list[str]:
    """List the channels that somebody listens on."""
    return list(raw.execute_command("PUBSUB", "SHARDCHANNELS"))  # type: ignore[no-untyped-call]  # redis-py's own


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    when: datetime


class Shape(msgspec.Struct):
    points: list[Point]
    colour: Colour


class Person(pydantic.BaseModel):
    name: str
    born: date


INSTANT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


async def as_dataclass() -> Point:
    return Point(1, INSTANT)


async def as_datetime() -> datetime:
    return INSTANT


async def as_timedelta() -> timedelta:
    return timedelta(seconds=1.5)


async def as_uuid() -> UUID:
    return UUID(int=7)


async def as_decimal() -> Decimal:
    return Decimal("0.10")


async def as_bytes() -> bytes:
    return b"\x00\xff"


async def as_enum() -> Colour:
    return Colour.RED


async def as_struct() -> Shape:
    return Shape([Point(2, INSTANT)], Colour.RED)


async def as_pydantic() -> Person:
    return Person(name="ada", born=date(1815, 12, 10))


async def as_nested_pydantic() -> list[Person]:
    return [await as_pydantic()]


async def as_tuple() -> tuple[int, str]:
    return 1, "a"


async def as_set() -> set[int]:
    return {1, 2}


async def as_integer_keys() -> dict[int, float]:
    return {1: 0.5}


async def as_objects() -> dict[str, object]:
    return {"a": [1, None]}


async def as_optional() -> Point | None:
    return None


async def as_text() -> str:
    return 'ünïcödé \x00 " \\ \u2028 😀'


RETURNING = (
    as_dataclass, as_datetime, as_timedelta, as_uuid, as_decimal, as_bytes, as_enum, as_struct, as_pydantic,
    as_nested_pydantic, as_tuple, as_set, as_integer_keys, as_objects, as_optional, as_text,
)  # fmt: skip


@pytest.mark.parametrize("function", RETURNING, ids=[function.__name__ for function in RETURNING])
async def test_a_result_comes_back_as_what_was_returned(
    queue: Queue, function: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """`Job[R].result()` is typed as R, so that is what it has to be."""
    task = queue.task(function)
    job = await task.enqueue()
    await Worker(queue).run(burst=True)

    expected = await function()
    result = await job.result(timeout=SECONDS)
    assert result == expected
    assert type(result) is type(expected)
    assert await task.job(job.id).result() == expected


async def test_a_result_can_be_read_without_the_code(queue: Queue) -> None:
    """Tools and other programs see the JSON."""
    task = queue.task(as_dataclass)
    job = await task.enqueue()
    await Worker(queue).run(burst=True)

    assert await queue.job(job.id).result() == {"x": 1, "when": "2026-05-04T03:02:01Z"}


async def test_a_result_of_another_type_than_promised_is_an_error_of_ours(queue: Queue) -> None:
    """One except clause is enough; a library's own exception would pass it by."""

    @queue.task
    async def lie() -> int:
        return "not a number"  # type: ignore[return-value]

    job = await lie.enqueue()
    await Worker(queue).run(burst=True)

    with pytest.raises(AqueueError, match=job.id):
        await job.result(timeout=SECONDS)


async def test_a_wait_ends_at_its_timeout_and_the_job_does_not(queue: Queue) -> None:
    """A web request gives up after a while; the work is done all the same."""

    @queue.task
    async def work() -> int:
        return 1

    job = await work.enqueue()
    with pytest.raises(ResultTimeout, match=r"0\.05 s") as caught:
        await job.result(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.job_id == job.id

    async with Worker(queue):
        assert await job.result(timeout=SECONDS) == 1


async def test_a_failure_carries_type_reason_and_remote_traceback(queue: Queue) -> None:
    """The caller's log is often the only one at hand."""

    @queue.task(retry=1)
    async def fail() -> None:
        raise msgspec.ValidationError("no such thing")

    job = await fail.enqueue()
    await Worker(queue).run(burst=True)

    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=SECONDS)
    error = caught.value
    assert (error.job_id, error.exception_type, error.reason) == (job.id, "msgspec.ValidationError", "no such thing")
    assert "in fail" in error.traceback
    assert "aqueue/worker" not in error.traceback
    assert error.traceback in str(error)
    assert f"aqueue retry {job.id}" in str(error)
    info = await job.info()
    assert info.error is not None
    assert info.error.type == "msgspec.ValidationError"


async def test_jobs_without_a_result_say_why(queue: Queue) -> None:
    """Cancelled, expired and unknown are three different reasons to react to."""

    @queue.task
    async def work() -> None: ...

    cancelled, expired = await work.enqueue(), await work.options(ttl=0.001).enqueue()
    await cancelled.cancel()
    await until_state(cancelled, "cancelled")
    await Worker(queue).run(burst=True)

    for job, error in ((cancelled, JobCancelled), (expired, JobExpired), (queue.job("unheard-of"), JobNotFound)):
        with pytest.raises(error) as caught:
            await job.result(timeout=SECONDS)
        assert isinstance(caught.value, JobError)
        assert job.id in str(caught.value)


@pytest.mark.parametrize("delay", [0, 0.05], ids=["queued", "scheduled"])
async def test_a_ttl_that_passes_while_no_worker_comes_ends_the_wait(
    delay: float, queue: Queue, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits, in any process, is told at that moment; the job never runs, and is counted once."""
    monkeypatch.setattr("aqueue.store.waiting.RECHECK_SECONDS", 600)  # the net beneath, out of the way
    ran: list[str] = []

    @queue.task
    async def work(name: str) -> None:
        ran.append(name)

    job = await work.options(ttl=0.3, delay=delay).enqueue("late")
    lasting = await work.options(ttl=3600).enqueue("in time")
    async with Queue("q", url=server.url) as elsewhere:
        waits = [each.result(timeout=SECONDS) for each in (job, job, elsewhere.job(job.id))]
        assert [type(end) for end in await asyncio.gather(*waits, return_exceptions=True)] == [JobExpired] * 3
        assert await job.status() == "expired"
        assert (await queue.stats()).counters["expired"] == 1
    with pytest.raises(ResultTimeout):
        await lasting.result(timeout=0.01)
    await Worker(queue).run(burst=True)
    assert ran == ["in time"]


async def test_a_ttl_that_cannot_be_seen_to_costs_no_other_wait(
    queue: Queue, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is ended when that is possible again."""
    monkeypatch.setattr("aqueue.store.waiting.RECHECK_SECONDS", 0.1)

    @queue.task
    async def work() -> str:
        return "done"

    late, other = await work.options(ttl=0.01).enqueue(), await work.enqueue()
    raw.set("aqueue:{q}:ranked", "what is this")
    ends = asyncio.gather(late.result(timeout=SECONDS), other.result(timeout=SECONDS), return_exceptions=True)
    await until(lambda: int(raw.hexists(f"aqueue:{{q}}:job:{other.id}", "waiters")) == 1)
    await asyncio.sleep(0.2)  # the ttl has passed, and has been seen to in vain
    raw.delete("aqueue:{q}:ranked")
    await Worker(queue).run(burst=True)
    first, second = await ends
    assert (type(first), second) == (JobExpired, "done")


async def test_a_job_that_vanishes_is_not_found(queue: Queue, raw: redis.Redis) -> None:
    """Whoever waits for a job that was deleted would otherwise wait for ever."""

    @queue.task
    async def work() -> None: ...

    job = await work.options(delay=600).enqueue()
    await queue.delete(job.id)

    for question in (job.status, job.info, job.cancel, job.result):
        with pytest.raises(JobNotFound):
            await question()


async def test_many_waits_share_one_subscription(queue: Queue, raw: redis.Redis) -> None:
    """A web process that awaits a thousand results must not open a thousand connections."""

    @queue.task
    async def echo(n: int) -> int:
        return n

    jobs = await queue.enqueue_many(echo.call(n) for n in range(WAITERS))
    opened = 3  # of the fixtures `server`, `raw` and `queue`
    await until(lambda: len(raw.client_list()) == opened, "the server has seen older connections end")
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(job.result(timeout=60)) for job in jobs]
        await until(lambda: len(shard_channels(raw)) == 1, "one channel")
        subscribed = [client for client in raw.client_list() if int(client["ssub"]) > 0]
        assert len(subscribed) == 1
        assert len(raw.client_list()) == opened + 1
        group.create_task(Worker(queue, concurrency=100).run(burst=True))

    assert [wait.result() for wait in waits] == list(range(WAITERS))


async def test_one_job_may_be_awaited_by_many(queue: Queue) -> None:
    """With `key=` several callers get handles of the same job."""

    @queue.task
    async def work() -> int:
        return 5

    handles = [await work.options(key="same").enqueue() for _ in range(50)]
    async with Worker(queue):
        assert await asyncio.gather(*(job.result(timeout=SECONDS) for job in handles)) == [5] * 50


async def test_waits_in_two_processes_are_both_told(queue: Queue, server: Server) -> None:
    """Each process has its own channel, and the end of a job is told on all of them."""
    started = asyncio.Event()

    @queue.task
    async def work() -> int:
        await started.wait()
        return 5

    async with Queue("q", url=server.url) as other, Worker(queue):
        job = await work.enqueue()
        waits = [asyncio.ensure_future(handle.result(timeout=SECONDS)) for handle in (job, other.job(job.id))]
        await until_state(job, "running")
        started.set()
        assert await asyncio.gather(*waits) == [5, 5]


async def test_a_lost_subscription_costs_no_answer(
    queue: Queue, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies and admins cut connections; what was said meanwhile is asked again."""
    monkeypatch.setattr("aqueue.store.waiting.RECHECK_SECONDS", 600)  # the net beneath, out of the way
    gate = asyncio.Event()

    @queue.task
    async def work(n: int) -> int:
        await gate.wait()
        return n

    async with Worker(queue, concurrency=100):
        jobs = await queue.enqueue_many(work.call(n) for n in range(50))
        waits = [asyncio.ensure_future(job.result(timeout=SECONDS)) for job in jobs]
        await until_state(jobs[-1], "running")
        await until(lambda: shard_channels(raw), "subscribed")
        killed = raw.client_kill_filter(_type="pubsub")
        gate.set()
        assert killed >= 1
        assert await asyncio.gather(*waits) == list(range(50))


async def test_a_restart_of_the_server_costs_no_answer(own_server: Server) -> None:
    """A Redis upgrade in the middle of the day; the data survives, and so must every wait."""
    async with Queue("q", url=own_server.url) as queue:

        @queue.task
        async def work(n: int) -> int:
            return n

        jobs = await queue.enqueue_many(work.call(n) for n in range(WAITERS))
        waits = [asyncio.ensure_future(job.result(timeout=60)) for job in jobs]
        with own_server.client() as raw:
            await until(lambda: raw.hexists(f"aqueue:{{q}}:job:{jobs[-1].id}", "waiters"), "waited for")
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
        async with Worker(queue, concurrency=100):
            assert await asyncio.gather(*waits) == list(range(WAITERS))


async def test_closing_the_queue_ends_its_waits(queue: Queue) -> None:
    """Nobody may hang at the end of a program."""

    @queue.task
    async def work() -> None: ...

    jobs = [await work.enqueue() for _ in range(3)]
    waits = [asyncio.ensure_future(job.result()) for job in jobs]
    with pytest.raises(ResultTimeout):
        await jobs[0].result(timeout=0.05)
    await queue.close()

    for wait in waits:
        with pytest.raises(StoreUnavailable, match="closed"):
            await wait


async def test_a_cancelled_wait_leaves_the_others_alone(queue: Queue) -> None:
    """Waits are shared inside, and must not look so from outside."""

    @queue.task
    async def work() -> int:
        return 3

    job = await work.enqueue()
    impatient, patient = (asyncio.ensure_future(job.result(timeout=SECONDS)) for _ in range(2))
    with pytest.raises(ResultTimeout):
        await job.result(timeout=0.05)
    impatient.cancel()
    async with Worker(queue):
        assert await patient == 3
    assert impatient.cancelled()


async def test_a_damaged_record_fails_its_own_wait_and_no_other(queue: Queue, raw: redis.Redis) -> None:
    """Waits are asked for in batches; one bad record must not silence the rest."""
    gate = asyncio.Event()

    @queue.task
    async def work(n: int) -> int:
        await gate.wait()
        return n

    damaged, replaced = [await work.options(delay=600).enqueue(0) for _ in range(2)]
    raw.hset(f"aqueue:{{q}}:job:{damaged.id}", "state", "nonsense")
    raw.delete(f"aqueue:{{q}}:job:{replaced.id}")
    raw.set(f"aqueue:{{q}}:job:{replaced.id}", "x")
    try:
        async with Worker(queue):
            jobs = await queue.enqueue_many(work.call(n) for n in range(5))
            waits = [asyncio.ensure_future(job.result(timeout=SECONDS)) for job in jobs]
            bad = [asyncio.ensure_future(job.result(timeout=SECONDS)) for job in (damaged, replaced)]
            await until_state(jobs[-1], "running")
            gate.set()

            assert await asyncio.gather(*waits) == list(range(5))
            for wait in bad:
                with pytest.raises(StoreError, match="damaged"):
                    await wait
    finally:
        raw.flushall()
