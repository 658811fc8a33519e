"""Other programs in the same server: something of theirs under a key of ours, and keys of theirs beside ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final

import pytest
import redis
from servers import Server, binaries
from typer.testing import CliRunner

from aqueue import AqueueError, Concurrency, Job, JobState, Queue, Rate, Retry, Settings, StoreError, Window, Worker
from aqueue.job import JobId, QueueName, WorkerId
from aqueue.limits import Limit
from aqueue.ops.cli import app
from aqueue.store.keys import GATES, TYPES, Keys
from faults.hostile import no_cry_for_help

KEYS: Final = Keys("aqueue", QueueName("q"))
SETTINGS: Final = Settings(lease=1.5, retry=Retry(max_attempts=1))
OF_QUEUE: Final = sorted(kind for kind in TYPES if isinstance(vars(Keys)[kind], cached_property))
OF_WORKER: Final = ("worker", "inbox", "held")
THEIRS: Final = "somebody else's"
WAIT_SECONDS: Final = 20.0
LINES: Final = 20
"""That a worker may write about one such key, however long it lies there."""


@pytest.fixture
def engine() -> str:
    """Types are the same on all servers."""
    return str(next(iter(binaries())))


def put_something_else(raw: redis.Redis, key: str, kind: str) -> str:
    """Replace a key by one of another type, and give that type."""
    raw.delete(key)
    if "string" in TYPES[kind]:
        raw.sadd(key, THEIRS)
        return "set"
    raw.set(key, THEIRS)
    return "string"


async def doctor(url: str, *words: str) -> tuple[int, dict[str, Any]]:
    ran = await asyncio.to_thread(CliRunner(env={"AQUEUE_URL": url}).invoke, app, ["doctor", "--json", *words])
    return ran.exit_code, json.loads(ran.stdout)


class Pair:
    """A queue that something happens to, another one, and the task of both."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.hurt = Queue("q", url=url, settings=SETTINGS)
        self.well = Queue("other", url=url, settings=SETTINGS)
        for queue in (self.hurt, self.well):
            queue.task(name="work")(self._work)

    async def _work(self, n: int) -> int:
        return n

    async def assert_served(self, queue: Queue, n: int = 1) -> None:
        assert await (await queue.enqueue("work", n)).result(timeout=WAIT_SECONDS) == n

    async def every_operation(self, job: Job[Any]) -> list[str]:
        """Do all that can be done with a queue and a job; give the complaints."""
        queue = self.hurt
        store = await queue.store()
        operations: list[Callable[[], Awaitable[object]]] = [
            lambda: queue.enqueue("work", 2), lambda: queue.remote("work").options(delay=600).enqueue(2),
            lambda: queue.remote("work").options(key="k").enqueue(2),
            lambda: queue.remote("work").options(priority=9).enqueue(2),
            lambda: queue.enqueue_many([queue.remote("work").call(n) for n in range(3)]), job.status, job.info,
            job.cancel,
            lambda: queue.rerun(job.id), lambda: queue.jobs("queued"), lambda: queue.jobs("scheduled"),
            lambda: queue.jobs("failed"), lambda: queue.jobs("running"), queue.stats, queue.pause, queue.resume,
            lambda: queue.pause("work"), lambda: queue.resume("work"),
            store.promote, store.reclaim, store.prune, lambda: store.retire(WorkerId("nobody")),
            lambda: store.settle_and_claim(WorkerId("nobody"), 1, [], 0), lambda: queue.delete(job.id),
            lambda: queue.schedule(queue.remote("work").call(3), id="s", every=600), queue.schedules.list,
            lambda: queue.schedules.edit("s", every=601), lambda: queue.schedules.pause("s"),
            lambda: queue.schedules.resume("s"), lambda: queue.schedules.run("s", call="c"),
            lambda: queue.schedules.delete("s"), lambda: job.reschedule(delay=5),
            lambda: queue.purge(failed=True), queue.purge,
            queue.failed.list, queue.failed.rerun_all, queue.failed.purge,
        ]  # fmt: skip
        complaints = []
        for operation in operations:
            try:
                await operation()
            except StoreError as error:
                complaints.append(str(error))
            except AqueueError:
                pass  # the job is not there any more, or has ended
        return complaints


@pytest.fixture
def pair(server: Server) -> Pair:
    return Pair(server.url)


@pytest.mark.parametrize("kind", [*OF_QUEUE, *OF_WORKER])
async def test_a_key_of_the_wrong_type_is_named_and_heals(
    pair: Pair, server: Server, raw: redis.Redis, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each key in turn: clear errors, the other queue is served, and all is well once it is gone, without a restart."""
    async with pair.hurt, pair.well, Worker(pair.well, pair.hurt):
        job = await pair.hurt.remote("work").options(delay=600).enqueue(0)
        await pair.assert_served(pair.hurt)
        await pair.assert_served(pair.well)
        (me,) = [one.id for one in (await pair.hurt.stats()).workers]
        key = getattr(KEYS, kind)(WorkerId(me)) if kind in OF_WORKER else getattr(KEYS, kind)
        with no_cry_for_help() as lines:
            type_ = put_something_else(raw, key, kind)
            code, found = await doctor(server.url)
            named = [one for one in found["findings"] if one["kind"] == "key"]
            assert (code, [(one["id"], one["fault"], one["queue"]) for one in named]) == (1, [(key, "wrong_type", "q")])
            assert f"a {type_} where aqueue keeps a {TYPES[kind][0]}; rename or remove it" in named[0]["what"]

            complaints = await pair.every_operation(job)
            assert all("another type of value than aqueue's" in one and "aqueue doctor" in one for one in complaints)
            for n in range(3):
                await pair.assert_served(pair.well, n)
            assert (await doctor(server.url, "--repair"))[0] == 1 or kind == "paused"  # which a resume has removed
            assert len(lines) <= LINES
            assert not [line for line in lines if "please report" in line]
        raw.delete(key)
        await doctor(server.url, "--repair")
        await pair.assert_served(pair.hurt, 3)
        async with asyncio.timeout(WAIT_SECONDS):
            while (await pair.hurt.stats()).running:  # what else it was given may not have ended yet
                await asyncio.sleep(0.01)
    await pair.hurt.purge()
    await pair.hurt.close()


async def test_what_lies_there_is_left_to_its_owner(pair: Pair, server: Server, raw: redis.Redis) -> None:
    """It may be dear to somebody. Only what aqueue overwrites or removes without a look anyway goes."""
    async with pair.hurt, pair.well, Worker(pair.hurt):
        job = await pair.hurt.enqueue("work", 0)
        await job.result(timeout=WAIT_SECONDS)
        kinds = [kind for kind in OF_QUEUE if kind != "paused"]
        for kind in kinds:
            key = getattr(KEYS, kind)
            put_something_else(raw, key, kind)
            before = raw.dump(key)
            await pair.every_operation(job)
            await doctor(server.url, "--repair")
            assert raw.dump(key) == before, kind
            raw.delete(key)
            await (await pair.hurt.store()).retire(WorkerId("nobody"))
        await pair.assert_served(pair.hurt)


@pytest.mark.parametrize("kind", ["job", "payload", "unique"])
async def test_a_jobs_key_of_the_wrong_type_is_that_jobs_problem(
    pair: Pair, server: Server, raw: redis.Redis, kind: str
) -> None:
    """In whatever state the job is: neighbours complete, operators can look at it, and remove it."""
    async with pair.hurt, pair.well:
        task = pair.hurt.remote("work").options(key="k" if kind == "unique" else None)
        jobs = {"queued": await task.enqueue(0), "due": await task.options(delay=0.05, key="l").enqueue(0)}
        neighbours = [await pair.hurt.enqueue("work", n) for n in range(3)]
        for job in jobs.values():
            name = str(raw.hget(KEYS.job(JobId(job.id)), "unique"))
            put_something_else(raw, KEYS.unique(name) if kind == "unique" else getattr(KEYS, kind)(JobId(job.id)), kind)
        with no_cry_for_help():
            async with Worker(pair.hurt):
                assert [await job.result(timeout=WAIT_SECONDS) for job in neighbours] == [0, 1, 2]
                async with asyncio.timeout(WAIT_SECONDS):
                    while (seen := await pair.hurt.stats()).scheduled or seen.queued or seen.running:
                        await asyncio.sleep(0.01)
        for job in jobs.values():
            if kind == "unique":
                assert await job.result(timeout=WAIT_SECONDS) == 0
            elif kind == "payload":
                assert (await job.info()).state is JobState.FAILED
            else:
                _, found = await doctor(server.url)
                assert job.id in [one["id"] for one in found["findings"] if one["fault"] == "unreadable"]
                with pytest.raises(StoreError, match="is damaged; remove it with"):
                    await job.info()
                await pair.hurt.delete(job.id)
    for key in raw.scan_iter(f"{KEYS.base}unique:*"):
        assert kind == "job" or raw.type(key) == "set"  # left as it was
        raw.delete(key)


GATE_LIMITS: Final[dict[str, Limit]] = {
    "waiting": Concurrency(1), "permits": Concurrency(1), "pace": Rate(1000), "pace of a window": Window(1000, per=60),
}  # fmt: skip


@pytest.mark.parametrize(
    "gate", [pytest.param(gate, marks=() if gate == "permits" else pytest.mark.chaos) for gate in GATE_LIMITS]
)
async def test_a_gate_of_the_wrong_type_holds_its_own_jobs_only(
    pair: Pair, server: Server, raw: redis.Redis, gate: str
) -> None:
    """They wait until it is mended, and start then by themselves; all others run."""
    async with pair.hurt, pair.well:
        task = pair.hurt.task(name="limited", limit=GATE_LIMITS[gate])(pair._work)
        jobs = [await task.enqueue(n) for n in range(3)]
        digest = str(raw.hget(KEYS.job(JobId(jobs[0].id)), "limits")).split(".")[1]
        kind = gate.partition(" ")[0]
        key = getattr(KEYS, kind)(digest)
        assert kind in GATES
        if kind == "pace":  # which may be either, so that the wrong type is a third one
            raw.sadd(key, THEIRS)
        else:
            put_something_else(raw, key, kind)
        with no_cry_for_help():
            async with Worker(pair.hurt):
                for n in range(3):
                    await pair.assert_served(pair.hurt, n)
                code, found = await doctor(server.url)
                assert (code, [one["id"] for one in found["findings"] if one["kind"] == "key"]) == (1, [key])
                assert [await job.status() for job in jobs] != [JobState.COMPLETED] * 3
                raw.delete(key)
                assert [await job.result(timeout=WAIT_SECONDS) for job in jobs] == [0, 1, 2]
    for left in raw.scan_iter(f"{KEYS.base}p*"):
        raw.delete(left)


@pytest.mark.parametrize("kind", ["holders", "line", "patience"])
async def test_a_limiter_whose_key_is_of_the_wrong_type_is_named_and_heals(
    pair: Pair, server: Server, raw: redis.Redis, kind: str
) -> None:
    """Others are passed meanwhile, and it is when the key has gone."""
    async with pair.hurt:
        limiter, other = (pair.hurt.limiter(Concurrency(1, name=name), wait=WAIT_SECONDS) for name in "ab")
        async with limiter:
            (holders,) = map(str, raw.scan_iter(f"{KEYS.base}holders:*"))
        key = getattr(KEYS, kind)(holders.rpartition(":")[2])
        raw.delete(key)
        put_something_else(raw, key, kind)
        with pytest.raises(StoreError, match="another type of value than aqueue's"):
            await limiter.acquire()
        async with other:
            code, found = await doctor(server.url)
        assert (code, [one["id"] for one in found["findings"] if one["kind"] == "key"]) == (1, [key])
        raw.delete(key)
        async with limiter:
            assert (await doctor(server.url))[1]["findings"] == []


async def test_a_job_whose_line_was_lost_is_found_and_queued_again(
    pair: Pair, server: Server, raw: redis.Redis
) -> None:
    """The gate looks into its line alone, so nobody else would ever let the job go."""
    async with pair.hurt, pair.well:
        going, gone = asyncio.Event(), asyncio.Event()

        async def hold(n: int) -> int:
            going.set()
            await gone.wait()
            return n

        task = pair.hurt.task(name="hold", limit=Concurrency(1))(hold)
        jobs = [await task.enqueue(n) for n in range(2)]
        async with Worker(pair.hurt):
            await going.wait()
            async with asyncio.timeout(WAIT_SECONDS):
                while (await pair.hurt.stats()).held_back == 0:
                    await asyncio.sleep(0.01)
            (line,) = raw.scan_iter(f"{KEYS.base}waiting:*")
            assert not (await doctor(server.url))[1]["findings"]
            raw.delete(line)
            _, found = await doctor(server.url, "--repair")
            assert [(one["id"], one["fault"], one["repaired"]) for one in found["findings"]] == [
                (jobs[1].id, "queued_nowhere", True)
            ]
            gone.set()
            assert [await job.result(timeout=WAIT_SECONDS) for job in jobs] == [0, 1]


async def test_the_registry_may_be_of_the_wrong_type(pair: Pair, server: Server, raw: redis.Redis) -> None:
    """Producers and tools name it; workers work."""
    async with pair.hurt, pair.well, Worker(pair.hurt):
        await pair.assert_served(pair.hurt)
        raw.delete(KEYS.registry)
        raw.set(KEYS.registry, THEIRS)
        await pair.assert_served(pair.hurt)
        async with Queue("new", url=server.url) as new:
            with pytest.raises(StoreError, match=f"under {KEYS.registry}"):
                await new.enqueue("work", 1)
            ran = await asyncio.to_thread(CliRunner(env={"AQUEUE_URL": server.url}).invoke, app, ["doctor"])
            assert (ran.exit_code, KEYS.registry in ran.stderr) == (2, True)
            raw.delete(KEYS.registry)
            await new.enqueue("work", 1)
            await new.purge()


async def test_what_is_no_name_in_the_registry_is_passed_over(pair: Pair, server: Server, raw: redis.Redis) -> None:
    """One slip there must not keep an operator from all queues."""
    async with pair.hurt:
        await pair.hurt.enqueue("work", 1)
        raw.sadd(KEYS.registry, "", "a b", "{}", "x" * 300, b"\xff\xfe")
        _, found = await doctor(server.url)
        assert {one["queue"] for one in found["checks"] if one["queue"]} == {"q"}
        await pair.hurt.purge()


# keys beside ours

NEIGHBOURS: Final = (
    "rq:queue:default", "rq:job:1", "celery", "_kombu.binding.celery", "unacked", "arq:queue", "arq:job:1",
    "bull:q:wait",
    "aqueue", "aqueue:", "aqueue:foo", "aqueue:job:1", "aqueue:q:queued", "aqueue:queues2", "AQUEUE:{q}:queued",
    "aqueuex:{q}:queued", "xaqueue:{q}:queued", "aqueue2:queues", "aqueue:{q", "aqueue:{q}", "aqueue:{q}queued",
    "aqueue:{q}:", "aqueue:{q}:stranger", "aqueue:{q}:stranger:1", "aqueue:{q}:queued:1", "aqueue:{q}:jobs:1",
    "aqueue:{stranger}:queued", "aqueue:{stranger}:scheduled", "{aqueue:{q}:queued", "aqueue:{{q}}:queued",
)  # fmt: skip


@pytest.mark.parametrize("type_", ["string", "list", "zset", "hash"])
async def test_nothing_beside_our_own_keys_is_touched(server: Server, raw: redis.Redis, type_: str) -> None:
    """By no command: neither by purge and prune, nor by a repair that walks all keys."""
    for key in NEIGHBOURS:
        match type_:
            case "string":
                raw.set(key, THEIRS)
            case "list":
                raw.rpush(key, THEIRS, "1")
            case "zset":
                raw.zadd(key, {THEIRS: 1})
            case _:
                raw.hset(key, mapping={"state": "queued", "name": THEIRS})
    before = {key: raw.dump(key) for key in NEIGHBOURS}
    pair = Pair(server.url)
    async with pair.hurt, pair.well:
        async with Worker(pair.hurt):
            await pair.assert_served(pair.hurt)
            await pair.every_operation(await pair.hurt.remote("work").options(delay=600).enqueue(0))
        invoke = CliRunner(env={"AQUEUE_URL": server.url}).invoke
        for words in (
            ["stats"], ["jobs"], ["doctor"], ["doctor", "--repair"], ["pause", "q"], ["resume", "q"],
            ["retry", "--failed"], ["purge", "q", "--yes"], ["purge", "q", "--failed", "--yes"], ["delete", "1"],
            ["cancel", "1"], ["job", "1"],
            ["delete", "stranger"], ["purge", "stranger", "--yes"],
        ):  # fmt: skip
            ran = await asyncio.to_thread(invoke, app, words)
            assert ran.exit_code in (0, 1), ran.output
    assert {key: raw.dump(key) for key in NEIGHBOURS} == before
    for key in NEIGHBOURS:
        raw.delete(key)
