"""A fixed piece of work that makes every call of the store at least once, for sweeps to disturb.

Its callers behave as patient applications do: a call that nobody can say anything about is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import pytest
import redis

from aqueue import (
    Cancellation,
    Concurrency,
    ConfigurationError,
    Context,
    Debounce,
    Discard,
    Job,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    Queue,
    Rate,
    RateLimited,
    Retry,
    RetryLater,
    ScheduleNotFound,
    Settings,
    StoreUnavailable,
    Throttle,
    Worker,
)
from aqueue.job import JobId, WorkerId
from aqueue.store.records import Fault
from aqueue.store.schedules import Declaration, Slot
from aqueue.submission import new_job, outgoing
from aqueue.task import Call
from faults.history import History

T = TypeVar("T")

SETTINGS: Final = Settings(retry=Retry(max_attempts=3, backoff=0.02))
RESULT_SECONDS: Final = 30.0
"""Ends a run that has failed."""
TRIES: Final = 5


class Workload:
    """One run of it: producers come through one address, workers through another."""

    def __init__(self, name: str, *, producer: str, worker: str, raw: redis.Redis, raw_url: str) -> None:
        self.name = name
        self.history = History()
        self.stage = "not begun"
        self._raw = raw
        self._producer = Queue(name, url=producer, settings=SETTINGS)
        self._worker = Queue(name, url=worker, settings=SETTINGS)
        self._aside = Queue(name, url=raw_url, settings=SETTINGS)
        """Past the proxy: for what is prepared, not tried."""
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._register_tasks()

    def _register_tasks(self) -> None:
        history = self.history
        signals: defaultdict[str, list[Exception]] = defaultdict(
            lambda: [RateLimited(0.01, "somebody else's"), RetryLater(0.01, "not ready yet", count=False)]
        )

        def started(context: Context, label: str = "") -> str:
            assert context.job is not None
            history.start(context.job.id)
            self._started[label].set()
            return context.job.id

        @self._worker.task
        async def add(context: Context, n: int) -> int:
            job_id = started(context)
            if n < 0:
                raise Discard("less than nothing")
            history.end(job_id)
            return n

        self._worker.register(add.function, "put_aside", add.defaults)

        @self._worker.task
        async def second_time(context: Context) -> str:
            job_id = started(context)
            if signals[job_id]:
                history.cause(job_id)
                raise signals[job_id].pop()
            if context.attempt == 1:
                history.cause(job_id)
                raise ValueError("the first time it fails")
            history.end(job_id)
            return "done"

        @self._worker.task
        async def doomed(context: Context) -> None:
            started(context)
            raise Discard("of no use")

        @self._worker.task
        async def gated(context: Context, label: str) -> str:
            job_id = started(context, label)
            try:
                await self._gates[label].wait()
            except asyncio.CancelledError:
                history.cause(job_id)
                raise
            history.end(job_id)
            return "done"

    # what a patient caller does

    async def _insist(self, call: Callable[[], Awaitable[T]], *, done: tuple[type[Exception], ...] = ()) -> T | None:
        """Call until there is an answer; `done` says of a repeated call that the first one has been executed."""
        unanswered = 0
        while True:
            try:
                return await call()
            except StoreUnavailable:
                unanswered += 1
                if unanswered == TRIES:
                    raise
            except done:
                if not unanswered:
                    raise
                return None

    async def _enqueue(self, *calls: Call[Any]) -> list[Job[Any]]:
        async def once() -> list[Job[Any]]:
            self.history.asked += len(calls)
            if len(calls) == 1:
                return [await self._producer.submit(calls[0])]
            return await self._producer.enqueue_many(calls)

        jobs = await self._insist(once)
        assert jobs is not None
        self.history.acknowledged.update(job.id for job in jobs)
        return jobs

    async def _result(self, job: Job[Any]) -> Any:
        result = await self._insist(lambda: job.result(RESULT_SECONDS))
        self.history.told.add(job.id)
        return result

    async def _until_started(self, label: str) -> None:
        async with asyncio.timeout(RESULT_SECONDS):
            await self._started[label].wait()

    def _call(self, task: str, *args: Any, **options: Any) -> Call[Any]:
        return self._producer.remote(task).options(**options).call(*args)

    # the work

    async def run(self) -> None:
        try:
            async with asyncio.timeout(2 * RESULT_SECONDS):
                await self._run()
        finally:
            self.stage += ", closing"
            for queue in (self._producer, self._worker, self._aside):
                await queue.close()

    async def _run(self) -> None:
        self.stage = "a worker dies"
        orphan = await self._leave_to_a_dead_worker()
        self.stage = "a paused queue"
        waiting = await self._fill_a_paused_queue()
        aside = await self._pause_a_task()
        self.stage = "the first worker"
        async with Worker(self._worker, concurrency=4, grace=0):
            await self._insist(self._producer.resume)
            assert [await self._result(job) for job in [orphan, *waiting]] == [0, 1, 2, 3, 4, 5, 5, 11, 12, 13, 14, 15]
            self.stage = "a task is resumed"
            await self._insist(lambda: self._producer.resume("put_aside"))
            assert [await self._result(job) for job in aside] == [17, 18, 19]
            self.stage = "a job fails once"
            (again,) = await self._enqueue(self._call("second_time"))
            assert await self._result(again) == "done"
            info = await self._insist(again.info)
            assert info is not None
            assert [run.outcome for run in info.history] == ["retried", "completed"]
            self.stage = "a job fails for good"
            await self._fail_and_rerun()
            self.stage = "a schedule is made"
            await self._schedule()
            self.stage = "a job is put off"
            await self._put_off()
            self.stage = "failed jobs are chosen"
            await self._choose_among_the_failed()
            self.stage = "a running job is cancelled"
            await self._cancel_while_it_runs()
            self.stage = "a job is interrupted"
            (interrupted,) = await self._enqueue(self._call("gated", "interrupted"))
            await self._until_started("interrupted")
        self._end_leases()  # of a worker that could not say farewell
        self._gates["interrupted"].set()
        self.stage = "the second worker"
        async with Worker(self._worker, concurrency=4, grace=0):
            assert await self._result(interrupted) == "done"
        self.stage = "limiters"
        await self._pass_limiters()
        self.stage = "upkeep"
        await self._look_after()

    async def _leave_to_a_dead_worker(self) -> Job[Any]:
        (orphan,) = await self._enqueue(self._call("add", 0))
        store = await self._insist(self._aside.store)
        assert store is not None
        turn = await self._insist(lambda: store.settle_and_claim(WorkerId("dead"), 1, [], 10))
        assert turn is not None
        assert orphan.id in {lease.id for lease in turn.leases}
        self._end_leases()
        return orphan

    def _end_leases(self) -> None:
        """Let the time pass that the workers' leases last."""
        key = f"aqueue:{{{self.name}}}:workers"
        for worker in map(str, self._raw.zrange(key, 0, -1)):
            self._raw.zadd(key, {worker: 1})

    async def _fill_a_paused_queue(self) -> list[Job[Any]]:
        await self._insist(self._producer.pause)
        (unwanted,) = await self._enqueue(self._call("add", 99))
        assert await self._insist(unwanted.cancel) is Cancellation.CANCELLED
        (late,) = await self._enqueue(self._call("add", 98, ttl=0.02))
        with pytest.raises(JobExpired):  # by whoever waits for it, as nobody may start it
            await self._result(late)
        bulk = await self._enqueue(*(self._call("add", n) for n in (1, 2, 3)))
        (delayed,) = await self._enqueue(self._call("add", 4, delay=0.02))
        (keyed,) = await self._enqueue(self._call("add", 5, key="k", delay=0.01))
        (twin,) = await self._enqueue(self._call("add", 6, key="k"))
        assert twin == keyed
        return [*bulk, delayed, keyed, twin, *await self._enqueue_choosy_ones()]

    async def _pause_a_task(self) -> list[Job[Any]]:
        """Its jobs wait on a shelf while the jobs of others run, one of them with its priority."""
        await self._insist(lambda: self._producer.pause("put_aside"))
        options: tuple[dict[str, Any], ...] = ({}, {"priority": 9}, {"limit": Concurrency(1)})
        return await self._enqueue(*(self._call("put_aside", 17 + n, **one) for n, one in enumerate(options)))

    async def _enqueue_choosy_ones(self) -> list[Job[Any]]:
        """Jobs that change another's arguments, that stand before the others, and that wait for a limit."""
        (first,) = await self._enqueue(self._call("add", 10, key="d", unique=Debounce(0.01)))
        (changed,) = await self._enqueue(self._call("add", 11, key="d", unique=Debounce(0.01)))
        assert changed == first
        (urgent,) = await self._enqueue(self._call("add", 12, priority=9))
        gates = [Concurrency(1), Rate(500)]
        limited = await self._enqueue(*(self._call("add", n, limit=gates, front=n == 15) for n in (13, 14, 15)))
        return [changed, urgent, *limited]

    async def _fail_and_rerun(self) -> None:
        (job,) = await self._enqueue(self._call("doomed"))
        with pytest.raises(JobFailed):
            await self._result(job)

        async def rerun() -> None:
            self.history.cause(job.id)  # each wish is one of its own
            await self._producer.rerun(job.id)

        await self._insist(rerun, done=(ConfigurationError,))
        with pytest.raises(JobFailed):
            await self._result(job)
        self.history.removed.add(job.id)
        with contextlib.suppress(JobNotFound):  # the answer to a call that was sent twice: the job is gone either way
            await self._insist(lambda: self._producer.delete(job.id))

    async def _choose_among_the_failed(self) -> None:
        """Enqueued once however often that is asked for: a twin would be chosen, too."""
        failed = self._producer.failed
        (job,) = await self._enqueue(self._call("add", -1, key="chosen", unique=Throttle(600)))
        with pytest.raises(JobFailed):
            await self._result(job)
        page = await self._insist(lambda: failed.list(task="add", error="Discard"))
        assert page is not None
        assert [info.id for info in page.jobs] == [job.id]

        async def change() -> None:
            self.history.cause(job.id)
            await failed.rerun(job.id, args=(17,), delay=0.01)

        await self._insist(change, done=(ConfigurationError,))
        assert await self._result(job) == 17

        (other,) = await self._enqueue(self._call("add", -2, key="other", unique=Throttle(600)))
        with pytest.raises(JobFailed):
            await self._result(other)

        async def again() -> None:
            self.history.cause(other.id)
            await failed.rerun_all(task="add")

        await self._insist(again)
        with pytest.raises(JobFailed):
            await self._result(other)
        self.history.removed.add(other.id)
        await self._insist(lambda: failed.purge(error="Discard", task="add"))
        page = await self._insist(lambda: failed.list(task="add"))
        assert page is not None
        assert page.jobs == []

    async def _cancel_while_it_runs(self) -> None:
        (job,) = await self._enqueue(self._call("gated", "cancelled"))
        await self._until_started("cancelled")
        await self._insist(job.cancel)
        with pytest.raises(JobCancelled):
            await self._result(job)

    async def _tick(self) -> None:
        """One slot of a schedule, once, and then the schedule is forgotten."""
        schedules, me = (await self._producer.store()).schedules, WorkerId("me")
        call = self._call("add", 16)
        slot = Slot(-1, new_job(call, outgoing(call), SETTINGS, self._producer.wire, JobId("hourly.1")))
        hourly = Declaration(
            id="hourly", owner="code", task="add", definition="hourly", spec="{}", call=b"", declared_ms=1
        )
        self.history.asked += 1
        self.history.acknowledged.add(slot.job.id)
        found = await self._insist(lambda: schedules.tick(me, hourly, [slot], after_ms=0, upto_ms=0, next_ms=None))
        assert found is not None
        assert found.state in ("new", "known")
        described = await self._insist(lambda: schedules.describe(["hourly"]))
        assert [one.job for one in (described or (0, []))[1]] == [slot.job.id]
        await self._insist(lambda: schedules.withdraw(me, 2, ["add"], []))

    async def _pass_limiters(self) -> None:
        """Have one permit at a time, for longer than until it is renewed; then pass one that is open now and then."""
        one = self._producer.limiter(Concurrency(1, name="one"), wait=RESULT_SECONDS, lease=2)
        pace = self._producer.limiter(Rate(200, burst=2, name="pace"), wait=RESULT_SECONDS)
        inside = 0

        async def visit(*, long: bool) -> None:
            nonlocal inside
            async with one:
                inside += 1
                assert inside == 1, "a permit was given twice"
                if long:
                    await self._until_renewed()
                inside -= 1

        async def call() -> None:
            async with pace:
                pass

        await asyncio.gather(*(self._insist(partial(visit, long=long)) for long in (True, False, False)))
        await asyncio.gather(*(self._insist(call) for _ in range(4)))

    async def _until_renewed(self) -> None:
        (key,) = self._raw.scan_iter(f"aqueue:{{{self.name}}}:holders:*", count=1000)
        before = self._raw.zrange(key, 0, 0, withscores=True)
        async with asyncio.timeout(RESULT_SECONDS):
            while self._raw.zrange(key, 0, 0, withscores=True) == before:
                await asyncio.sleep(0.02)

    async def _schedule(self) -> None:
        """A schedule made at run time, from its beginning to its end; the worker starts three jobs, and one more."""
        schedules = self._producer.schedules
        await self._insist(lambda: self._producer.schedule(self._call("add", 17), id="made", every=600, repeat=3))
        await self._insist(lambda: schedules.pause("made"))
        await self._insist(lambda: schedules.edit("made", call=self._call("add", 18), every=0.1))
        assert [info.id for info in await self._insist(schedules.list) or ()] == ["made"]
        self.history.asked += 1
        job = await self._insist(lambda: schedules.run("made", call="now"))
        assert job is not None
        self.history.acknowledged.add(job.id)
        assert await self._result(job) == 18
        await self._insist(lambda: schedules.resume("made"), done=(ConfigurationError,))  # it may have ended by then
        async with asyncio.timeout(RESULT_SECONDS):
            while (info := await self._insist(lambda: schedules.get("made"))) is None or info.state != "ended":
                await asyncio.sleep(0.02)
        assert info.jobs == 3
        slots = [str(key) for key in self._raw.scan_iter(f"aqueue:{{{self.name}}}:job:made.*", count=1000)]
        ids = {slot.rpartition(":")[2] for slot in slots} - {job.id}
        assert len(ids) == 3
        self.history.asked += 3
        self.history.acknowledged |= ids
        await self._insist(lambda: schedules.delete("made"), done=(ScheduleNotFound,))

    async def _put_off(self) -> None:
        """A job is put off and then brought forward."""
        (job,) = await self._enqueue(self._call("add", 19, delay=300))
        await self._insist(lambda: job.reschedule(delay=600))
        await self._insist(lambda: job.reschedule(delay=0), done=(ConfigurationError,))
        assert await self._result(job) == 19

    async def _look_after(self) -> None:
        (far,) = await self._enqueue(self._call("add", 7, delay=600))
        store = await self._producer.store()
        for call in (store.promote, store.prune, store.stats):
            await self._insist(call)
        await self._insist(lambda: store.repairs.examine([far.id], 10))
        await self._insist(lambda: store.repairs.mend([(far.id, Fault.SCHEDULED_NOWHERE)], 10))  # which it is not
        await self._insist(lambda: store.repairs.readmit([WorkerId("dead")]))
        await self._tick()
        listed = await self._insist(lambda: self._producer.jobs("scheduled"))
        assert far.id in {info.id for info in listed or ()}
        base = f"aqueue:{{{self.name}}}:"
        waiting = [*self._raw.lrange(f"{base}queued", 0, -1), *self._raw.zrange(f"{base}scheduled", 0, -1)]
        self.history.removed.update(map(str, waiting))
        await self._insist(self._producer.purge)
