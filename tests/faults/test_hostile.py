"""Hostile input: what lies in the store, what the server says and what callers pass is one job's problem at most.

Each case is drawn by hypothesis. A worker must live on, the neighbours of what is damaged must complete, the damaged
job must have an error of its own or be there to be seen, and no key may stay for ever.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import hypothesis.strategies as st
import pytest
import redis
from leaks import leaks
from servers import Server

from aqueue import (
    AqueueError,
    Job,
    JobFailed,
    JobState,
    Middleware,
    Queue,
    Retry,
    Settings,
    StoreError,
    StoreUnavailable,
    Task,
    Worker,
)
from aqueue.job import JobId, LeaseToken, WorkerId
from aqueue.middleware import Outgoing, Store
from aqueue.ops.checkup import examine
from aqueue.ops.site import open_site
from aqueue.store import scripts
from aqueue.store.client import Client
from aqueue.store.failures import FailedEntry, Place
from aqueue.store.permits import Holder, Permits, Turnstile
from aqueue.store.records import Completed, Fault, NewJob, Settle
from aqueue.store.schedules import Declaration, Slot
from faults import hostile
from faults.hostile import EXTENT, explore, promptly
from faults.proxy import Answer, Decide, Lie, Proxy, Request

T = TypeVar("T")

JOBS: Final = 25
"""In one example: so many hostile ones among their neighbours."""
SETTINGS: Final = Settings(retry=Retry(max_attempts=1), lease=1.5, failure_ttl=600)


@pytest.fixture(autouse=True)
def unknown_tasks_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aqueue.worker.executor.UNKNOWN_TASK_DELAY_SECONDS", 0)


class Application:
    """A queue with one task, and what has run."""

    def __init__(self, url: str, **settings: Any) -> None:
        options: dict[str, Any] = {"retry": SETTINGS.retry, "lease": 1.5, "unknown_task_window": 0.0, **settings}
        self.queue = Queue("q", url=url, settings=Settings(**options))
        self.work: Task[[int], int] = self.queue.task(name="work")(self._work)
        self.open = asyncio.Event()
        self.open.set()
        self.started = 0

    async def _work(self, n: int) -> int:
        self.started += 1
        await self.open.wait()
        return n

    async def both_kinds(self, count: int) -> tuple[list[Job[int]], list[Job[int]]]:
        """Enqueue jobs to be damaged, and their neighbours, by turns."""
        jobs = await self.queue.enqueue_many(self.work.call(n) for n in range(2 * count))
        return jobs[::2], jobs[1::2]

    async def assert_whole(self, neighbours: Sequence[Job[int]]) -> None:
        """The neighbours are done, and the next job will be."""
        assert [await job.status() for job in neighbours] == [JobState.COMPLETED] * len(neighbours)
        job = await self.work.enqueue(-1)
        await Worker(self.queue).run(burst=True)
        assert await job.result(timeout=10) == -1


def key(kind: str, job_id: str) -> str:
    return f"aqueue:{{q}}:{kind}:{job_id}"


# envelopes


@EXTENT
def test_an_envelope_may_be_anything(server: Server, raw: redis.Redis, examples: float) -> None:
    """It has an end of its own, with an error that can be read, and costs nobody else anything."""
    ends: Counter[str] = Counter()

    async def story(envelopes: list[bytes]) -> None:
        raw.flushall()
        application = Application(server.url)
        async with application.queue, promptly():
            damaged, neighbours = await application.both_kinds(len(envelopes))
            for job, envelope in zip(damaged, envelopes, strict=True):
                raw.set(key("payload", job.id), envelope)
            await Worker(application.queue, concurrency=20).run(burst=True)
            await application.assert_whole(neighbours)
            for job in damaged:
                info = await job.info()
                ends[info.state] += 1
                assert info.state in (JobState.COMPLETED, JobState.FAILED)
                if info.state is JobState.FAILED:
                    with pytest.raises(JobFailed) as caught:
                        await job.result(timeout=15)
                    assert caught.value.exception_type in (
                        "BadArguments",
                        "EnvelopeTooNew",
                        "UnknownTask",
                        "TimeoutError",
                    )
            assert not leaks(raw)

    explore(round(500 * examples), st.lists(hostile.envelopes, min_size=JOBS, max_size=JOBS), story)
    print(f"\n{sum(ends.values())} envelopes: {dict(ends)}")
    assert ends[JobState.FAILED]
    assert ends[JobState.COMPLETED] or examples < 1, "few envelopes may all be damaged, thousands not"


# records


async def _operate(job: Job[int], queue: Queue, number: int) -> None:
    """Do one of all things that can be done with a job; an answer or a clear error is all that is asked for."""
    operations: tuple[Callable[[], Awaitable[object]], ...] = (
        job.status, job.info, job.cancel, lambda: job.result(timeout=0.01), lambda: queue.rerun(job.id),
        lambda: queue.delete(job.id), lambda: queue.jobs("queued"), lambda: queue.jobs("failed"), queue.stats,
        lambda: queue.failed.list(error="x", newer_than="1h"), lambda: queue.failed.rerun(job.id, args=(1,)),
        lambda: queue.failed.rerun_all(task="work"), queue.failed.purge,
    )  # fmt: skip
    try:
        await operations[number % len(operations)]()
    except AqueueError as error:
        assert str(error)  # noqa: PT017  # any of them may come, or none


def _change(raw: redis.Redis, job: Job[int], fields: dict[bytes, bytes | None]) -> None:
    for name, value in fields.items():
        if value is None:
            raw.hdel(key("job", job.id), name)
        else:
            raw.hset(key("job", job.id), name, value)


def _assert_no_end_is_endless(raw: redis.Redis, job: Job[int]) -> None:
    """Whatever has ended here is forgotten in time, unless its record asks for something else."""
    record: dict[str, str] = dict(raw.hgetall(key("job", job.id)))  # type: ignore[arg-type]
    endless = "-1" in (record.get("result_ttl_ms"), record.get("failure_ttl_ms"))
    if record.get("ended_ms", "").isdigit() and int(record["ended_ms"]) > 10**12 and not endless:
        assert raw.ttl(key("job", job.id)) != -1, record


@pytest.mark.parametrize("moment", ["waiting", "running"])
@EXTENT
def test_a_record_may_hold_anything(server: Server, examples: float, moment: str) -> None:
    """Nothing about it keeps workers, neighbours, operators or the doctor from what they do."""
    cases: Counter[str] = Counter()
    raw = redis.Redis(unix_socket_path=str(server.socket), decode_responses=True, encoding_errors="replace")

    async def story(drawn: list[tuple[dict[bytes, bytes | None], int]]) -> None:
        raw.flushall()
        application = Application(server.url)
        async with application.queue, promptly():
            damaged, neighbours = await application.both_kinds(len(drawn))
            worker = Worker(application.queue, concurrency=4 * JOBS)
            if moment == "running":
                application.open.clear()
            else:
                for job, (fields, _) in zip(damaged, drawn, strict=True):
                    _change(raw, job, fields)
            running = asyncio.create_task(worker.run(burst=True))
            if moment == "running":
                while application.started < 2 * len(drawn):
                    await asyncio.sleep(0)
                for job, (fields, _) in zip(damaged, drawn, strict=True):
                    _change(raw, job, fields)
                application.open.set()
            await running
            await application.assert_whole(neighbours)
            for job, (_, number) in zip(damaged, drawn, strict=True):
                state = str(raw.hget(key("job", job.id), "state"))
                cases[state if state in set(JobState) else "no state"] += 1
                _assert_no_end_is_endless(raw, job)
                await _operate(job, application.queue, number)
            await Worker(application.queue).run(burst=True)
            async with open_site(server.url) as site:
                await examine(site, [], 10_000, mend=True)
            for job in damaged:
                raw.delete(key("job", job.id), key("payload", job.id))
            await application.queue.purge()
            await application.queue.purge(failed=True)
            await application.assert_whole([])
            assert not [one for one in leaks(raw) if ":permits:" not in one and ":waiting:" not in one]

    drawn = st.tuples(hostile.changes, st.integers(0, 100))
    explore(round(200 * examples), st.lists(drawn, min_size=JOBS, max_size=JOBS), story)
    print(f"\n{sum(cases.values())} records, {moment}: {dict(cases)}")
    raw.flushall()
    raw.close()


# answers


def once(lie: Lie) -> Decide:
    """Lie about the first call of a script."""
    told: list[Request] = []

    def decide(request: Request) -> Lie | None:
        if told or request.name not in scripts.names():
            return None
        told.append(request)
        return lie

    return decide


ONE: Final = JobId("one")
ME: Final = WorkerId("me")
HOURLY: Final = Declaration(
    id="hourly",
    owner="code",
    task="work",
    definition="hourly",
    spec="{}",
    call=hostile.VALID,
    overlap="skip",
    declared_ms=1,
)
GATE: Final = Turnstile(kind="c", digest="aa", first=1, second=0, lease_ms=1000)
HOLDER: Final = Holder("abc/1")
CALLS: Final[dict[str, Callable[[Client], Awaitable[object]]]] = {
    "enqueue": lambda store: store.enqueue([NewJob(id=ONE, envelope=hostile.VALID)]),
    "cancel": lambda store: store.cancel(ONE),
    "await": lambda store: store.ended([ONE], "somebody"),
    "expire": lambda store: store.expire(ONE),
    "rerun": lambda store: store.rerun(ONE),
    "delete": lambda store: store.delete(ONE),
    "purge": lambda store: store.purge(),
    "pause": lambda store: store.pauses.pause(),
    "pause_task": lambda store: store.pauses.pause_task("work"),
    "resume": lambda store: store.pauses.resume(),
    "resume_task": lambda store: store.pauses.resume_task("work"),
    "settle_and_claim": lambda store: store.settle_and_claim(
        ME, 1, [Settle(ONE, LeaseToken("me/0"), Completed(b"1", 1000, "work"))], 5
    ),
    "extend": lambda store: store.extend(ME, 1, [ONE], "{}"),
    "retire": lambda store: store.retire(ME),
    "promote": lambda store: store.promote(),
    "reclaim": lambda store: store.reclaim(),
    "prune": lambda store: store.prune(),
    "stats": lambda store: store.stats(),
    "list": lambda store: store.list_ids(JobState.QUEUED, 0, 5),
    "list_failed": lambda store: store.failures.look(None, "oldest", 5),
    "purge_failed": lambda store: store.failures.purge([FailedEntry(Place(b"5", b"one"), "5", b"", b"")]),
    "inspect": lambda store: store.inspect([ONE]),
    "examine": lambda store: store.repairs.examine([ONE], 5),
    "mend": lambda store: store.repairs.mend([(ONE, Fault.QUEUED_NOWHERE)], 5),
    "readmit": lambda store: store.repairs.readmit([ME]),
    "tick": lambda store: store.schedules.tick(
        ME, HOURLY, [Slot(-1, NewJob(id=ONE, envelope=hostile.VALID))], after_ms=0, upto_ms=0, next_ms=None
    ),
    "withdraw": lambda store: store.schedules.withdraw(ME, 1, ["work"], []),
    "schedules": lambda store: store.schedules.page("code"),
    "describe": lambda store: store.schedules.describe(["hourly"]),
    "define": lambda store: store.schedules.define(HOURLY, "this call"),
    "steer": lambda store: store.schedules.steer("hourly", "pause", "this call"),
    "reschedule": lambda store: store.schedules.reschedule(ONE, "c", delay_ms=5, at_ms=None),
    "acquire": lambda store: Permits(store).acquire(GATE, HOLDER, wait_ms=-1),
    "renew_permits": lambda store: Permits(store).renew([(GATE, HOLDER)]),
    "release_permit": lambda store: Permits(store).release(GATE, HOLDER),
}


def test_every_script_is_called_here() -> None:
    """A new one must not be forgotten."""
    assert sorted(CALLS) == scripts.names()


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call as who is patient does; time-outs are short here, and machines busy."""
    while True:
        try:
            return await call()
        except StoreUnavailable:
            continue


async def insist(queue: Queue, n: int) -> Job[Any]:
    return await patiently(lambda: queue.remote("work").options(key=str(n)).enqueue(n))


answers = st.one_of(
    hostile.replies.map(Answer),
    hostile.replies.map(lambda whole: Answer(whole[: len(whole) // 2], last=True)),
    hostile.nonsense.map(lambda raw: Answer(raw, last=True)),
)


@EXTENT
@pytest.mark.usefixtures("impatient")
def test_an_answer_may_be_anything(server: Server, raw: redis.Redis, examples: float) -> None:
    """A call is answered or fails with a clear error; it neither hangs nor raises what nobody expects."""
    outcomes: Counter[str] = Counter()

    async def story(lies: list[tuple[str, Answer]]) -> None:
        async with Proxy(server.socket) as proxy, promptly(60):
            door = await proxy.door("only")
            queue = Queue("q", url=door.url)
            store = await patiently(queue.store)
            await patiently(store.register)
            for name, lie in lies:
                proxy.decide = once(lie)
                try:
                    await CALLS[name](store)
                    outcomes["answered"] += 1
                except StoreError as error:
                    outcomes[type(error).__name__] += 1
            await queue.close()
        raw.flushall()

    drawn = st.lists(st.tuples(st.sampled_from(sorted(CALLS)), answers), min_size=JOBS, max_size=JOBS)
    explore(round(200 * examples), drawn, story)
    print(f"\n{sum(outcomes.values())} answers: {dict(outcomes)}")
    assert outcomes["StoreError"] > 0


@EXTENT
@pytest.mark.usefixtures("impatient")
def test_a_worker_outlives_whatever_its_server_says(server: Server, raw: redis.Redis, examples: float) -> None:
    """To scripts, parked fetch, subscription and greeting; once the server is itself again, all is done."""
    told: Counter[str] = Counter()

    async def story(lies: list[Answer]) -> None:
        left = list(lies)

        def decide(request: Request) -> Lie | None:
            rare = request.name in ("HELLO", "CLIENT SETINFO") and request.nth % 6
            if not left or request.number % 3 or rare:
                return None
            told[request.name] += 1
            return left.pop()

        async with Proxy(server.socket) as proxy, promptly(60):
            door = await proxy.door("worker")
            application, producer = Application(door.url), Queue("q", url=server.url)
            for queue in (application.queue, producer):
                await patiently(queue.store)
            async with application.queue, producer, Worker(application.queue):
                proxy.decide = decide
                jobs = [await insist(producer, n) for n in range(5)]
                while left:  # parked fetches, heartbeats and lost turns bring more requests
                    jobs.append(await insist(producer, len(jobs)))
                    await asyncio.sleep(0.01)
                results = [await patiently(partial(job.result, timeout=30)) for job in jobs]
                assert results == list(range(len(jobs)))
        raw.flushall()

    explore(round(100 * examples), st.lists(answers, min_size=12, max_size=12), story)
    print(f"\n{sum(told.values())} answers to workers: {dict(told)}")


# names, keys, ids, headers


class Headers(Middleware):
    """Sends what it is given."""

    def __init__(self) -> None:
        self.sent: dict[Any, Any] = {}

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        for call in calls:
            call.headers.update(self.sent)
        return await proceed(calls)


@EXTENT
def test_a_name_a_key_an_id_or_a_header_may_be_anything(server: Server, raw: redis.Redis, examples: float) -> None:
    """It is refused before anything is written, or it works."""
    outcomes: Counter[str] = Counter()

    async def tried(what: str, attempt: Callable[[], Awaitable[object]]) -> None:
        before = sorted(raw.keys())
        try:
            await attempt()
            outcomes[f"{what} taken"] += 1
        except AqueueError as error:
            outcomes[f"{what} refused"] += 1
            assert len(str(error)) < 1000  # noqa: PT017  # as above
            assert sorted(raw.keys()) == before

    async def on_queue(name: Any) -> None:
        async with Queue(name, url=server.url, settings=Settings(unknown_task_window=0)) as queue:
            job = await queue.enqueue("work", 1)
            await job.info()
            await Worker(queue).run(burst=True)
            assert await job.status() is JobState.FAILED  # nobody knows the task
            assert await queue.purge(failed=True) == 1

    async def by_task(queue: Queue, name: Any) -> None:
        await queue.remote(name).enqueue(1)

    async def by_key(queue: Queue, name: Any) -> None:
        await queue.remote("work").options(key=name).enqueue(1)

    async def by_id(queue: Queue, name: Any) -> None:
        await queue.job(name).info()

    async def story(drawn: list[Any]) -> None:
        raw.flushall()
        middleware = Headers()
        async with Queue(
            "q", url=server.url, middleware=[middleware], settings=Settings(unknown_task_window=0)
        ) as queue:
            for name in ["plain", None, *drawn]:  # so that each kind of outcome is among them
                middleware.sent = {}
                await tried("queue", partial(on_queue, name))
                await tried("task", partial(by_task, queue, name))
                await tried("key", partial(by_key, queue, name))
                await tried("id", partial(by_id, queue, name))
                middleware.sent = {name: name}
                await tried("header", lambda: queue.enqueue("work"))
            middleware.sent = {}
            await Worker(queue).run(burst=True)
            stats = await queue.stats()
            assert (stats.queued, stats.running, stats.scheduled) == (0, 0, 0)
            assert not leaks(raw)

    explore(round(200 * examples), st.lists(hostile.names, min_size=10, max_size=10), story)
    print(f"\n{sum(outcomes.values())} names: {dict(outcomes)}")
    assert len(outcomes) == 9  # ids that are taken name no job, which is an error too
