"""`queue.limiter(...)`: limits around a part of a job, or of any other program, for all processes together."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import re
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis
from facts import until, until_ended, until_state
from servers import Server

from aqueue import (
    Concurrency,
    ConfigurationError,
    JobState,
    Limiter,
    Middleware,
    Permit,
    Queue,
    Rate,
    RateLimited,
    Retry,
    Settings,
    StoreUnavailable,
    Window,
    Worker,
    keeper,
    moments,
)
from aqueue.limits import Limit

CLOCK_SECONDS = 0.0011
"""Instants are kept in whole milliseconds."""
SHORT_LEASE = 1.0


def one(queue: Queue, name: str = "one", **options: Any) -> Limiter:
    return queue.limiter(Concurrency(1, name=name), **options)


def keys(raw: redis.Redis, *kinds: str) -> list[str]:
    return [key for key in map(str, raw.scan_iter()) if key.rpartition("}:")[2].partition(":")[0] in kinds]


def holding(raw: redis.Redis) -> int:
    return sum(int(raw.zcard(key)) for key in keys(raw, "holders"))


def waiting(raw: redis.Redis) -> int:
    return sum(int(raw.zcard(key)) for key in keys(raw, "line"))


@pytest.fixture
async def other(server: Server) -> AsyncIterator[Queue]:
    """The same queue in what might be another process."""
    async with Queue("q", url=server.url) as other:
        yield other


# permits


async def test_never_more_than_the_limit_are_inside_and_who_waits_longest_is_next(
    queue: Queue, other: Queue, raw: redis.Redis
) -> None:
    """Two processes, and nobody is quicker than those who came before."""
    inside, most, order, gate = 0, 0, list[int](), asyncio.Event()

    async def visit(number: int) -> None:
        nonlocal inside, most
        limiter = (queue, other)[number % 2].limiter(Concurrency(3, name="visits"), wait=True, lease=60)
        async with limiter:
            inside, most = inside + 1, max(most, inside + 1)
            order.append(number)
            await gate.wait()
            await asyncio.sleep(0.001)
            inside -= 1

    visits = []
    for number in range(40):
        visits.append(asyncio.create_task(visit(number)))
        await until(lambda n=number: n < 3 or len(order) + waiting(raw) > n, f"{number} stands in line")  # type: ignore[misc]
    gate.set()
    await asyncio.gather(*visits)
    assert most == 3
    assert all(abs(place - number) <= 3 for place, number in enumerate(order)), " ".join(map(str, order))
    await until(lambda: not keys(raw, "holders", "line", "patience"), "no key is left")


@pytest.mark.usefixtures("for_ever")
async def test_who_waits_is_told_and_does_not_ask(queue: Queue, other: Queue, raw: redis.Redis) -> None:
    """A queue of a hundred that ask again and again is load, and each of them comes late."""
    first = await one(queue, lease=600).acquire()
    waits = asyncio.create_task(one(other, lease=600, wait=True).acquire())
    await until(lambda: waiting(raw) == 1, "it stands in line")
    await first.release()
    async with asyncio.timeout(30):
        second = await waits
    await second.release()


@pytest.fixture
def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away the net beneath what is told."""
    monkeypatch.setattr("aqueue.limiters.RECHECK_SECONDS", 600)


async def test_without_room_it_says_so_at_once_or_when_the_wait_is_over(queue: Queue, raw: redis.Redis) -> None:
    """A web application answers 429, and a later caller is not kept out by one that has given up."""
    async with one(queue):
        with pytest.raises(RateLimited, match=r"Limiter 'one' has no room; try again in") as caught:
            async with one(queue):
                pytest.fail("there is only one permit")
        assert (0 < caught.value.retry_after <= 1, caught.value.limiter) == (True, "one")
        with pytest.raises(RateLimited):
            await one(queue).acquire(wait=0.03)
        await until(lambda: not waiting(raw), "who gave up has left the line")
    async with one(queue, wait=0):
        assert holding(raw) == 1


async def test_a_cancelled_wait_takes_no_permit(queue: Queue, raw: redis.Redis) -> None:
    """Requests are cancelled when their clients hang up."""
    limiter = one(queue, wait=True)
    async with limiter:
        waits = [asyncio.create_task(limiter.acquire()) for _ in range(5)]
        await until(lambda: waiting(raw) == 5, "all stand in line")
        for task in waits[:-1]:
            task.cancel()
        await until(lambda: waiting(raw) == 1, "all but one have left")
    permit = await waits[-1]
    assert holding(raw) == 1
    await permit.release()
    await permit.release()
    await until(lambda: holding(raw) == 0, "the permit is free")


async def test_an_exception_and_a_cancel_release(queue: Queue, raw: redis.Redis) -> None:
    """Whatever ends the block."""
    with pytest.raises(ZeroDivisionError):
        async with one(queue):
            raise ZeroDivisionError
    begun = asyncio.Event()

    async def hold() -> None:
        async with one(queue):
            begun.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(hold())
    await begun.wait()
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: holding(raw) == 0, "the permit is free")


async def test_one_limiter_may_be_entered_many_times(queue: Queue, raw: redis.Redis) -> None:
    """It stands beside the tasks of a module, and all of its program share it."""
    limiter = queue.limiter(Concurrency(4, name="shared"))

    async def enter(depth: int) -> None:
        async with limiter as permit:
            assert not permit.lost
            if depth:
                await enter(depth - 1)
            else:
                await asyncio.sleep(0)

    await asyncio.gather(enter(1), enter(1))
    await limiter.__aenter__()  # as a fixture does, whose end may be in another task
    await asyncio.create_task(limiter.__aexit__())
    await until(lambda: holding(raw) == 0, "all have left")


async def test_a_permit_is_kept_although_the_loop_is_blocked(queue: Queue, other: Queue, raw: redis.Redis) -> None:
    """Blocking code must not let one more in."""
    async with one(queue, lease=2 * SHORT_LEASE) as permit:
        ends = float(raw.zrange(keys(raw, "holders")[0], 0, -1, withscores=True)[0][1])
        while float(raw.zrange(keys(raw, "holders")[0], 0, -1, withscores=True)[0][1]) < ends + 500:
            time.sleep(0.01)
        with pytest.raises(RateLimited):
            await one(other).acquire()
        assert not permit.lost


async def test_a_loop_that_is_blocked_beyond_the_cap_loses_its_permits(
    server: Server, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A hung process must not keep the others out for ever; it is told when it wakes up."""
    settings = Settings(lease=SHORT_LEASE, blocked_loop_cap=0.1)
    async with Queue("q", url=server.url, settings=settings) as queue, one(queue) as permit:
        while keys(raw, "holders"):
            time.sleep(0.01)
        async with one(queue, lease=600):
            await until(lambda: permit.lost, "it is told")
            await permit.release()
            assert holding(raw) == 1  # of the other
    assert "a permit of limiter one was lost" in caplog.text


async def test_a_permit_that_nobody_refers_to_ends_with_its_lease(queue: Queue, raw: redis.Redis) -> None:
    """Nobody could ever give it back."""
    await one(queue, lease=SHORT_LEASE).acquire()
    permit = await one(queue, wait=10).acquire()
    await permit.release()
    assert holding(raw) == 0


def _hold_for_ever(url: str, held: Any) -> None:
    async def main() -> None:
        async with Queue("q", url=url) as queue, one(queue, lease=1.5 * SHORT_LEASE):
            held.set()
            await asyncio.sleep(600)

    asyncio.run(main())


@pytest.mark.usefixtures("for_ever")
async def test_a_dead_process_frees_its_permit_within_the_lease(queue: Queue, raw: redis.Redis) -> None:
    """And who waits goes on at that instant, without anybody's release."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold_for_ever, args=(str(queue.address), held))
    process.start()
    await asyncio.to_thread(held.wait, 30)
    wait = asyncio.create_task(one(queue, wait=True).acquire())
    await until(lambda: waiting(raw) == 1, "it stands in line")
    process.kill()
    async with asyncio.timeout(30):
        permit = await wait
    await permit.release()
    await asyncio.to_thread(process.join)


@pytest.mark.usefixtures("for_ever")
async def test_a_limiter_outlives_a_close_and_a_second_loop(server: Server, raw: redis.Redis) -> None:
    """It stands in a module, and is used by whatever loop runs; who waits when its queue is closed is told."""
    queue = Queue("q", url=server.url)
    limiter = one(queue, wait=True, lease=600)

    async def use() -> None:
        async with limiter:
            waits = asyncio.create_task(limiter.acquire())
            await until(lambda: waiting(raw) == 1, "it stands in line")
            await asyncio.wait_for(queue.close(), 30)
            with pytest.raises(StoreUnavailable, match="was closed while a permit was waited for"):
                await asyncio.wait_for(waits, 30)
            assert waiting(raw) == 0
        assert holding(raw) == 0
        await queue.close()

    await use()
    await asyncio.to_thread(asyncio.run, use())
    await until(lambda: not [t for t in threading.enumerate() if t.name == "aqueue permits"], "no thread is left")
    assert holding(raw) == 0


async def test_the_thread_ends_when_nothing_was_held_for_a_while(
    queue: Queue, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next permit has a new one."""
    monkeypatch.setattr(keeper, "LINGER_SECONDS", 0.02)
    others = set(threading.enumerate())  # that of an earlier test may linger

    def threads() -> int:
        return sum(thread.name == "aqueue permits" for thread in set(threading.enumerate()) - others)

    for _ in range(2):
        async with one(queue, lease=1.5 * SHORT_LEASE):
            ends = float(raw.zrange(keys(raw, "holders")[0], 0, -1, withscores=True)[0][1])
            assert threads() == 1
            await until(
                lambda: float(raw.zrange(keys(raw, "holders")[0], 0, -1, withscores=True)[0][1]) > ends,  # noqa: B023
                "it is renewed",
            )
        await until(lambda: not threads(), "the thread has ended")


async def test_without_a_server_it_says_so_and_a_release_does_not_raise(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work is done by then; the lease ends by itself."""
    monkeypatch.setattr("aqueue.store.connection.PATIENCE_SECONDS", 0.1)
    async with Queue("q", url=own_server.url) as queue:
        async with one(queue, lease=SHORT_LEASE):
            own_server.kill()
        with pytest.raises(StoreUnavailable):
            await one(queue).acquire()


# rates and windows


def assert_within(limit: Rate | Window, instants: list[float]) -> None:
    """Check a bound on instants in seconds."""
    per = float(limit.per)  # type: ignore[arg-type]  # made seconds by the limit itself
    if isinstance(limit, Window):
        later = instants[limit.limit :]
        assert all(end - begin >= per - CLOCK_SECONDS for begin, end in zip(instants, later, strict=False))
        return
    interval, full = per / limit.limit, 0.0
    for instant in instants:
        assert instant >= full - interval * (limit.burst - 1) - CLOCK_SECONDS
        full = max(instant, full) + interval


def passed_at(raw: redis.Redis, kind: str, permit: Permit) -> float | None:
    """Give when the server let it pass, if that is known still."""
    for key in keys(raw, kind):
        if (passed_ms := raw.zscore(key, permit._held.holder)) is not None:  # pyright: ignore[reportPrivateUsage]
            return float(passed_ms) / 1000
    return None


@pytest.mark.parametrize("limit", [Rate(200, burst=5, name="r"), Window(20, per=0.1, name="w")], ids=["rate", "window"])
async def test_a_rate_is_kept_and_used_by_all_who_wait(
    queue: Queue, other: Queue, raw: redis.Redis, limit: Rate | Window
) -> None:
    """Each passes at the instant that it was named, by the server's clock."""
    instants, kind = list[float | None](), "passes" if isinstance(limit, Rate) else "pace"

    async def call(number: int) -> None:
        async with (queue, other)[number % 2].limiter(limit, wait=True) as permit:
            instants.append(passed_at(raw, kind, permit))

    begun = time.monotonic()
    await asyncio.gather(*(call(number) for number in range(100)))
    assert len(instants) == 100
    seen = sorted(instant for instant in instants if instant is not None)
    assert_within(limit, seen)  # the bounds hold for some of them as they do for all
    shortest = 0.475 if isinstance(limit, Rate) else 0.4
    if len(seen) == 100:  # a window forgets when it is over, which is soon; a pause may be longer
        assert shortest - CLOCK_SECONDS <= max(seen) - min(seen)
    assert time.monotonic() - begun <= shortest + 5  # the machine may be busy; alone it is all but the shortest


async def test_who_would_wait_too_long_is_told_at_once(queue: Queue) -> None:
    """And exactly when there is room, by the server's clock."""
    hourly = queue.limiter(Rate(1, per="1h", name="hourly"), wait="59m")
    async with hourly:
        pass
    with pytest.raises(RateLimited) as caught:
        await hourly.acquire()
    assert 3540 < caught.value.retry_after <= 3600


# in jobs


async def test_a_limited_job_comes_back_at_that_instant_and_nothing_is_counted(queue: Queue, raw: redis.Redis) -> None:
    """It is no failure: neither attempt nor crash, and no error; people can see why it waits."""
    limiter = queue.limiter(Rate(5, name="crm"))

    @queue.task(retry=Retry(max_attempts=1))
    async def push() -> float | None:
        async with limiter as permit:
            return passed_at(raw, "passes", permit)

    jobs = await queue.enqueue_many(push.call() for _ in range(4))
    async with Worker(queue):
        await until_ended(*jobs)
        passed = sorted([await job.result() or 0.0 for job in jobs])
        infos = [await job.info() for job in jobs]
    assert all(later - earlier >= 0.2 - CLOCK_SECONDS for earlier, later in pairwise(passed))
    assert [(info.attempt, info.crashes, info.error) for info in infos] == [(0, 0, None)] * 4
    assert max(info.limited for info in infos) <= 4  # one that is late moves the instants of the others


async def test_jobs_that_are_turned_away_are_each_named_an_instant_of_their_own(queue: Queue) -> None:
    """If all were to come back at once, all but one would do so in vain."""
    limiter = queue.limiter(Rate(1, per="1h", name="crm"))

    @queue.task
    async def push() -> None:
        async with limiter:
            pass

    jobs = await queue.enqueue_many(push.call() for _ in range(4))
    await Worker(queue).run(burst=True)
    infos = [await job.info() for job in jobs]
    waits = [info.due_at - info.started_at for info in infos if info.due_at is not None and info.started_at is not None]
    assert sorted(round(wait / timedelta(hours=1)) for wait in waits) == [1, 2, 3]
    assert sorted((info.limited, info.limited_by or "") for info in infos) == [(0, ""), *[(1, "crm")] * 3]


async def test_a_job_waits_visibly_for_what_it_was_told(queue: Queue, raw: redis.Redis) -> None:
    """By somebody else's 429, too; a job may be limited for as long as it takes."""

    @queue.task(retry=1)
    async def push(after: str) -> None:
        raise RateLimited(float(after))

    job, past, wrong = [await push.enqueue(after) for after in ("60", "-5", "nan")]
    async with Worker(queue):
        await until_state(job, "scheduled")
        await until_state(wrong, "failed")
        info = await job.info()
        assert info.due_at is not None
        assert info.started_at is not None
        assert 60 <= (info.due_at - info.started_at).total_seconds() < 80
        assert (info.attempt, info.limited, info.limited_by) == (0, 1, None)

        async def often() -> bool:
            return (await past.info()).limited > 3

        await until(often, "it has come back")
        assert (await queue.stats()).counters["limited"] > 3
        error = (await wrong.info()).error
        assert error is not None
        assert "the retry_after of RateLimited must be between 0 and" in error.message
        await job.cancel()
        await past.cancel()
        await until_state(past, JobState.CANCELLED)


async def test_middleware_is_told_of_a_job_that_is_turned_away(queue: Queue) -> None:
    """Whoever watches failures must not see one here, and whoever watches limits must."""
    told: list[tuple[str, str, float | None, str | None]] = []

    class Watch(Middleware):
        async def on_limited(self, event: moments.Limited) -> None:
            told.append((event.job_id, event.task, event.delay, event.by))

        async def on_retry(self, event: moments.Retrying) -> None:
            pytest.fail("it has not failed")

    @queue.task
    async def push() -> None:
        raise RateLimited(600, "crm")

    async with Worker(queue, middleware=[Watch()]):
        job = await push.enqueue()
        await until(lambda: told, "it is told")
    assert told == [(job.id, "push", 600, "crm")]
    await job.cancel()


async def test_a_plain_function_uses_it_in_its_thread_and_can_be_told_to_stop(queue: Queue, raw: redis.Redis) -> None:
    """`with` in a `def`; a thread that waits for a permit must not be deaf."""
    limiter = one(queue, wait=True)
    inside, most = 0, 0

    @queue.task
    def work() -> None:
        nonlocal inside, most
        with limiter, contextlib.ExitStack():
            inside, most = inside + 1, max(most, inside + 1)
            time.sleep(0.01)
            inside -= 1

    async with Worker(queue):
        jobs = [await work.enqueue() for _ in range(5)]
        await until_ended(*jobs)
        assert [await job.status() for job in jobs] == [JobState.COMPLETED] * 5
        assert most == 1
        async with limiter:
            job = await work.enqueue()
            await until(lambda: waiting(raw) == 1, "it stands in line")
            await job.cancel()
            await until_state(job, JobState.CANCELLED)
            await until(lambda: waiting(raw) == 0, "it has left the line")
    with pytest.raises(ConfigurationError, match=r"write `async with` here"), limiter:
        pass


async def test_a_worker_that_stops_releases_the_permits_of_its_jobs(queue: Queue, raw: redis.Redis) -> None:
    """A deploy must not keep the next worker out for a lease."""

    @queue.task
    async def work() -> None:
        async with one(queue, lease=60):
            await asyncio.sleep(60)

    job = await work.enqueue()
    async with Worker(queue, grace=0):
        await until(lambda: holding(raw) == 1, "it is inside")
    await until(lambda: holding(raw) == 0, "it has left")
    assert await job.status() == JobState.QUEUED


# what is refused


@pytest.mark.parametrize(
    ("limit", "options", "message"),
    [
        (Concurrency(2), {}, 'needs a name of up to 200 characters, .*; write Concurrency(2, name="...")'),
        (Rate(2), {}, 'write Rate(2, name="...")'),
        (Window(2, name="x" * 201), {}, "needs a name of up to 200 characters"),
        (Concurrency(2, key="customer"), {}, 'as in Concurrency(2, name=f"customer {customer}")'),
        ("stripe", {}, "takes a Concurrency, a Rate or a Window, not 'stripe'"),
        (3, {}, "takes a Concurrency, a Rate or a Window, not 3"),
        (Concurrency(2, name="n"), {"wait": -1}, "wait must be between 0 and"),
        (Concurrency(2, name="n"), {"wait": None}, "wait must be seconds, a timedelta"),
        (Concurrency(2, name="n"), {"wait": "soon"}, "wait"),
        (Concurrency(2, name="n"), {"lease": 0.1}, "lease must be at least 1 s, not 0.1 s"),
        (Rate(2, name="n"), {"lease": 5}, "A Rate has no lease"),
    ],
)
def test_a_limiter_that_makes_no_sense_is_refused_where_it_is_written(
    limit: Any, options: dict[str, Any], message: str
) -> None:
    """Before any server is asked."""
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(ConfigurationError, match=pattern):
        Queue("q", url="redis://nowhere").limiter(limit, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Concurrency(0, name="n"), lambda: Rate(1, burst=0, name="n"), lambda: Window(1, per=0, name="n"),
        lambda: Rate(1, per="0s", name="n"), lambda: Concurrency(1, name=""), lambda: Rate(-1, name="n"),
        lambda: Concurrency(True, name="n"), lambda: Window(20_000, name="n"), lambda: Concurrency(1, name="a\nb"),
    ],
)  # fmt: skip
def test_numbers_that_make_no_limit_are_refused(make: Any) -> None:
    """As for the limits of tasks."""
    with pytest.raises(ConfigurationError):
        make()


async def test_names_kinds_and_queues_count_apart(server: Server, queue: Queue) -> None:
    """And so do the limits of tasks under the same name."""
    async with Queue("other", url=server.url) as elsewhere:
        limits: list[tuple[Queue, Limit]] = [
            (queue, Concurrency(1, name="a")), (queue, Concurrency(1, name="b")), (elsewhere, Concurrency(1, name="a")),
            (queue, Rate(1, per=60, name="a")), (queue, Rate(2, per=60, name="a")),
            (queue, Window(1, per=60, name="a")),
        ]  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:
            for owner, limit in limits:
                await stack.enter_async_context(owner.limiter(limit))

        @queue.task(limit=Rate(1, per=60, name="a"))
        async def limited() -> str:
            return datetime.now(UTC).isoformat()

        async with Worker(queue):
            assert await (await limited.enqueue()).result(timeout=10)
