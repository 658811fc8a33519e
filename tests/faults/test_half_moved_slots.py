"""While a slot moves, its queue lies on two nodes: no script may do half its work there, whatever the queue holds.

A plain queue would not show it: there some key that a script names is always missing, and the server refuses the
script for that. This queue uses everything, so that every key of its own exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import pytest

from aqueue import Concurrency, Job, JobFailed, JobState, Queue, Rate, Settings, StoreError, StoreUnavailable, Worker
from aqueue.job import JobError, JobId, LeaseToken, WorkerId
from aqueue.store import connection
from aqueue.store.client import Client
from aqueue.store.permits import Holder, Permits, Turnstile
from aqueue.store.records import Completed, Failed, Fault, NewJob, Settle, Unique
from aqueue.store.schedules import Declaration, Slot
from faults.slots import MovingSlot, moving

pytestmark = pytest.mark.timeout(120)

RECORDS: Final = {"job", "payload"}
WORKERS: Final = {"worker", "held", "inbox"}
GATES: Final = {"permits", "waiting", "pace", "unique", "shelf", "holders", "passes", "line", "patience"}
SCHEDULES: Final = {"schedule", "schedules", "user_made", "changed"}
LISTS: Final = {
    "queued", "suspects", "ranked", "held_back", "timers", "scheduled", "workers", "failed", "paused", "stats",
    "shelves",
}  # fmt: skip
MOVED: Final = {
    "gates": GATES,
    "workers": WORKERS,
    "all-but-lists": RECORDS | WORKERS | GATES,
    "schedules": SCHEDULES,
    "lists": LISTS,
}
"""What lies on the new node already, one queue for each."""

ME: Final = WorkerId("me")
FIXED: Final = Declaration(id="fixed", owner="code", task="work", definition="d", spec="{}", call=b"", declared_ms=1)
MADE: Final = Declaration(id="made", owner="user", task="work", definition="d", spec="{}", call=b"")
LEASE_SECONDS: Final = 1.0
PERMITS: Final = Turnstile(kind="c", digest="aa", first=1, second=0, lease_ms=600_000)
PACED: Final = Turnstile(kind="g", digest="bb", first=600_000_000, second=1, lease_ms=600_000)
HOLDERS: Final = [Holder(f"abc/{n}") for n in range(2)]


class FullQueue:
    """A queue of which every key exists: jobs in all places, and a worker that holds some."""

    def __init__(self, name: str, url: str) -> None:
        self.queue = Queue(name, url=url, settings=Settings(lease=LEASE_SECONDS, crash_limit=2))
        self.jobs: dict[str, Job[Any]] = {}
        self._turn = 0

        @self.queue.task
        async def work(name: str) -> str:
            return name

        @self.queue.task
        async def put_aside(name: str) -> str:
            return name

    async def enqueue(self, name: str, task: str = "work", **options: Any) -> None:
        self.jobs[name] = await self.queue.remote(task).options(**options).enqueue(name)

    async def fill(self) -> None:
        store = await self.queue.store()
        at_once, rate = Concurrency(1, name="at-once"), Rate(1, per=2, name="rate")
        await self.enqueue("failed")
        await self.queue.pause("put_aside")
        for n in range(2):
            await self.enqueue(f"aside-{n}", "put_aside")
        for n in range(4):
            await self.enqueue(f"limited-{n}", limit=at_once)
        for n in range(2):
            await self.enqueue(f"paced-{n}", limit=rate)
        await self.turn(store, free=20)
        failed = Failed(JobError(type="Made", message="up"), 60_000)
        await self.turn(store, [Settle(self.jobs["failed"].id, LeaseToken("me/1"), failed)])
        await self.enqueue("first", priority=9)
        await self.enqueue("due", delay=0.001, key="due")
        for n in range(3):
            await self.enqueue(f"usual-{n}")
        for gate in (PERMITS, PACED):
            for holder in HOLDERS:
                await Permits(store).acquire(gate, holder, wait_ms=-1)
        await self.queue.pause()
        await self.queue.schedule(self.queue.remote("work").call("made"), id="made", every=600)
        await self.queue.schedule(self.queue.remote("work").call("other"), id="other", every=600)
        await store.schedules.tick(ME, FIXED, [], after_ms=0, upto_ms=0, next_ms=None)

    async def crash_some(self) -> None:
        """Make two suspects: the worker will hold one, and the other waits."""
        store = await self.queue.store()
        for n in range(2):
            await self.enqueue(f"suspect-{n}")
        await store.settle_and_claim(WorkerId("dead"), 1, [], 2)
        async with asyncio.timeout(30):
            while not (await store.reclaim())[0]:
                await asyncio.sleep(0.02)

    async def turn(self, store: Client, settles: list[Settle] | None = None, free: int = 0) -> None:
        self._turn += 1
        await store.settle_and_claim(ME, self._turn, settles or [], free)

    def transitions(self, store: Client) -> dict[str, Callable[[], Awaitable[object]]]:
        """Give every call that reaches for keys which only its script can name."""
        jobs, done = self.jobs, Completed(b"1", 60_000, "work")
        running = jobs["limited-0"].id
        new = NewJob(id=JobId("new"), envelope=b"", unique=Unique("d" * 32), limits="")
        return {
            "settle": lambda: store.settle_and_claim(ME, 3, [Settle(running, LeaseToken("me/1"), done)], 0),
            "claim": lambda: store.settle_and_claim(ME, 3, [], 5),
            "extend": lambda: store.extend(ME, 2, [], "me"),
            "retire": lambda: store.retire(ME),
            "promote": store.promote,
            "reclaim": store.reclaim,
            "prune": store.prune,
            "cancel one that is held back": lambda: store.cancel(jobs["limited-1"].id),
            "expire": lambda: store.expire(jobs["limited-1"].id),
            "cancel one that has a key": lambda: store.cancel(jobs["due"].id),
            "cancel one that is set aside": lambda: store.cancel(jobs["aside-0"].id),
            "pause": store.pauses.pause,
            "resume": store.pauses.resume,
            "pause a task": lambda: store.pauses.pause_task("work"),
            "resume a task": lambda: store.pauses.resume_task("put_aside"),
            "cancel one that runs": lambda: store.cancel(running),
            "delete": lambda: store.delete(jobs["limited-2"].id),
            "enqueue": lambda: store.enqueue([new]),
            "acquire a permit": lambda: Permits(store).acquire(PERMITS, Holder("abc/2"), wait_ms=-1),
            "pass a rate": lambda: Permits(store).acquire(PACED, Holder("abc/2"), wait_ms=-1),
            "release a permit": lambda: Permits(store).release(PERMITS, HOLDERS[0]),
            "mend": lambda: store.repairs.mend([(running, Fault.RUNNING_NOWHERE)], 10),
            "purge": store.purge,
            "stats": store.stats,
            "list failed": lambda: store.failures.look(None, "latest", 10),
            "list": lambda: store.list_ids(JobState.RUNNING, 0, 10),
            "tick": lambda: store.schedules.tick(ME, MADE, [Slot(-1, new)], after_ms=0, upto_ms=0, next_ms=None),
            "withdraw": lambda: store.schedules.withdraw(ME, 1, ["work"], []),
            "list schedules": lambda: store.schedules.page("user"),
            "describe schedules": lambda: store.schedules.describe(["made", "other", "none"]),
            "define": lambda: store.schedules.define(MADE, "this call"),
            "pause a schedule": lambda: store.schedules.steer("made", "pause", "this call"),
            "delete a schedule": lambda: store.schedules.steer("made", "delete", "this call"),
            "reschedule one that is held back": lambda: store.schedules.reschedule(
                jobs["limited-1"].id, "c", delay_ms=60_000, at_ms=None
            ),
            "examine": lambda: store.repairs.examine([running], 10),
        }


async def _wrong(full: FullQueue, slot: MovingSlot) -> list[str]:
    """Try every transition on the two halves, and say which was not refused as a whole."""
    store, found = await full.queue.store(), []
    before = slot.contents()
    for name, call in full.transitions(store).items():
        try:
            found.append(f"{name} has answered {await call()}")
        except StoreUnavailable:
            pass
        except StoreError as error:
            found.append(f"{name} got as far as: {error}")
        after = slot.contents()
        if changed := sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key)):
            found.append(f"{name} has changed {changed}")
        before = after
    return found


async def test_no_script_runs_on_a_part_of_a_queue(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has been moved and whatever is called: nothing is done or answered, and later all runs."""
    queues = {moved: FullQueue(moved, cluster) for moved in MOVED}
    await asyncio.gather(*(full.crash_some() for full in queues.values()))
    wrong: list[str] = []
    for moved, full in queues.items():
        await full.fill()
        with moving(cluster, moved) as slot:
            base = f"aqueue:{{{moved}}}:"
            slot.source.lmove(f"{base}queued", f"{base}inbox:{ME}", "RIGHT", "LEFT")  # as a parked fetch does
            slot.source.zadd(f"{base}workers", {ME: 1})  # its lease ended long ago
            for key in slot.left():  # else some would end by themselves while they are watched
                slot.source.persist(key)
            assert {_kind(key) for key in slot.left()} >= RECORDS | WORKERS | GATES | SCHEDULES | LISTS
            slot.begin()
            assert slot.carry(partial(_is_one_of, MOVED[moved]))
            with monkeypatch.context() as patch:
                patch.setattr(connection, "PATIENCE_SECONDS", 0.0)
                wrong += [f"{moved} moved: {what}" for what in await _wrong(full, slot)]
            assert slot.refusals()["TRYAGAIN"]
            slot.end()
    assert not wrong, "\n".join(wrong)
    await _all_run(list(queues.values()))


async def _all_run(queues: list[FullQueue]) -> None:
    for full in queues:
        await (await full.queue.store()).retire(ME)
        await full.queue.resume()
        await full.queue.resume("put_aside")
    async with Worker(*(full.queue for full in queues)):
        for full in queues:
            for name, job in full.jobs.items():
                if name == "failed":
                    with pytest.raises(JobFailed, match="up"):
                        await job.result(timeout=30)
                else:
                    assert await job.result(timeout=30) == name
    for full in queues:
        await full.queue.close()


def _is_one_of(kinds: set[str], key: str) -> bool:
    return _kind(key) in kinds


def _kind(key: str) -> str:
    return key.partition("}:")[2].partition(":")[0]
