"""Enqueues that meet in one turn of the event loop travel together, and share nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import redis

from aqueue import JobState, NotSerializable, Queue, Settings, StoreFull, StoreUnavailable
from aqueue.job import JobId
from aqueue.store import coalescing
from aqueue.store.coalescing import BATCH_BYTES, BATCH_JOBS, Coalescer
from aqueue.store.records import NewJob


def new(number: int, *, size: int = 1) -> NewJob:
    return NewJob(id=JobId(f"j{number}"), envelope=b"x" * size)


class Recorder:
    """Stands for the script call: notes each batch, and lets it through, or fails it, when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[list[str]] = []
        self.let_through = asyncio.Event()
        self._error = error

    async def __call__(self, jobs: Sequence[NewJob]) -> list[JobId]:
        self.batches.append([job.id for job in jobs])
        await asyncio.sleep(0)  # no server answers within one turn of the loop
        await self.let_through.wait()
        if self._error is not None:
            raise self._error
        return [JobId(f"{job.id}!") for job in jobs]


async def test_enqueues_of_one_turn_travel_together_and_each_gets_its_own_answer() -> None:
    """Many requests of a web application cost one round trip more than one of them."""
    send = Recorder()
    send.let_through.set()
    coalescer = Coalescer(send)
    answers = await asyncio.gather(*(coalescer.enqueue(new(n)) for n in range(1 + BATCH_JOBS)))
    assert answers == [f"j{n}!" for n in range(1 + BATCH_JOBS)]
    assert send.batches == [["j0"], [f"j{n}" for n in range(1, 1 + BATCH_JOBS)]]


async def test_one_after_another_each_leaves_at_once() -> None:
    """Who awaits every enqueue must not pay for company that never comes."""
    send = Recorder()
    send.let_through.set()
    coalescer = Coalescer(send)
    assert [await coalescer.enqueue(new(n)) for n in range(3)] == ["j0!", "j1!", "j2!"]
    assert send.batches == [["j0"], ["j1"], ["j2"]]


async def test_nobody_waits_for_a_batch_that_is_on_its_way() -> None:
    """A slow answer must not hold up those who come later."""
    send = Recorder()
    coalescer = Coalescer(send)
    calls = []
    for n in range(3):  # alone, with a batch of one, and with another
        calls.append(asyncio.ensure_future(coalescer.enqueue(new(n))))
        while len(send.batches) <= n:
            await asyncio.sleep(0)
    send.let_through.set()
    assert await asyncio.gather(*calls) == ["j0!", "j1!", "j2!"]


@pytest.mark.parametrize(("count", "size"), [(BATCH_JOBS + 2, 1), (4, BATCH_BYTES // 2)], ids=["jobs", "bytes"])
async def test_a_batch_is_bounded(count: int, size: int) -> None:
    """Many at once must neither block the server for long nor wait behind megabytes of somebody else."""
    send = Recorder()
    send.let_through.set()
    coalescer = Coalescer(send)
    await asyncio.gather(*(coalescer.enqueue(new(n, size=size)) for n in range(count)))
    assert [len(batch) for batch in send.batches] == [1, count - 2, 1]


async def test_a_failure_reaches_every_caller_as_an_error_of_its_own() -> None:
    """A shared exception would collect the tracebacks of all who raise it."""
    send = Recorder(StoreUnavailable("away"))
    send.let_through.set()
    coalescer = Coalescer(send)
    errors = await asyncio.gather(*(coalescer.enqueue(new(n)) for n in range(3)), return_exceptions=True)
    assert [str(error) for error in errors] == ["away"] * 3
    assert all(isinstance(error, StoreUnavailable) for error in errors)
    assert len({id(error) for error in errors}) == 3


async def test_a_cancelled_caller_takes_nobody_along() -> None:
    """A request whose client hung up shares the batch with others, which must be stored and told."""
    send = Recorder()
    coalescer = Coalescer(send)
    calls = [asyncio.ensure_future(coalescer.enqueue(new(n))) for n in range(4)]
    while len(send.batches) < 2:
        await asyncio.sleep(0)
    calls[0].cancel()
    calls[1].cancel()
    send.let_through.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers[:2]] == [asyncio.CancelledError] * 2
    assert answers[2:] == ["j2!", "j3!"]
    assert send.batches == [["j0"], ["j1", "j2", "j3"]]


# with a server


def requests(raw: redis.Redis) -> int:
    """How many script calls the server has answered."""
    statistics = raw.info("commandstats")
    return sum(int(statistics[name]["calls"]) for name in ("cmdstat_evalsha", "cmdstat_eval") if name in statistics)


async def test_concurrent_producers_share_round_trips(queue: Queue, raw: redis.Redis) -> None:
    """The promise of the documents: concurrent enqueues are one call, and each stored exactly once."""

    @queue.task
    async def work(n: int) -> None: ...

    await work.enqueue(-1)
    before = requests(raw)
    jobs = await asyncio.gather(*(work.enqueue(n) for n in range(1 + 2 * BATCH_JOBS)))
    assert requests(raw) - before == 3  # the first leaves at once, the others in full companies
    assert len({job.id for job in jobs}) == len(jobs)
    assert all(job.created for job in jobs)
    assert (await queue.stats()).queued == 1 + len(jobs)


async def test_one_refused_call_leaves_its_company_alone(queue: Queue) -> None:
    """It is refused before it joins; its neighbours neither fail nor wait."""

    @queue.task
    async def work(value: object) -> None: ...

    outcomes = await asyncio.gather(*(work.enqueue(v) for v in (1, object(), 3)), return_exceptions=True)
    assert isinstance(outcomes[1], NotSerializable)
    assert (await queue.stats()).queued == 2


async def test_the_same_key_in_one_batch_is_stored_once(queue: Queue) -> None:
    """Two requests for the same thing at the same instant: the second gets the first one's handle."""

    @queue.task
    async def work() -> None: ...

    jobs = await asyncio.gather(*(work.options(key="k").enqueue() for _ in range(3)))
    assert [job.created for job in jobs] == [True, False, False]
    assert len({job.id for job in jobs}) == 1


async def test_a_damaged_key_of_one_job_does_not_fail_its_company(queue: Queue, raw: redis.Redis) -> None:
    """Whatever lies under a unique key that cannot be read holds nothing; and nothing is left half-written."""

    @queue.task
    async def work(n: int) -> None: ...

    keyed = await work.options(key="k").enqueue(0)
    (unique,) = raw.keys("*unique*")
    raw.delete(unique)
    raw.lpush(unique, "not a string")
    first, again, last = await asyncio.gather(work.enqueue(1), work.options(key="k").enqueue(2), work.enqueue(3))
    assert again.created
    assert again.id != keyed.id
    assert [await job.status() for job in (first, again, last)] == [JobState.QUEUED] * 3
    assert (await queue.stats()).queued == 4
    raw.delete(unique)


async def test_a_full_server_refuses_every_caller(queue: Queue, raw: redis.Redis) -> None:
    """Each learns of it, and nothing of the batch is stored."""

    @queue.task
    async def work(n: int) -> None: ...

    await work.enqueue(0)
    raw.config_set("maxmemory", "1")
    outcomes = await asyncio.gather(*(work.enqueue(n) for n in range(5)), return_exceptions=True)
    raw.config_set("maxmemory", "0")
    assert [type(outcome) for outcome in outcomes] == [StoreFull] * 5
    assert (await queue.stats()).queued == 1


async def test_a_batch_sent_twice_is_stored_once(
    queue: Queue, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply may be lost on the way, and the store then sends the whole batch again."""
    store = await queue.store()
    jobs = [new(n) for n in range(3)]

    async def twice(batch: Sequence[NewJob]) -> list[JobId]:
        await store.enqueue(batch)
        return await store.enqueue(batch)

    coalescer = coalescing.Coalescer(twice)
    assert await asyncio.gather(*(coalescer.enqueue(job) for job in jobs)) == ["j0", "j1", "j2"]
    assert (await queue.stats()).queued == 3


async def test_queues_do_not_mix(queue: Queue) -> None:
    """A batch is one script call, and a script touches one queue."""
    async with Queue("other", url=queue.address, settings=Settings(lease=1.5)) as other:

        @queue.task
        async def work() -> None: ...

        await asyncio.gather(
            *(work.enqueue() for _ in range(3)), *(work.options(queue=other).enqueue() for _ in range(2))
        )
        assert ((await queue.stats()).queued, (await other.stats()).queued) == (3, 2)
