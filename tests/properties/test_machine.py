"""Several workers, producers and operators in any order: no job is lost, doubled or forgotten.

A story calls the client as workers do, including workers that die, lose replies or come back too late. After every
step the whole store is read and held against the rules below, and against a small model that counts. The steps are
drawn as one list, not by hypothesis' own state machine: that leaves out some rules in each run, and so rarely gets
as far as a crash of a job that was retried.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hypothesis
import hypothesis.strategies as st
import pytest
import redis
from servers import Server
from transitions.turns import BOOM

from aqueue.job import ENDED, JobId, JobState, LeaseToken, QueueName, WorkerId
from aqueue.settings import Settings
from aqueue.store.address import route_of_url
from aqueue.store.client import Client
from aqueue.store.connection import Server as StoreServer
from aqueue.store.records import Cancelled, Completed, Failed, Lease, NewJob, Outcome, Released, Retried, Settle, Unique

T = TypeVar("T")
BASE = "aqueue:{q}:"
CRASH_LIMIT = 2
LONG_MS = 3_600_000
OUTCOMES: tuple[Outcome, ...] = (
    Completed(b"1", LONG_MS, "t"),
    Retried(BOOM, 0, 4),
    Retried(BOOM, 60, 4),
    Failed(BOOM, LONG_MS),
    Failed(BOOM, 0),
    Cancelled(LONG_MS),
    Released(),
    Released(60),
    Released(60, error=BOOM),
)
NAMES = st.sampled_from([WorkerId("w0"), WorkerId("w1")])
ANY = st.integers(0, 1_000)


@dataclass
class Worker:
    """What one worker process believes."""

    turn: int = 0
    running: dict[JobId, Lease] = field(default_factory=dict)
    past: list[Settle] = field(default_factory=list)
    last: tuple[list[Settle], int] = field(default_factory=lambda: ([], 0))


@dataclass
class Seen:
    """The store as it is."""

    records: dict[str, dict[str, str]]
    waiting: Counter[str]
    scheduled: set[str]
    held: dict[str, dict[str, str]]
    uniques: dict[str, str]
    failed: set[str]
    payloads: set[str]
    workers: set[str]
    inboxes: set[str]
    owners: set[str]
    shelf: list[str]
    paused: bool
    """Jobs of the task "mail" may not start."""

    def state(self, job_id: str) -> str:
        return self.records[job_id]["state"]

    def ids(self, *states: JobState) -> list[str]:
        return sorted(job_id for job_id, record in self.records.items() if record["state"] in states)


class Context:
    """One server, one client and one event loop for all examples."""

    def __init__(self, url: str, raw: redis.Redis, run: Callable[[Awaitable[Any]], Any]) -> None:
        self.raw: Any = raw
        self.client = Client(
            StoreServer(lambda: route_of_url(url)), QueueName("q"), Settings(crash_limit=CRASH_LIMIT, lease=3600)
        )
        self.run = run

    def look(self) -> Seen:
        keys = sorted(self.raw.scan_iter(BASE + "*", count=1000))
        kinds = {key: key.removeprefix(BASE).partition(":")[::2] for key in keys}
        pipeline = self.raw.pipeline(transaction=True)
        for key in keys:
            read_by = {"job": "HGETALL", "held": "HGETALL", "payload": "STRLEN", "unique": "GET"}
            read_by |= {"queued": "LRANGE", "suspects": "LRANGE", "inbox": "LRANGE", "scheduled": "ZRANGE"}
            read_by |= {"failed": "ZRANGE", "workers": "ZRANGE", "shelf": "ZRANGE", "shelves": "HGETALL"}
            command = read_by.get(kinds[key][0], "EXISTS")
            pipeline.execute_command(command, key, *((0, -1) if command.endswith("RANGE") else ()))
        found: dict[str, dict[str, Any]] = {}
        for key, value in zip(keys, pipeline.execute(), strict=True):
            kind, rest = kinds[key]
            found.setdefault(kind, {})[rest] = value
        lists = [
            *found.get("queued", {}).values(),
            *found.get("suspects", {}).values(),
            *found.get("inbox", {}).values(),
            *found.get("shelf", {}).values(),
        ]
        return Seen(
            records=found.get("job", {}),
            waiting=Counter(job_id for entries in lists for job_id in entries if job_id != "wake"),
            scheduled=set(found.get("scheduled", {}).get("", [])),
            held=found.get("held", {}),
            uniques=found.get("unique", {}),
            failed=set(found.get("failed", {}).get("", [])),
            payloads=set(found.get("payload", {})),
            workers=set(found.get("workers", {}).get("", [])),
            inboxes=set(found.get("inbox", {})),
            owners={name for kind in ("held", "inbox", "worker") for name in found.get(kind, {})},
            shelf=found.get("shelf", {}).get("mail", []),
            paused=found.get("shelves", {}).get("", {}).get("mail", "0") != "0",
        )


class Story:
    """One sequence of transitions. Each step takes a worker and two numbers, of which it makes what it needs."""

    def __init__(self, context: Context) -> None:
        self.context = context
        context.raw.flushall()
        self.client, self.raw = context.client, context.raw
        self.workers = {WorkerId(f"w{n}"): Worker() for n in range(2)}
        self.alive: set[str] = set()
        """Ids whose record must exist."""
        self.attempts: Counter[str] = Counter()
        self.crashes: Counter[str] = Counter()
        self.count = 0
        self.seen = self.context.look()

    def call(self, work: Awaitable[T]) -> T:
        result: T = self.context.run(work)
        self.seen = self.context.look()
        return result

    def pick(self, ids: list[str], choice: int) -> JobId | None:
        return JobId(ids[choice % len(ids)]) if ids else None

    # producers and operators

    def enqueue(self, _: WorkerId, choice: int, other: int) -> None:
        delay, digest, result_ttl = (0, 0, 60_000)[choice % 3], ("", "", "k", "l")[other % 4], (None, 0)[choice % 2]
        self.count += 1
        job_id = JobId(f"j{self.count}")
        job = NewJob(
            id=job_id,
            envelope=b'[1,"mail"]' if self.count % 3 == 0 else b"call",
            delay_ms=delay,
            unique=Unique(digest) if digest else None,
            result_ttl_ms=result_ttl,
        )
        holder = self.seen.uniques.get(digest)
        (answer,) = self.call(self.client.enqueue([job]))
        assert answer == (holder or job_id)
        if answer == job_id:
            self.alive.add(job_id)
        before = self.seen
        assert self.call(self.client.enqueue([job])) == [answer]
        assert self.seen == before, "sent twice, stored twice"

    def cancel(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(sorted(self.seen.records), choice):
            state = JobState(self.seen.state(job_id))
            answer = self.call(self.client.cancel(job_id))
            again = state == "cancelled" and "cancel" not in self.seen.records[job_id]  # answered as the first time
            waits = state in ("scheduled", "queued")
            assert answer == ("requested" if state == "running" else "cancelled" if waits or again else "too_late")

    def rerun(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(self.seen.ids(*ENDED), choice):
            runs = job_id in self.seen.payloads
            assert self.call(self.client.rerun(job_id)) == ("queued" if runs else "gone")
            if runs:
                self.attempts[job_id] = self.crashes[job_id] = 0

    def delete(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(sorted(self.seen.records), choice):
            is_running = self.seen.state(job_id) == "running"
            assert self.call(self.client.delete(job_id)) == ("running" if is_running else "deleted")
            if not is_running:
                self.alive.discard(job_id)

    def pause_and_resume(self, name: WorkerId, _: int, __: int) -> None:
        self.call(self.client.pauses.pause())
        turn = self.take_turn(name, [], 3)
        assert (turn, self.seen.ids(JobState.RUNNING)) == ([], self.seen.ids(JobState.RUNNING))
        self.call(self.client.pauses.resume())

    def pause_or_resume_a_task(self, _: WorkerId, choice: int, __: int) -> None:
        before = self.seen.paused
        if choice % 2:
            assert self.call(self.client.pauses.pause_task("mail")) is not before
        else:
            assert self.call(self.client.pauses.resume_task("mail")) is before

    # workers

    def take_turn(self, name: WorkerId, settles: list[Settle], free: int) -> list[Lease]:
        worker, before = self.workers[name], self.seen
        worker.turn += 1
        worker.last = (settles, free)
        turn = self.call(self.client.settle_and_claim(name, worker.turn, settles, free))
        assert len(turn.leases) <= free
        assert name not in self.seen.inboxes, "caught, and neither claimed nor handed back"
        assert not {lease.id for lease in turn.leases} & (
            {job_id for held in before.held.values() for job_id in held} - {settle.id for settle in settles}
        ), "leased although somebody holds it"
        assert not before.paused or not {lease.id for lease in turn.leases if lease.envelope != b"call"}
        for settle in settles:
            self.note_settled(name, settle, before, refused=settle.id in turn.refused)
            worker.past.append(settle)
        for lease in turn.leases:
            worker.running[lease.id] = lease
        return turn.leases

    def note_settled(self, name: WorkerId, settle: Settle, before: Seen, *, refused: bool) -> None:
        held = before.held.get(name, {}).get(settle.id) == settle.token
        if held:
            assert not refused, "the holder's settle was refused"
            cancelled = "cancel" in before.records[settle.id]
            if isinstance(settle.outcome, Failed) or (isinstance(settle.outcome, Retried) and not cancelled):
                self.attempts[settle.id] += 1
        elif settle not in self.workers[name].past:
            assert refused, "a lost lease was answered as settled"
        elif before.records.get(settle.id, {}).get("token") == settle.token:
            assert not refused, "what was settled was answered as lost"

    def claim(self, name: WorkerId, choice: int, _: int) -> None:
        self.take_turn(name, [], choice % 4)

    def settle(self, name: WorkerId, choice: int, other: int) -> None:
        running = self.workers[name].running
        if job_id := self.pick(sorted(running), choice):
            lease = running.pop(job_id)
            self.take_turn(name, [Settle(job_id, lease.token, OUTCOMES[other % len(OUTCOMES)])], choice % 3)

    def send_the_last_turn_again(self, name: WorkerId, _: int, __: int) -> None:
        worker, before = self.workers[name], self.seen
        if self.raw.hget(f"{BASE}worker:{name}", "turn") != str(worker.turn):
            return  # it was reclaimed: its turn is then taken as a new one
        turn = self.call(self.client.settle_and_claim(name, worker.turn, *worker.last))
        token = f"{name}/{worker.turn}"
        assert {lease.id for lease in turn.leases} == {
            job_id for job_id, held_by in before.held.get(name, {}).items() if held_by == token
        }
        assert self.seen == before, "a repeated turn has changed something"

    def settle_with_an_old_token(self, name: WorkerId, choice: int, _: int) -> None:
        worker = self.workers[name]
        if not worker.past:
            return
        old, before = worker.past[choice % len(worker.past)], self.seen
        self.take_turn(name, [Settle(old.id, old.token, old.outcome)], 0)
        record = before.records.get(old.id)
        due = self.seen.records.get(old.id, {}).get("state") == "queued" and (record or {}).get("state") == "scheduled"
        assert self.seen.records.get(old.id) == record or due

    def beat(self, name: WorkerId, forgotten: int, _: int) -> None:
        """Extend; the answer to the claim of one job never arrived."""
        worker, before = self.workers[name], self.seen
        if forgotten % 3 == 0 and (lost := self.pick(sorted(worker.running), forgotten)):
            del worker.running[lost]
        beat = self.call(self.client.extend(name, worker.turn, list(worker.running), "info"))
        held = before.held.get(name, {})
        assert set(beat.lost) == set(worker.running) - set(held)
        unknown = set(held) - set(worker.running)
        assert set(beat.returned) == {job_id for job_id in unknown if "cancel" not in before.records[job_id]}
        for job_id in beat.lost:
            del worker.running[job_id]

    def die(self, name: WorkerId, _: int, __: int) -> None:
        """The lease ends; the process may come back later and not know."""
        if name not in self.seen.workers:
            return
        held = self.seen.held.get(name, {})
        crashed = [job_id for job_id in held if "cancel" not in self.seen.records[job_id]]
        self.raw.zadd(BASE + "workers", {name: 1})
        (gone,), remain = self.call(self.client.reclaim())
        assert (gone.worker, remain) == (name, False)
        assert sorted(gone.requeued + gone.failed) == sorted(crashed)
        self.crashes.update(crashed)
        assert set(gone.failed) == {job_id for job_id in crashed if self.crashes[job_id] >= CRASH_LIMIT}

    def retire(self, name: WorkerId, _: int, __: int) -> None:
        self.call(self.client.retire(name))
        self.workers[name].running.clear()

    def catch(self, name: WorkerId, _: int, __: int) -> None:
        """What a parked BLMOVE does."""
        if name in self.seen.workers:
            self.raw.lmove(BASE + "queued", f"{BASE}inbox:{name}", "RIGHT", "LEFT")
            self.seen = self.context.look()

    # time

    def fall_due(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(sorted(self.seen.scheduled), choice):
            self.raw.zadd(BASE + "scheduled", {job_id: 1})
            assert self.call(self.client.promote()) == 1
            assert self.seen.state(job_id) == "queued"

    def pass_the_ttl(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(self.seen.ids(JobState.QUEUED), choice):
            self.raw.hset(f"{BASE}job:{job_id}", "expires_ms", 1)
            self.seen = self.context.look()

    def pass_the_failure_ttl(self, _: WorkerId, choice: int, __: int) -> None:
        if job_id := self.pick(sorted(self.seen.failed), choice):
            self.raw.zadd(BASE + "failed", {job_id: 1})
            self.raw.delete(BASE + "pruned")
            assert self.call(self.client.prune()) == 1
            self.alive.discard(job_id)

    # what always holds

    def every_job_is_where_its_state_says(self) -> None:
        seen = self.seen
        holders = Counter(job_id for held in seen.held.values() for job_id in held)
        assert set(seen.records) == self.alive
        assert max(holders.values(), default=1) == 1, "two live leases"
        assert sorted(holders) == seen.ids(JobState.RUNNING)
        assert sorted(seen.scheduled) == seen.ids(JobState.SCHEDULED)
        assert set(seen.ids(JobState.QUEUED)) <= set(seen.waiting), "queued and nowhere to be found"
        for held in seen.held.values():
            assert all(seen.records[job_id]["token"] == token for job_id, token in held.items())

    def records_are_whole(self) -> None:
        seen = self.seen
        for job_id, record in seen.records.items():
            assert (int(record.get("attempt", 0)), int(record.get("crashes", 0))) == (
                self.attempts[job_id],
                self.crashes[job_id],
            )
            ended = JobState(record["state"]).ended
            assert ended or job_id in seen.payloads
            assert ended == ("ended_ms" in record)
        assert seen.payloads <= set(seen.records)
        assert seen.failed <= set(seen.ids(JobState.FAILED))

    def keys_are_held_by_unfinished_jobs(self) -> None:
        seen = self.seen
        claims = {
            record["unique"]: job_id
            for job_id, record in seen.records.items()
            if "unique" in record and not JobState(record["state"]).ended
        }
        assert seen.uniques == claims

    def workers_are_known_and_run_one_suspect_at_most(self) -> None:
        assert self.seen.owners <= self.seen.workers
        for held in self.seen.held.values():
            assert sum(self.crashes[job_id] >= CRASH_LIMIT - 1 for job_id in held) <= 1

    def who_is_set_aside_waits_there(self) -> None:
        for job_id in self.seen.shelf:
            record = self.seen.records[job_id]
            assert (record["state"], record["shelf"]) == ("queued", "mail")
        assert len(self.seen.shelf) == sum("shelf" in record for record in self.seen.records.values())

    def check(self) -> None:
        self.who_is_set_aside_waits_there()
        self.every_job_is_where_its_state_says()
        self.records_are_whole()
        self.keys_are_held_by_unfinished_jobs()
        self.workers_are_known_and_run_one_suspect_at_most()

    def end(self) -> None:
        """Whatever has happened: a worker that comes now ends every job."""
        for name in self.workers:
            self.call(self.client.retire(name))
        for job_id in self.seen.scheduled:
            self.raw.zadd(BASE + "scheduled", {job_id: 1})
        self.call(self.client.pauses.resume_task("mail"))
        last = WorkerId("last")
        for turn in range(1, len(self.alive) + 3):
            leases = [Settle(JobId(j), LeaseToken(t), OUTCOMES[0]) for j, t in self.seen.held.get(last, {}).items()]
            self.call(self.client.settle_and_claim(last, turn, leases, 5))
        assert [job_id for job_id in self.seen.records if not JobState(self.seen.state(job_id)).ended] == []
        self.call(self.client.retire(last))


WEIGHTS = {
    "enqueue": 4, "cancel": 2, "rerun": 2, "delete": 1, "pause_and_resume": 1,
    "pause_or_resume_a_task": 3,
    "claim": 5, "settle": 6, "send_the_last_turn_again": 2, "settle_with_an_old_token": 2,
    "beat": 2, "die": 3, "retire": 1, "catch": 2, "fall_due": 3, "pass_the_ttl": 1, "pass_the_failure_ttl": 1,
}  # fmt: skip
VERBS = st.sampled_from([verb for verb, weight in WEIGHTS.items() for _ in range(weight)])
STEPS = st.lists(st.tuples(VERBS, NAMES, ANY, ANY), min_size=40, max_size=60)
OPENING = [("enqueue", WorkerId("w0"), n, n) for n in range(4)]


@pytest.mark.timeout(420)  # a failure takes up to five minutes to become a short story
@pytest.mark.parametrize("engine", ["valkey9"], indirect=True)
def test_no_sequence_of_transitions_loses_or_doubles_a_job(server: Server, raw: redis.Redis) -> None:
    """The promises are about any order of events, of which people think of a few."""
    with asyncio.Runner() as runner:

        async def awaited(work: Awaitable[T]) -> T:
            return await work

        context = Context(server.url, raw, lambda work: runner.run(awaited(work)))

        @hypothesis.settings(max_examples=130, deadline=None, database=None, print_blob=True)
        @hypothesis.given(STEPS)
        def holds(steps: list[tuple[str, WorkerId, int, int]]) -> None:
            story = Story(context)
            for verb, name, choice, other in [*OPENING, *steps]:
                getattr(story, verb)(name, choice, other)
                story.check()
            story.end()

        try:
            holds()
        finally:
            runner.run(context.client.close())
