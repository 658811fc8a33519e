"""What is done to a server while jobs come and go: nothing acknowledged is lost, and nothing runs twice for it."""

from __future__ import annotations

import asyncio

import pytest
import redis
from servers import Server, binaries

from aqueue import Cancellation, Context, JobState, Queue, Retry, Settings, StoreFull, StoreUnavailable, Worker
from faults.history import History, complaints, remains
from faults.load import FORGOTTEN, Load

pytestmark = pytest.mark.timeout(180)


# killed


async def _killed_and_restarted(server: Server, *, times: int) -> list[str]:
    """Let the server die under load, as often as that; return what must not have happened."""
    async with Load(server.url) as load:
        async with load.worker():
            for _ in range(times):
                await load.more()
                server.kill()
                await asyncio.to_thread(server.start)
            await load.more()
        with server.client() as raw:
            found = await load.wrong(raw)
        runs, asked = load.history.runs("start").total(), load.history.asked
        print(f"{times} kills, {asked} jobs asked for, {len(load.history.acknowledged)} acknowledged, {runs} runs, "
              f"{len(load.refusals)} refusals, {len(found)} complaints")  # fmt: skip
        return found


async def test_a_server_that_writes_always_loses_nothing_when_it_is_killed(own_server: Server) -> None:
    """Every acknowledged enqueue and every settle is on disk before it is answered."""
    assert await _killed_and_restarted(own_server, times=2) == []


@pytest.mark.chaos
async def test_a_server_that_writes_always_may_be_killed_often(own_server: Server) -> None:
    """The long form."""
    assert await _killed_and_restarted(own_server, times=20) == []


@pytest.mark.parametrize("keeping", ["everysec", "nothing"])
async def test_a_server_that_forgets_loses_what_it_forgot_and_no_more(keeping: str) -> None:
    """What was acknowledged may be gone and may run twice; what is left is whole, and the fleet goes on."""
    with Server(
        next(iter(binaries().values())), aof=keeping == "everysec", options=("--appendfsync", "everysec")
    ) as server:
        found = await _killed_and_restarted(server, times=2)
    assert [complaint for complaint in found if not any(word in complaint for word in FORGOTTEN)] == []


# paused, forgetful, and without room


async def test_a_paused_server_costs_nothing(own_server: Server, raw_own: redis.Redis) -> None:
    """CLIENT PAUSE holds every call back, as a failover that is being prepared does."""
    async with Load(own_server.url) as load, load.worker():
        for _ in range(3):
            await load.more()
            raw_own.client_pause(300)
        await load.more()
        assert await load.wrong(raw_own) == []
        assert load.refusals == []


async def test_forgotten_scripts_are_sent_again(own_server: Server, raw_own: redis.Redis) -> None:
    """SCRIPT FLUSH under load is felt by nobody."""
    async with Load(own_server.url) as load, load.worker():
        for _ in range(10):
            await load.more(10)
            raw_own.script_flush()
        assert await load.wrong(raw_own) == []
        assert load.refusals == []


async def test_killed_connections_are_opened_again(own_server: Server, raw_own: redis.Redis) -> None:
    """CLIENT KILL of everybody under load: command links, parked fetches, heartbeats and subscriptions."""
    async with Load(own_server.url) as load, load.worker():
        for _ in range(10):
            await load.more(10)
            for kind in ("normal", "pubsub"):
                raw_own.client_kill_filter(_type=kind, skipme=True)
        assert await load.wrong(raw_own) == []
        assert load.refusals == []


async def test_a_server_without_room_for_connections_is_waited_for(own_server: Server, raw_own: redis.Redis) -> None:
    """maxclients: a producer is told, and a worker that was cut off comes back when there is room."""
    async with Load(own_server.url) as load, load.worker():
        await load.more()
        raw_own.config_set("maxclients", 1)
        for kind in ("normal", "pubsub"):
            raw_own.client_kill_filter(_type=kind, skipme=True)
        with pytest.raises(StoreUnavailable):
            async with Queue("load", url=f"{own_server.url}?client_name=late"):
                pytest.fail("there is no room")
        raw_own.config_set("maxclients", 1000)
        await load.more()
        assert await load.wrong(raw_own) == []


# a full server


async def test_a_full_server_is_drained_by_its_workers(own_server: Server, raw_own: redis.Redis) -> None:
    """Claims, results, retries, releases and cancels go on; only more work is refused, until there is room again."""
    history = History(asked=62)
    settings = Settings(retry=Retry(max_attempts=2, backoff=0.01))
    async with Queue("full", url=own_server.url, settings=settings) as queue:
        gate, started = asyncio.Event(), asyncio.Event()

        @queue.task
        async def work(context: Context, n: int) -> int:
            assert context.job is not None
            history.start(context.job.id)
            if n % 5 == 0 and context.attempt == 1:
                history.cause(context.job.id)
                raise ValueError("the first time it fails")
            history.end(context.job.id)
            return n

        @queue.task
        async def gated(context: Context) -> None:
            assert context.job is not None
            history.start(context.job.id)
            started.set()
            try:
                await gate.wait()
            except asyncio.CancelledError:
                history.cause(context.job.id)
                raise
            history.end(context.job.id)

        released = await gated.enqueue()
        jobs = await queue.enqueue_many(work.call(n) for n in range(60))
        unwanted = await work.options(delay=600).enqueue(60)
        history.acknowledged = {job.id for job in (released, *jobs, unwanted)}
        raw_own.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await work.enqueue(61)
        async with Worker(queue, grace=0):
            assert [await job.result(timeout=30) for job in jobs] == list(range(60))
            assert await unwanted.cancel() is Cancellation.CANCELLED
            await started.wait()
        assert await released.status() is JobState.QUEUED
        gate.set()
        async with Worker(queue):
            await released.result(timeout=30)
        with pytest.raises(StoreFull):
            await work.enqueue(61)
        assert complaints(history, remains(raw_own, "full")) == []
        raw_own.config_set("maxmemory", 0)
        await work.enqueue(61)
        await queue.purge()
