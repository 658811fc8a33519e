"""What servers can get wrong: the right class, a message that says what to do, and nothing half-written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from servers import Server

from aqueue import Queue, Settings, StoreError, StoreFull, StoreUnavailable, UnsafeServer, Worker
from aqueue.store import preflight
from aqueue.store.client import Client
from aqueue.store.records import ServerFacts

QUICK_SECONDS = 5.0
"""A web request that enqueues must have its answer by then."""


# away, or closed to us


async def test_a_server_that_is_away_is_said_quickly_with_both_ways_out() -> None:
    """A web request that enqueues must not hang."""
    queue = Queue("q", url="redis://user:secret@127.0.0.1:1/0")
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await queue.enqueue("work")
    assert time.monotonic() - begun < QUICK_SECONDS
    message = str(caught.value)
    assert "redis://user:***@127.0.0.1:1/0" in message
    assert "AQUEUE_URL" in message
    assert "aqueue-redis[embedded]" in message
    await queue.close()


@pytest.mark.parametrize(
    "url", ["redis://user:secret@127.0.0.1:1/0", "redis://:secret@127.0.0.1:1", "redis://127.0.0.1:1?password=secret"]
)
async def test_an_unreachable_server_is_named_without_its_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Error messages end up in tickets."""
    monkeypatch.setattr("aqueue.store.connection.PATIENCE_SECONDS", 0.1)
    queue = Queue("q", url=url)
    with pytest.raises(StoreUnavailable) as caught:
        await queue.stats()
    await queue.close()
    message = str(caught.value)
    assert "127.0.0.1:1" in message
    assert "secret" not in message
    assert "secret" not in repr(queue) + queue.address
    assert "AQUEUE_URL" in message
    assert "aqueue-redis[embedded]" in message


async def test_refused_credentials_are_no_outage(own_server: Server) -> None:
    """To wait for a server whose password is wrong is to wait for ever."""
    with own_server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "default", ">right")
        raw.execute_command("ACL", "SETUSER", "default", "resetpass", ">right")
    queue = Queue("q", url=f"unix://:wrong@{own_server.socket}")
    with pytest.raises(StoreError, match="credentials") as caught:
        await queue.stats()
    await queue.close()
    assert not isinstance(caught.value, StoreUnavailable)
    assert "wrong@" not in str(caught.value)


# too old, or set up to lose jobs


async def test_an_evicting_server_is_warned_about_once(own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The commonest way to lose jobs is a cache's configuration."""
    with own_server.client() as raw:
        raw.config_set("maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING, "aqueue"):
        async with Queue("one", url=own_server.url) as one, Queue("two", url=own_server.url) as two:
            await one.enqueue("work")
            await two.stats()
        async with Queue("one", url=own_server.url) as again:
            await again.stats()
    warnings = [record.getMessage() for record in caplog.records if "evicts" in record.getMessage()]
    assert len(warnings) == 1
    assert "set maxmemory-policy noeviction" in warnings[0]
    assert "allkeys-lru" in warnings[0]


async def test_an_evicting_server_is_refused_where_strictness_is_asked_for(own_server: Server) -> None:
    """Some jobs are worth an outage, and a worker must not come up as if all were well."""
    with own_server.client() as raw:
        raw.config_set("maxmemory-policy", "allkeys-lru")
        queue = Queue("q", url=own_server.url, settings=Settings(strict=True))

        @queue.task
        async def work() -> None: ...

        for use in (work.enqueue, work.enqueue, Worker(queue).run):
            with pytest.raises(UnsafeServer, match=r"allkeys-lru.*noeviction"):
                await use()
        with pytest.raises(UnsafeServer):
            async with Worker(queue):
                pytest.fail("it must not start")
        assert raw.keys() == []
        await queue.close()


@pytest.mark.parametrize(
    ("product", "version"), [("redis", (6, 2, 14)), ("valkey", (7, 1, 9)), ("valkey", (7, 1))], ids=str
)
async def test_a_server_that_is_too_old_is_refused(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch, product: str, version: tuple[int, ...]
) -> None:
    """Before the first script fails, half-way through, with a message about a command nobody has heard of."""

    async def facts(_: Client) -> ServerFacts:
        return ServerFacts(product, version, "noeviction", append_only=True, used_memory_human="1M")

    monkeypatch.setattr(Client, "facts", facts)
    queue = Queue("q", url=server.url)
    found, wanted = (".".join(map(str, numbers)) for numbers in (version, preflight.OLDEST[product]))
    uses: list[Callable[[], Any]] = [queue.store, queue.stats, Worker(queue).run]
    for use in uses:
        with pytest.raises(StoreError, match=f"{product} {found} .*too old for aqueue; upgrade it to {wanted}"):
            await use()
    assert raw.keys() == []
    await queue.close()


# full, or used by others


async def test_a_full_server_refuses_and_stores_nothing(own_server: Server) -> None:
    """The caller can still decide what to do with the job."""
    async with Queue("q", url=own_server.url) as queue:

        @queue.task
        async def work(n: int) -> int:
            return n

        job = await work.enqueue(1)
        with own_server.client() as raw:
            before = sorted(raw.keys())
            raw.config_set("maxmemory", 1)
            for call in (work.enqueue(2), queue.enqueue_many(work.call(n) for n in range(3))):
                with pytest.raises(StoreFull, match="maxmemory"):
                    await call
            assert sorted(raw.keys()) == before
            await Worker(queue).run(burst=True)
            assert await job.result() == 1


async def test_a_key_of_another_type_is_an_error_and_not_half_a_job(queue: Queue, raw: redis.Redis) -> None:
    """Another program writes under our prefix; a job must be there whole, or not at all."""

    @queue.task
    async def work() -> None: ...

    await queue.stats()
    await work.enqueue()
    await queue.purge()
    before = sorted(raw.keys())
    for key, call in (("queued", work), ("scheduled", work.options(delay=5))):
        raw.set(f"aqueue:{{q}}:{key}", "x")
        with pytest.raises(StoreError):
            await call.enqueue()
        raw.delete(f"aqueue:{{q}}:{key}")
        assert sorted(raw.keys()) == before
    raw.flushall()


@pytest.mark.parametrize("field", ["enqueued_ms", "state", "attempt"])
async def test_a_damaged_field_is_a_clear_error(queue: Queue, raw: redis.Redis, field: str) -> None:
    """It names the job, and the job can be removed."""

    @queue.task
    async def work() -> None: ...

    job = await work.options(delay=600).enqueue()
    raw.hset(f"aqueue:{{q}}:job:{job.id}", field, "x")
    with pytest.raises(StoreError, match=f"{job.id}.*damaged"):
        await job.info()
    await queue.delete(job.id)
    raw.flushall()


@pytest.mark.parametrize("damage", ["another type", "nothing but a senseless state"])
async def test_a_record_that_was_overwritten_costs_nothing_but_itself(
    queue: Queue, raw: redis.Redis, damage: str
) -> None:
    """Somebody's script wrote there; the jobs around it run, and it can be looked at and removed."""

    @queue.task
    async def work(n: int) -> int:
        return n

    jobs = [await work.enqueue(n) for n in range(3)]
    key = f"aqueue:{{q}}:job:{jobs[1].id}"
    raw.delete(key)
    if damage == "another type":
        raw.set(key, "not a hash")
    else:
        raw.hset(key, mapping={"state": "no such state"})
    await Worker(queue).run(burst=True)

    assert [await jobs[n].result(timeout=10) for n in (0, 2)] == [0, 2]
    looks: list[Callable[[], Any]] = [jobs[1].info, jobs[1].status, lambda: jobs[1].result(timeout=10)]
    for look in looks:
        with pytest.raises(StoreError, match="damaged"):
            await look()
    await queue.delete(jobs[1].id)
    assert not raw.exists(key)
