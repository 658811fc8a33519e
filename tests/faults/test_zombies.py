"""A worker that was taken for dead and is not: it may neither write nor go on."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from servers import Server

from aqueue import Job, JobState, Queue, Settings
from faults.fleet import Fleet, wait_until


@pytest.fixture
async def jobs(own_server: Server) -> AsyncIterator[Queue]:
    async with Queue("faults", url=own_server.url, settings=Settings(lease=1)) as queue:
        yield queue


def _record(server: Server, job: Job[str]) -> dict[str, str]:
    with server.client() as raw:
        return _read(raw, job)


def _read(raw: redis.Redis, job: Job[str]) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(raw.hgetall(f"aqueue:{{faults}}:job:{job.id}")).items()}


async def test_a_stopped_worker_that_wakes_up_ends_its_run_and_writes_nothing(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """A virtual machine was paused for longer than the lease; meanwhile the job has run elsewhere."""
    with Fleet(own_server.url, tmp_path, lease=1) as fleet:
        (zombie,) = fleet.start()
        job = await jobs.enqueue("endless_at_first")
        wait_until(lambda: fleet.runs()[job.id] == 1, 20, "the job starts")
        zombie.send_signal(signal.SIGSTOP)
        fleet.start()
        assert await job.result(timeout=30) == "done"
        before = _record(own_server, job)
        zombie.send_signal(signal.SIGCONT)
        wait_until(lambda: fleet.runs("cancelled")[job.id] == 1, 20, "the zombie's coroutine is cancelled")
        zombie.send_signal(signal.SIGTERM)
        assert zombie.wait(20) == 0
        assert _record(own_server, job) == before
        stats = await jobs.stats()
        assert (stats.counters["completed"], stats.counters["crashed"], stats.queued, stats.running) == (1, 1, 0, 0)
        (line,) = [line for line in fleet.lines() if line.what == "cancelled"]
        assert line.pid == zombie.pid


async def test_a_stopped_worker_that_ends_its_run_late_is_refused(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """It wakes up in a job that lets nothing else turn, and settles before anybody can tell it of its loss."""
    gate = tmp_path / "gate"
    with Fleet(own_server.url, tmp_path, lease=1) as fleet:
        (zombie,) = fleet.start()
        job = await jobs.enqueue("blocking_at_first", str(gate))
        wait_until(lambda: fleet.runs()[job.id] == 1, 20, "the job starts")
        zombie.send_signal(signal.SIGSTOP)
        fleet.start()
        assert await job.result(timeout=30) == "done"
        before = _record(own_server, job)
        gate.touch()
        zombie.send_signal(signal.SIGCONT)
        wait_until(lambda: fleet.runs("end")[job.id] == 2, 20, "the zombie's run comes to its end")
        zombie.send_signal(signal.SIGTERM)
        assert zombie.wait(20) == 0
        assert _record(own_server, job) == before
        assert (await jobs.stats()).counters["completed"] == 1
        assert f"lease of {job.id} blocking_at_first was lost" in fleet.log()


async def test_a_loop_that_is_blocked_beyond_the_cap_loses_its_jobs(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """Leases are not renewed for ever: this worker is taken for hung, and somebody else runs its job."""
    gate = tmp_path / "gate"
    with Fleet(own_server.url, tmp_path, lease=1, blocked_cap=1) as fleet:
        (hung,) = fleet.start()
        job = await jobs.enqueue("blocking_at_first", str(gate))
        wait_until(lambda: fleet.runs()[job.id] == 1, 20, "the job starts")
        fleet.start()
        assert await job.result(timeout=30) == "done"
        before = _record(own_server, job)
        gate.touch()
        wait_until(lambda: fleet.runs("end")[job.id] == 2, 20, "the blocked run comes to its end")
        hung.send_signal(signal.SIGTERM)
        assert hung.wait(20) == 0
        assert _record(own_server, job) == before
        assert (await job.info()).state is JobState.COMPLETED
        assert (await jobs.stats()).counters["completed"] == 1
