"""The same jobs on Sentinel and on a Cluster, made of real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import redis.asyncio as redis_asyncio

from aqueue import Concurrency, Queue, Rate, Settings, StoreUnavailable, Worker
from faults.fleet import wait_until
from faults.topologies import BINARY, free_port, node


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """A primary, a replica and one sentinel that decides alone, and takes its time; gives their ports."""
    with ExitStack() as stack:
        primary, replica, watcher = free_port(), free_port(), free_port()
        options = ("--repl-diskless-sync-delay", "0")
        stack.enter_context(node(tmp_path / "primary", primary, *options))
        follow = ("--replicaof", f"127.0.0.1 {primary}", *options)
        follower = stack.enter_context(node(tmp_path / "replica", replica, *follow))
        wait_until(
            lambda: dict(follower.info("replication"))["master_link_status"] == "up", 30, "the replica has synced"
        )
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"port {watcher}\nsentinel monitor main 127.0.0.1 {primary} 1\n"
            "sentinel down-after-milliseconds main 60000\nsentinel failover-timeout main 2000\n"
        )
        process = subprocess.Popen([BINARY, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        with redis.Redis(port=watcher, decode_responses=True) as client:

            def knows() -> bool:
                try:
                    return len(client.sentinel_slaves("main")) == 1
                except redis.RedisError:
                    return False

            wait_until(knows, 30, "the sentinel knows the replica")
        yield primary, replica, watcher


async def test_a_given_cluster_client_is_used_as_it_points(cluster: str) -> None:
    """An application that has one already should not have to spell its nodes again."""
    port = int(cluster.rpartition(":")[2])
    client = redis_asyncio.RedisCluster(host="127.0.0.1", port=port)
    queues = [Queue(name, client=client, settings=Settings(lease=2)) for name in ("alpha", "beta", "gamma")]

    async def double(n: int) -> int:
        return 2 * n

    tasks = [queue.task(double) for queue in queues]
    async with Worker(*queues):
        jobs = [await task.enqueue(n) for n, task in enumerate(tasks)]
        assert [await job.result(timeout=30) for job in jobs] == [0, 2, 4]
    for queue in queues:
        await queue.close()
    await client.aclose()


async def test_queues_on_different_nodes_of_a_cluster_share_one_worker(cluster: str) -> None:
    """Each queue lies in one slot, and nothing a job needs lies elsewhere."""
    queues = [Queue(name, url=cluster, settings=Settings(lease=2)) for name in ("alpha", "beta", "gamma", "delta")]

    async def double(n: int) -> int:
        return 2 * n

    tasks = [queue.task(double) for queue in queues]
    async with Worker(*queues, concurrency=10):
        jobs = [await task.enqueue(n) for n in range(20) for task in tasks]
        delayed = [await task.options(delay=0.2).enqueue(100) for task in tasks]
        assert [await job.result(timeout=30) for job in jobs] == [2 * n for n in range(20) for _ in tasks]
        assert [await job.result(timeout=30) for job in delayed] == [200] * 4
        assert {(await queue.stats()).counters["completed"] for queue in queues} == {21}
    for queue in queues:
        await queue.close()


async def test_limiters_of_a_cluster_hand_on_their_permits(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys of one lie in its queue's slot, and who waits listens at that slot's node."""
    monkeypatch.setattr("aqueue.limiters.RECHECK_SECONDS", 600)  # the net beneath, which is not to be needed
    for name in ("alpha", "beta", "gamma", "delta"):
        async with Queue(name, url=cluster) as queue, Queue(name, url=cluster) as other:
            order: list[int] = []

            async def visit(queue: Queue, number: int, order: list[int] = order) -> None:
                one, pace = Concurrency(1, name="one"), Rate(500, burst=2, name="pace")
                async with queue.limiter(one, wait=True, lease=600), queue.limiter(pace, wait=True):
                    order.append(number)

            async with asyncio.timeout(30):
                await asyncio.gather(*(visit((queue, other)[number % 2], number) for number in range(10)))
            assert sorted(order) == list(range(10))


async def test_a_failover_is_followed_to_the_new_primary(sentinel: tuple[int, int, int]) -> None:
    """The worker and the producer ask the sentinel again when their primary is gone."""
    primary, replica, watcher = sentinel
    async with Queue("q", url=f"redis+sentinel://127.0.0.1:{watcher}/main", settings=Settings(lease=2)) as queue:

        @queue.task
        async def double(n: int) -> int:
            return 2 * n

        async with Worker(queue):
            assert await (await double.enqueue(1)).result(timeout=30) == 2
            with redis.Redis(port=primary) as client, contextlib.suppress(redis.ConnectionError):
                client.shutdown(nosave=True, now=True)
            with redis.Redis(port=watcher) as client:  # so quick only now: else a pause would be taken for a death
                client.sentinel_set("main", "down-after-milliseconds", 500)
            with redis.Redis(port=replica, decode_responses=True) as client:
                wait_until(lambda: dict(client.info("replication"))["role"] == "master", 30, "the replica is promoted")
            deadline = time.monotonic() + 30
            while True:
                try:
                    job = await double.enqueue(21)
                    break
                except StoreUnavailable:
                    assert time.monotonic() < deadline
            assert await job.result(timeout=30) == 42
