"""`durable=`: an enqueue that returns is on the disk, or at a replica; one that is not says so and names its jobs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import Server, binaries

from aqueue import ConfigurationError, DurabilityError, JobState, Queue, StoreFull, StoreUnavailable, Worker
from aqueue.store import connection, durability
from faults.fleet import wait_until
from faults.topologies import free_port

BASE = "aqueue:{q}:"
WAIT_SECONDS = 20.0
WAITAOF_SINCE = (7, 2)
SERVERS = binaries()


@pytest.fixture(params=list(SERVERS))
def engine(request: pytest.FixtureRequest) -> str:
    """Confirmations differ between servers: the oldest has none for the disk."""
    return str(request.param)


class Pair:
    """A primary on a port of loopback, and its replica."""

    def __init__(self, primary: Server, replica: Server, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self.primary = primary
        self.replica = replica


@pytest.fixture
def pair(engine: str) -> Iterator[Pair]:
    port = free_port()
    listens = ("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    follows = ("--replicaof", f"127.0.0.1 {port}")
    with Server(SERVERS[engine], options=listens) as primary, Server(SERVERS[engine], options=follows) as replica:
        with replica.client() as client:
            wait_until(lambda: info(client)["master_link_status"] == "up", WAIT_SECONDS, "the replica has synced")
        with primary.client() as client:
            wait_until(lambda: info(client)["connected_slaves"] == 1, WAIT_SECONDS, "the primary knows it")
        yield Pair(primary, replica, port)


def info(client: redis.Redis) -> dict[str, Any]:
    return dict(client.info("replication"))


def calls(client: redis.Redis, command: str) -> int:
    """Say how often a command was called."""
    counted: dict[str, Any] = dict(client.info("commandstats"))
    return int(counted.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def has_waitaof(client: redis.Redis) -> bool:
    counted = dict(client.info("server"))
    version = str(counted.get("valkey_version", counted["redis_version"]))
    return tuple(map(int, version.split(".")[:2])) >= WAITAOF_SINCE


async def runs_once(queue: Queue, *job_ids: str) -> None:
    """See to it that the jobs exist, and run exactly once."""
    ran: list[int] = []

    async def work(number: int) -> None:
        ran.append(number)

    queue.task(work)
    async with Worker(queue):
        for job_id in job_ids:
            await queue.job(job_id).result(timeout=WAIT_SECONDS)
    assert sorted(ran) == list(range(len(job_ids)))


# disk


async def test_a_job_on_the_disk_survives_the_death_of_the_server(own_server: Server) -> None:
    """What the option is for; a server that cannot tell says so."""
    with own_server.client() as client:
        able = has_waitaof(client)
    async with Queue("q", url=own_server.url) as queue:
        task = queue.remote("work").options(durable="disk")
        if not able:
            with pytest.raises(DurabilityError, match=r"has no WAITAOF; upgrade it to Redis 7\.2") as caught:
                await task.enqueue(0)
            await runs_once(queue, *caught.value.job_ids)
            return
        job = await task.enqueue(0)
        many = await queue.enqueue_many(task.call(number) for number in (1, 2))
        with own_server.client() as client:
            assert calls(client, "waitaof") == 2
        own_server.kill()
        own_server.start()
        await runs_once(queue, job.id, *(one.id for one in many))


async def test_a_server_without_an_append_only_file_does_not_confirm(server: Server, raw: redis.Redis) -> None:
    """The job exists and runs; to enqueue it again would be a second one."""
    why = "keeps no append-only file; set appendonly yes" if has_waitaof(raw) else "has no WAITAOF"
    async with Queue("q", url=server.url) as queue:
        task = queue.remote("work").options(durable="disk")
        with pytest.raises(DurabilityError, match=why) as one:
            await task.enqueue(0)
        with pytest.raises(DurabilityError, match=why) as more:
            await queue.enqueue_many(task.call(number) for number in range(1, 6))
        assert (len(one.value.job_ids), len(more.value.job_ids)) == (1, 5)
        assert all(job_id in str(more.value) for job_id in more.value.job_ids[:3])
        assert "and 2 more" in str(more.value)
        await runs_once(queue, *one.value.job_ids, *more.value.job_ids)


# replica


async def test_a_job_at_the_replica_is_there_when_enqueue_returns(pair: Pair) -> None:
    """Not soon, but now: it is what is left after a failover."""
    async with Queue("q", url=pair.url) as queue:
        task = queue.remote("work").options(durable="replica")
        job = await task.enqueue(0)
        with pair.replica.client() as client:
            assert client.exists(f"{BASE}job:{job.id}", f"{BASE}payload:{job.id}") == 2
        many = await queue.enqueue_many(task.call(number) for number in range(1, 51))
        with pair.replica.client() as client:
            assert client.exists(*(f"{BASE}payload:{one.id}" for one in many)) == 50
        with pair.primary.client() as client:
            assert calls(client, "wait") == 2
        await runs_once(queue, job.id, *(one.id for one in many))


async def test_without_a_replica_nothing_is_confirmed(
    server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that is gone is what the caller wanted to be told of."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.05)
    async with Queue("q", url=server.url) as queue:
        with pytest.raises(DurabilityError, match="no replica had them within") as caught:
            await queue.remote("work").options(durable="replica").enqueue(0)
        (job_id,) = caught.value.job_ids
        assert await queue.job(job_id).status() == JobState.QUEUED
        await runs_once(queue, job_id)


async def test_a_job_that_was_there_before_is_confirmed_by_what_is_known_now(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that has written nothing is told that all of it is safe, although the first enqueue is not."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.1)
    ids: set[str] = set()
    pair.replica.signal(signal.SIGSTOP)
    try:
        for _ in range(2):  # each with a connection of its own
            async with Queue("q", url=pair.url) as queue:
                with pytest.raises(DurabilityError) as caught:
                    await queue.remote("work").options(durable="replica", key="same").enqueue(0)
                ids.update(caught.value.job_ids)
    finally:
        pair.replica.signal(signal.SIGCONT)
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", WAIT_SECONDS)
    async with Queue("q", url=pair.url) as queue:
        again = await queue.remote("work").options(durable="replica", key="same").enqueue(0)
        assert ({again.id}, again.created) == (ids, False)


# company


async def test_one_confirmation_serves_all_who_come_meanwhile(pair: Pair) -> None:
    """With a disk that is flushed once a second, one for each would be one job per second."""
    async with Queue("q", url=pair.url) as queue:
        task = queue.remote("work").options(durable="replica")
        jobs = await asyncio.gather(*(task.enqueue(number) for number in range(300)))
        with pair.primary.client() as client:
            assert 1 <= calls(client, "wait") <= 2
        with pair.replica.client() as client:
            assert client.exists(*(f"{BASE}payload:{job.id}" for job in jobs)) == 300


async def test_each_caller_is_told_of_its_own_job(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """In company too; and who asks for nothing is not troubled."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.05)
    async with Queue("q", url=server.url) as queue:
        safe, plain = queue.remote("work").options(durable="replica"), queue.remote("work")
        errors = await asyncio.gather(*(safe.enqueue(number) for number in range(3)), return_exceptions=True)
        ids = [error.job_ids for error in errors if isinstance(error, DurabilityError)]
        assert [len(own) for own in ids] == [1, 1, 1]
        assert len({own[0] for own in ids}) == 3
        with pytest.raises(DurabilityError) as caught:
            await queue.enqueue_many([plain.call(3), safe.call(4)])
        assert len(caught.value.job_ids) == 1
        assert (await queue.stats()).queued == 5


async def test_plain_enqueues_do_not_wait_for_those_that_are_confirmed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go over another connection, which nobody holds up."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", WAIT_SECONDS)
    async with Queue("q", url=pair.url) as queue:
        pair.replica.signal(signal.SIGSTOP)
        try:
            slow = asyncio.create_task(queue.remote("work").options(durable="replica").enqueue(0))
            with pair.primary.client() as client:

                def waits() -> bool:
                    return int(dict(client.info("clients"))["blocked_clients"]) == 1

                async with asyncio.timeout(WAIT_SECONDS):
                    while not waits():
                        await asyncio.sleep(0.01)
            await queue.enqueue("work", 1)
            assert not slow.done()
        finally:
            pair.replica.signal(signal.SIGCONT)
        await slow


async def test_an_enqueue_into_memory_asks_for_nothing(server: Server, raw: redis.Redis) -> None:
    """The default costs nothing, and "memory" takes back what the task says."""
    raw.config_resetstat()
    async with Queue("q", url=server.url) as queue:

        @queue.task(durable="disk")
        async def work(number: int) -> None: ...

        await work.options(durable="memory").enqueue(0)
        await queue.enqueue_many([work.options(durable="memory").call(1), queue.remote("other").call(2)])
        await queue.enqueue("other", 3)
        assert (calls(raw, "wait"), calls(raw, "waitaof")) == (0, 0)
        with pytest.raises(DurabilityError):
            await work.enqueue(4)


# what can go wrong besides


@pytest.mark.parametrize("value", ["fsync", "", "Disk", 1, True, False, [], b"disk", ("disk",)])
def test_other_values_are_refused_at_once(value: Any) -> None:
    """A slip must not pass for durable."""
    queue = Queue("q", url="redis://127.0.0.1:1")
    for attempt in (queue.remote("work").options, queue.task):
        with pytest.raises(ConfigurationError, match="durable must be 'memory', 'disk' or 'replica', not "):
            attempt(durable=value)


async def test_a_server_that_is_full_or_away_is_told_as_ever(
    server: Server, raw: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored then, or nobody knows; that is another matter than a job without a confirmation."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.05)
    async with Queue("q", url=server.url) as queue:
        task = queue.remote("work").options(durable="replica")
        await queue.pause()  # known to the server already
        raw.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await task.enqueue(0)
        raw.config_set("maxmemory", 0)
        assert (await queue.stats()).queued == 0
    async with asyncio.timeout(WAIT_SECONDS):
        away = Queue("q", url=f"unix://{tmp_path}/nobody")
        with pytest.raises(StoreUnavailable):
            await away.remote("work").options(durable="disk").enqueue(0)
        await away.close()


async def test_a_full_server_is_told_at_once(server: Server, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not stored needs no confirmation, for which nobody has to wait then."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 600)
    async with Queue("q", url=server.url) as queue, asyncio.timeout(WAIT_SECONDS):
        task = queue.remote("work").options(durable="replica")
        await queue.pause()  # known to the server already
        raw.config_set("maxmemory", 1)
        for _ in range(2):  # on a connection of its own each time: the first one waits still
            with pytest.raises(StoreFull):
                await task.enqueue(0)
        raw.config_set("maxmemory", 0)
        monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.05)
        await queue.resume()
        with pytest.raises(DurabilityError) as caught:
            await task.enqueue(0)
        await runs_once(queue, *caught.value.job_ids)


async def test_a_user_without_the_right_to_wait_is_told(server: Server, raw: redis.Redis) -> None:
    """The jobs exist, so the message must not read as if they did not."""
    raw.execute_command("ACL", "SETUSER", "default", "-wait")  # type: ignore[no-untyped-call]  # redis-py leaves it so
    try:
        async with Queue("q", url=server.url) as queue:
            with pytest.raises(DurabilityError, match=r"this user may not ask for it .* --durable"):
                await queue.remote("work").options(durable="replica").enqueue(0)
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]  # as above
