"""One worker for twenty queues of a Cluster: what befalls the node of some is no concern of the others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import redis

from aqueue import Concurrency, Retry, Settings, Worker
from faults.history import complaints, remains
from faults.load import Load
from faults.slots import moving
from faults.topologies import cluster_command, cluster_url, start_cluster

pytestmark = pytest.mark.timeout(300)

QUEUES = 20
BACKLOG = 60
SETTINGS = Settings(lease=5, retry=Retry(max_attempts=3, backoff=0.01))
RECORDS = ("job:", "payload:")


@asynccontextmanager
async def loads(url: str) -> AsyncGenerator[list[Load]]:
    """Twenty queues, each with a producer that waits for its results, and one worker for all."""
    async with AsyncExitStack() as stack:
        all_loads = [
            await stack.enter_async_context(Load(url, settings=SETTINGS, name=f"many-{n}", producers=1))
            for n in range(QUEUES)
        ]
        await stack.enter_async_context(Worker(*(load.working for load in all_loads), concurrency=20))
        await _go_on(all_loads)
        yield all_loads


async def _go_on(some: list[Load], runs: int = 5) -> None:
    """Return once each of these queues has run so many more jobs."""
    await asyncio.gather(*(load.more(runs) for load in some))


async def _pile_up(load: Load) -> None:
    """Add jobs that wait for their time, and jobs that wait for each other."""
    remote = load.queue.remote("work")
    calls = [remote.options(delay=0.02 * (n % 100)).call(n) for n in range(BACKLOG)]
    calls += [remote.options(limit=Concurrency(2)).call(n) for n in range(BACKLOG)]
    load.history.asked += len(calls)
    load.history.acknowledged.update(job.id for job in await load.queue.enqueue_many(calls))


def _slot(url: str, name: str) -> int:
    with redis.Redis(port=int(url.rpartition(":")[2])) as client:
        return int(cluster_command(client, "KEYSLOT", f"{{{name}}}"))


@pytest.mark.chaos
async def test_two_slots_with_a_backlog_move_under_load(cluster: str) -> None:
    """Of one the records leave first, of the other the lists; both stand still on two nodes while eighteen go on."""
    async with loads(cluster) as all_loads:
        moved, others = all_loads[:2], all_loads[2:]
        assert len({_slot(cluster, load.queue.name) for load in all_loads}) == QUEUES
        for load in moved:
            await _pile_up(load)
        with moving(cluster, moved[0].queue.name) as first, moving(cluster, moved[1].queue.name) as second:
            for slot in (first, second):
                slot.begin()
            await _go_on(others)
            assert first.carry(_is_record)
            assert second.carry(lambda key: not _is_record(key))
            halves = first.contents(), second.contents()
            await _go_on(others, 20)
            assert (first.contents(), second.contents()) == halves, "a script ran on a part of its queue"
            for slot in (first, second):
                assert slot.carry()
            await _go_on(others)
            for slot in (first, second):
                slot.end()
            await _go_on(all_loads)
            met = first.refusals() + second.refusals()
            assert all(met[word] for word in ("TRYAGAIN", "ASK", "MOVED")), met
            assert await _wrong(cluster, all_loads, {first.slot: first.target, second.slot: second.target}) == []
        assert not [refusal for load in others for refusal in load.refusals]
        print(f"{sum(load.history.asked for load in all_loads)} jobs, {dict(met)}, "
              f"{sum(len(load.refusals) for load in moved)} refusals of the moved")  # fmt: skip


def _is_record(key: str) -> bool:
    return key.partition("}:")[2].startswith(RECORDS)


async def _wrong(url: str, all_loads: list[Load], moved: dict[int, redis.Redis]) -> list[str]:
    """Let every queue run empty, and say what must not have happened."""
    await asyncio.gather(*(load.rest() for load in all_loads))
    found = []
    for load in all_loads:
        with moving(url, load.queue.name) as slot:
            found += complaints(load.history, remains(moved.get(slot.slot, slot.source), load.queue.name))
    return found


# a primary that is gone, and has no replica


@pytest.fixture
def patchy(tmp_path: Path) -> Iterator[tuple[str, list[redis.Redis]]]:
    """A Cluster of three that goes on serving what it can; the URL, and its servers."""
    with ExitStack() as stack:
        options = ("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no")
        servers = start_cluster(stack, tmp_path, 3, *options)
        yield cluster_url(servers), list(servers.values())


@pytest.mark.parametrize("how", [signal.SIGSTOP, pytest.param(signal.SIGKILL, marks=pytest.mark.chaos)])
async def test_the_queues_of_other_nodes_go_on_while_one_is_away(
    patchy: tuple[str, list[redis.Redis]], how: signal.Signals
) -> None:
    """Killed it refuses connections, stopped it accepts them and says nothing; either is its own queues' concern."""
    url, servers = patchy
    pid = int(dict(servers[0].info("server"))["process_id"])
    async with loads(url) as all_loads:
        away = [load for load in all_loads if _slot(url, load.queue.name) < 5461]
        others = [load for load in all_loads if load not in away]
        assert len(away) >= 3
        os.kill(pid, how)
        try:
            for _ in range(4):
                await _go_on(others, 10)
            assert [str(refusal) for load in others for refusal in load.refusals] == []
        finally:
            os.kill(pid, signal.SIGCONT)
        if how == signal.SIGSTOP:
            await _go_on(away)
            assert await _wrong(url, all_loads, {}) == []
