"""Only the server's clock decides anything; that of a worker may be hours off, and the server's own may step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import Server

from aqueue import Job, JobState, Queue, Rate, Retry, Settings, Window, Worker
from aqueue.job import JobId, WorkerId
from aqueue.store import scripts
from aqueue.store.records import Completed, Settle
from faults.clocks import SteppingClock, wrong_by
from faults.fleet import Fleet, wait_until
from faults.load import Load, until

pytestmark = pytest.mark.timeout(240)

HOURS = 7200
LEASE = 1.5
SLOTS = 5


def lease_ends(raw: redis.Redis, queue: str) -> dict[str, float]:
    """Say when the leases of all workers end, in ms by the server's clock."""
    found: Any = raw.zrange(f"aqueue:{{{queue}}}:workers", 0, -1, withscores=True)
    return dict(found)


# the clocks of workers


def server_time(raw: redis.Redis) -> float:
    seconds, micros = raw.time()
    return float(seconds + micros / 1e6)


async def _off_by_hours(server: Server, raw: redis.Redis, directory: Path, *, relays: int, kills: int) -> None:
    began = server_time(raw)
    async with Queue("faults", url=server.url, settings=Settings(lease=LEASE)) as queue:
        with Fleet(server.url, directory, lease=LEASE, options=("--concurrency", str(SLOTS))) as fleet:
            offs = {fleet.start(1, **wrong_by(off))[0].pid: off for off in (HOURS, -HOURS)}
            wait_until(lambda: raw.zcard("aqueue:{faults}:workers") == 2, 30, "both workers are up")
            # they are producers, too: of jobs that are due later, and of jobs that expire
            sent = await queue.enqueue_many(queue.remote("relay").call(0.05 * (n % 7), 60) for n in range(relays))
            made: list[Job[str]] = [queue.job(JobId(await job.result(timeout=60))) for job in sent]
            shared = await _run_on_both(queue, fleet, directory / "both")
            assert [await job.result(timeout=60) for job in made] == ["done"] * relays
            for n, job in enumerate(made):
                info = await job.info()
                assert info.enqueued_at is not None
                assert info.started_at is not None
                waited = (info.started_at - info.enqueued_at).total_seconds()
                assert 0.05 * (n % 7) - 0.002 <= waited < 60
            for left in [worker.lease_left for worker in (await queue.stats()).workers]:
                assert 0 < left <= LEASE
            # whoever goes first: the other takes its job when its lease has ended by the server's clock, and no sooner
            crashed = [await _killed(queue, fleet, raw, offs, directory / f"gate{n}") for n in range(kills)]
            jobs = [*sent, *made, *shared, *crashed]
            instants = [instant for job in jobs for instant in await _instants(job)]
            now = server_time(raw)
            assert all(began - 0.002 <= instant <= now + 0.002 for instant in instants)
            for line in fleet.lines():  # the clocks were wrong indeed
                assert abs(line.at - offs[line.pid] - now) < 240
            assert {offs[line.pid] for line in fleet.lines()} == {HOURS, -HOURS}
        runs = fleet.runs()
        assert {runs[job.id] for job in (*sent, *made, *shared)} == {1}
        assert [runs[job.id] for job in crashed] == [2] * kills
        print(f"{len(jobs)} jobs, {len(offs)} workers, {kills} kills, {len(instants)} instants, all the server's")


async def _run_on_both(queue: Queue, fleet: Fleet, gate: Path) -> list[Job[str]]:
    """Run more jobs at once than one worker has slots for."""
    jobs: list[Job[str]] = [await queue.enqueue("gated", str(gate)) for _ in range(SLOTS + 1)]
    wait_until(lambda: len(fleet.runs().keys() & {job.id for job in jobs}) == len(jobs), 30, "both have some")
    gate.touch()
    assert [await job.result(timeout=60) for job in jobs] == ["done"] * len(jobs)
    return jobs


async def _killed(queue: Queue, fleet: Fleet, raw: redis.Redis, offs: dict[int, int], gate: Path) -> Job[str]:
    """Kill the worker that runs a job; give the job when it has run elsewhere."""
    job: Job[str] = await queue.enqueue("gated", str(gate))
    wait_until(lambda: fleet.runs()[job.id] == 1, 30, "the job runs")
    victim = next(process for process in fleet.processes if process.pid == fleet.lines()[-1].pid)
    victim.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
    ends = _lease_of(raw, victim.pid)
    fleet.kill(victim)
    offs[fleet.start(1, **wrong_by(offs[victim.pid]))[0].pid] = offs[victim.pid]
    wait_until(lambda: fleet.runs()[job.id] == 2, 60, "the job runs elsewhere")
    gate.touch()
    assert await job.result(timeout=30) == "done"
    info = await job.info()
    assert (info.state, info.crashes) == (JobState.COMPLETED, 1)
    assert info.started_at is not None
    assert info.started_at.timestamp() * 1000 >= ends
    return job


def _lease_of(raw: redis.Redis, pid: int) -> float:
    for worker, ends in lease_ends(raw, "faults").items():
        if json.loads(str(raw.hget(f"aqueue:{{faults}}:worker:{worker}", "info") or ""))["pid"] == pid:
            return ends
    raise LookupError(pid)


async def _instants(job: Job[str]) -> list[float]:
    info = await job.info()
    instants: list[datetime | None] = [info.enqueued_at, info.started_at, info.ended_at]
    assert None not in instants
    return [instant.timestamp() for instant in instants if instant is not None]


async def test_workers_whose_clocks_are_hours_off_keep_the_servers_time(
    own_server: Server, raw_own: redis.Redis, tmp_path: Path
) -> None:
    """One is two hours ahead, one two hours behind, and nobody notices."""
    await _off_by_hours(own_server, raw_own, tmp_path, relays=30, kills=1)


@pytest.mark.chaos
async def test_a_fleet_whose_clocks_are_hours_off_outlives_its_workers(
    own_server: Server, raw_own: redis.Redis, tmp_path: Path
) -> None:
    """The long form."""
    await _off_by_hours(own_server, raw_own, tmp_path, relays=2000, kills=10)


# the clock of the server


@pytest.fixture
def clock(raw_own: redis.Redis, tmp_path: Path) -> Iterator[SteppingClock]:
    with pytest.MonkeyPatch.context() as patch:
        yield SteppingClock(raw_own, tmp_path / "lua", patch)
    scripts.load.cache_clear()


def leases_are_right(raw: redis.Redis, clock: SteppingClock, workers: int) -> bool:
    """Say whether all workers have leases of the usual length by the clock as it is now."""
    left = [ends - clock.now_ms() for ends in lease_ends(raw, "load").values()]
    return len(left) == workers and all(0 < ms <= LEASE * 1000 + 1 for ms in left)


async def _steps(server: Server, raw: redis.Redis, clock: SteppingClock, steps: list[int]) -> None:
    """Step the clock under load; what was due before a step back is due once the clock has made up for it."""
    settings = Settings(lease=LEASE, retry=Retry(max_attempts=3, backoff=0.01), crash_limit=len(steps) + 1)
    async with Load(server.url, settings=settings, pace=0.02) as load, load.working_at(server.url) as other:

        async def at_once(count: int) -> list[Job[int]]:
            load.history.asked += count
            jobs = await load.queue.enqueue_many([load.queue.remote("work").call(1) for _ in range(count)])
            load.history.acknowledged.update(job.id for job in jobs)
            return jobs

        async with load.worker(), Worker(other, concurrency=10):
            await load.more()
            for step in steps:
                jobs = await at_once(30)
                clock.step(step)
                jobs += await at_once(10)
                assert [await job.result(timeout=30) for job in jobs] == [1] * 40
                await until(lambda: leases_are_right(raw, clock, 2))
            clock.step(max(accumulate(steps, initial=0)) - sum(steps))
            await load.more()
        crashes = load.count_crashes(raw)
        assert await load.wrong(raw) == []
        assert load.refusals == []
        print(f"{len(steps)} steps of up to {max(map(abs, steps)) / 3600:g} h, {load.history.asked} jobs, "
              f"{load.history.runs('start').total()} runs, {crashes} leases that ended by a step")  # fmt: skip


async def test_the_servers_clock_may_step_under_load(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock
) -> None:
    """Forward, leases end early: second runs with a crash as their cause. Back, due times wait for the step."""
    await _steps(own_server, raw_own, clock, [HOURS, -2 * HOURS, HOURS // 2])


@pytest.mark.chaos
async def test_the_servers_clock_may_step_again_and_again(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock
) -> None:
    """The long form."""
    await _steps(
        own_server, raw_own, clock, [HOURS, -HOURS, -HOURS, 2 * HOURS, 60, -60, 5, -5, 24 * 3600, -24 * 3600] * 5
    )


async def test_a_lease_that_a_step_forward_has_ended_costs_a_crash_and_no_job(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock
) -> None:
    """It looks like silence: the job runs elsewhere, and its first worker is told and may write nothing."""
    async with Queue("q", url=own_server.url, settings=Settings(lease=LEASE)) as queue:

        @queue.task
        async def work(n: int) -> int:
            return n

        job = await work.enqueue(1)
        store, first = await queue.store(), WorkerId("first")
        (lease,) = (await store.settle_and_claim(first, 1, [], 1)).leases
        clock.step(HOURS)
        async with Worker(queue):
            assert await job.result(timeout=30) == 1
        assert (await store.extend(first, 1, [job.id], "")).lost == [job.id]
        late = Settle(lease.id, lease.token, Completed(b"2", -1, "work"))
        assert (await store.settle_and_claim(first, 2, [late], 0)).refused == {job.id}
        assert await job.result() == 1
        assert (await job.info()).crashes == 1
        await store.retire(first)


async def test_what_a_dead_worker_held_waits_no_longer_than_the_step(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock
) -> None:
    """It died, and then the clock went back: by then its lease ends two hours later, and not never."""
    async with Queue("q", url=own_server.url, settings=Settings(lease=1)) as queue:

        @queue.task
        async def work(n: int) -> int:
            return n

        held, store = await work.enqueue(1), await queue.store()
        (lease,) = (await store.settle_and_claim(WorkerId("dead"), 1, [], 1)).leases
        assert lease.id == held.id
        delayed = await work.options(delay=0.01).enqueue(2)  # nothing looks at it before the step
        clock.step(-HOURS)
        async with Worker(queue):
            assert await (await work.enqueue(3)).result(timeout=30) == 3
            assert "dead" not in {gone.worker for gone in (await store.reclaim())[0]}
            assert [await job.status() for job in (held, delayed)] == [JobState.RUNNING, JobState.SCHEDULED]
            clock.step(HOURS)
            assert await held.result(timeout=30) == 1
            assert await delayed.result(timeout=30) == 2
        assert (await held.info()).crashes == 1


async def test_a_step_does_not_change_the_order_of_turns(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock
) -> None:
    """First come, first served, whatever the clock says of it; and a worker's own turns go on."""
    order: list[int] = []
    async with Queue("q", url=own_server.url) as queue:

        @queue.task
        async def work(n: int) -> None:
            order.append(n)

        jobs = []
        for n, step in enumerate((0, -HOURS, 3 * HOURS, -HOURS, -5 * HOURS)):
            clock.step(step)
            jobs.append(await work.enqueue(n))
        async with Worker(queue, concurrency=1):
            for job in jobs:
                await job.result(timeout=30)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("limit", [Rate(50, burst=2), Window(2, per=0.05)], ids=["rate", "window"])
async def test_a_rate_goes_on_after_a_step(
    own_server: Server, raw_own: redis.Redis, clock: SteppingClock, limit: Rate | Window
) -> None:
    """A start at an instant that lies ahead now must not keep the gate closed for hours."""
    async with Queue("q", url=own_server.url) as queue:

        @queue.task(limit=limit)
        async def work(n: int) -> int:
            return n

        async with Worker(queue):
            for step in (-HOURS, 2 * HOURS):
                before = [await work.enqueue(n) for n in range(5)]
                await before[0].result(timeout=30)
                clock.step(step)
                after = [await work.enqueue(n) for n in range(5)]
                assert [await job.result(timeout=30) for job in before + after] == 2 * [0, 1, 2, 3, 4]
