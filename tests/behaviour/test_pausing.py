"""`pause(task=…)`: jobs of one task wait aside until it is resumed, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest
import redis
from facts import until, until_ended
from servers import Server

from aqueue import ConfigurationError, Encryption, JobState, Paused, Queue, Retry, Settings, Task, Worker

SECONDS = 10.0
CLOCK_SECONDS = 0.0011
"""Instants are kept in whole milliseconds."""


class Post:
    """A queue with two tasks that note which jobs have started."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.started: list[Any] = []

        @queue.task(retry=Retry(max_attempts=2, backoff=0))
        async def mail(n: Any) -> None:
            self.started.append(n)

        @queue.task
        async def other(n: Any) -> None:
            self.started.append(n)

        self.mail: Task[[Any], None] = mail
        self.other: Task[[Any], None] = other


@pytest.fixture
def post(queue: Queue) -> Post:
    return Post(queue)


async def test_others_start_at_once_and_the_paused_first_when_they_may(post: Post) -> None:
    """Two workers, one slot each: no slot is held by a job that waits, and the order is the old one."""
    queue, shelved = post.queue, 700
    assert await post.mail.pause() is True
    assert await post.mail.pause() is False
    await queue.enqueue_many([post.mail.call(n) for n in range(shelved)])
    behind = await queue.enqueue_many([post.other.call("behind") for _ in range(20)])
    async with Worker(queue, concurrency=1), Worker(queue, concurrency=1):
        await until_ended(*behind)
        assert set(post.started) == {"behind"}
        await until(lambda: _shelved(queue, shelved), "all of them lie on the shelf")
        paused = await queue.paused()
        assert paused
        assert paused == Paused(queue=False, tasks={"mail": shelved})
        (first, *_) = await queue.jobs("queued", limit=1)
        assert (first.task, first.args, first.state) == ("mail", [0], JobState.QUEUED)
    post.started.clear()
    last = await post.other.enqueue("last")
    assert await queue.resume(post.mail) is True
    assert await queue.resume("mail") is False
    await Worker(queue, concurrency=1).run(burst=True)
    assert post.started == [*range(shelved), "last"]
    assert not await queue.paused()
    assert await last.status() == "completed"


async def _shelved(queue: Queue, count: int) -> bool:
    return (await queue.stats()).shelved == count


async def test_nothing_that_comes_after_a_pause_starts_before_the_resume(post: Post) -> None:
    """From the moment at which the call returns, on every worker, while jobs come all the time."""
    queue = post.queue
    async with Worker(queue, concurrency=4), Worker(queue, concurrency=4):
        for round_ in range(10):
            await queue.pause("mail")
            jobs = await queue.enqueue_many([post.mail.call(round_) for _ in range(20)])
            await (await post.other.enqueue("other")).result(timeout=SECONDS)
            assert round_ not in post.started
            await queue.resume("mail")
            await until_ended(*jobs)
            assert post.started.count(round_) == 20


async def test_a_worker_at_rest_feels_a_resume_at_once(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits at the list, where nothing appears for it."""
    monkeypatch.setattr("aqueue.worker.parking.PARK_SECONDS", 600)
    async with Worker(post.queue, concurrency=2):
        await post.mail.pause()
        jobs = await post.queue.enqueue_many([post.mail.call(n) for n in range(9)])
        await until(lambda: _shelved(post.queue, 9))
        await post.mail.resume()
        await until_ended(*jobs)
    assert post.started == list(range(9))


async def test_retries_delays_and_limits_wait_too(post: Post) -> None:
    """However a job comes to the queue, it does not start; nor does it hold up those that share its limit."""
    queue, failures = post.queue, 0
    gate = asyncio.Event()

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def fragile() -> None:
        nonlocal failures
        failures += 1
        await gate.wait()
        raise OSError("once")

    async with Worker(queue, concurrency=4):
        running = await fragile.enqueue()
        await until(lambda: failures == 1)
        await fragile.pause()
        gate.set()
        delayed = await fragile.options(delay=0.02, priority=9).enqueue()
        await until(lambda: _shelved(queue, 2), "both are set aside")
        assert failures == 1
        assert (await running.info()).crashes == 0
        await queue.cancel(delayed.id)
        await until(lambda: _shelved(queue, 1), "who was cancelled has left")
        await fragile.resume()
        await until_ended(running)
    assert failures == 2


async def test_jobs_that_are_encrypted_can_be_paused(server: Server) -> None:
    """The server sees which task they are of, and nothing else."""
    keys = f"k1:{base64.b64encode(bytes(32)).decode()}"
    async with Queue("q", url=server.url, settings=Settings(seal=Encryption(keys))) as queue:
        post = Post(queue)
        await post.mail.pause()
        await post.mail.enqueue("secret")
        await post.other.enqueue("other")
        await Worker(queue).run(burst=True)
        assert post.started == ["other"]
        await post.mail.resume()
        await Worker(queue).run(burst=True)
        assert post.started == ["other", "secret"]


async def test_a_task_of_which_this_process_has_no_code_can_be_paused(queue: Queue) -> None:
    """As an operator does."""
    await queue.pause("elsewhere")
    job = await queue.enqueue("elsewhere")
    await Worker(queue).run(burst=True)
    assert await job.status() == "queued"
    assert (await queue.paused()).tasks == {"elsewhere": 1}
    assert await queue.purge() == 1


async def test_workers_say_what_is_paused(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    """Why does nothing happen? is asked at the log first."""
    caplog.set_level(logging.INFO, "aqueue.worker")
    async with Worker(post.queue):
        await until(lambda: _said(post, caplog, "task mail paused, what runs goes on"))
        await until(lambda: _said(post, caplog, "task mail resumed"))


async def _said(post: Post, caplog: pytest.LogCaptureFixture, words: str) -> bool:
    """Do both again until the worker listens."""
    await post.mail.pause()
    await post.mail.resume()
    return f"queue q: {words}" in caplog.text


@pytest.mark.parametrize("name", ["", "two words", "{braces}", "x" * 201, 7])
async def test_what_is_no_task_is_refused(queue: Queue, name: Any) -> None:
    """A slip must not be a pause that nobody ever finds."""
    with pytest.raises(ConfigurationError, match="task name must"):
        await queue.pause(name)
    with pytest.raises(ConfigurationError, match="task name must"):
        await queue.resume(name)
    assert not await queue.paused()


async def test_a_pause_for_a_time_ends_by_itself(post: Post, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a maintenance window that nobody must remember to close; the worker knows when that is."""
    monkeypatch.setattr("aqueue.worker.lane.PAUSED_LOOK_SECONDS", 3600.0)
    assert await post.queue.pause(duration="1h")
    assert await post.queue.paused() == Paused(queue=True, tasks={})
    await post.queue.resume()
    async with Worker(post.queue):
        seconds, micros = raw.time()
        assert await post.queue.pause(duration="400ms")
        job = await post.other.enqueue(1)
        await job.result(timeout=SECONDS)
        info = await job.info()
        assert info.started_at is not None
        assert info.started_at.timestamp() >= int(seconds) + int(micros) / 1e6 + 0.4 - CLOCK_SECONDS
    assert not await post.queue.paused()


@pytest.mark.parametrize("duration", [-1, 0, 0.0001, "soon", float("nan")])
async def test_a_pause_for_no_time_is_refused(queue: Queue, duration: Any) -> None:
    """Nor is there one for a single task."""
    with pytest.raises(ConfigurationError, match="duration"):
        await queue.pause(duration=duration)
    with pytest.raises(ConfigurationError, match="whole queue"):
        await queue.pause("mail", duration=5)
    assert not await queue.paused()
