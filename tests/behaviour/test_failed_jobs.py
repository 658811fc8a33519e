"""`queue.failed`: what went wrong is looked through, run again and deleted, as a whole or as it was chosen."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import redis
from facts import until, until_state
from redis.exceptions import TimeoutError as RedisTimeout
from servers import Server

from aqueue import (
    BadArguments,
    Concurrency,
    ConfigurationError,
    Context,
    Discard,
    Encryption,
    Job,
    JobNotFound,
    JobState,
    NotSerializable,
    PayloadRefused,
    Queue,
    Retry,
    Settings,
    Signing,
    StoreError,
    Worker,
)
from aqueue.job import JobError, LeaseToken, WorkerId
from aqueue.store.failures import CHANGED_AT_ONCE, LOOKED_AT_ONCE, FailureStore
from aqueue.store.records import Failed, Settle

KEY: Final = f"k1:{base64.b64encode(b'0123456789abcdef' * 2).decode()}"
SECRET: Final = "4929-1234-5678"
MANY: Final = 1_100
HOUR_MS: Final = 3_600_000


class Shop:
    """Tasks that fail in different ways, until they are mended."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.sold: list[tuple[str, int]] = []
        self.sell = queue.task(name="sell", retry=1)(self._sell)
        self.fetch = queue.task(name="fetch", retry=1)(self._fetch)

    async def _sell(self, ctx: Context, what: str, *, price: int = 1) -> str:
        self.sold.append((what, ctx.attempt))
        if what.startswith("bad"):
            raise ValueError(what)
        return f"{what} for {price}"

    async def _fetch(self, url: str) -> None:
        raise RedisTimeout(url)


@pytest.fixture
def shop(queue: Queue) -> Shop:
    return Shop(queue)


async def run(queue: Queue, *jobs: Job[Any]) -> None:
    """Run until all of these have ended."""
    async with Worker(queue):
        for job in jobs:
            await until_state(job, JobState.FAILED, JobState.COMPLETED)


async def fail_many(
    queue: Queue, count: int, task: str = "sell", error: str = "ValueError", hours: int = 1
) -> list[Job[Any]]:
    """Make failed jobs without running them, five hundred at a time."""
    call = queue.remote(task).call("bad")
    jobs = await queue.enqueue_many([call] * count)
    store = await queue.store()
    turn = 0
    settles: list[Settle] = []
    while turn == 0 or settles:
        turn += 1
        answer = await store.settle_and_claim(WorkerId(f"w-{task}-{error}"), turn, settles, 500)
        failed = Failed(JobError(type=error, message="no", traceback="somewhere"), hours * HOUR_MS)
        settles = [Settle(lease.id, LeaseToken(lease.token), failed) for lease in answer.leases]
    await store.retire(WorkerId(f"w-{task}-{error}"))
    return jobs


async def pages(queue: Queue, **chosen: Any) -> list[str]:
    page = await queue.failed.list(**chosen)
    found: list[str] = [info.id for info in page.jobs]
    while page.next is not None:
        page = await queue.failed.list(**chosen, after=page.next)
        found += [info.id for info in page.jobs]
    return found


# choosing


async def test_failed_jobs_are_chosen_by_task_error_and_age(shop: Shop, queue: Queue) -> None:
    """After an outage there are thousands, and only some of them are to run again."""
    bad = [await shop.sell.enqueue(f"bad {n}") for n in range(3)]
    lost = await shop.fetch.enqueue("http://example.org")
    await run(queue, *bad, lost)
    failed = queue.failed

    assert [info.id for info in (await failed.list()).jobs[:1]] != []
    assert sorted(await pages(queue, limit=2)) == sorted(job.id for job in [*bad, lost])
    assert sorted(await pages(queue, limit=1, task="sell")) == sorted(job.id for job in bad)
    for name in ("TimeoutError", "redis.exceptions.TimeoutError", RedisTimeout):
        assert await pages(queue, error=name) == [lost.id]
    assert await pages(queue, error=ValueError, task="fetch") == []
    assert await failed.count(error="Timeout") == 0
    assert await failed.count(error="exceptions.TimeoutError") == 0
    assert await failed.count(task="sel") == 0
    assert (await failed.count(), await failed.count(error="ValueError")) == (4, 3)

    now = datetime.now(UTC)
    assert await failed.count(newer_than="1h") == await failed.count(older_than=0) == 4
    assert await failed.count(older_than="1h") == await failed.count(newer_than=0, task="sel") == 0
    assert await failed.count(newer_than=now - timedelta(hours=1), older_than=now + timedelta(hours=1)) == 4
    assert await failed.count(older_than=now - timedelta(hours=1)) == 0


async def test_pages_stay_as_they_are_while_jobs_fail_and_leave(shop: Shop, queue: Queue) -> None:
    """With offsets, each job that leaves hides one that nobody has seen yet."""
    jobs = await fail_many(queue, 9)
    first = await queue.failed.list(limit=3)
    for info in first.jobs:
        await queue.failed.rerun(info.id)
    await fail_many(queue, 2, task="fetch")
    rest = list[str]()
    place = first.next
    while place is not None:
        page = await queue.failed.list(limit=2, after=place)
        rest += [info.id for info in page.jobs]
        place = page.next
    seen = {info.id for info in first.jobs}
    assert len(seen) == 3
    assert sorted(rest) == sorted(job.id for job in jobs if job.id not in seen)
    assert sorted(await pages(queue, task="sell", limit=5)) == sorted(job.id for job in jobs)  # they have failed again


async def test_a_rare_job_is_found_among_many(queue: Queue) -> None:
    """The page is filled by looking on, some hundreds at a time, and no page comes empty for nothing."""
    (rare,) = await fail_many(queue, 1, error="KeyError")
    await fail_many(queue, MANY)
    page = await queue.failed.list(error="KeyError")
    assert ([info.id for info in page.jobs], page.next) == ([rare.id], None)
    assert await queue.failed.count(task="sell") == MANY + 1
    assert len(set(await pages(queue, limit=500))) == MANY + 1


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"older_than": datetime(2026, 1, 1)}, "older_than must carry a time zone"),  # noqa: DTZ001  # that is the point
        ({"newer_than": "soon"}, "newer_than must read like"),
        ({"newer_than": -1}, "newer_than must be between 0"),
        ({"older_than": True}, "older_than must be seconds, a timedelta"),
        ({"older_than": "2h", "newer_than": "1h"}, "newer_than must reach further back than older_than"),
        ({"task": ""}, "task must be text"),
        ({"task": "a b"}, "task must not contain"),
        ({"error": ""}, "error must be an exception or its name"),
        ({"error": 5}, "error must be an exception or its name"),
        ({"error": int}, "error must be an exception or its name"),
    ],
)
async def test_a_filter_that_is_none_is_refused(chosen: dict[str, Any], says: str, queue: Queue) -> None:
    """What is misread as "all of them" might be deleted."""
    (job,) = await fail_many(queue, 1)
    for act in (queue.failed.list, queue.failed.count, queue.failed.rerun_all, queue.failed.purge):
        with pytest.raises(ConfigurationError, match=says):
            await act(**chosen)
    assert await job.status() is JobState.FAILED
    await queue.failed.purge()
    with pytest.raises(ConfigurationError, match=says):
        await queue.failed.purge(**chosen)


async def test_an_unknown_filter_or_page_is_refused(queue: Queue) -> None:
    """A typing error must not widen what is chosen."""
    (job,) = await fail_many(queue, 1)
    for act in (queue.failed.list, queue.failed.count, queue.failed.rerun_all, queue.failed.purge):
        with pytest.raises(TypeError, match="no filter 'tsak'; the filters are error, newer_than, older_than, task"):
            await act(tsak="sell")  # type: ignore[call-arg]
    for limit in (0, 501, "5"):
        with pytest.raises(ConfigurationError, match="limit must be a whole number from 1 to 500"):
            await queue.failed.list(limit=limit)  # type: ignore[arg-type]
    for place in ("", "5", "x:y", ":y", "-5:y", "5:", 5):
        with pytest.raises(ConfigurationError, match="after must be the `next` of another page"):
            await queue.failed.list(after=place)  # type: ignore[arg-type]
    assert await job.status() is JobState.FAILED


# run again


async def test_a_job_runs_again_with_other_arguments(shop: Shop, queue: Queue) -> None:
    """Under its own id, so that whoever waits for it gets the result; what is not given stays."""
    job = await shop.sell.options(timeout=17).enqueue("bad tea", price=3)
    await run(queue, job)
    await queue.failed.rerun(job.id, args=["tea"])
    info = await job.info()
    assert (info.state, info.attempt, info.args, info.kwargs) == (JobState.QUEUED, 0, ["tea"], {"price": 3})
    async with Worker(queue):
        assert await job.result(timeout=10) == "tea for 3"
    assert shop.sold == [("bad tea", 1), ("tea", 1)]

    again = await shop.sell.enqueue("bad milk")
    await run(queue, again)
    await queue.failed.rerun(again.id, kwargs={"price": 7})
    info = await again.info()
    assert (info.args, info.kwargs) == (["bad milk"], {"price": 7})
    await run(queue, again)
    await queue.failed.rerun(again.id, args=(), kwargs={"what": "milk"})
    async with Worker(queue):
        assert await again.result(timeout=10) == "milk for 1"


async def test_what_the_call_asked_for_stays_with_other_arguments(shop: Shop, queue: Queue) -> None:
    """Its timeout, its retry and what middleware has added travel in the envelope that is replaced."""
    retry = Retry(max_attempts=2, backoff=0)
    job = await shop.sell.options(retry=retry).enqueue("bad tea")
    await run(queue, job)
    await queue.failed.rerun(job.id, args=("bad milk",))
    await run(queue, job)
    assert shop.sold == [
        ("bad tea", 1), ("bad tea", 2), ("bad milk", 1), ("bad milk", 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        ((), None, BadArguments),
        (("a", "b"), None, BadArguments),
        ((5,), None, BadArguments),
        (None, {"cost": 5}, BadArguments),
        (None, {"price": "five"}, BadArguments),
        ((object(),), None, NotSerializable),
        (("x" * 2_000_000,), None, NotSerializable),
        ("tea", None, ConfigurationError),
        (None, [("price", 5)], ConfigurationError),
        (None, {5: 5}, ConfigurationError),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_and_nothing_changes(
    args: Any, kwargs: Any, error: type[Exception], shop: Shop, raw: redis.Redis
) -> None:
    """A mistake here would fail at the worker, and the old arguments would be gone."""
    queue = shop.queue
    (job,) = await fail_many(queue, 1)
    before = raw.hgetall(f"aqueue:{{q}}:job:{job.id}"), raw.get(f"aqueue:{{q}}:payload:{job.id}")
    with pytest.raises(error):
        await queue.failed.rerun(job.id, args=args, kwargs=kwargs)
    assert (raw.hgetall(f"aqueue:{{q}}:job:{job.id}"), raw.get(f"aqueue:{{q}}:payload:{job.id}")) == before


async def test_where_the_code_is_elsewhere_arguments_are_not_checked(shop: Shop, queue: Queue, server: Server) -> None:
    """An operator's shell has no tasks; the worker finds out."""
    job = await shop.sell.enqueue("bad tea")
    await run(queue, job)
    async with Queue("q", url=server.url) as elsewhere:
        await elsewhere.failed.rerun(job.id, args=("tea", "too many"))
    await run(queue, job)
    info = await job.info()
    assert info.error is not None
    assert info.error.type == "BadArguments"


async def test_only_a_job_that_has_failed_is_run_again_here(shop: Shop, queue: Queue) -> None:
    """A wish for one that runs, waits or is done is a mistake, and is told so."""
    waiting = await shop.sell.options(delay=60).enqueue("tea")
    with pytest.raises(ConfigurationError, match="has not failed, it is scheduled"):
        await queue.failed.rerun(waiting.id, args=("milk",))
    with pytest.raises(JobNotFound):
        await queue.failed.rerun("nobody")
    with pytest.raises(ConfigurationError, match="job id must not contain"):
        await queue.failed.rerun("a b")
    (job,) = await fail_many(queue, 1)
    with pytest.raises(ConfigurationError, match="delay must be between 0"):
        await queue.failed.rerun(job.id, delay=-1)
    assert await job.status() is JobState.FAILED
    await waiting.cancel()


async def test_a_damaged_record_is_named(queue: Queue, raw: redis.Redis) -> None:
    """Whoever asks for a rerun must not believe that it is done."""
    raw.set("aqueue:{q}:job:odd", "text", ex=60)
    for act in (queue.failed.rerun, queue.rerun):
        with pytest.raises(StoreError, match="record of job odd on queue q is damaged"):
            await act("odd")


async def test_a_delayed_rerun_starts_when_it_is_due(shop: Shop, queue: Queue) -> None:
    """Until then it is scheduled like any other, and can be cancelled."""
    soon, late = await shop.sell.enqueue("bad tea"), await shop.sell.enqueue("bad milk")
    await run(queue, soon, late)
    await queue.failed.rerun(soon.id, args=("tea",), delay=0.05)
    await queue.failed.rerun(late.id, delay="10m")
    info = await late.info()
    assert info.state is JobState.SCHEDULED
    assert info.due_at is not None
    async with Worker(queue):
        assert await soon.result(timeout=10) == "tea for 1"
        assert await late.status() is JobState.SCHEDULED
    await late.cancel()


async def test_a_limit_goes_by_the_new_argument(queue: Queue, raw: redis.Redis) -> None:
    """Else the job would wait for, and count against, a customer whom it has nothing to do with."""

    @queue.task(retry=1, limit=Concurrency(1, key="customer"))
    async def export(customer: str) -> str:
        if customer == "acme":
            raise ValueError
        return customer

    job, other, own = await export.enqueue("acme"), await export.options(delay=60).enqueue("ajax"), Concurrency(2)
    special = await export.options(limit=own).enqueue("acme")
    await run(queue, job, special)

    def limits(one: Job[Any]) -> Any:
        return raw.hget(f"aqueue:{{q}}:job:{one.id}", "limits")

    assert limits(job) != limits(other)
    before = limits(special)
    for one in (job, special):
        await queue.failed.rerun(one.id, args=("ajax",))
    assert limits(job) == limits(other)
    assert limits(special) == before  # what the call asked for is not known here, so it stays
    await run(queue, job, special)
    await other.cancel()


async def test_jobs_that_match_run_again_in_the_order_in_which_they_failed(queue: Queue) -> None:
    """A queue is first in, first out, also the second time, however many there are; others stay."""
    jobs = await fail_many(queue, MANY)
    await fail_many(queue, 3, task="fetch")
    steps: list[tuple[int, int]] = []
    assert await queue.failed.rerun_all(task="sell", progress=lambda *step: steps.append(step)) == MANY
    assert [info.id for info in await queue.jobs("queued", limit=MANY)] == [job.id for job in jobs]
    assert steps == [(min(n, MANY + 3), MANY + 3) for n in range(200, MANY + 200, 200)]
    assert await queue.failed.rerun_all(delay="1h") == 3
    stats = await queue.stats()
    assert (stats.queued, stats.scheduled, stats.failed, stats.counters["rerun"]) == (MANY, 3, 0, MANY + 3)
    await queue.purge()


async def test_no_step_is_longer_because_there_is_more_to_do(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that takes ten thousand jobs at once stops the server for everybody."""
    sizes: list[int] = []
    sent = FailureStore._run

    async def measured(self: FailureStore, name: str, *args: Any, **options: Any) -> Any:
        sizes.append(len(options["each"]) // 2 if "each" in options else args[2][4])
        return await sent(self, name, *args, **options)

    monkeypatch.setattr(FailureStore, "_run", measured)
    await fail_many(queue, MANY)
    await queue.failed.rerun_all(delay="1h")
    await fail_many(queue, MANY)
    await queue.failed.purge(error="ValueError")
    assert max(sizes) == LOOKED_AT_ONCE
    assert sizes.count(CHANGED_AT_ONCE) == 2 * MANY // CHANGED_AT_ONCE
    await queue.purge()


async def test_what_fails_again_meanwhile_is_not_run_a_third_time(shop: Shop, queue: Queue) -> None:
    """A job that fails at once would be run for ever."""
    await fail_many(queue, 40)
    async with Worker(queue):
        assert await queue.failed.rerun_all() == 40

        async def all_failed() -> bool:
            return (await queue.stats()).failed == 40

        await until(all_failed)
    assert len(shop.sold) == 40


@pytest.mark.parametrize("act", ["rerun_all", "purge"])
async def test_what_fails_meanwhile_stays_and_does_not_keep_the_work_going(
    act: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs fail as fast as they are dealt with, and they stand before and behind what is to come."""
    await fail_many(queue, 600)
    await fail_many(queue, 1, hours=3)
    looks, new, look = 0, list[Job[Any]](), FailureStore.look

    async def busy(self: FailureStore, *args: Any) -> Any:
        nonlocal looks
        looks += 1
        if 1 < looks < 6:
            monkeypatch.setattr(FailureStore, "look", look)
            await asyncio.sleep(0.002)  # what fails in the very millisecond of the first look had failed by then
            new.extend(await fail_many(queue, 5, task="fetch", hours=2))
            new.extend(await fail_many(queue, 500, task="fetch", hours=4))
            monkeypatch.setattr(FailureStore, "look", busy)
        return await look(self, *args)

    monkeypatch.setattr(FailureStore, "look", busy)
    delay = {"delay": 600} if act == "rerun_all" else {}
    assert await getattr(queue.failed, act)(**delay) == 601
    monkeypatch.undo()
    assert looks <= 6
    assert await queue.failed.count(task="fetch") == len(new) == await queue.failed.count()
    await queue.purge()


async def test_work_that_was_broken_off_is_begun_again_and_nothing_is_done_twice(queue: Queue) -> None:
    """The operator presses Ctrl-C, or the connection dies; what is queued by then is queued once."""
    jobs = await fail_many(queue, MANY)

    def stop(looked: int, _: int) -> None:
        if looked >= 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await queue.failed.rerun_all(progress=stop)
    assert await queue.failed.rerun_all() == MANY - 1000
    assert [info.id for info in await queue.jobs("queued", limit=2 * MANY)] == [job.id for job in jobs]
    assert await queue.purge() == MANY

    await fail_many(queue, MANY)
    with pytest.raises(KeyboardInterrupt):
        await queue.failed.purge(progress=stop)
    assert await queue.failed.purge() == MANY - 1000


# delete


async def test_chosen_failed_jobs_are_deleted_and_no_others(queue: Queue, raw: redis.Redis) -> None:
    """Nothing is left of them; waiting jobs and other failures stay."""
    kept = await fail_many(queue, 2, task="fetch", error="KeyError")
    gone = await fail_many(queue, MANY)
    waiting = await queue.remote("later").options(delay=60).enqueue()
    assert await queue.failed.purge(error="ValueError", older_than=timedelta(0)) == MANY
    assert [await job.status() for job in [*kept, waiting]] == ["failed", "failed", "scheduled"]
    assert raw.exists(*(f"aqueue:{{q}}:{kind}:{job.id}" for job in gone for kind in ("job", "payload"))) == 0
    assert raw.zcard("aqueue:{q}:failed") == 2
    raw.delete(f"aqueue:{{q}}:job:{kept[0].id}", f"aqueue:{{q}}:payload:{kept[0].id}")
    assert await queue.failed.count() == 1
    assert await queue.failed.purge(task="sell") == 0
    assert raw.zcard("aqueue:{q}:failed") == 2
    assert await queue.purge(failed=True) == 1  # all of them; and what was evicted is no longer listed
    assert raw.exists("aqueue:{q}:failed") == 0
    assert await waiting.status() == "scheduled"
    assert await queue.purge() == 1


async def test_on_an_empty_queue_there_is_nothing_to_do(queue: Queue) -> None:
    """Scripts do this every night."""
    page = await queue.failed.list()
    assert (page.jobs, page.next) == ([], None)
    assert [await act() for act in (queue.failed.count, queue.failed.rerun_all, queue.failed.purge)] == [0, 0, 0]


# history


async def test_the_history_tells_of_each_attempt(queue: Queue) -> None:
    """When, on which worker, how it ended and why: the last error alone often hides the first."""

    @queue.task(retry=Retry(max_attempts=4, backoff=0), timeout=0.05)
    async def moody(ctx: Context) -> str:
        if ctx.attempt == 1:
            raise ValueError("first")
        if ctx.attempt == 2:
            await asyncio.sleep(5)
        if ctx.attempt == 3:
            raise OSError("m" * 5000)
        return "well"

    worker = Worker(queue)
    async with worker:
        job = await moody.enqueue()
        assert await job.result(timeout=10) == "well"
    history = (await job.info()).history
    assert [(run.outcome, run.error and run.error.type) for run in history] == [
        ("retried", "ValueError"), ("retried", "TimeoutError"), ("retried", "OSError"), ("completed", None)
    ]  # fmt: skip
    assert [run.error and run.error.message for run in history][::2] == ["first", "m" * 200]
    assert not any(run.error and run.error.traceback for run in history)
    assert len({run.worker for run in history}) == 1
    for one, following in itertools.pairwise(history):
        assert one.started_at <= one.ended_at <= following.started_at
    assert history[1].ended_at - history[1].started_at >= timedelta(seconds=0.05)


async def test_the_plain_path_pays_nothing_for_history(shop: Shop, queue: Queue, raw: redis.Redis) -> None:
    """The record of a job that completes at once is what it was: six fields."""
    job = await shop.sell.enqueue("tea")
    await Worker(queue).run(burst=True)
    assert (await job.info()).history == []
    assert sorted(raw.hkeys(f"aqueue:{{q}}:job:{job.id}")) == [
        "ended_ms", "enqueued_ms", "result", "started_ms", "state", "task", "token"
    ]  # fmt: skip


async def test_a_crash_is_in_the_history(shop: Shop, queue: Queue) -> None:
    """With the id of the worker that died; the error that ends the job is the last crash."""
    store = await queue.store()
    job = await shop.sell.enqueue("tea")
    for name in ("one", "two", "three"):
        await store.settle_and_claim(WorkerId(name), 1, [], 1)
        await store.plain("ZADD", store.keys.workers, 1, name)
        await store.reclaim()
    info = await job.info()
    assert [(run.worker, run.outcome, run.error) for run in info.history] == [
        ("one", "crashed", None), ("two", "crashed", None), ("three", "crashed", None)
    ]  # fmt: skip
    assert info.state is JobState.FAILED
    assert await pages(queue, error="WorkerCrashed", task="sell") == [job.id]


async def test_a_rerun_goes_on_in_the_same_history(shop: Shop, queue: Queue) -> None:
    """Its counters begin anew, the story does not."""
    job = await shop.sell.enqueue("bad tea")
    await run(queue, job)
    await queue.failed.rerun(job.id)
    await run(queue, job)
    await queue.failed.rerun(job.id, args=("tea",))
    await run(queue, job)
    info = await job.info()
    assert ([run.outcome for run in info.history], info.attempt) == (["failed", "failed", "completed"], 0)


# sealed


def sealed_queue(server: Server, seal: Any, **options: Any) -> Queue:
    return Queue("q", url=server.url, settings=Settings(seal=seal, lease=1.5, **options))


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("kind", [Signing, Encryption])
async def test_sealed_jobs_are_chosen_and_changed_by_who_has_the_key(
    kind: type[Any], serializer: Any, server: Server, raw: redis.Redis
) -> None:
    """New arguments are sealed for the job's id, or no worker would take them."""
    async with sealed_queue(server, kind(KEY), serializer=serializer) as queue:
        shop = Shop(queue)
        job = await shop.sell.enqueue("bad tea", price=4)
        await run(queue, job)
        assert await pages(queue, error="ValueError", task="sell") == [job.id]
        assert await queue.failed.count(task="fetch") == 0
        await queue.failed.rerun(job.id, args=("tea",))
        async with Worker(queue):
            assert await job.result(timeout=10) == "tea for 4"
        assert [run.outcome for run in (await job.info()).history] == ["failed", "completed"]


async def test_errors_in_the_history_are_encrypted_too(server: Server) -> None:
    """They may quote arguments; by the task, jobs are chosen without a key, and by error it is said what is missing."""
    async with sealed_queue(server, Encryption(KEY)) as queue, sealed_queue(server, None) as stranger:

        @queue.task(retry=Retry(max_attempts=2, backoff=0))
        async def pay(card: str) -> None:
            raise ValueError(card)

        job = await pay.enqueue(SECRET)
        await run(queue, job)
        with redis.Redis(unix_socket_path=str(server.socket)) as raw:
            record: Any = raw.hgetall(f"aqueue:{{q}}:job:{job.id}")
        assert b"history" in record
        assert SECRET.encode() not in b"".join(record.values())
        assert b"ValueError" not in b"".join(record.values())
        told = [run.error for run in (await job.info()).history]
        assert told == [JobError(type="ValueError", message=SECRET)] * 2
        assert [run.error and run.error.type for run in (await stranger.job(job.id).info()).history] == [
            "PayloadRefused"
        ] * 2
        assert await stranger.failed.count(task="pay") == 1
        for act in (stranger.failed.count, stranger.failed.list, stranger.failed.rerun_all, stranger.failed.purge):
            with pytest.raises(PayloadRefused, match="is encrypted and cannot be opened here; choose by task or age"):
                await act(error="ValueError")
        with pytest.raises(PayloadRefused):
            await stranger.failed.rerun(job.id, args=("x",))
        assert await job.status() is JobState.FAILED
        await stranger.failed.rerun(job.id)  # which takes no key
        assert await job.status() is JobState.QUEUED
        await queue.purge()


# lifetimes


async def test_each_scope_says_how_long_failures_and_results_are_kept(server: Server, raw: redis.Redis) -> None:
    """Queue, task, call: the narrower one wins, for 0, seconds and -1, and the history goes with the record."""
    spans: Sequence[tuple[float, tuple[int, int]]] = [(0, (1, 10)), (40, (20, 40)), (-1, (-1, -1))]
    for of_queue, _ in spans:
        settings = Settings(failure_ttl=of_queue, result_ttl=of_queue)
        async with Queue("q", url=server.url, settings=settings) as queue:
            expected: list[tuple[Job[Any], tuple[int, int]]] = []
            for number, (value, life) in enumerate([*spans, (None, dict(spans)[of_queue])]):
                task = queue.task(name=f"t{number}", retry=1, failure_ttl=value, result_ttl=value)(_maybe)
                expected += [(await task.enqueue(fails), life) for fails in (True, False)]
                for own, own_life in spans:
                    call = task.options(failure_ttl=own, result_ttl=own)
                    expected += [(await call.enqueue(fails), own_life) for fails in (True, False)]
            await Worker(queue, concurrency=50).run(burst=True)
            for job, (least, most) in expected:
                record = f"aqueue:{{q}}:job:{job.id}"
                assert least <= raw.ttl(record) <= most, (of_queue, job)
                kept = await job.status() is JobState.FAILED and most != 10
                assert raw.exists(record.replace("job:", "payload:")) == kept
                assert raw.hexists(record, "history") == kept
                assert (raw.zscore("aqueue:{q}:failed", job.id) is not None) == kept
        raw.flushall()


async def _maybe(fails: bool) -> None:  # noqa: FBT001  # the task's only argument
    if fails:
        raise Discard("asked for")
