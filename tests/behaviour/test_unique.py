"""`key=`: one unfinished job per task and key, and never a key that blocks for nothing."""

from __future__ import annotations

import asyncio

import pytest
import redis
from facts import until_state
from servers import Server

from aqueue import ConfigurationError, Queue, Retry, Worker


async def test_the_same_key_gives_the_same_job(queue: Queue) -> None:
    """A button that is pressed twice sends one mail."""

    @queue.task
    async def work(n: int) -> int:
        return n

    first = await work.options(key="a").enqueue(1)
    second = await work.options(key="a").enqueue(2)
    other = await work.options(key="b").enqueue(3)

    assert (first.created, second.created, other.created) == (True, False, True)
    assert first == second != other
    assert "created=False" in repr(second)
    async with Worker(queue):
        assert await second.result(timeout=10) == 1
    assert (await queue.stats()).counters["completed"] == 2


async def test_a_key_belongs_to_its_task_and_its_queue(queue: Queue, server: Server) -> None:
    """Two tasks that use customer numbers as keys must not exclude each other."""

    @queue.task
    async def bill() -> None: ...

    @queue.task
    async def remind() -> None: ...

    async with Queue("other", url=server.url) as other:
        jobs = [
            await bill.options(key="7").enqueue(),
            await remind.options(key="7").enqueue(),
            await bill.options(key="7", queue=other).enqueue(),
        ]
        assert all(job.created for job in jobs)


async def test_a_delayed_or_running_job_holds_its_key(queue: Queue) -> None:
    """Unfinished means all of it: before, during and between attempts."""
    gate = asyncio.Event()

    @queue.task(retry=Retry(backoff=600, jitter=False))
    async def work(fail: bool) -> None:  # noqa: FBT001
        await gate.wait()
        if fail:
            raise ValueError

    delayed = await work.options(key="delayed", delay=600).enqueue(fail=False)
    async with Worker(queue):
        running = await work.options(key="running").enqueue(fail=True)
        await until_state(running, "running")
        assert not (await work.options(key="running").enqueue(fail=False)).created
        gate.set()
        await until_state(running, "scheduled")
    again = await work.options(key="running").enqueue(fail=False)
    assert not (await work.options(key="delayed").enqueue(fail=False)).created
    assert again == running
    await asyncio.gather(delayed.cancel(), running.cancel())


async def test_an_ended_job_frees_its_key(queue: Queue, raw: redis.Redis) -> None:
    """Completed, failed, cancelled, expired or deleted: whoever has ended blocks nobody."""

    @queue.task(retry=1)
    async def work(fail: bool) -> None:  # noqa: FBT001
        if fail:
            raise ValueError

    ends = {
        "completed": await work.options(key="completed").enqueue(fail=False),
        "failed": await work.options(key="failed").enqueue(fail=True),
        "expired": await work.options(key="expired", ttl=0.001).enqueue(fail=False),
        "cancelled": await work.options(key="cancelled", delay=99).enqueue(fail=False),
    }
    deleted = await work.options(key="deleted", delay=99).enqueue(fail=False)
    await ends["cancelled"].cancel()
    await queue.delete(deleted.id)
    expires = int(str(raw.hget(f"aqueue:{{q}}:job:{ends['expired'].id}", "expires_ms")))
    while _server_ms(raw) <= expires:
        continue
    await Worker(queue).run(burst=True)

    for end, job in ends.items():
        assert await job.status() == end
    assert raw.keys("aqueue:{q}:unique:*") == []
    for key in (*ends, "deleted"):
        assert (await work.options(key=key).enqueue(fail=False)).created


def _server_ms(raw: redis.Redis) -> int:
    seconds, micros = raw.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def test_a_holder_that_vanished_blocks_nobody(queue: Queue, raw: redis.Redis) -> None:
    """Somebody deletes a record by hand, or a restart loses it; the key must not be stuck for ever."""

    @queue.task
    async def work() -> None: ...

    lost = await work.options(key="a").enqueue()
    raw.delete(f"aqueue:{{q}}:job:{lost.id}", f"aqueue:{{q}}:payload:{lost.id}")
    fresh = await work.options(key="a").enqueue()

    assert fresh.created
    assert fresh != lost


async def test_purged_jobs_free_their_keys(queue: Queue) -> None:
    """A purge is how people start over."""

    @queue.task
    async def work() -> None: ...

    await work.options(key="a").enqueue()
    await work.options(key="b", delay=60).enqueue()
    assert await queue.purge() == 2

    assert (await work.options(key="a").enqueue()).created
    assert (await work.options(key="b").enqueue()).created


async def test_an_old_job_does_not_free_the_key_of_its_successor(queue: Queue, raw: redis.Redis) -> None:
    """A key is given back by who holds it, and by nobody else."""

    @queue.task(retry=1)
    async def work() -> None:
        raise ValueError

    first = await work.options(key="a").enqueue()
    await Worker(queue).run(burst=True)
    second = await work.options(key="a", delay=600).enqueue()
    await queue.rerun(first.id)
    await Worker(queue).run(burst=True)

    assert second.created
    assert not (await work.options(key="a").enqueue()).created


async def test_fifty_at_once_make_one_job(queue: Queue, server: Server) -> None:
    """Two processes that decide at the same instant are the case that keys are for."""
    async with Queue("q", url=server.url) as other:

        @queue.task
        async def work() -> None: ...

        task = work.options(key="a")
        jobs = await asyncio.gather(*(task.options(queue=where).enqueue() for where in (queue, other) * 25))

        assert sum(job.created for job in jobs) == 1
        assert len({job.id for job in jobs}) == 1


@pytest.mark.parametrize("key", ["", 7, b"bytes"])
async def test_a_key_is_text(queue: Queue, key: object) -> None:
    """An empty key would make all jobs of a task one; other types would silently differ by their spelling."""

    @queue.task
    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match="key"):
        work.options(key=key)  # type: ignore[arg-type]


async def test_any_text_can_be_a_key(queue: Queue, raw: redis.Redis) -> None:
    """Keys are made of user data: addresses, paths, names in any script."""

    @queue.task
    async def work() -> None: ...

    for key in ("{a}:b c", "ünïcödé 日本 😀", "x" * 10_000, "*"):
        assert (await work.options(key=key).enqueue()).created
        assert not (await work.options(key=key).enqueue()).created
    assert max(len(name) for name in raw.scan_iter()) < 100
