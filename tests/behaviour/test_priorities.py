"""`priority=` and `front=`: what is urgent starts first, and nothing is lost or starved for it."""

from __future__ import annotations

import asyncio

import pytest
import redis
from facts import until, until_state
from servers import Server

from aqueue import ConfigurationError, Queue, Retry, Settings, Task, Worker


@pytest.fixture
def order(queue: Queue) -> tuple[list[str], Task[[str], None]]:
    """A task that notes the order in which its jobs start."""
    started: list[str] = []

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def note(name: str) -> None:
        started.append(name)

    return started, note


Order = tuple[list[str], Task[[str], None]]


async def test_the_more_urgent_starts_first(queue: Queue, order: Order) -> None:
    """9 before 0, equals in the order in which they came; jobs without a priority stand in the middle."""
    started, note = order
    for name, priority in (
        ("low", 0),
        ("usual", 5),
        ("high", 9),
        ("none", None),
        ("high too", 9),
        ("six", 6),
        ("four", 4),
    ):
        await note.options(priority=priority).enqueue(name)
    await Worker(queue, concurrency=1).run(burst=True)
    assert started == ["high", "high too", "six", "usual", "none", "four", "low"]


async def test_one_call_may_go_to_the_front(queue: Queue, order: Order) -> None:
    """Of its priority: urgent ones still come first."""
    started, note = order
    await note.enqueue("a")
    await note.options(front=True).enqueue("first")
    await note.options(priority=9).enqueue("urgent")
    await note.options(priority=9, front=True).enqueue("urgent first")
    await Worker(queue, concurrency=1).run(burst=True)
    assert started == ["urgent first", "urgent", "first", "a"]


async def test_a_parked_worker_is_woken(queue: Queue, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits at a list in which jobs of a priority never appear."""
    monkeypatch.setattr("aqueue.worker.parking.PARK_SECONDS", 600)
    started, note = order
    async with Worker(queue, concurrency=2), Worker(queue, concurrency=2):
        await (await note.enqueue("warm")).result(timeout=10)
        jobs = [await note.options(priority=priority).enqueue(str(priority)) for priority in (0, 1, 8, 9)]
        for job in jobs:
            await job.result(timeout=10)
    assert len(started) == 5


async def test_every_parked_worker_gets_its_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ticket wakes one worker, which must wake the next while something is left."""
    monkeypatch.setattr("aqueue.worker.parking.PARK_SECONDS", 600)
    gate, running = asyncio.Event(), 0
    queue = Queue("q", url=server.url, settings=Settings(lease=1800))  # neither a fetch nor a heartbeat ends in time

    @queue.task
    async def wait() -> None:
        nonlocal running
        running += 1
        await gate.wait()

    async with queue, Worker(queue, concurrency=2), Worker(queue, concurrency=2), Worker(queue, concurrency=2):
        with server.client() as raw:
            await until(lambda: sum("blmove" in str(client) for client in raw.client_list()) == 3, "three are parked")
        await queue.enqueue_many(wait.options(priority=9).call() for _ in range(6))
        await until(lambda: running == 6, "six jobs run on three workers")
        gate.set()


async def test_a_retried_released_or_delayed_job_keeps_its_priority(queue: Queue) -> None:
    """Wherever a job comes back from, it comes back to its own place."""
    started: list[str] = []
    gate = asyncio.Event()

    @queue.task(retry=Retry(max_attempts=2, backoff=0))
    async def note(name: str) -> None:
        started.append(name)
        if name == "fails" and started.count(name) == 1:
            raise ValueError(name)
        if name == "interrupted" and started.count(name) == 1:
            await gate.wait()

    worker = Worker(queue, concurrency=2)
    running = asyncio.ensure_future(worker.run())
    interrupted = await note.options(priority=9).enqueue("interrupted")
    await until_state(interrupted, "running")
    worker.stop(now=True)
    await running
    await note.options(priority=7).enqueue("fails")
    await note.options(priority=8, delay=0.01).enqueue("delayed")
    await note.options(priority=1).enqueue("last")
    await note.enqueue("usual")
    await asyncio.sleep(0.02)
    await Worker(queue, concurrency=1).run(burst=True)
    assert started[1:] == ["interrupted", "delayed", "fails", "fails", "usual", "last"]


async def test_aging_lets_nobody_starve(server: Server) -> None:
    """A level for each second of waiting: who has waited long enough goes before the most urgent newcomer."""
    started: list[str] = []
    async with Queue("q", url=server.url, settings=Settings(priority_aging=0.02)) as queue:

        @queue.task
        async def note(name: str) -> None:
            started.append(name)

        old = (("old and low", 0), ("old and usual", None))  # at one instant, else the first has aged before the other
        await queue.enqueue_many(note.options(priority=priority).call(name) for name, priority in old)
        await asyncio.sleep(0.25)
        for name, priority in (("new and high", 9), ("new and usual", 5), ("new and low", 0)):
            await note.options(priority=priority).enqueue(name)
        await Worker(queue, concurrency=1).run(burst=True)
    assert started == ["old and usual", "old and low", "new and high", "new and usual", "new and low"]


async def test_ranked_jobs_are_counted_listed_cancelled_and_purged(
    queue: Queue, order: Order, raw: redis.Redis
) -> None:
    """Wherever a job waits, people must find it."""
    _, note = order
    jobs = {
        priority: await note.options(priority=priority).enqueue(str(priority)) for priority in (0, 5, 9, 1, 8)
    }  # fmt: skip
    stats = await queue.stats()
    assert stats.queued == 5
    assert stats.oldest is not None
    pages = [await queue.jobs("queued", offset=offset, limit=2) for offset in (0, 2, 4)]
    assert [job.id for page in pages for job in page] == [jobs[priority].id for priority in (9, 8, 5, 1, 0)]
    await jobs[9].cancel()
    await queue.delete(jobs[0].id)
    assert raw.zcard("aqueue:{q}:ranked") == 2
    assert await queue.purge() == 3
    assert raw.exists("aqueue:{q}:ranked") == 0


async def test_a_rerun_keeps_its_priority(queue: Queue, order: Order) -> None:
    """What was urgent when it failed is so when it is run again."""
    started, note = order
    job = await note.options(priority=9).enqueue("again")
    await job.cancel()
    await note.enqueue("usual")
    await queue.rerun(job.id)
    await Worker(queue, concurrency=1).run(burst=True)
    assert started == ["again", "usual"]


@pytest.mark.parametrize("value", [-1, 10, 1.5, True, "high"])
async def test_a_priority_out_of_range_is_refused(queue: Queue, value: object) -> None:
    """Where it is written, and nothing is stored."""
    with pytest.raises(ConfigurationError, match=r"from 0 \(last\) to 9 \(first\)"):
        queue.remote("any").options(priority=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"delay": 5}, {"delay": "1m"}])
async def test_the_front_is_no_place_for_a_delayed_job(queue: Queue, options: dict[str, str]) -> None:
    """It would be forgotten by the time the job is due."""
    with pytest.raises(ConfigurationError, match="leave out the delay"):
        await queue.remote("any").options(front=True, **options).enqueue()  # type: ignore[arg-type]
    assert (await queue.stats()).scheduled == 0
