"""A slot moves to another node of a Cluster while its queue has a backlog, producers, a worker and jobs that run.

While a slot is on the move, its keys lie on two nodes, and a script that would see only a part of them must not run at
all: each declares some key that does not exist, for which the server answers TRYAGAIN, or ASK where none is left.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from functools import partial

import pytest
import redis

from aqueue import Queue, Retry, Settings, Worker
from faults.fleet import wait_until
from faults.load import Load
from faults.slots import MovingSlot, moving, slots_of
from faults.topologies import cluster_command

pytestmark = pytest.mark.timeout(120)

SETTINGS = Settings(lease=5, retry=Retry(max_attempts=3, backoff=0.01))
OTHERS = 19


@pytest.fixture
def move(cluster: str) -> Iterator[MovingSlot]:
    with moving(cluster, "load") as slot:
        yield slot


async def test_a_slot_with_a_backlog_moves_under_load(cluster: str, move: MovingSlot) -> None:
    """Twenty queues over all nodes and one worker: the others go on, the moving one waits, and nothing is lost."""
    others = [Queue(f"other-{n}", url=cluster, settings=SETTINGS) for n in range(OTHERS)]

    async def name_of(queue: str) -> str:
        return queue

    for queue in others:
        queue.task(name_of)

    async def ask_all() -> list[str]:
        jobs = await asyncio.gather(*(queue.enqueue("name_of", queue.name) for queue in others))
        return list(await asyncio.gather(*(job.result(timeout=30) for job in jobs)))

    async with Load(cluster, settings=SETTINGS) as load, Worker(load.working, *others, concurrency=4):
        backlog = [load.queue.remote("work").options(delay=0.01 * (n % 100)).call(n) for n in range(400)]
        load.history.asked += len(backlog)
        load.history.acknowledged.update(job.id for job in await load.queue.enqueue_many(backlog))
        await load.more()
        move.begin()
        assert await ask_all() == [queue.name for queue in others]
        for part in range(2):
            move.carry(partial(_is_of_part, part))
            assert await ask_all() == [queue.name for queue in others]
        move.end()
        await load.more()
        replies = move.refusals()
        print(f"{load.history.asked} jobs, {len(load.refusals)} refusals, the nodes have answered {dict(replies)}")
        assert replies["TRYAGAIN"]
        assert replies["MOVED"]
        assert await load.wrong(move.target) == []
    for queue in others:
        await queue.close()


STRUCTURES = ("queued", "scheduled", "workers", "stats", "worker:", "held:", "inbox:", "failed")


@pytest.mark.chaos
@pytest.mark.parametrize("first", ["structures", "records"])
async def test_no_script_runs_on_one_half_of_a_queue(cluster: str, move: MovingSlot, first: str) -> None:
    """The lists without the records would run nothing and forget all; the records without the lists likewise."""
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        move.begin()
        move.carry(lambda key: _is_structure(key) == (first == "structures"))
        refused = _put_off(move)
        await asyncio.to_thread(wait_until, lambda: _put_off(move) > refused + 20, 30, "calls are refused")
        halves = [{_kind(key) for key in node.scan_iter(count=1000)} for node in (move.source, move.target)]
        assert halves[0].isdisjoint(halves[1]), "something was written on both sides"
        move.end()
        await load.more()
        assert await load.wrong(move.target) == []


def _put_off(move: MovingSlot) -> int:
    """Count the calls that found their keys on two nodes, or on the other one."""
    refusals = move.refusals()
    return refusals["TRYAGAIN"] + refusals["ASK"]


def _is_of_part(part: int, key: str) -> bool:
    return zlib.crc32(key.encode()) % 3 == part


def _kind(key: object) -> str:
    return str(key).partition("}:")[2].partition(":")[0]


def _is_structure(key: str) -> bool:
    return key.partition("}:")[2].startswith(STRUCTURES)


@pytest.mark.chaos
async def test_a_worker_at_rest_follows_its_slot(cluster: str, move: MovingSlot) -> None:
    """Its fetch is parked on the old node, and knows nothing of the new one."""
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        await load.rest()
        move.begin()
        move.end()
        job = await load.queue.enqueue("work", 1)
        load.history.asked += 1
        load.history.acknowledged.add(job.id)
        assert await job.result(timeout=30) == 1
        assert await load.wrong(move.target) == []


@pytest.mark.chaos
async def test_slots_that_the_servers_move_themselves(cluster: str, move: MovingSlot) -> None:
    """Valkey 9 moves a slot as a whole, and changes its owner in one step."""
    try:
        source, target = (cluster_command(node, "MYID") for node in (move.source, move.target))
        cluster_command(move.source, "GETSLOTMIGRATIONS")
    except redis.ResponseError:
        pytest.skip("this server has no CLUSTER MIGRATESLOTS")
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        cluster_command(move.source, "MIGRATESLOTS", "SLOTSRANGE", move.slot, move.slot, "NODE", target)
        await asyncio.to_thread(wait_until, lambda: move.slot in slots_of(move.target), 30, "the slot has moved")
        await load.more()
        assert source != target
        assert await load.wrong(move.target) == []
