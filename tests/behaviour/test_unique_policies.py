"""`unique=`: which calls are the same work, and what becomes of a call while another one holds its key."""

from __future__ import annotations

import asyncio

import pytest
import redis
from facts import until, until_ended, until_state

from aqueue import ConfigurationError, Debounce, Job, JobState, NotSerializable, Queue, Retry, Throttle, Unique, Worker


async def test_the_key_is_made_of_the_chosen_arguments(queue: Queue) -> None:
    """By position, by name or by default, equal values are the same work; other arguments do not matter."""

    @queue.task(unique=Unique("customer", "year"))
    async def bill(customer: int, year: int = 2026, *, note: str = "") -> None: ...

    first = await bill.enqueue(7)
    assert first.created
    for again in (
        await bill.enqueue(7, 2026, note="x"),
        await bill.enqueue(customer=7),
        await bill.enqueue(7, year=2026),
    ):
        assert not again.created
        assert again == first
    assert (await bill.enqueue(8)).created
    assert (await bill.enqueue(7, 2027)).created
    await queue.purge()


async def test_without_names_all_arguments_are_the_key(queue: Queue) -> None:
    """The same call twice is the same work."""

    @queue.task(unique=Unique())
    async def work(a: int, b: dict[str, int]) -> None: ...

    first = await work.enqueue(1, {"x": 1, "y": 2})
    assert await work.enqueue(1, b={"y": 2, "x": 1}) == first
    assert (await work.enqueue(2, {"x": 1, "y": 2})).created
    await queue.purge()


async def test_until_finished_covers_the_run_and_its_retries(queue: Queue) -> None:
    """A job between two attempts is not done."""
    gate = asyncio.Event()

    @queue.task(unique=Unique(), retry=Retry(max_attempts=2, backoff=0.01))
    async def work() -> None:
        await gate.wait()
        if not gate.is_set():
            raise ValueError

    job = await work.enqueue()
    async with Worker(queue):
        await until_state(job, "running")
        assert await work.enqueue() == job
        gate.set()
        await until_ended(job)
        assert (await work.enqueue()).created


async def test_until_started_lets_the_next_one_wait_while_the_first_runs(queue: Queue) -> None:
    """A change that comes while the index is built must be built in afterwards, once."""
    gate, runs = asyncio.Event(), 0

    @queue.task(unique=Unique(until="started"))
    async def index() -> None:
        nonlocal runs
        runs += 1
        await gate.wait()

    async with Worker(queue, concurrency=1):
        first = await index.enqueue()
        await until_state(first, "running")
        second, third = await index.enqueue(), await index.enqueue()
        assert second.created
        assert second != first
        assert third == second
        gate.set()
        await until_ended(first, second)
    assert runs == 2


async def test_replace_gives_the_waiting_job_the_new_arguments(queue: Queue) -> None:
    """Only the last state matters; who waits for the first call waits for the last."""

    @queue.task(unique=Unique("user", on_conflict="replace"))
    async def sync(user: int, state: str) -> str:
        return f"{user} {state}"

    first = await sync.enqueue(1, "old")
    second = await sync.options(result_ttl=60, ttl=60).enqueue(1, "new")
    assert second == first
    assert not second.created
    async with Worker(queue):
        assert await first.result(timeout=10) == "1 new"


async def test_replace_moves_a_delayed_job_to_the_new_time(queue: Queue) -> None:
    """Sooner or later, as the last call says."""

    @queue.task(unique=Unique("user", on_conflict="replace"))
    async def remind(user: int) -> int:
        return user

    job = await remind.options(delay=600).enqueue(1)
    assert await job.status() is JobState.SCHEDULED
    assert await remind.options(delay=1200).enqueue(1) == job
    info = await job.info()
    assert info.due_at is not None
    assert (info.due_at - info.enqueued_at).total_seconds() > 1000
    assert await remind.enqueue(1) == job
    assert await job.status() is JobState.QUEUED
    async with Worker(queue):
        assert await job.result(timeout=10) == 1


async def test_a_running_job_is_not_replaced(queue: Queue) -> None:
    """What has begun ends as it began."""
    gate = asyncio.Event()

    @queue.task(unique=Unique(on_conflict="replace"))
    async def work(*values: str) -> str:
        await gate.wait()
        return values[0]

    async with Worker(queue):
        job = await work.options(key="k").enqueue("first")
        await until_state(job, "running")
        assert await work.options(key="k").enqueue("second") == job
        gate.set()
        assert await job.result(timeout=10) == "first"


async def test_debounce_runs_once_with_the_last_arguments(queue: Queue) -> None:
    """Keystrokes: one search, for what stands there when the typing ends."""
    searched: list[str] = []

    @queue.task(unique=Debounce("10m", "user"))
    async def search(user: int, text: str) -> str:
        searched.append(text)
        return text

    async with Worker(queue):
        jobs = [await search.enqueue(1, text) for text in ("a", "as", "asy", "async")]
        assert {job.id for job in jobs} == {jobs[0].id}
        assert [job.created for job in jobs] == [True, False, False, False]
        assert searched == []
        await jobs[0].reschedule(delay=0.05)  # so long nobody types
        assert await jobs[0].result(timeout=10) == "async"
    assert searched == ["async"]


async def test_debounce_does_not_wait_for_ever(queue: Queue) -> None:
    """With `max_wait` a stream of calls cannot keep the job from its start."""

    @queue.task(unique=Debounce("10m", max_wait="10m"))
    async def work() -> None: ...

    @queue.task(unique=Debounce("10m", max_wait="11m"))
    async def patient() -> None: ...

    for task, limit in ((work, 600), (patient, 660)):
        job: Job[None] = await task.enqueue()
        before = (await job.info()).due_at
        for _ in range(3):
            await asyncio.sleep(0.002)
            await task.enqueue()
        info = await job.info()
        assert info.due_at is not None
        assert before is not None
        assert (info.due_at - info.enqueued_at).total_seconds() <= limit
        assert (info.due_at > before) == (task is patient)
    await queue.purge()


async def test_a_call_while_the_debounced_job_runs_begins_anew(queue: Queue) -> None:
    """What was typed meanwhile is searched for as well."""
    gate = asyncio.Event()

    @queue.task(unique=Debounce(0.01))
    async def work() -> None:
        await gate.wait()

    async with Worker(queue):
        first = await work.enqueue()
        await until_state(first, "running")
        second = await work.enqueue()
        assert second.created
        gate.set()
        await until_ended(first, second)


async def test_throttle_lets_one_through_and_holds_the_rest_off(queue: Queue, raw: redis.Redis) -> None:
    """Also after the job has completed, and although its result is not kept."""

    @queue.task(unique=Throttle(600, "who"), result_ttl=0)
    async def alert(who: str) -> None: ...

    async with Worker(queue):
        first = await alert.enqueue("ops")
        await until_state(first, "completed")
        second = await alert.enqueue("ops")
        assert second == first
        assert await second.status() is JobState.COMPLETED
        assert (await alert.enqueue("dev")).created
        (unique,) = [key for key in raw.keys("aqueue:{q}:unique:*") if raw.get(key) == first.id]
        assert 590_000 < raw.pttl(f"aqueue:{{q}}:job:{first.id}") <= 600_000
        raw.pexpire(unique, 1)
        await until(lambda: raw.exists(unique) == 0)
        assert (await alert.enqueue("ops")).created
    raw.flushall()


async def test_a_throttled_job_that_was_cancelled_or_deleted_holds_off_nobody(queue: Queue) -> None:
    """Nothing has run, so the next call may."""

    @queue.task(unique=Throttle(600))
    async def alert() -> None: ...

    first = await alert.enqueue()
    await first.cancel()
    second = await alert.enqueue()
    assert second.created
    await queue.delete(second.id)
    third = await alert.enqueue()
    assert third.created
    await third.cancel()


async def test_the_latest_waits_while_one_runs(queue: Queue) -> None:
    """Unique until started, replaced on conflict: at most one waits, with the latest arguments."""
    gate, seen = asyncio.Event(), list[int]()

    @queue.task(unique=Unique("doc", until="started", on_conflict="replace"))
    async def render(doc: str, version: int) -> None:
        seen.append(version)
        await gate.wait()

    async with Worker(queue, concurrency=1):
        first = await render.enqueue("a", 1)
        await until_state(first, "running")
        waiting = [await render.enqueue("a", version) for version in (2, 3, 4)]
        assert len(set(waiting)) == 1
        gate.set()
        await until_ended(waiting[0])
    assert seen == [1, 4]


async def test_a_call_by_name_may_be_unique_too(queue: Queue) -> None:
    """Without the code, arguments are named as they are passed."""
    task = queue.remote("elsewhere").options(unique=Unique("customer"))
    first = await task.enqueue(customer=7, note="a")
    assert await task.enqueue(customer=7, note="b") == first
    with pytest.raises(ConfigurationError, match="'customer' is no argument of this call"):
        await task.enqueue(7)
    await queue.purge()


async def test_bad_policies_are_refused_where_they_are_written(queue: Queue) -> None:
    """Nothing is stored, and the message says what to do."""

    async def work(customer: int) -> None: ...

    def unique(*args: object, **kwargs: object) -> Unique:
        return Unique(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.raises(ConfigurationError, match="'client' is no argument of work; its arguments are: customer"):
        queue.task(unique=Unique("client"))(work)
    with pytest.raises(ConfigurationError, match="for a time use Throttle"):
        unique(until="tomorrow")
    with pytest.raises(ConfigurationError, match="'keep' or 'replace'"):
        unique(on_conflict="drop")
    with pytest.raises(ConfigurationError, match="named by the names of arguments"):
        unique(7)
    with pytest.raises(ConfigurationError, match="max_wait must be at least wait"):
        Debounce(5, max_wait=1)
    with pytest.raises(ConfigurationError, match="at least a millisecond"):
        Throttle(0)
    with pytest.raises(ConfigurationError, match=r"unique must be Unique\(\)"):
        queue.remote("any").options(unique="customer")  # type: ignore[arg-type]
    task = queue.remote("any").options(unique=Debounce(5), delay=3)
    with pytest.raises(ConfigurationError, match="leave out delay and at"):
        await task.enqueue()
    with pytest.raises(NotSerializable, match=r"cannot be (written as JSON|sent)"):
        await queue.remote("any").options(unique=Unique()).enqueue(value=object())
