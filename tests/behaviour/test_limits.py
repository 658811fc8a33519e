"""`limit=`: how many jobs run at once or start within a time, in the whole fleet, and who waits meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
import redis
from facts import until, until_ended, until_state
from servers import Server

from aqueue import Concurrency, ConfigurationError, Job, JobState, Queue, Rate, Retry, Settings, Window, Worker
from aqueue.job import WorkerId


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.inside: Counter[object] = Counter()
        self.most: Counter[object] = Counter()
        self.order: dict[object, list[int]] = defaultdict(list)

    async def visit(
        self, who: object, number: int = 0, seconds: float = 0.003, gate: asyncio.Event | None = None
    ) -> None:
        self.inside[who] += 1
        self.most[who] = max(self.most[who], self.inside[who])
        self.order[who].append(number)
        try:
            if gate is not None:
                await gate.wait()
            await asyncio.sleep(seconds)
        finally:
            self.inside[who] -= 1


def no_gates_left(raw: redis.Redis) -> bool:
    kinds = ("waiting", "permits", "held_back", "timers")
    return not [key for key in map(str, raw.scan_iter()) if any(f"}}:{kind}" in key for kind in kinds)]


async def test_so_many_at_once_per_key_oldest_first(queue: Queue, raw: redis.Redis) -> None:
    """Three workers, two at a time for each customer, and the others are not kept waiting for it."""
    crowd, gate = Crowd(), asyncio.Event()

    @queue.task(limit=Concurrency(2, key="customer"))
    async def work(customer: int, number: int) -> None:
        await crowd.visit(customer, number, gate=gate)

    jobs = await queue.enqueue_many(work.call(number % 4, number) for number in range(80))
    async with Worker(queue, concurrency=5), Worker(queue, concurrency=5), Worker(queue, concurrency=5):
        await until(lambda: sum(crowd.inside.values()) == 8, "two of each customer are inside")
        gate.set()
        await until_ended(*jobs)
    assert crowd.most == dict.fromkeys(range(4), 2)
    for numbers in crowd.order.values():
        assert all(abs(at - sorted(numbers).index(number)) <= 2 for at, number in enumerate(numbers)), numbers
    assert no_gates_left(raw)


async def test_who_waits_takes_no_slot(queue: Queue) -> None:
    """One slow customer with a hundred jobs must not stop the others' on a small worker."""
    gate = asyncio.Event()

    @queue.task(limit=Concurrency(1, key="customer"))
    async def work(customer: str) -> None:
        if customer == "slow":
            await gate.wait()

    slow = await queue.enqueue_many(work.call("slow") for _ in range(100))
    quick = await queue.enqueue_many(work.call(str(n)) for n in range(5))
    async with Worker(queue, concurrency=2):
        await until_ended(*quick)
        stats = await queue.stats()
        assert (stats.running, stats.queued, stats.held_back) == (1, 99, 99)
        listed = await queue.jobs("queued", limit=200)
        assert [job.id for job in listed] == [job.id for job in slow[1:]]
        gate.set()
        await until_ended(*slow)


async def test_one_limit_for_several_tasks_and_one_for_the_queue(server: Server, raw: redis.Redis) -> None:
    """Tasks that share a name share the limit; a limit of the settings holds for all jobs together."""
    crowd = Crowd()
    async with Queue("q", url=server.url, settings=Settings(limit=Concurrency(5))) as queue:

        @queue.task(limit=Concurrency(2, name="database"))
        async def read() -> None:
            crowd.inside["all"] += 1
            crowd.most["all"] = max(crowd.most["all"], crowd.inside["all"])
            await crowd.visit("database")
            crowd.inside["all"] -= 1

        @queue.task(limit=Concurrency(2, name="database"))
        async def write() -> None:
            await read()

        @queue.task
        async def other() -> None:
            await crowd.visit("all")

        jobs = await queue.enqueue_many([task.call() for task in (read, write, other) for _ in range(20)])
        async with Worker(queue, concurrency=20):
            await until_ended(*jobs)
    assert crowd.most["database"] == 2
    assert crowd.most["all"] <= 5
    assert no_gates_left(raw)


@pytest.mark.parametrize("how", ["completed", "failed", "retried", "cancelled", "timeout", "unkept"])
async def test_however_a_run_ends_its_permit_is_free(queue: Queue, raw: redis.Redis, how: str) -> None:
    """A permit that stays taken blocks everybody behind it for ever."""
    gate = asyncio.Event()

    @queue.task(limit=Concurrency(1), retry=Retry(max_attempts=2, backoff=0) if how == "retried" else 1)
    async def work(first: bool) -> None:  # noqa: FBT001
        if not first:
            return
        if how in ("failed", "retried"):
            raise ValueError
        if how in ("cancelled", "timeout"):
            await gate.wait()

    all_options: dict[str, dict[str, Any]] = {"timeout": {"timeout": 0.05}, "unkept": {"result_ttl": 0}}
    options = all_options.get(how, {})
    first = await work.options(**options).enqueue(first=True)
    second = await work.enqueue(first=False)
    async with Worker(queue, concurrency=3):
        if how == "cancelled":
            await until_state(first, "running")
            await first.cancel()
        await until_ended(first, second)
    assert await second.status() is JobState.COMPLETED
    assert no_gates_left(raw)


async def test_a_crash_frees_the_permit(queue: Queue, raw: redis.Redis) -> None:
    """It is bound to the lease: whoever reclaims the job hands the permit on."""

    @queue.task(limit=Concurrency(1))
    async def work(number: int) -> int:
        return number

    jobs = [await work.enqueue(number) for number in range(3)]
    store = await queue.store()
    turn = await store.settle_and_claim(WorkerId("dead"), 1, [], 10)
    assert [lease.id for lease in turn.leases] == [jobs[0].id]
    raw.zadd("aqueue:{q}:workers", {"dead": 1})
    async with Worker(queue):
        await until_ended(*jobs)
    assert [await job.result() for job in jobs] == [0, 1, 2]
    assert no_gates_left(raw)


async def test_a_job_between_two_attempts_keeps_nobody_waiting(queue: Queue) -> None:
    """It may be an hour until it is tried again."""

    @queue.task(limit=Concurrency(1), retry=Retry(backoff=600, jitter=False))
    async def work(fail: bool) -> None:  # noqa: FBT001
        if fail:
            raise ValueError

    first, second = await work.enqueue(fail=True), await work.enqueue(fail=False)
    async with Worker(queue, concurrency=3):
        await until_ended(second)
    assert await first.status() is JobState.SCHEDULED
    await first.cancel()


async def test_a_limit_that_is_raised_is_for_the_oldest(queue: Queue) -> None:
    """Newcomers bring the new number, and stand behind those who wait."""
    gate, order = asyncio.Event(), list[int]()

    @queue.task
    async def work(number: int) -> None:
        order.append(number)
        await gate.wait()

    async with Worker(queue, concurrency=10):
        strict = work.options(limit=Concurrency(1))
        jobs = [await strict.enqueue(number) for number in range(4)]
        await until_state(jobs[0], "running")
        await until(lambda: _held(queue, 3))
        jobs.append(await work.options(limit=Concurrency(3)).enqueue(4))
        await until(lambda: len(order) == 3)
        assert order == [0, 1, 2]
        gate.set()
        await until_ended(*jobs)
    assert order == [0, 1, 2, 3, 4]


async def test_a_drain_frees_the_permit(queue: Queue) -> None:
    """A job that goes back to the queue lets others pass, or takes the permit again."""
    gate = asyncio.Event()

    @queue.task(limit=Concurrency(1))
    async def work() -> None:
        await gate.wait()

    jobs = [await work.enqueue() for _ in range(3)]
    worker = Worker(queue)
    running = asyncio.ensure_future(worker.run())
    await until_state(jobs[0], "running")
    worker.stop(now=True)
    await running
    gate.set()
    async with Worker(queue):
        await until_ended(*jobs)


async def test_waiting_jobs_can_be_cancelled_deleted_expired_and_purged(queue: Queue, raw: redis.Redis) -> None:
    """Whoever leaves the line lets the others move up."""
    gate = asyncio.Event()

    @queue.task(limit=Concurrency(1))
    async def work() -> None:
        await gate.wait()

    jobs = await queue.enqueue_many(work.call() for _ in range(6))
    expiring = await work.options(ttl=3600).enqueue()
    async with Worker(queue, concurrency=10):
        await until_state(jobs[0], "running")
        await until(lambda: raw.zcard("aqueue:{q}:held_back") == 6)
        await jobs[1].cancel()
        await queue.delete(jobs[2].id)
        assert raw.zcard("aqueue:{q}:held_back") == 4
        raw.hset(f"aqueue:{{q}}:job:{expiring.id}", "expires_ms", 1)  # its time is over
        gate.set()
        await until_ended(jobs[0], jobs[3], jobs[4], jobs[5], expiring)
        assert await expiring.status() is JobState.EXPIRED
        gate.clear()
        jobs = await queue.enqueue_many(work.call() for _ in range(6))
        await until_state(jobs[0], "running")
        await until(lambda: raw.zcard("aqueue:{q}:held_back") == 5)
        assert await queue.purge() == 5
        gate.set()
        await until_ended(jobs[0])
    assert no_gates_left(raw)


async def test_a_permit_of_a_job_that_is_gone_is_void(queue: Queue, raw: redis.Redis) -> None:
    """Somebody else's program may have removed the record."""

    @queue.task(limit=Concurrency(1))
    async def work() -> None: ...

    lost = await work.enqueue()
    store = await queue.store()
    await store.settle_and_claim(WorkerId("dead"), 1, [], 1)
    raw.delete(f"aqueue:{{q}}:job:{lost.id}", f"aqueue:{{q}}:payload:{lost.id}", "aqueue:{q}:held:dead")
    raw.zrem("aqueue:{q}:workers", "dead")
    raw.delete("aqueue:{q}:worker:dead")
    job = await work.enqueue()
    async with Worker(queue):
        await until_ended(job)
    assert no_gates_left(raw)


def above(starts: list[float], interval: float, burst: int) -> list[float]:
    """The starts that a rate with a burst does not allow,."""
    wrong, full = [], 0.0
    for start in sorted(starts):
        if start < full - interval * (burst - 1) - 0.0015:
            wrong.append(start)
        full = max(start, full) + interval
    return wrong


async def _started_at(jobs: list[Job[Any]]) -> list[float]:
    """When the server let each job start, by its clock."""
    infos = [await job.info() for job in jobs]
    return [info.started_at.timestamp() for info in infos if info.started_at is not None]


@pytest.mark.parametrize("burst", [1, 5])
async def test_a_rate_is_never_exceeded(queue: Queue, burst: int, raw: redis.Redis) -> None:
    """Two workers, spread evenly, and so many at once after a rest; the order is that of the queue."""

    @queue.task(limit=Rate(100, per=1, burst=burst))
    async def call() -> None: ...

    jobs = await queue.enqueue_many(call.call() for _ in range(40))
    async with Worker(queue, concurrency=10), Worker(queue, concurrency=10):
        await until_ended(*jobs)
    starts = await _started_at(jobs)
    assert above(starts, 0.01, burst) == []
    assert starts == sorted(starts)
    assert max(starts) - min(starts) >= (40 - burst) * 0.01 - 0.0015
    assert no_gates_left(raw)


async def test_a_rate_per_key(queue: Queue) -> None:
    """One customer's calls do not wait for another's."""

    @queue.task(limit=Rate(50, key="customer"))
    async def call(customer: int) -> None: ...

    jobs = await queue.enqueue_many(call.call(n % 3) for n in range(18))
    async with Worker(queue):
        await until_ended(*jobs)
    for customer in range(3):
        assert above(await _started_at(jobs[customer::3]), 0.02, 1) == []


async def test_a_window_is_never_exceeded(queue: Queue, raw: redis.Redis) -> None:
    """At most five within any 100 ms, wherever one looks."""

    @queue.task(limit=Window(5, per=0.1))
    async def call() -> None: ...

    jobs = await queue.enqueue_many(call.call() for _ in range(20))
    async with Worker(queue, concurrency=10), Worker(queue, concurrency=10):
        await until_ended(*jobs)
    starts = sorted(await _started_at(jobs))
    assert raw.zcard(next(raw.scan_iter("*:pace:*"), "none")) <= 5
    assert all(later - first > 0.0985 for first, later in zip(starts, starts[5:], strict=False))
    assert no_gates_left(raw)


async def test_rate_and_concurrency_together(queue: Queue, raw: redis.Redis) -> None:
    """Who waits for its time holds no permit, and who waits for a permit uses up no time."""
    crowd = Crowd()

    @queue.task(limit=[Rate(200, burst=10), Concurrency(2, key="who"), Concurrency(3)])
    async def call(who: int) -> None:
        crowd.inside["all"] += 1
        crowd.most["all"] = max(crowd.most["all"], crowd.inside["all"])
        await crowd.visit(who, seconds=0.01)
        crowd.inside["all"] -= 1

    jobs = await queue.enqueue_many(call.call(n % 2) for n in range(40))
    async with Worker(queue, concurrency=10), Worker(queue, concurrency=10):
        await until_ended(*jobs)
    assert crowd.most["all"] <= 3
    assert crowd.most[0] <= 2
    assert above(await _started_at(jobs), 0.005, 10) == []
    assert no_gates_left(raw)


async def test_a_limited_job_keeps_its_priority(queue: Queue) -> None:
    """Within the line of a gate, too."""
    order: list[int] = []
    gate = asyncio.Event()

    @queue.task(limit=Concurrency(1))
    async def work(priority: int) -> None:
        order.append(priority)
        await gate.wait()

    async with Worker(queue, concurrency=4):
        first = await work.enqueue(5)
        await until_state(first, "running")
        jobs = [await work.options(priority=priority).enqueue(priority) for priority in (0, 9, 3, 7)]
        await until(lambda: _held(queue, 4))
        gate.set()
        await until_ended(*jobs)
    assert order == [5, 9, 7, 3, 0]


async def _held(queue: Queue, count: int) -> bool:
    return (await queue.stats()).held_back == count


async def test_bad_limits_are_refused_where_they_are_written(queue: Queue) -> None:
    """Nothing is stored, and the message says what to do."""

    async def work(customer: int) -> None: ...

    with pytest.raises(ConfigurationError, match="'client' is no argument of work; its arguments are: customer"):
        queue.task(limit=Concurrency(1, key="client"))(work)
    for bad in (0, -1, 1.5, True, "3"):
        with pytest.raises(ConfigurationError, match="limit must be a whole number of at least 1"):
            Concurrency(bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="burst must be a whole number"):
        Rate(5, burst=0)
    with pytest.raises(ConfigurationError, match="at least a millisecond"):
        Window(5, per=0)
    with pytest.raises(ConfigurationError, match="use a Rate"):
        Window(1_000_000)
    with pytest.raises(ConfigurationError, match="more than a million per second"):
        Rate(10_000_000)
    with pytest.raises(ConfigurationError, match="the key of a limit"):
        Rate(5, key="")
    for wrong in (5, "5/s", [5]):
        with pytest.raises(ConfigurationError, match="limit must be Concurrency, Rate or Window"):
            queue.remote("any").options(limit=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="limit must be Concurrency, Rate or Window"):
            Settings(limit=wrong)  # type: ignore[arg-type]


def test_the_measure_of_these_tests_measures() -> None:
    """Starts that are too close are found."""
    fair = [n * 0.01 for n in range(10)]
    assert above(fair, 0.01, 1) == []
    assert above([*fair, 0.095], 0.01, 1) == [0.095]
    assert above([0.0, 0.0, 0.0], 0.01, 3) == []
    assert len(above([0.0, 0.0, 0.0], 0.01, 2)) == 1
