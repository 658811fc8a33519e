"""What a SIGKILL may cost: a second run of what was running, and nothing else."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from servers import Server

from aqueue import Job, JobFailed, JobState, Queue, Settings
from faults import application
from faults.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def jobs(own_server: Server) -> AsyncIterator[Queue]:
    async with Queue("faults", url=own_server.url, settings=Settings(lease=1.5)) as queue:
        yield queue


def _have_ended(fleet: Fleet, count: int) -> bool:
    return len(fleet.runs("end")) >= count


async def _storm(queue: Queue, fleet: Fleet, *, count: int, kills: int, workers: int) -> None:
    """Run `count` short jobs, and each time another part of them has ended kill one of the workers."""
    handles = [
        job
        for first in range(0, count, 500)
        for job in await queue.enqueue_many(
            queue.remote("brief").call(0.05) for _ in range(first, min(count, first + 500))
        )
    ]
    fleet.start(workers)
    killed_at: list[tuple[int, float]] = []
    for n in range(1, kills + 1):
        part = n * count // (kills + 2)
        wait_until(partial(_have_ended, fleet, part), 60, f"{part} jobs have ended")
        victim = fleet.busiest()
        killed_at.append((victim.pid, time.time()))
        fleet.kill(victim)
        fleet.start()
    states = [await job.result(timeout=120) for job in handles]
    assert states == ["done"] * count
    stats = await queue.stats()
    assert stats.failed == 0
    assert stats.counters["completed"] == count
    ended = fleet.runs("end")
    doubles = {job_id for job_id, runs in fleet.runs().items() if runs > 1}
    victims = dict(killed_at)
    interrupted = {line.job_id for line in fleet.lines() if line.what == "start" and line.pid in victims}
    assert set(ended) == {job.id for job in handles}
    assert doubles, "no kill has hit a running job"
    assert doubles <= interrupted, "a job ran twice that no killed worker had"
    for job_id in doubles:
        *interrupted_runs, _ = [line for line in fleet.lines() if line.what == "start" and line.job_id == job_id]
        for line in interrupted_runs:
            assert victims[line.pid] - line.at < 2, "a job ran again although it was not running at the kill"
    print(f"{count} jobs, {len(killed_at)} kills, {len(doubles)} doubles")


async def test_every_job_completes_although_workers_are_killed(jobs: Queue, own_server: Server, tmp_path: Path) -> None:
    """The promise of the project in one test."""
    with Fleet(own_server.url, tmp_path, lease=2.0, crash_limit=5, options=("--concurrency", "20")) as fleet:
        await _storm(jobs, fleet, count=1000, kills=3, workers=2)


@pytest.mark.chaos
async def test_ten_thousand_jobs_survive_ten_kills(own_server: Server, tmp_path: Path) -> None:
    """The long form, with the lease that users have."""
    async with Queue("faults", url=own_server.url) as queue:
        with Fleet(own_server.url, tmp_path, lease=15, crash_limit=12) as fleet:
            await _storm(queue, fleet, count=10_000, kills=10, workers=3)


async def test_a_killed_workers_job_runs_elsewhere_on_an_idle_queue(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """Nothing else comes along that could trigger the recovery."""
    with Fleet(own_server.url, tmp_path, lease=1.0) as fleet:
        (first,) = fleet.start()
        job = await jobs.enqueue("brief", 60)
        wait_until(lambda: fleet.runs()[job.id] == 1, 20, "the job starts")
        fleet.start()
        fleet.kill(first)
        wait_until(lambda: fleet.runs()[job.id] == 2, 20, "the job starts elsewhere")
        info = await job.info()
        assert (info.state, info.attempt, info.crashes) == (JobState.RUNNING, 0, 1)


@pytest.mark.chaos
async def test_with_default_settings_an_idle_queue_recovers_within_twenty_seconds(
    own_server: Server, tmp_path: Path
) -> None:
    """The number that the README promises."""
    async with Queue("faults", url=own_server.url) as queue:
        with Fleet(own_server.url, tmp_path, lease=15) as fleet:
            (first,) = fleet.start()
            job = await queue.enqueue("brief", 60)
            wait_until(lambda: fleet.runs()[job.id] == 1, 20, "the job starts")
            fleet.start()
            wait_until(lambda: fleet.log().count("tasks:") == 2, 20, "the second worker is up")
            killed = time.time()
            fleet.kill(first)
            wait_until(lambda: fleet.runs()[job.id] == 2, 25, "the job starts elsewhere")
            took = max(line.at for line in fleet.lines()) - killed
            print(f"running elsewhere after {took:.1f} s")
            assert took <= 20


async def test_a_poison_job_fails_with_the_evidence_and_its_neighbours_complete(
    jobs: Queue, own_server: Server, tmp_path: Path
) -> None:
    """One job that kills its process must not take the others with it."""
    neighbours: list[Job[str]] = [await jobs.enqueue("brief", 0.2) for _ in range(15)]
    poison = await jobs.enqueue("poison")
    neighbours += [await jobs.enqueue("brief", 0.2) for _ in range(15)]
    with Fleet(own_server.url, tmp_path, lease=1.0) as fleet:
        fleet.start(2)

        def restart() -> bool:
            for process in list(fleet.processes):
                if process.poll() is not None:
                    fleet.processes.remove(process)
                    fleet.start()
            return fleet.runs()[poison.id] >= 3

        wait_until(restart, 60, "the poison job has killed three workers")
        fleet.start()
        for job in neighbours:
            assert await job.result(timeout=30) == "done"
        with pytest.raises(JobFailed, match="WorkerCrashed"):
            await poison.result(timeout=30)
        info = await poison.info()
        assert (info.state, info.crashes) == (JobState.FAILED, 3)
        assert fleet.runs()[poison.id] == 3


async def test_sigterm_under_load_returns_everything_uncounted(jobs: Queue, own_server: Server, tmp_path: Path) -> None:
    """A deploy costs neither jobs nor attempts, and exits with 0."""
    with Fleet(own_server.url, tmp_path, options=("--grace", "0.3", "--concurrency", "20")) as fleet:
        (first,) = fleet.start()
        gate = tmp_path / "gate"
        long = [await jobs.enqueue("gated", str(gate)) for _ in range(20)]
        later = [await jobs.enqueue("brief", 0.01) for _ in range(5)]
        wait_until(lambda: len(fleet.runs()) == 20, 20, "all slots are taken")
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0
        stats = await jobs.stats()
        assert (stats.queued, stats.running, stats.workers) == (25, 0, [])
        front = {info.id for info in await jobs.jobs("queued", limit=20)}
        assert front == {job.id for job in long}, "what was interrupted goes before what still waits"
        assert {(await job.info()).attempt for job in long} == {0}
        gate.touch()
        fleet.start()
        for job in [*long, *later]:
            assert await job.result(timeout=30) == "done"
        assert {(info.attempt, info.crashes) for info in [await job.info() for job in long]} == {(0, 0)}


async def test_a_job_longer_than_the_lease_runs_once(jobs: Queue, own_server: Server, tmp_path: Path) -> None:
    """However long it is, in a coroutine, in a thread, and even if it blocks the event loop."""
    with (
        Fleet(own_server.url, tmp_path, lease=1.5, options=("--concurrency", "1")) as fleet,
        own_server.client() as raw,
    ):
        fleet.start(4)  # one for each, and one that would take what is lost
        wait_until(lambda: raw.zcard("aqueue:{faults}:workers") == 4, 30, "all are up")
        handles = [await jobs.enqueue(task, 2.5) for task in ("brief", "blocking", "threaded")]
        assert [await job.result(timeout=30) for job in handles] == ["done"] * 3
        assert fleet.runs() == {job.id: 1 for job in handles}
        assert len({line.pid for line in fleet.lines()}) == 3
        assert "worker gone" not in fleet.log()


@pytest.mark.chaos
async def test_long_jobs_run_once_with_two_workers_at_the_default_lease(own_server: Server, tmp_path: Path) -> None:
    """Sixty seconds of waiting, forty of a blocked loop and forty in a thread."""
    async with Queue("faults", url=own_server.url) as queue:
        with Fleet(own_server.url, tmp_path, lease=15) as fleet:
            fleet.start(2)
            handles = [
                await queue.enqueue("brief", 60),
                await queue.enqueue("blocking", 40),
                await queue.enqueue("threaded", 40),
            ]
            for job in handles:
                assert await job.result(timeout=120) == "done"
            assert fleet.runs() == {job.id: 1 for job in handles}


def test_the_application_names_its_tasks() -> None:
    """The tests enqueue by name; a renamed task would only look like a slow one."""
    assert set(application.queue.tasks) == {
        "brief", "gated", "blocking", "threaded", "poison", "second_time", "endless_at_first", "blocking_at_first",
        "of_a_key", "relay", "with_permit",
    }  # fmt: skip
