"""Limiters in jobs of worker processes that are killed while they hold permits, and wait for them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from servers import Server

from aqueue import Job, Queue, Settings
from faults.fleet import Fleet, wait_until
from faults.history import remains
from faults.test_limits_under_load import most_at_once

pytestmark = pytest.mark.timeout(300)

AT_ONCE = 3


async def _keep_to_a_limit(server: Server, directory: Path, *, jobs: int, kills: int, lease: float) -> None:
    settings = Settings(lease=lease, crash_limit=kills + 2)  # chance may have one job hit by all kills
    async with Queue("faults", url=server.url, settings=settings) as queue:
        task = queue.remote("with_permit")
        handles: list[Job[str]] = await queue.enqueue_many(task.call(AT_ONCE, 0.02) for _ in range(jobs))
        killed_at: dict[int, float] = {}
        with Fleet(server.url, directory, lease=lease, crash_limit=kills + 2, options=("--concurrency", "20")) as fleet:
            fleet.start(3, FAULT_PERMIT_LEASE=str(lease))
            for n in range(1, kills + 1):
                part = n * jobs // (kills + 2)
                wait_until(partial(_have_ended, fleet, part), 120, f"{part} jobs have ended")
                victim = fleet.busiest()
                victim.send_signal(signal.SIGSTOP)  # so that it starts nothing between the noted instant and its end
                os.waitid(os.P_PID, victim.pid, os.WSTOPPED)
                killed_at[victim.pid] = time.time()
                fleet.kill(victim)
                fleet.start(FAULT_PERMIT_LEASE=str(lease))
            assert [await job.result(timeout=120) for job in handles] == ["done"] * jobs
            most = most_at_once(fleet, {job.id: 0 for job in handles}, killed_at)[0]
            doubles = sum(1 for count in fleet.runs().values() if count > 1)
            log = fleet.log()
        with server.client() as raw:
            assert remains(raw, "faults").leaked == []
            assert [raw.zcard(key) for key in raw.scan_iter("*:holders:*")] in ([], [0])
        print(f"{jobs} jobs, {len(killed_at)} kills, {doubles} doubles, at most {most} at once")
        assert "was lost" not in log, "a lease that is too short for this machine lets one more in"
        assert 1 < most <= AT_ONCE
        assert (await queue.stats()).failed == 0


def _have_ended(fleet: Fleet, count: int) -> bool:
    return len(fleet.runs("end")) >= count


async def test_a_limiter_holds_although_workers_are_killed(own_server: Server, tmp_path: Path) -> None:
    """Three processes; who was killed inside frees its permit with its lease, and who waits goes on."""
    await _keep_to_a_limit(own_server, tmp_path, jobs=100, kills=1, lease=2.0)


@pytest.mark.chaos
async def test_a_limiter_holds_for_two_thousand_jobs(own_server: Server, tmp_path: Path) -> None:
    """The long form."""
    await _keep_to_a_limit(own_server, tmp_path, jobs=2000, kills=8, lease=3.0)
