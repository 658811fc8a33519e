"""A slot moves to another node of a Cluster while its queue has a backlog, producers, a worker and jobs that run.

While a slot is on the move, its keys lie on two nodes, and a script that would see only a part of them must not run at
all: each declares some key that does not exist, for which the server answers TRYAGAIN, or ASK where none is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from aqueue import Queue, Retry, Settings, Worker
from faults.fleet import wait_until
from faults.load import Load
from faults.test_topologies import cluster
from faults.topologies import cluster_command

__all__ = ["cluster"]  # a fixture

pytestmark = pytest.mark.timeout(120)

SETTINGS = Settings(lease=5, retry=Retry(max_attempts=3, backoff=0.01))
OTHERS = 19


@dataclass
class Move:
    """The slot of one queue, on its way from one node to another."""

    slot: int
    source: redis.Redis
    target: redis.Redis
    nodes: list[redis.Redis]

    @property
    def _ids(self) -> tuple[str, str]:
        return cluster_command(self.source, "MYID"), cluster_command(self.target, "MYID")

    def begin(self) -> None:
        source, target = self._ids
        cluster_command(self.target, "SETSLOT", self.slot, "IMPORTING", source)
        cluster_command(self.source, "SETSLOT", self.slot, "MIGRATING", target)

    def some_keys(self, count: int = 100_000) -> list[str]:
        return [str(key) for key in self._ask(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, count)]

    def carry(self, keys: list[str]) -> None:
        port = self.target.connection_pool.connection_kwargs["port"]
        if keys:
            self._ask(self.source, "MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)

    def carry_all(self) -> None:
        while keys := self.some_keys(50):
            self.carry(keys)

    def end(self) -> None:
        _, target = self._ids
        for node in (self.target, self.source, *self.nodes):
            cluster_command(node, "SETSLOT", self.slot, "NODE", target)

    @staticmethod
    def _ask(node: redis.Redis, *command: Any) -> Any:
        return node.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    def refusals(self) -> int:
        """How often a call found its keys on two nodes, or on the other one."""
        replies = self.replies()
        return replies["TRYAGAIN"] + replies["ASK"]

    def replies(self) -> Counter[str]:
        """How often the two nodes have sent which error."""
        found: Counter[str] = Counter()
        for node in (self.source, self.target):
            for name, stat in dict(node.info("errorstats")).items():
                found[name.removeprefix("errorstat_")] += int(stat["count"])
        return found


@pytest.fixture
def move(cluster: str) -> Iterator[Move]:
    ports = [int(host.rpartition(":")[2]) for host in cluster.removeprefix("redis+cluster://").split(",")]
    nodes = [redis.Redis(port=port, decode_responses=True) for port in ports]
    slot = int(cluster_command(nodes[0], "KEYSLOT", "{load}"))
    owner = next(n for n, end in enumerate((5461, 10923, 16384)) if slot < end)
    target = nodes[(owner + 1) % 3]
    yield Move(slot, nodes[owner], target, [node for node in nodes if node not in (nodes[owner], target)])
    for node in nodes:
        node.close()


async def test_a_slot_with_a_backlog_moves_under_load(cluster: str, move: Move) -> None:
    """Twenty queues over all nodes and one worker: the others go on, the moving one waits, and nothing is lost."""
    others = [Queue(f"other-{n}", url=cluster, settings=SETTINGS) for n in range(OTHERS)]

    async def name_of(queue: str) -> str:
        return queue

    for queue in others:
        queue.task(name_of)

    async def ask_all() -> list[str]:
        jobs = [await queue.enqueue("name_of", queue.name) for queue in others]
        return [await job.result(timeout=30) for job in jobs]

    async with Load(cluster, settings=SETTINGS) as load, Worker(load.working, *others, concurrency=4):
        backlog = [load.queue.remote("work").options(delay=0.01 * (n % 100)).call(n) for n in range(400)]
        load.history.asked += len(backlog)
        load.history.acknowledged.update(job.id for job in await load.queue.enqueue_many(backlog))
        await load.more()
        move.begin()
        assert await ask_all() == [queue.name for queue in others]
        for _ in range(2):
            move.carry(move.some_keys(150))
            assert await ask_all() == [queue.name for queue in others]
        move.carry_all()
        move.end()
        await load.more()
        replies = move.replies()
        print(f"{load.history.asked} jobs, {len(load.refusals)} refusals, the nodes have answered {dict(replies)}")
        assert replies["TRYAGAIN"]
        assert replies["MOVED"]
        assert await load.wrong(move.target) == []
    for queue in others:
        await queue.close()


STRUCTURES = ("queued", "scheduled", "workers", "stats", "worker:", "held:", "inbox:", "failed")


@pytest.mark.chaos
@pytest.mark.parametrize("first", ["structures", "records"])
async def test_no_script_runs_on_one_half_of_a_queue(cluster: str, move: Move, first: str) -> None:
    """The lists without the records would run nothing and forget all; the records without the lists likewise."""
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        move.begin()
        while keys := [key for key in move.some_keys() if _is_structure(key) == (first == "structures")]:
            move.carry(keys)
        refused = move.refusals()
        await asyncio.to_thread(wait_until, lambda: move.refusals() > refused + 20, 30, "calls are refused")
        halves = [{_kind(key) for key in node.scan_iter(count=1000)} for node in (move.source, move.target)]
        assert halves[0].isdisjoint(halves[1]), "something was written on both sides"
        move.carry_all()
        move.end()
        await load.more()
        assert await load.wrong(move.target) == []


def _kind(key: object) -> str:
    return str(key).partition("}:")[2].partition(":")[0]


def _is_structure(key: str) -> bool:
    return key.partition("}:")[2].startswith(STRUCTURES)


@pytest.mark.chaos
async def test_a_worker_at_rest_follows_its_slot(cluster: str, move: Move) -> None:
    """Its fetch is parked on the old node, and knows nothing of the new one."""
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        await load.rest()
        move.begin()
        move.carry_all()
        move.end()
        job = await load.queue.enqueue("work", 1)
        load.history.asked += 1
        load.history.acknowledged.add(job.id)
        assert await job.result(timeout=30) == 1
        assert await load.wrong(move.target) == []


@pytest.mark.chaos
async def test_slots_that_the_servers_move_themselves(cluster: str, move: Move) -> None:
    """Valkey 9 moves a slot as a whole, and changes its owner in one step."""
    try:
        source, target = move._ids
        cluster_command(move.source, "GETSLOTMIGRATIONS")
    except redis.ResponseError:
        pytest.skip("this server has no CLUSTER MIGRATESLOTS")
    async with Load(cluster, settings=SETTINGS) as load, load.worker():
        await load.more()
        cluster_command(move.source, "MIGRATESLOTS", "SLOTSRANGE", move.slot, move.slot, "NODE", target)
        await asyncio.to_thread(wait_until, lambda: move.slot in _slots_of(move.target), 30, "the slot has moved")
        await load.more()
        assert source != target
        assert await load.wrong(move.target) == []


def _slots_of(node: redis.Redis) -> set[int]:
    (mine,) = [line for line in cluster_command(node, "NODES").splitlines() if "myself" in line]
    found: set[int] = set()
    for word in mine.split()[8:]:
        if "[" not in word:
            low, _, high = word.partition("-")
            found.update(range(int(low), int(high or low) + 1))
    return found
