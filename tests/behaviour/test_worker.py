"""The worker as an object in somebody's program: what it runs, in which order, and how it leaves."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import anyio
import pytest
import redis
from facts import until, until_ended, until_state
from servers import Server

from aqueue import ConfigurationError, Context, JobState, Queue, Worker

FRONT = -1
"""The queued list is consumed at its right end."""


async def test_burst_works_until_nothing_is_queued(queue: Queue) -> None:
    """A cron job or a test runs the backlog, children included, and goes on with its life."""
    ran = []

    @queue.task
    async def child(n: int) -> None:
        ran.append(n)

    @queue.task
    async def parent() -> None:
        await queue.enqueue_many(child.call(n) for n in range(50))

    await parent.enqueue()
    delayed = await child.options(delay=600).enqueue(99)
    await Worker(queue, concurrency=3).run(burst=True)

    assert ran == list(range(50))
    assert await delayed.status() is JobState.SCHEDULED
    assert (await queue.stats()).workers == []


async def test_burst_on_an_empty_or_paused_queue_ends_at_once(queue: Queue) -> None:
    """Nothing may run, so there is nothing to wait for."""

    @queue.task
    async def work() -> None: ...

    await Worker(queue).run(burst=True)
    await queue.pause()
    job = await work.enqueue()
    await Worker(queue).run(burst=True)
    assert await job.status() is JobState.QUEUED


async def test_jobs_start_in_the_order_in_which_they_came(queue: Queue) -> None:
    """First in, first out is what a queue is."""
    order = []

    @queue.task
    async def note(n: int) -> None:
        order.append(n)

    for n in range(20):
        await note.enqueue(n)
    await queue.enqueue_many(note.call(n) for n in range(20, 40))
    await Worker(queue, concurrency=1).run(burst=True)

    assert order == list(range(40))


@pytest.fixture
def no_server_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker goes on to its next queue where a server takes long; here that would be a pause of the machine."""
    monkeypatch.setattr("aqueue.worker.lane.LATE_SECONDS", 60)


@pytest.mark.usefixtures("no_server_is_late")
async def test_several_queues_are_served_in_strict_order(server: Server) -> None:
    """The first queue is urgent: as long as it has anything, the second waits."""
    order = []
    async with Queue("high", url=server.url) as high, Queue("low", url=server.url) as low:

        async def note(what: str) -> None:
            order.append(what)
            if what == "low 0":
                await high.enqueue("note", "high 2")

        one, two = high.task(note), low.task(note)
        await low.enqueue_many(two.call(f"low {n}") for n in range(3))
        await high.enqueue_many(one.call(f"high {n}") for n in range(2))
        await Worker(high, low, concurrency=1).run(burst=True)

    assert order == ["high 0", "high 1", "low 0", "high 2", "low 1", "low 2"]


@pytest.mark.usefixtures("no_server_is_late")
async def test_many_slots_do_not_break_the_order_of_queues(queue: Queue, server: Server) -> None:
    """A turn asks for half of many slots only; the other half belongs to the first queue while that has more."""
    ran: list[str] = []
    async with Queue("second", url=server.url) as second:

        @queue.task
        async def first_job() -> None:
            ran.append("first")

        @second.task
        async def second_job() -> None:
            ran.append("second")

        await queue.enqueue_many(first_job.call() for _ in range(200))
        await second.enqueue_many(second_job.call() for _ in range(50))
        await Worker(queue, second, concurrency=40).run(burst=True)
    assert ran == ["first"] * 200 + ["second"] * 50


async def test_max_jobs_ends_the_worker_after_that_many(queue: Queue) -> None:
    """The cure for a library that leaks; what is left is for the next worker."""
    ran = []

    @queue.task
    async def work(n: int) -> None:
        ran.append(n)

    await queue.enqueue_many(work.call(n) for n in range(7))
    await asyncio.wait_for(Worker(queue, concurrency=5, max_jobs=5).run(), 10)

    assert sorted(ran) == list(range(5))
    assert (await queue.stats()).queued == 2


async def test_an_embedded_worker_touches_neither_signals_nor_logging(queue: Queue) -> None:
    """They belong to the application; Ctrl-C must still mean what it meant."""

    def host() -> tuple[Any, ...]:
        root, ours = logging.getLogger(), logging.getLogger("aqueue")
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return handlers, root.handlers[:], root.level, root.filters[:], ours.handlers[:], ours.level, ours.propagate

    @queue.task
    async def work() -> str:
        return "done"

    before = host()
    async with Worker(queue):
        assert await (await work.enqueue()).result(timeout=10) == "done"
        assert host() == before
    assert host() == before


async def test_a_worker_runs_in_a_task_group(queue: Queue) -> None:
    """Structured concurrency: it starts with the group, and ends with its scope."""

    @queue.task
    async def work() -> int:
        return 1

    async with anyio.create_task_group() as group:
        worker = Worker(queue)
        group.start_soon(worker.run)
        assert await (await work.enqueue()).result(timeout=10) == 1
        worker.stop()


@pytest.mark.parametrize("by", ["task", "scope"])
async def test_a_cancelled_worker_gives_its_jobs_back(queue: Queue, raw: redis.Redis, by: str) -> None:
    """An application that dies in an exception must not keep its jobs for a lease, nor count it as their crash."""
    cleaned = []

    @queue.task
    async def work(n: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(n)

    jobs = [await work.enqueue(n) for n in range(3)]
    worker = Worker(queue, concurrency=2)
    if by == "task":
        running = asyncio.create_task(worker.run())
        await until_state(jobs[1], "running")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(worker.run)
            await until_state(jobs[1], "running")
            group.cancel_scope.cancel()

    assert sorted(cleaned) == [0, 1]
    infos = [await job.info() for job in jobs]
    assert {(info.state, info.attempt, info.crashes) for info in infos} == {(JobState.QUEUED, 0, 0)}
    assert set(raw.lrange("aqueue:{q}:queued", FRONT - 1, FRONT)) == {jobs[0].id, jobs[1].id}
    assert (await queue.stats()).workers == []
    assert raw.zcard("aqueue:{q}:workers") == 0


async def test_stop_lets_running_jobs_end_and_starts_no_other(queue: Queue) -> None:
    """The usual deploy: work in hand is finished, the rest is for the successor."""
    gate = asyncio.Event()

    @queue.task
    async def work(n: int) -> int:
        await gate.wait()
        return n

    worker = Worker(queue, concurrency=1)
    jobs = [await work.enqueue(n) for n in range(2)]
    async with worker:
        await until_state(jobs[0], "running")
        worker.stop()
        gate.set()

    assert await jobs[0].result() == 0
    assert await jobs[1].status() is JobState.QUEUED


@pytest.mark.parametrize("now", [False, True], ids=["after the grace", "now"])
async def test_a_job_that_does_not_end_goes_back_to_the_front(queue: Queue, raw: redis.Redis, now: bool) -> None:  # noqa: FBT001
    """It waited longest, and the interruption was not its fault: nothing is counted."""
    attempts = []

    @queue.task
    async def work(context: Context) -> None:
        attempts.append(context.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()

    worker = Worker(queue, concurrency=1, grace=60 if now else 0.05)
    first, second = await work.enqueue(), await work.enqueue()
    async with worker:
        await until(lambda: attempts, "the job has begun, not only been claimed")
        if now:
            worker.stop(now=True)

    info = await first.info()
    assert (info.state, info.attempt, info.crashes) == (JobState.QUEUED, 0, 0)
    assert raw.lrange("aqueue:{q}:queued", 0, -1) == [second.id, first.id]
    await Worker(queue).run(burst=True)
    assert attempts == [1, 1, 1]


async def test_released_jobs_keep_their_order(queue: Queue) -> None:
    """A deploy must not send the oldest jobs to the end of the queue."""
    started: list[int] = []
    holding = True

    @queue.task
    async def work(n: int) -> None:
        started.append(n)
        if holding:
            await asyncio.Event().wait()

    jobs = await queue.enqueue_many(work.call(n) for n in range(8))
    async with Worker(queue, concurrency=6, grace=0):
        await until(lambda: len(started) == 6, "six have started")
    assert [await job.status() for job in jobs] == [JobState.QUEUED] * 8
    assert [(info.attempt, info.crashes) for info in [await job.info() for job in jobs]] == [(0, 0)] * 8

    started.clear()
    holding = False
    await Worker(queue, concurrency=1).run(burst=True)
    assert started == list(range(8))


async def test_a_job_that_ignores_its_cancel_is_left_behind_and_runs_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process must end some day; the log says what it left."""
    monkeypatch.setattr("aqueue.worker.worker.CANCEL_SECONDS", 0.1)
    release, runs = asyncio.Event(), 0

    @queue.task
    async def stubborn() -> int:
        nonlocal runs
        runs += 1
        while runs == 1 and not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return runs

    job = await stubborn.enqueue()
    async with Worker(queue, grace=0):
        await until_state(job, "running")
    assert await job.status() is JobState.QUEUED
    assert "left behind" in caplog.text
    await Worker(queue).run(burst=True)
    assert await job.result() == 2
    release.set()


async def test_pause_and_resume_are_felt_at_once(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken dependency is a reason to stop now; its repair is a reason to go on now."""
    monkeypatch.setattr("aqueue.worker.lane.PAUSED_LOOK_SECONDS", 600)  # the net beneath, out of the way
    ran = []

    @queue.task
    async def work(n: int) -> int:
        ran.append(n)
        return n

    async with Worker(queue):
        assert await (await work.enqueue(1)).result(timeout=10) == 1
        assert await queue.pause()
        assert not await queue.pause()
        paused = [await work.enqueue(n) for n in range(2, 5)]
        assert (await queue.stats()).paused
        await until(lambda: _looked(queue), "the paused queue keeps its jobs")
        assert ran == [1]
        assert await queue.resume()
        assert not await queue.resume()
        assert [await job.result(timeout=10) for job in paused] == [2, 3, 4]


async def _looked(queue: Queue) -> bool:
    stats = await queue.stats()
    return stats.queued == 3 and stats.running == 0


async def test_a_pause_stops_starts_of_its_queue_and_nothing_else(
    queue: Queue, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs goes on, other queues are served, and a resume is told, not found out by looking now and then."""
    monkeypatch.setattr("aqueue.worker.lane.PAUSED_LOOK_SECONDS", 600)
    begun, gate = asyncio.Event(), asyncio.Event()
    other = Queue("other", url=server.url)

    @queue.task
    async def slow() -> str:
        begun.set()
        await gate.wait()
        return "went on"

    @queue.task
    async def work() -> str:
        return "started"

    @other.task
    async def marker() -> str:
        return "seen"

    async with other, Worker(queue, other):
        running = await slow.enqueue()
        await begun.wait()
        assert await queue.pause()
        waiting = await work.enqueue()
        assert await (await marker.enqueue()).result(timeout=10) == "seen"
        gate.set()
        assert await running.result(timeout=10) == "went on"
        assert await (await marker.enqueue()).result(timeout=10) == "seen"
        assert await waiting.status() is JobState.QUEUED
        assert await queue.resume()
        assert await waiting.result(timeout=10) == "started"


async def test_one_worker_object_runs_once_at_a_time_but_again_later(queue: Queue) -> None:
    """Two runs of one object would share slots that are counted once."""

    @queue.task
    async def work() -> int:
        return 1

    worker = Worker(queue)
    async with worker:
        with pytest.raises(ConfigurationError, match="running already"):
            await worker.run()
    job = await work.enqueue()
    await worker.run(burst=True)
    assert await job.result() == 1


async def test_two_workers_share_a_queue_without_doubles(queue: Queue, server: Server) -> None:
    """The reason to have a queue in Redis at all."""
    ran = []
    async with Queue("q", url=server.url) as other:

        async def work(n: int) -> None:
            ran.append(n)

        one = queue.task(work)
        other.task(work)
        async with Worker(queue, concurrency=3), Worker(other, concurrency=3):
            jobs = await queue.enqueue_many(one.call(n) for n in range(300))
            await until_ended(*jobs)

    assert sorted(ran) == list(range(300))


async def test_a_worker_that_waits_for_redis_can_be_given_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A start-up with a deadline must leave nothing running behind it."""
    queue = Queue("q", url="redis://127.0.0.1:1")
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), Worker(queue):
            pytest.fail("there is no server")
    left = asyncio.all_tasks() - before
    await queue.close()
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert not left


async def test_a_worker_can_be_stopped_while_it_waits_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM comes whenever it comes."""
    monkeypatch.setattr("aqueue.store.connection.PATIENCE_SECONDS", 0.1)
    queue = Queue("q", url="redis://127.0.0.1:1")
    worker = Worker(queue)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.run)
        await anyio.lowlevel.checkpoint()
        worker.stop()
    await queue.close()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": 2.5}, "concurrency must be"),
        ({"concurrency": True}, "concurrency must be"),
        ({"max_jobs": 0}, "max_jobs must be"),
        ({"grace": -1}, "grace must be"),
        ({"grace": "soon"}, "grace must"),
    ],
)
async def test_senseless_options_are_refused(options: dict[str, object], word: str) -> None:
    """A worker with no slots would look alive and do nothing."""
    with pytest.raises(ConfigurationError, match=word):
        Worker(Queue("q"), **options)  # type: ignore[arg-type]


async def test_a_worker_needs_queues_each_once() -> None:
    """Twice the same queue would be two lanes for one list."""
    with pytest.raises(ConfigurationError, match="at least one"):
        Worker()
    with pytest.raises(ConfigurationError, match="once"):
        Worker(Queue("q"), Queue("q"))
    with pytest.raises(ConfigurationError, match="Queue"):
        Worker("q")  # type: ignore[arg-type]
