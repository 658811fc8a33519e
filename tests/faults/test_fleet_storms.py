"""Workers that come and go while there is work: deploys, autoscalers, and one job that kills whoever takes it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import redis
from servers import Server

from aqueue import Job, JobFailed, JobState, Queue, Settings, Worker
from faults.fleet import Fleet, wait_until
from faults.history import remains
from faults.load import Load

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def jobs(own_server: Server) -> AsyncIterator[Queue]:
    async with Queue("faults", url=own_server.url, settings=Settings(lease=1.5)) as queue:
        yield queue


async def _deploys(queue: Queue, fleet: Fleet, *, count: int, rounds: int) -> None:
    """Replace one worker after the other while jobs run that outlast the grace, and let all jobs complete."""
    handles = await queue.enqueue_many(queue.remote("brief").call(0.5) for _ in range(count))
    fleet.start(2)
    wait_until(lambda: len({line.pid for line in fleet.lines()}) == 2, 30, "both workers are busy")
    for _ in range(rounds):
        old = fleet.processes[0]
        fleet.start()
        wait_until(lambda old=old: f":{old.pid} - aqueue" in fleet.log(), 30, "it can be told")  # type: ignore[misc]
        before = fleet.runs().total()
        old.send_signal(signal.SIGTERM)
        assert old.wait(30) == 0
        fleet.processes.remove(old)
        wait_until(partial(_goes_on, fleet, before, count), 30, "its successor has begun")
    assert [await job.result(timeout=60) for job in handles] == ["done"] * count
    infos = [await job.info() for job in handles]
    assert {(info.attempt, info.crashes) for info in infos} == {(0, 0)}
    assert fleet.runs("end") == dict.fromkeys((job.id for job in handles), 1)
    assert fleet.runs().total() > count, "no deploy has interrupted a job"
    assert "worker gone" not in fleet.log()


def _goes_on(fleet: Fleet, before: int, count: int) -> bool:
    """Say whether a run has begun since, or nothing is left to be run."""
    return fleet.runs().total() > before or len(fleet.runs("end")) == count


async def test_a_rolling_deploy_costs_neither_jobs_nor_attempts(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """The grace is shorter than the jobs: each worker hands back what it was running, and nothing ends twice."""
    with Fleet(own_server.url, tmp_path, options=("--grace", "0.1", "--concurrency", "5")) as fleet:
        await _deploys(jobs, fleet, count=40, rounds=3)


@pytest.mark.chaos
async def test_a_storm_of_deploys_costs_neither_jobs_nor_attempts(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """The long form."""
    with Fleet(own_server.url, tmp_path, options=("--grace", "0.1", "--concurrency", "5")) as fleet:
        await _deploys(jobs, fleet, count=300, rounds=20)


async def _come_and_go(server: Server, raw: redis.Redis, *, changes: int, seed: int) -> None:
    """Let workers join and leave at random, some of them at once."""
    raw.flushall()
    chance = random.Random(seed)
    async with Load(server.url) as load:
        workers: dict[Worker, asyncio.Task[None]] = {}
        for _ in range(changes):
            if len(workers) < 2 or (len(workers) < 6 and chance.random() < 0.5):
                worker = load.worker(grace=chance.choice((0, 5)))
                workers[worker] = asyncio.create_task(worker.run())
            else:
                worker = chance.choice(list(workers))
                worker.stop(now=chance.random() < 0.5)
                await workers.pop(worker)
            await load.more(5)
        for worker, running in workers.items():
            worker.stop()
            await running
        assert await load.wrong(raw) == []
        assert load.refusals == []


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_workers_may_come_and_go_at_random(own_server: Server, raw_own: redis.Redis, seed: int) -> None:
    """Without a crash there is no second run, whoever leaves whenever."""
    await _come_and_go(own_server, raw_own, changes=25, seed=seed)


@pytest.mark.chaos
async def test_workers_may_come_and_go_for_long(own_server: Server, raw_own: redis.Redis) -> None:
    """The long form."""
    for seed in range(10, 20):
        await _come_and_go(own_server, raw_own, changes=200, seed=seed)


MIB_EACH = 60
"""A worker process takes 40 to 50 MiB."""


def _free_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) // 1024


async def _hundreds(
    server: Server, raw: redis.Redis, directory: Path, *, workers: int, changes: int, seed: int
) -> None:
    """Keep many processes alive at once; let them leave at random, told or killed, and others join."""
    chance = random.Random(seed)
    async with Queue("faults", url=server.url, settings=Settings(lease=15)) as queue:
        with Fleet(server.url, directory, lease=15, options=("--concurrency", "2", "--grace", "0.1")) as fleet:
            for _ in range(workers):  # one by one: a machine of few cores starts a few a second
                fleet.start()
                wait_until(lambda: len(fleet.processes) - _alive(raw) < 8, 60, "those started last are up")
            wait_until(lambda: _alive(raw) == workers, 300, f"{workers} workers are up")
            jobs: list[Job[str]] = []
            killed, told, most = 0, 0, _alive(raw)
            for _ in range(changes):
                jobs += await queue.enqueue_many(queue.remote("brief").call(0.5) for _ in range(20))
                victim = chance.choice(fleet.processes)
                if chance.random() < 0.3:
                    fleet.kill(victim)
                    killed += 1
                else:
                    fleet.kill(victim, signal.SIGTERM)
                    told += 1
                fleet.start()
            assert [await job.result(timeout=120) for job in jobs] == ["done"] * len(jobs)
            wait_until(lambda: _alive(raw) == workers, 120, "all that joined are up, and all that left are forgotten")
            infos = [await job.info() for job in jobs]
            crashes = sum(info.crashes for info in infos)
            runs = fleet.runs()
            interrupted = sum(count - 1 for count in runs.values())
            print(f"{workers} processes at once ({most} with leases), {told} left, {killed} were killed, "
                  f"{changes} joined, {len(jobs)} jobs, {runs.total()} runs, "
                  f"{crashes} crashes, {interrupted} second runs")  # fmt: skip
            assert {info.state for info in infos} == {JobState.COMPLETED}
            assert interrupted <= crashes + (await queue.stats()).counters.get("released", 0)
            assert fleet.runs("end") == dict.fromkeys((job.id for job in jobs), 1)
        assert remains(raw, "faults").leaked == []


def _alive(raw: redis.Redis) -> int:
    return int(raw.zcard("aqueue:{faults}:workers"))


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_two_hundred_processes_may_come_and_go(own_server: Server, raw_own: redis.Redis, tmp_path: Path) -> None:
    """The long form, in processes: as many at once as the memory of this machine allows."""
    workers = min(200, _free_mib() // MIB_EACH)
    await _hundreds(own_server, raw_own, tmp_path, workers=workers, changes=200, seed=1)


async def test_one_poison_job_among_a_thousand_costs_none_of_them(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """It kills three workers and is put away; of its neighbours not one comes near the crash limit."""
    good = await jobs.enqueue_many(jobs.remote("brief").call(0.001) for _ in range(500))
    poison = await jobs.enqueue("poison")
    good += await jobs.enqueue_many(jobs.remote("brief").call(0.001) for _ in range(500))
    with Fleet(own_server.url, tmp_path, lease=1) as fleet:
        fleet.start(2)

        def put_away() -> bool:
            for process in list(fleet.processes):
                if process.poll() is not None:
                    fleet.processes.remove(process)
                    fleet.start()
            return fleet.runs()[poison.id] >= 3

        wait_until(put_away, 90, "the poison job has killed three workers")
        with pytest.raises(JobFailed, match="WorkerCrashed"):
            await poison.result(timeout=30)
        if not fleet.processes:
            fleet.start()
        assert [await job.result(timeout=60) for job in good] == ["done"] * 1000
        assert fleet.runs()[poison.id] == 3
        stats = await jobs.stats()
        assert (stats.failed, stats.counters["completed"]) == (1, 1000)
        assert await poison.status() is JobState.FAILED
