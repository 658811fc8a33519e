"""Every refusal: a named word that says what to do next, at the call, with nothing written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import redis
import redis.asyncio as redis_asyncio
from facts import until_state
from servers import Server

from aqueue import (
    BadArguments,
    ConfigurationError,
    Job,
    JobFailed,
    JobState,
    NotSerializable,
    Queue,
    Retry,
    Settings,
    StoreError,
    StoreUnavailable,
    Task,
    UnsafeServer,
    Worker,
)
from aqueue.store import preflight
from aqueue.store.client import Client
from aqueue.store.records import ServerFacts


@pytest.fixture
def work(queue: Queue) -> Task[..., int]:
    @queue.task
    async def work(n: int, text: Any = None) -> int:
        return n

    return work


def job_keys(raw: redis.Redis) -> list[str]:
    return [key for key in map(str, raw.keys()) if "}:" in key]


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    return caught.value


# what a caller gives


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001  # the point
        ({"at": "tomorrow"}, "must be a datetime"),
        ({"delay": -1}, "delay must be between 0"),
        ({"delay": float("nan")}, "delay must be between 0"),
        ({"delay": "soon"}, "delay must read like"),
        ({"delay": 1, "at": datetime.fromtimestamp(0).astimezone()}, "only one of them"),
        ({"ttl": -1}, "ttl must be between 0"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"key": ""}, "key must be text"),
        ({"retry": 0}, "max_attempts"),
        ({"result_ttl": -2}, "-1 for ever"),
    ],
)
async def test_options_that_cannot_be_right_are_refused(
    work: Task[..., int], raw: redis.Redis, options: dict[str, Any], word: str
) -> None:
    """A job that would start at an unknown hour, or never, is worse than an error."""
    with pytest.raises(ConfigurationError, match=word):
        await work.options(**options).enqueue(1)
    assert job_keys(raw) == []


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a\nb", "a\0b", "a b", "a\u200bb", "x" * 201, 5])
async def test_names_that_break_keys_are_refused(queue: Queue, raw: redis.Redis, name: Any) -> None:
    """Braces move keys to another slot, control characters break terminals and logs."""
    with pytest.raises(ConfigurationError, match="queue name"):
        Queue(name)
    if name:
        with pytest.raises(ConfigurationError, match="task name"):
            queue.task(name=name)(asyncio.sleep)
    with pytest.raises(ConfigurationError):
        await queue.enqueue(name)
    with pytest.raises(ConfigurationError, match="job id"):
        queue.job(name)
    assert job_keys(raw) == []


async def test_an_argument_that_is_not_json_is_named(work: Task[..., int], raw: redis.Redis) -> None:
    """With ten arguments, the one to mend must be in the message."""
    with pytest.raises(NotSerializable, match="argument 2 of work"):
        await work.enqueue(1, object())
    with pytest.raises(NotSerializable, match="text of work"):
        await work.enqueue(1, text={1, print})
    with pytest.raises(NotSerializable, match="text of work"):
        await work.queue.enqueue_many([work.call(1), work.call(2, text=object())])
    assert job_keys(raw) == []


async def test_an_argument_that_is_too_large_is_named(server: Server, raw: redis.Redis) -> None:
    """One large job slows the server for all."""
    async with Queue("small", url=server.url, settings=Settings(max_bytes=1_000)) as queue:

        @queue.task
        async def work(n: int, text: str) -> None: ...

        with pytest.raises(NotSerializable, match="argument 2 alone takes 2002"):
            await work.enqueue(1, "x" * 2_000)
        with pytest.raises(NotSerializable, match="text alone takes 2002"):
            await queue.enqueue_many([work.call(1, "x"), work.call(1, text="x" * 2_000)])
    assert job_keys(raw) == []


async def test_a_wrong_arity_is_refused_at_the_call(work: Task[..., int], raw: redis.Redis) -> None:
    """The author is here, the worker is elsewhere and later."""
    for args, kwargs in (((), {}), ((1, 2, 3), {}), ((1,), {"n": 1}), ((1,), {"other": 1})):
        with pytest.raises(BadArguments, match=r"work.* cannot be called like this"):
            await work.enqueue(*args, **kwargs)
    with pytest.raises(BadArguments):
        await work.queue.enqueue("work")
    assert job_keys(raw) == []


async def test_what_is_not_a_call_is_refused(queue: Queue, raw: redis.Redis) -> None:
    """A plain function, or a coroutine that was made by calling the task, are the usual slips."""
    loose: Any = queue
    with pytest.raises(ConfigurationError, match=r"@queue\.task"):
        await loose.enqueue(print)
    with pytest.raises(ConfigurationError, match=r"task\.call"):
        await loose.enqueue_many([print])
    assert job_keys(raw) == []


async def test_two_functions_cannot_have_one_name(queue: Queue, work: Task[..., int]) -> None:
    """The worker could only guess; a module that is imported twice is no second function."""

    async def other() -> None: ...

    with pytest.raises(ConfigurationError, match="already has a task 'work'"):
        queue.task(name="work")(other)
    assert queue.task(name="work")(work.function).name == "work"


# where Redis is


@pytest.mark.parametrize("url", ["http://u:secret@host", "host:6379", "", "redis:/host"])
def test_an_address_of_something_else_is_refused(url: str) -> None:
    """It names the schemes that would do, and no secret."""
    with pytest.raises(ConfigurationError, match="redis://host:6379/0") as caught:
        Queue("q", url=url)
    assert "secret" not in str(caught.value)


async def test_a_url_and_a_client_are_one_too_many() -> None:
    """Whichever won, half of the readers would have guessed the other."""
    client = redis_asyncio.Redis()
    with pytest.raises(ConfigurationError, match="only one"):
        Queue("q", url="redis://localhost", client=client)
    await client.aclose()


async def test_a_server_that_is_away_is_said_quickly_with_both_ways_out() -> None:
    """A web request that enqueues must not hang, and its log must not show the password."""
    queue = Queue("q", url="redis://user:secret@127.0.0.1:1/0")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await queue.enqueue("work")
    assert time.monotonic() - begun < 5
    message = str(caught.value)
    assert "redis://user:***@127.0.0.1:1/0" in message
    assert "secret" not in message
    assert "AQUEUE_URL" in message
    assert "aqueue-redis[embedded]" in message
    await queue.close()


async def test_a_server_that_evicts_keys_is_warned_about_or_refused(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It would lose jobs without a word; strictness makes that an error."""
    with own_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with caplog.at_level(logging.WARNING, "aqueue"):
            async with Queue("q", url=own_server.url) as queue, Queue("r", url=own_server.url):
                await queue.enqueue("work")
        warnings = [record.getMessage() for record in caplog.records if "allkeys-lru" in record.getMessage()]
        assert len(warnings) == 1
        assert "set maxmemory-policy noeviction" in warnings[0]

        client.flushall()
        strict = Queue("q", url=own_server.url, settings=Settings(strict=True))
        with pytest.raises(UnsafeServer, match="allkeys-lru"):
            await strict.enqueue("work")
        with pytest.raises(UnsafeServer):
            await Worker(strict).run()
        assert client.keys() == []
        await strict.close()


@pytest.mark.parametrize(("product", "version"), [("redis", (6, 2, 0)), ("valkey", (7, 1, 9))], ids=["redis", "valkey"])
async def test_a_server_that_is_too_old_is_refused(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, product: str, version: tuple[int, ...]
) -> None:
    """Scripts would fail half-way through with messages about commands."""

    async def facts(self: Client) -> ServerFacts:
        return ServerFacts(product, version, "noeviction", append_only=True, used_memory_human="1M")

    monkeypatch.setattr(Client, "facts", facts)
    queue = Queue("q", url=server.url)
    wanted = ".".join(map(str, preflight.OLDEST[product]))
    for use in (queue.store, Worker(queue).run):
        with pytest.raises(StoreError, match=f"too old for aqueue; upgrade it to {wanted}"):
            await use()
    assert raw.keys() == []
    await queue.close()


# what lies in Redis


@pytest.mark.parametrize("state", ["queued", "failed"])
async def test_a_damaged_record_costs_nothing_but_itself(
    queue: Queue, work: Task[..., int], raw: redis.Redis, state: str
) -> None:
    """Somebody's script wrote there; the jobs around it run, and it can be looked at and removed."""
    jobs = [await work.enqueue(n) for n in range(3)]
    key = f"aqueue:{{q}}:job:{jobs[1].id}"
    raw.delete(key)
    if state == "queued":
        raw.set(key, "not a hash")
    else:
        raw.hset(key, mapping={"state": "no such state"})
    await Worker(queue).run(burst=True)

    assert [await jobs[n].result(timeout=10) for n in (0, 2)] == [0, 2]
    looks: list[Callable[[], Any]] = [jobs[1].info, jobs[1].status, lambda: jobs[1].result(timeout=1)]
    for look in looks:
        with pytest.raises(StoreError, match="damaged"):
            await look()
    await queue.delete(jobs[1].id)
    assert not raw.exists(key)


@pytest.mark.parametrize("envelope", ["", "garbage", '["x"]', "\x00\xff", '[99,"work",[],{},{}]'])
async def test_a_damaged_envelope_fails_its_job_alone(
    queue: Queue, work: Task[..., int], raw: redis.Redis, envelope: str
) -> None:
    """No retry can mend it, and the worker must survive it."""
    jobs = [await work.enqueue(n) for n in range(3)]
    raw.set(f"aqueue:{{q}}:payload:{jobs[1].id}", envelope)
    await Worker(queue).run(burst=True)

    assert [await jobs[n].result(timeout=10) for n in (0, 2)] == [0, 2]
    error = await failure(jobs[1])
    assert error.exception_type == "BadArguments"
    assert "envelope" in error.reason
    assert (await jobs[1].info()).attempt <= 1


async def test_arguments_that_do_not_fit_fail_with_their_own_word(
    queue: Queue, work: Task[..., int], server: Server
) -> None:
    """The producer has an older release; by name nothing can be checked at the call."""
    async with Queue("q", url=server.url) as elsewhere:
        jobs = [await elsewhere.enqueue("work", "text"), await elsewhere.enqueue("work", 1, 2, 3)]
    queue.settings = Settings(lease=1.5, retry=Retry(max_attempts=1))
    await Worker(queue).run(burst=True)
    assert [(await failure(work.job(job.id))).exception_type for job in jobs] == ["BadArguments"] * 2


async def test_a_result_that_is_too_large_fails_its_job(server: Server) -> None:
    """It would be refused again each time, so it is not tried again."""
    async with Queue("small", url=server.url, settings=Settings(max_bytes=1_000)) as queue:

        @queue.task
        async def large() -> str:
            return "x" * 1_000

        @queue.task
        async def odd() -> Any:
            return object()

        jobs: list[Job[Any]] = [await large.enqueue(), await odd.enqueue()]
        await Worker(queue).run(burst=True)
        errors = [await failure(job) for job in jobs]
        assert [error.exception_type for error in errors] == ["NotSerializable"] * 2
        assert "1002 bytes, more than the 1000 allowed" in errors[0].reason


# what a worker does not know


def make_due(raw: redis.Redis, job: Job[Any]) -> None:
    raw.zadd("aqueue:{q}:scheduled", {job.id: 1}, xx=True)


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(
    queue: Queue, server: Server, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy the new job meets an old worker first."""
    async with Queue("q", url=server.url) as old:

        @old.task
        async def wrok() -> None: ...

        jobs = [await queue.enqueue("work", n) for n in range(2)]
        with caplog.at_level(logging.WARNING, "aqueue"):
            await Worker(old).run(burst=True)
    assert [r.getMessage() for r in caplog.records if "no task 'work'" in r.getMessage() and "wrok" in r.getMessage()]
    assert len(caplog.records) == 1
    for job in jobs:
        info = await job.info()
        assert (info.state, info.attempt, info.crashes) == (JobState.SCHEDULED, 0, 0)
        make_due(raw, job)

    @queue.task
    async def work(n: int) -> int:
        return n

    await Worker(queue).run(burst=True)
    assert [await job.result(timeout=10) for job in jobs] == [0, 1]


async def test_an_unknown_task_fails_once_its_window_has_passed(server: Server, raw: redis.Redis) -> None:
    """A typing error must surface, not circle for ever."""
    async with Queue("q", url=server.url, settings=Settings(unknown_task_window=0)) as queue:
        job = await queue.enqueue("nobody")
        async with Worker(queue):
            await until_state(job, "scheduled")
        make_due(raw, job)
        await Worker(queue).run(burst=True)
        error = await failure(job)
        assert error.exception_type == "UnknownTask"
        assert "'nobody' is not registered" in error.reason


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": 1.5}, "concurrency must be"),
        ({"max_jobs": 0}, "max_jobs must be"),
        ({"grace": -1}, "grace must be"),
    ],
)
def test_a_worker_that_could_not_work_is_refused(options: dict[str, Any], word: str) -> None:
    """It would idle for ever and look healthy."""
    with pytest.raises(ConfigurationError, match=word):
        Worker(Queue("q"), **options)


def test_a_worker_needs_queues_and_each_once() -> None:
    """Worker() and Worker("default") are easily written."""
    loose: Any = Worker
    for queues in ((), ("default",), (Queue("q"), Queue("q"))):
        with pytest.raises(ConfigurationError):
            loose(*queues)
