"""`aqueue doctor`: each kind of damage is made by hand, found, repaired, and the job then runs exactly once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import redis
from servers import Server
from typer.testing import CliRunner

from aqueue import Job, JobFailed, Queue, RetryLater, Settings, Worker
from aqueue.job import JobId, WorkerId
from aqueue.ops import checkup
from aqueue.ops.cli import app
from aqueue.ops.reports import Level
from aqueue.settings import Settings as QueueSettings
from aqueue.store import connection
from aqueue.store.records import Fault, QueueStats, WorkerStats
from aqueue.store.survey import LOOK, Survey, repair, survey
from aqueue.store.vitals import Vitals

BASE: Final = "aqueue:{q}:"
GHOST: Final = WorkerId("ghost")
WAIT_SECONDS: Final = 20.0
LIMIT: Final = 100_000

Doctor: TypeAlias = Callable[..., Coroutine[Any, Any, tuple[int, dict[str, Any]]]]
Damage: TypeAlias = Callable[[Queue, redis.Redis, Job[Any]], Awaitable[None]]


def invoke(*args: str, url: str) -> tuple[int, str]:
    result = CliRunner(env={"AQUEUE_URL": url}).invoke(app, args)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.fixture
def doctor(server: Server) -> Doctor:
    """Run `aqueue doctor --json` in a thread, for it brings an event loop of its own."""

    async def run(*args: str) -> tuple[int, dict[str, Any]]:
        code, text = await asyncio.to_thread(invoke, "doctor", *args, "--json", url=server.url)
        return code, json.loads(text)

    return run


class Ran(Counter[str]):
    """How often each job was started, by the one task of these tests."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.task = queue.task(name="work")(self._work)

    async def _work(self, name: str) -> str:
        self[name] += 1
        return name


@pytest.fixture
def ran(queue: Queue) -> Ran:
    return Ran(queue)


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await fact():
            await asyncio.sleep(0.01)


async def found(queue: Queue, limit: int = LIMIT) -> Survey:
    (one,) = await survey([await queue.store()], limit)
    return one


# damage: a job that was enqueued, and what happens to it


async def claimed(queue: Queue) -> None:
    """Let a worker that will never be heard of again take the job."""
    turn = await (await queue.store()).settle_and_claim(GHOST, 1, [], 1)
    assert len(turn.leases) == 1


async def falls_out_of_the_list(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    raw.lrem(f"{BASE}queued", 0, job.id)


async def falls_out_of_the_schedule(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    raw.lrem(f"{BASE}queued", 0, job.id)
    raw.hset(f"{BASE}job:{job.id}", mapping={"state": "scheduled", "due_ms": 1000})


async def falls_out_of_the_schedule_without_its_time(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    await falls_out_of_the_schedule(queue, raw, job)
    raw.hdel(f"{BASE}job:{job.id}", "due_ms")


async def falls_out_of_its_worker_s_hands(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    await claimed(queue)
    raw.delete(f"{BASE}held:{GHOST}")


async def loses_its_worker_altogether(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    await claimed(queue)
    raw.delete(f"{BASE}held:{GHOST}", f"{BASE}worker:{GHOST}")
    raw.zrem(f"{BASE}workers", GHOST)


async def loses_its_token(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    await loses_its_worker_altogether(queue, raw, job)
    raw.hdel(f"{BASE}job:{job.id}", "token")


async def is_held_by_a_worker_that_the_fleet_forgot(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    await claimed(queue)
    raw.zrem(f"{BASE}workers", GHOST)


async def lies_in_the_inbox_of_a_worker_that_the_fleet_forgot(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    raw.lmove(f"{BASE}queued", f"{BASE}inbox:{GHOST}", "RIGHT", "LEFT")


async def is_in_the_schedule_too(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    raw.zadd(f"{BASE}scheduled", {job.id: 1000})


async def is_among_the_failed_too(queue: Queue, raw: redis.Redis, job: Job[Any]) -> None:
    raw.zadd(f"{BASE}failed", {job.id: 1e15})


@pytest.mark.parametrize(
    ("damage", "kind", "fault"),
    [
        (falls_out_of_the_list, "job", Fault.QUEUED_NOWHERE),
        (falls_out_of_the_schedule, "job", Fault.SCHEDULED_NOWHERE),
        (falls_out_of_the_schedule_without_its_time, "job", Fault.SCHEDULED_NOWHERE),
        (falls_out_of_its_worker_s_hands, "job", Fault.RUNNING_NOWHERE),
        (loses_its_worker_altogether, "job", Fault.RUNNING_NOWHERE),
        (loses_its_token, "job", Fault.RUNNING_NOWHERE),
        (is_held_by_a_worker_that_the_fleet_forgot, "worker", "forgotten"),
        (lies_in_the_inbox_of_a_worker_that_the_fleet_forgot, "worker", "forgotten"),
        (is_in_the_schedule_too, "job", Fault.DUE_WITHOUT_JOB),
        (is_among_the_failed_too, "job", Fault.FAILED_WITHOUT_JOB),
    ],
)
async def test_a_misplaced_job_is_found_put_right_and_runs_once(
    damage: Damage, kind: str, fault: str, *, doctor: Doctor, queue: Queue, raw: redis.Redis, ran: Ran
) -> None:
    """Such a job lies in no structure that anybody reads, so that without the doctor it would wait for ever."""
    job = await ran.task.enqueue("hurt")
    await damage(queue, raw, job)
    fine = await ran.task.enqueue("fine")

    code, seen = await doctor()
    (finding,) = seen["findings"]
    name = job.id if kind == "job" else GHOST
    assert (finding["queue"], finding["kind"], finding["id"], finding["fault"]) == ("q", kind, name, fault)
    assert (code, finding["repaired"]) == (1, False)

    _, seen = await doctor("--repair")
    assert [row["repaired"] for row in seen["findings"]] == [True]
    assert (await doctor())[1]["findings"] == []

    raw.zadd(f"{BASE}workers", {GHOST: 1000}, xx=True)  # its lease ends
    async with Worker(queue):
        assert [await one.result(timeout=WAIT_SECONDS) for one in (job, fine)] == ["hurt", "fine"]
    assert ran == {"hurt": 1, "fine": 1}
    assert (await doctor())[1]["findings"] == []


async def test_a_job_that_its_worker_runs_and_does_not_hold_goes_on(
    doctor: Doctor, server: Server, raw: redis.Redis
) -> None:
    """Queued again, it would run beside itself."""
    started: list[str] = []
    go_on = asyncio.Event()
    async with Queue("q", url=server.url, settings=Settings(lease=60)) as queue:

        @queue.task
        async def work() -> str:
            started.append("work")
            await go_on.wait()
            return "done"

        async with Worker(queue, grace=0):
            job = await work.enqueue()

            async def running() -> bool:  # and its worker's first beat has come: the next one comes in 20 s
                return bool(started) and all(one.info for one in (await queue.stats()).workers)

            await until(running)
            (held,) = raw.keys(f"{BASE}held:*")
            raw.hdel(held, job.id)

            _, seen = await doctor("--repair")
            assert [(row["fault"], row["repaired"]) for row in seen["findings"]] == [(Fault.RUNNING_NOWHERE, True)]
            go_on.set()
            assert await job.result(timeout=WAIT_SECONDS) == "done"
    assert started == ["work"]


async def test_a_job_whose_record_was_lost_is_listed_as_failed_and_may_be_run(
    doctor: Doctor, queue: Queue, raw: redis.Redis, ran: Ran, server: Server
) -> None:
    """Nobody can know whether it has run, so a person decides; that is how a server that evicts keys hurts."""
    job = await ran.task.enqueue("hurt")
    raw.delete(f"{BASE}job:{job.id}")

    _, seen = await doctor("--repair")
    assert [(row["fault"], row["repaired"]) for row in seen["findings"]] == [(Fault.RECORD_LOST, True)]
    with pytest.raises(JobFailed, match="RecordLost"):
        await job.result(timeout=WAIT_SECONDS)
    assert await asyncio.to_thread(invoke, "retry", job.id, url=server.url) == (0, f"{job.id} on q: queued again\n")

    async with Worker(queue):
        assert await job.result(timeout=WAIT_SECONDS) == "hurt"
    assert ran == {"hurt": 1}


async def test_a_job_that_waits_without_arguments_fails_with_that_reason(
    doctor: Doctor, queue: Queue, raw: redis.Redis, ran: Ran
) -> None:
    """Who waits for it is told, and not by a stranger error from deep within."""
    jobs = [await ran.task.enqueue("one"), await ran.task.options(delay=60).enqueue("two")]
    raw.delete(*(f"{BASE}payload:{job.id}" for job in jobs))

    _, seen = await doctor("--repair")
    assert [(row["fault"], row["repaired"]) for row in seen["findings"]] == [(Fault.ARGUMENTS_LOST, True)] * 2
    for job in jobs:
        with pytest.raises(JobFailed, match="ArgumentsLost"):
            await job.result(timeout=WAIT_SECONDS)
    async with Worker(queue):
        assert await (await ran.task.enqueue("fine")).result(timeout=WAIT_SECONDS) == "fine"
    assert ran == {"fine": 1}


@pytest.mark.parametrize("failure_ttl", [60, -1])
async def test_a_failed_job_that_is_not_listed_is_listed_again(
    failure_ttl: int, doctor: Doctor, queue: Queue, raw: redis.Redis, server: Server
) -> None:
    """`aqueue retry --failed` goes by the list."""
    fails = True

    @queue.task(retry=1, failure_ttl=failure_ttl)
    async def work() -> str:
        if fails:
            raise OSError("no such host")
        return "done"

    job = await work.enqueue()
    async with Worker(queue):
        with pytest.raises(JobFailed):
            await job.result(timeout=WAIT_SECONDS)
        raw.zrem(f"{BASE}failed", job.id)

        _, seen = await doctor("--repair")
        assert [(row["fault"], row["repaired"]) for row in seen["findings"]] == [(Fault.FAILED_UNLISTED, True)]
        assert (raw.zscore(f"{BASE}failed", job.id) == float("inf")) is (failure_ttl == -1)
        fails = False
        assert (await asyncio.to_thread(invoke, "retry", "--failed", url=server.url))[0] == 0
        assert await job.result(timeout=WAIT_SECONDS) == "done"


async def test_entries_of_the_sets_without_a_job_are_taken_out(doctor: Doctor, queue: Queue, raw: redis.Redis) -> None:
    """Promoted, such an id would become half a record; counted, it would be looked for in vain."""
    await queue.purge()
    await queue.enqueue("later")
    raw.zadd(f"{BASE}scheduled", {"nobody": 1e15})
    raw.zadd(f"{BASE}failed", {"nothing": 1e15, "forever": "inf"})

    _, seen = await doctor("--repair")
    faults = {row["id"]: (row["fault"], row["repaired"]) for row in seen["findings"]}
    assert faults == {
        "nobody": (Fault.DUE_WITHOUT_JOB, True),
        "nothing": (Fault.FAILED_WITHOUT_JOB, True),
        "forever": (Fault.FAILED_WITHOUT_JOB, True),
    }
    assert (raw.zcard(f"{BASE}scheduled"), raw.zcard(f"{BASE}failed")) == (0, 0)


async def test_failed_jobs_whose_time_is_over_are_no_finding(doctor: Doctor, queue: Queue, raw: redis.Redis) -> None:
    """Their entries stay until a worker prunes, which is once a minute while there is one."""
    await queue.enqueue("later")
    raw.zadd(f"{BASE}failed", {"gone": 1000})
    assert (await doctor())[1]["findings"] == []
    raw.delete(f"{BASE}failed")


async def test_a_record_that_cannot_be_read_is_told_and_left_alone(
    doctor: Doctor, queue: Queue, raw: redis.Redis, server: Server
) -> None:
    """Whatever it is, it may be somebody's; the doctor says how to remove it."""
    job = await queue.enqueue("later")
    raw.delete(f"{BASE}job:{job.id}")
    raw.set(f"{BASE}job:{job.id}", "not a hash")

    for arguments in ((), ("--repair",)):
        code, seen = await doctor(*arguments)
        (finding,) = seen["findings"]
        assert (code, finding["id"], finding["fault"], finding["repaired"]) == (1, job.id, Fault.UNREADABLE, False)
        assert f"`aqueue delete {job.id}`" in finding["what"]
    assert (await asyncio.to_thread(invoke, "delete", job.id, url=server.url))[0] == 0
    assert (await doctor())[1]["findings"] == []


async def test_several_faults_of_one_job_are_repaired_in_one_go(
    doctor: Doctor, queue: Queue, raw: redis.Redis, ran: Ran
) -> None:
    """Nobody wants to learn how many times to call a command."""
    job = await ran.task.enqueue("hurt")
    await falls_out_of_the_list(queue, raw, job)
    await is_in_the_schedule_too(queue, raw, job)

    _, seen = await doctor("--repair")
    assert {row["fault"] for row in seen["findings"]} == {Fault.DUE_WITHOUT_JOB, Fault.QUEUED_NOWHERE}
    assert all(row["repaired"] for row in seen["findings"])
    async with Worker(queue):
        assert await job.result(timeout=WAIT_SECONDS) == "hurt"
    assert ran == {"hurt": 1}


# what is fine


@pytest.fixture
async def busy_queue(server: Server) -> AsyncIterator[Queue]:
    """Of workers that nobody takes for dead, however long the machine stands still."""
    async with Queue("q", url=server.url, settings=Settings(lease=60)) as queue:
        yield queue


async def test_a_busy_queue_shows_no_findings(busy_queue: Queue) -> None:
    """A doctor who finds what is merely in motion is not called again; one who mends it does harm."""
    queue, ran = busy_queue, Counter[int]()

    @queue.task(retry=3)
    async def busy(number: int) -> None:
        ran[number] += 1
        await asyncio.sleep(random.uniform(0, 0.003))
        if number % 7 == 0 and ran[number] == 1:
            raise RetryLater(0.01 * (number % 3))
        if number % 11 == 0:
            raise OSError("now and then")

    calls = [busy.options(delay=(n % 5) * 0.05, retry=1).call(n) for n in range(1500)]
    jobs: list[Job[None]] = []
    surveys = 0
    async with Worker(queue, concurrency=50), Worker(queue, concurrency=5):
        for start in range(0, len(calls), 100):
            jobs += await queue.enqueue_many(calls[start : start + 100])
            seen = await found(queue)
            surveys += 1
            assert (seen.jobs, seen.workers, seen.whole) == ({}, [], True)
            if start % 300 == 0:
                await jobs[-1].cancel()
            await repair(Survey(await queue.store(), dict.fromkeys((job.id for job in jobs), Fault.QUEUED_NOWHERE)))

        async def idle() -> bool:
            stats = await queue.stats()
            return not (stats.queued or stats.scheduled or stats.running)

        while not await idle():
            seen = await found(queue)
            assert (seen.jobs, seen.workers) == ({}, [])
    assert surveys == 15
    assert max(ran.values()) <= 2
    assert all(count == 1 for number, count in ran.items() if number % 7)


async def test_a_repair_looks_again_before_it_touches_anything(queue: Queue, raw: redis.Redis, ran: Ran) -> None:
    """Between the survey and the repair lies a moment in which everything may have come right."""
    store = await queue.store()
    job = await ran.task.enqueue("fine")
    for fault in Fault:
        assert await store.repairs.mend([(job.id, fault)], LOOK) == []
    assert raw.lrange(f"{BASE}queued", 0, -1) == [job.id]
    await claimed(queue)
    for fault in Fault:
        assert await store.repairs.mend([(job.id, fault)], LOOK) == []
    assert await store.repairs.readmit([GHOST, WorkerId("nobody")]) == []
    await store.retire(GHOST)
    async with Worker(queue):
        await job.result(timeout=WAIT_SECONDS)
    for fault in Fault:
        assert await store.repairs.mend([(job.id, fault), (JobId("nobody"), fault)], LOOK) == []
    assert ran == {"fine": 1}


async def test_a_job_that_is_listed_twice_runs_once(queue: Queue, raw: redis.Redis, ran: Ran) -> None:
    """The last resort of every repair: whatever it gets wrong about a list costs an entry, and never a run."""
    job = await ran.task.enqueue("once")
    raw.lpush(f"{BASE}queued", *([job.id] * 3))
    async with Worker(queue):
        await job.result(timeout=WAIT_SECONDS)
        await (await ran.task.enqueue("after")).result(timeout=WAIT_SECONDS)
    assert ran == {"once": 1, "after": 1}


# limits


async def test_a_backlog_beyond_the_limit_is_not_judged(queue: Queue, raw: redis.Redis, doctor: Doctor) -> None:
    """What was not looked at must not be called lost, nor must the report pass for complete."""
    remote = queue.remote("later")
    for _ in range(5):
        await queue.enqueue_many(remote.call(n) for n in range(500))

    code, seen = await doctor("--limit", "1000", "--repair")
    assert (seen["findings"], seen["whole"], seen["limit"], code) == ([], False, 1000, 1)
    assert raw.llen(f"{BASE}queued") == 2500
    (text,) = {line for line in (await asyncio.to_thread(invoke, "doctor", "--limit", "1000", url=queue.address))[1]
               .splitlines() if "--limit" in line}  # fmt: skip
    assert text == "Only 1000 keys and entries of each kind were looked at; raise --limit to see all."
    assert (await doctor())[1]["whole"] is True


async def test_no_command_of_a_survey_grows_with_the_backlog(queue: Queue, raw: redis.Redis) -> None:
    """One long command stops every queue of the server."""
    remote = queue.remote("later")
    for _ in range(4):
        await queue.enqueue_many(remote.call(n) for n in range(500))
    talker: Any = raw
    with talker.monitor() as monitor:
        seen = await found(queue)
        raw.echo("over")
        commands: list[str] = []
        while not commands or "over" not in commands[-1]:
            commands.append(str(monitor.next_command()["command"]))
    assert (seen.jobs, seen.whole) == ({}, True)
    verbs = Counter(command.split()[0].upper() for command in commands if "lua" not in command)
    assert not {"KEYS", "SMEMBERS", "HGETALL", "LREM"} & set(verbs)
    spans = [command.split() for command in commands if command.upper().startswith("LRANGE")]
    assert spans
    assert all(int(end) - int(start) < 1000 for _, _, start, end in spans)
    assert verbs["SCAN"] >= 4


# server and queues


async def test_a_server_that_is_fit_and_a_queue_that_is_served_exit_with_0(
    doctor: Doctor, queue: Queue, server: Server
) -> None:
    """Probes go by the code."""
    await queue.pause()
    await queue.resume()
    async with Worker(queue):

        async def there() -> bool:
            return bool((await queue.stats()).workers)

        await until(there)
        code, seen = await doctor()
    assert code == 0
    assert set(seen) == {"url", "checks", "findings", "whole", "limit"}
    names = [row["check"] for row in seen["checks"] if row["queue"] is None]
    assert names == ["version", "role", "eviction", "persistence", "memory", "clock", "latency", "scripts"]
    assert [(row["check"], row["level"]) for row in seen["checks"] if row["queue"] == "q"] == [("served", "ok")]
    levels = {row["check"]: row["level"] for row in seen["checks"]}
    assert levels["persistence"] == "warning"
    assert {levels[name] for name in ("version", "role", "eviction", "clock", "scripts")} == {"ok"}


async def test_a_server_that_evicts_or_is_full_is_a_problem(doctor: Doctor, raw: redis.Redis) -> None:
    """The one loses jobs, the other refuses them."""
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        code, seen = await doctor()
    finally:
        raw.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    (row,) = [row for row in seen["checks"] if row["level"] == "problem"]
    assert (row["check"], "set maxmemory-policy noeviction" in row["text"]) == ("eviction", True)

    raw.config_set("maxmemory", 1)
    code, seen = await doctor()
    raw.config_set("maxmemory", 0)
    assert code == 1
    assert [row["check"] for row in seen["checks"] if row["level"] == "problem"] == ["memory"]


async def test_a_queue_that_nobody_serves_is_a_problem(doctor: Doctor, queue: Queue) -> None:
    """By far the most frequent one."""
    await queue.enqueue("later")
    code, seen = await doctor()
    (row,) = [row for row in seen["checks"] if row["level"] == "problem"]
    assert (code, row["queue"], row["check"]) == (1, "q", "served")
    assert "no live worker" in row["text"]

    await queue.pause()
    code, seen = await doctor()
    (row,) = [row for row in seen["checks"] if row["queue"] == "q" and row["level"] == "warning"]
    assert (code, row["check"], "`aqueue resume q`" in row["text"]) == (0, "paused", True)


async def test_a_server_that_is_a_replica_is_a_problem(queue: Queue, server: Server, own_server: Server) -> None:
    """After a failover some configuration may still name the old primary."""
    with own_server.client() as client:
        client.replicaof("127.0.0.1", "1")
        code, text = await asyncio.to_thread(invoke, "doctor", url=own_server.url)
    assert code == 1
    assert "problem   role         a replica, which refuses jobs; connect to its primary 127.0.0.1:1" in text


def test_an_unknown_queue_is_refused(server: Server) -> None:
    """As by every other command."""
    result = CliRunner(env={"AQUEUE_URL": server.url}).invoke(app, ["doctor", "nix"])
    assert result.exit_code == 1
    assert "There is no queue 'nix'" in result.stderr


def test_a_server_that_is_away_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is not "no"; nobody could be asked."""
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.05)
    result = CliRunner(env={"AQUEUE_URL": "redis://127.0.0.1:1"}).invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr


def stats(**changes: Any) -> QueueStats:
    facts: dict[str, Any] = {
        "name": "q", "queued": 1, "scheduled": 0, "running": 0, "failed": 0, "paused": False, "oldest": 1.0,
        "workers": [WorkerStats(WorkerId("w"), "{}", 0, 10.0)],
    }  # fmt: skip
    return QueueStats(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "idle", "expected"),
    [
        ({}, {"w": "host:1"}, [("served", "ok")]),
        ({"oldest": 61.0}, {}, [("served", "ok")]),
        ({"oldest": 61.0}, {"w": "host:1"}, [("stuck", "problem")]),
        ({"workers": [WorkerStats(WorkerId("w"), "{}", 3, -7.0)]}, {}, [("workers", "problem"), ("served", "problem")]),
        ({"failed": 10_000}, {}, [("served", "ok"), ("failed", "warning")]),
        ({"counters": {"damaged": 2}}, {}, [("served", "ok"), ("damaged", "warning")]),
        ({"queued": 0, "oldest": None, "workers": []}, {}, [("served", "ok")]),
    ],
)
def test_a_queue_is_judged_by_what_it_says(
    changes: dict[str, Any], idle: dict[WorkerId, str], expected: list[tuple[str, str]]
) -> None:
    """Each judgement in turn, since few of them can be brought about at will."""
    rows = checkup.judge_queue(stats(**changes), QueueSettings(), idle)
    assert [(row.check, row.level) for row in rows] == expected


GOOD: Final = {
    "redis_version": "7.2.4", "role": "master", "connected_slaves": "1", "maxmemory_policy": "noeviction",
    "aof_enabled": "1", "aof_last_write_status": "ok", "used_memory": "70", "maxmemory": "100",
    "used_memory_human": "70B", "maxmemory_human": "100B",
}  # fmt: skip


def vitals(cluster: dict[str, str] | None = None, clock: float = 0.0, trip: float = 0.001, **info: str) -> Vitals:
    return Vitals(
        label="redis://h", info={**GOOD, **info}, cluster=cluster, clock_ahead=clock, round_trips=[trip],
        scripts_loaded=1, scripts=2, refused=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "check", "level"),
    [
        (vitals(), "version", "ok"),
        (vitals(redis_version="6.2.1"), "version", "problem"),
        (vitals(valkey_version="7.2.0"), "version", "ok"),
        (vitals(valkey_version="7.0.0"), "version", "problem"),
        (vitals(), "persistence", "ok"),
        (vitals(aof_last_write_status="err"), "persistence", "problem"),
        (vitals(aof_enabled="0"), "persistence", "warning"),
        (vitals(aof_enabled="0", rdb_last_bgsave_status="err"), "persistence", "problem"),
        (vitals(), "memory", "ok"),
        (vitals(used_memory="76"), "memory", "warning"),
        (vitals(used_memory="91"), "memory", "problem"),
        (vitals(maxmemory="0"), "memory", "ok"),
        (vitals({"cluster_state": "ok", "cluster_size": "3"}, cluster_enabled="1"), "cluster", "ok"),
        (vitals({"cluster_state": "fail"}, cluster_enabled="1"), "cluster", "problem"),
        (vitals(clock=-3600.0), "clock", "warning"),
        (vitals(clock=0.5), "clock", "ok"),
        (vitals(trip=0.05), "latency", "warning"),
        (vitals(trip=0.001), "latency", "ok"),
    ],
)
def test_a_server_is_judged_by_what_it_says(seen: Vitals, check: str, level: str) -> None:
    """As above."""
    (row,) = [row for row in checkup.judge_server(seen) if row.check == check]
    assert row.level == Level(level)


async def test_a_user_who_may_not_ask_is_told_what_remains_unknown(doctor: Doctor, raw: redis.Redis) -> None:
    """Managed servers keep INFO and others to themselves; the jobs can be examined all the same."""
    raw.execute_command("ACL", "SETUSER", "default", "-info", "-script|exists")  # type: ignore[no-untyped-call]
    try:
        code, seen = await doctor()
    finally:
        raw.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]
    rows = {row["check"]: row for row in seen["checks"]}
    assert set(rows) == {"clock", "latency", "permissions"}
    assert "INFO, SCRIPT EXISTS" in rows["permissions"]["text"]
    assert code == 0


# help and document


def test_the_document_names_every_fault() -> None:
    """Who finds a word in the JSON looks for it there."""
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text("utf-8")
    assert all(f"`{fault}`" in text for fault in [*Fault, "forgotten"])


def test_the_help_fits_a_screen_and_says_what_the_codes_mean() -> None:
    """People copy examples, and probes need the codes."""
    result = CliRunner().invoke(app, ["doctor", "--help"])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 84
    assert "Exits with 0 if all is well, 1 for problems" in result.stdout
    assert "aqueue doctor default --repair" in result.stdout
