"""Limits on worker processes that are killed: never exceeded, never lost, and nobody waits for them in vain."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from servers import Server

from aqueue import Concurrency, Job, Queue, Rate, Settings
from faults.fleet import Fleet, wait_until
from faults.history import remains

pytestmark = pytest.mark.timeout(300)

AT_ONCE = 3
CLOCK_SECONDS = 0.0015
"""Instants are kept in whole milliseconds."""


def most_at_once(fleet: Fleet, keys: dict[str, int], killed_at: dict[int, float]) -> Counter[int]:
    """For each key, how many runs went on at once; that of a killed worker ended with it."""
    ends = {(line.job_id, line.pid): line.at for line in fleet.lines() if line.what == "end"}
    steps = []
    for line in fleet.lines():
        if line.what == "start":
            steps.append((line.at, 1, keys[line.job_id]))
            end = ends.get((line.job_id, line.pid)) or killed_at[line.pid]
            steps.append((end, -1, keys[line.job_id]))
    inside, most = Counter[int](), Counter[int]()
    for _, step, key in sorted(steps):
        inside[key] += step
        most[key] = max(most[key], inside[key])
    return most


async def _keep_to_a_limit(
    server: Server, directory: Path, *, jobs: int, keys: int, workers: int, kills: int, lease: float
) -> None:
    settings = Settings(lease=lease, crash_limit=kills + 2)  # chance may have one job hit by all kills
    async with Queue("faults", url=server.url, settings=settings) as queue:
        task = queue.remote("of_a_key").options(limit=Concurrency(AT_ONCE, key="key"))
        calls = [task.call(key=n % keys, seconds=0.02) for n in range(jobs)]
        handles: list[Job[str]] = await queue.enqueue_many(calls)
        killed_at: dict[int, float] = {}
        with Fleet(server.url, directory, lease=lease, crash_limit=kills + 2, options=("--concurrency", "20")) as fleet:
            fleet.start(workers)
            for n in range(1, kills + 1):
                part = n * jobs // (kills + 2)
                wait_until(partial(_have_ended, fleet, part), 120, f"{part} jobs have ended")
                victim = fleet.busiest()
                victim.send_signal(
                    signal.SIGSTOP
                )  # so that it starts nothing between the instant that is noted and its end
                os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
                killed_at[victim.pid] = time.time()
                fleet.kill(victim)
                fleet.start()
            assert [await job.result(timeout=120) for job in handles] == ["done"] * jobs
            most = most_at_once(fleet, {job.id: n % keys for n, job in enumerate(handles)}, killed_at)
            doubles = sum(1 for count in fleet.runs().values() if count > 1)
        with server.client() as raw:
            left = [key for key in map(str, raw.scan_iter()) if ":permits:" in key or ":waiting:" in key]
            assert (remains(raw, "faults").leaked, left) == ([], [])
        highest = max(most.values())
        print(f"{jobs} jobs, {keys} keys, {len(killed_at)} kills, {doubles} doubles, at most {highest} at once")
        assert set(most) == set(range(keys))
        assert 1 < highest <= AT_ONCE  # on a busy machine few run at the very same instant
        assert (await queue.stats()).failed == 0


def _have_ended(fleet: Fleet, count: int) -> bool:
    return len(fleet.runs("end")) >= count


async def test_a_limit_holds_although_workers_are_killed(own_server: Server, tmp_path: Path) -> None:
    """The permit of a dead worker's job is taken back with the job, not before and not never."""
    await _keep_to_a_limit(own_server, tmp_path, jobs=150, keys=4, workers=2, kills=1, lease=2.0)


@pytest.mark.chaos
async def test_a_limit_holds_for_two_thousand_jobs_of_twenty_keys(own_server: Server, tmp_path: Path) -> None:
    """The long form."""
    await _keep_to_a_limit(own_server, tmp_path, jobs=2000, keys=20, workers=5, kills=6, lease=3.0)


async def _keep_to_a_rate(server: Server, directory: Path, *, per_second: int, burst: int, seconds: float) -> None:
    async with Queue("faults", url=server.url) as queue:
        task = queue.remote("brief").options(limit=Rate(per_second, burst=burst))
        count = round(per_second * seconds) + burst
        handles: list[Job[str]] = []
        await queue.pause()
        for first in range(0, count, 500):
            handles += await queue.enqueue_many(task.call(0) for _ in range(first, min(count, first + 500)))
        with Fleet(server.url, directory, lease=15) as fleet:
            fleet.start(3)
            wait_until(partial(_are_up, server, 3), 30, "three workers are up")
            await queue.resume()
            assert [await job.result(timeout=seconds + 60) for job in handles] == ["done"] * count
        infos = [await job.info() for job in handles]
        starts = sorted(info.started_at.timestamp() for info in infos if info.started_at is not None)
    interval, full, above = 1 / per_second, 0.0, 0
    for start in starts:
        above += start < full - interval * (burst - 1) - CLOCK_SECONDS
        full = max(start, full) + interval
    allowed = burst + (starts[-1] - starts[0]) * per_second
    print(
        f"{count} starts in {starts[-1] - starts[0]:.2f} s, {above} above the bound, {count / allowed:.1%} of it used"
    )
    assert above == 0


def _are_up(server: Server, count: int) -> bool:
    with server.client() as raw:
        return int(raw.zcard("aqueue:{faults}:workers")) == count


async def test_a_rate_is_kept_by_three_workers(own_server: Server, tmp_path: Path) -> None:
    """Never above the bound, whoever starts the next job."""
    await _keep_to_a_rate(own_server, tmp_path, per_second=100, burst=10, seconds=1)


@pytest.mark.chaos
async def test_a_rate_is_kept_and_used_for_twenty_seconds(own_server: Server, tmp_path: Path) -> None:
    """The long form; it prints how much of the rate was used."""
    await _keep_to_a_rate(own_server, tmp_path, per_second=50, burst=10, seconds=20)
