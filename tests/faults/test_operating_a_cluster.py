"""The doctor, and users with few rights, where queues lie on several servers."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from typer.testing import CliRunner

from aqueue import DurabilityError, JobState, Queue, Settings, Worker
from aqueue.ops.cli import app
from aqueue.store import durability


def doctor(url: str, *arguments: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
    result = CliRunner(env={"AQUEUE_URL": url}).invoke(app, ["doctor", "--json", *arguments])
    return result.exit_code, json.loads(result.stdout)


async def test_every_server_of_a_cluster_is_examined(cluster: str) -> None:
    """A walk of one server's keys would miss the jobs of the others, and call them well."""
    ran: list[str] = []
    queues = [Queue(name, url=cluster, settings=Settings(lease=2)) for name in ("alpha", "beta", "gamma", "delta")]

    async def work(name: str) -> None:
        ran.append(name)

    jobs = [await queue.task(work).enqueue(queue.name) for queue in queues]
    with redis.RedisCluster.from_url(cluster.partition(",")[0].replace("redis+cluster", "redis")) as raw:
        for queue, job in zip(queues, jobs, strict=True):
            raw.lrem((await queue.store()).keys.queued, 0, job.id)

    code, seen = await asyncio.to_thread(doctor, cluster, "--repair")
    assert {row["queue"] for row in seen["findings"] if row["repaired"]} == {queue.name for queue in queues}
    assert len([row for row in seen["checks"] if row["check"] == "cluster" and row["level"] == "ok"]) > 1
    assert code == 1  # nobody serves them yet

    async with Worker(*queues):
        for job in jobs:
            await job.result(timeout=30)
    assert sorted(ran) == sorted(queue.name for queue in queues)
    for queue in queues:
        await queue.close()


async def test_users_with_few_rights_serve_a_cluster(cluster: str) -> None:
    """A client of a cluster asks more than a client of one server, before it does anything."""
    hosts = cluster.removeprefix("redis+cluster://")
    for role in ("producer", "worker"):
        line = CliRunner().invoke(app, ["acl", role, "--password-file", "-"], input="geheim").stdout
        for host in hosts.split(","):
            with redis.Redis.from_url(f"redis://{host}") as node:
                node.execute_command(*line.split())

    produced = f"redis+cluster://aqueue-producer:geheim@{hosts}"
    served = [
        Queue(name, url=f"redis+cluster://aqueue-worker:geheim@{hosts}", settings=Settings(lease=2))
        for name in ("alpha", "beta", "gamma", "delta")
    ]

    async def double(n: int) -> int:
        return 2 * n

    for queue in served:
        queue.task(double)
    async with Worker(*served):
        for n, queue in enumerate(served):
            async with Queue(queue.name, url=produced) as producer:
                assert await (await producer.enqueue("double", n)).result(timeout=30) == 2 * n
    for queue in served:
        await queue.close()


async def test_confirmations_are_asked_of_the_server_that_has_the_queue(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each server of a cluster knows of its own replicas only; these have none, and say so."""
    monkeypatch.setattr(durability, "CONFIRM_SECONDS", 0.05)
    for name in ("alpha", "beta", "gamma"):
        async with Queue(name, url=cluster) as queue:
            with pytest.raises(DurabilityError, match="no replica had them") as caught:
                await queue.remote("work").options(durable="replica").enqueue()
            (job_id,) = caught.value.job_ids
            assert await queue.job(job_id).status() == JobState.QUEUED
