"""A search for jobs and workers that are not where their records say.

Damage has causes from outside: a server that evicts keys, a failover or a restart that lost a part, a slip of a hand.
Nothing else would ever find such a job, for it lies in no structure. So this is the one place that walks the key
space, in small steps and up to a limit; it runs only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from aqueue.job import JobId, QueueName, WorkerId
from aqueue.store.client import Client
from aqueue.store.keys import GATES, parts_of, pattern_of_all
from aqueue.store.misfits import Misfit, gate_misfits, misfits
from aqueue.store.records import Fault, Symptom

T = TypeVar("T")

STEP: Final = 1000
"""Keys or entries that one command looks at."""
EXAMINED: Final = 100
"""Jobs in one script call that reads their records, for about a millisecond."""
LOOK: Final = 1000
"""Entries at the ends of a list that a script searches for one job; what moved during a walk has moved there."""
SOUGHT: Final = 20
"""Jobs in one script call that searches lists."""


@dataclass(slots=True)
class Walk:
    """The entries of some structures, as far as they were looked at."""

    entries: set[str] = field(default_factory=set)
    whole: bool = True

    def take(self, page: Iterable[bytes]) -> None:
        self.entries.update(entry.decode("utf-8", "replace") for entry in page)


@dataclass(slots=True)
class Survey:
    """What was found on one queue."""

    store: Client
    jobs: dict[JobId, Fault] = field(default_factory=dict)
    workers: list[WorkerId] = field(default_factory=list)
    """Those that the fleet has forgotten, although something of theirs is left."""
    misfits: list[Misfit] = field(default_factory=list)
    """Keys of the wrong type; where one is that every operation needs, no more can be seen."""
    examined: int = 0
    whole: bool = True
    """Nothing was left out for the limit's sake."""


@dataclass(slots=True)
class _Swept:
    """Whose keys were met."""

    jobs: set[JobId] = field(default_factory=set)
    workers: set[WorkerId] = field(default_factory=set)
    gates: set[str] = field(default_factory=set)


async def survey(stores: Sequence[Client], limit: int) -> list[Survey]:
    """Search the queues of one server, looking at up to `limit` keys of each node and entries of each structure.

    A busy queue shows nothing: transitions are single scripts, and what may have moved between two steps of a walk is
    looked at twice.
    Errors: StoreUnavailable, StoreError.
    """
    swept, whole = await _sweep(stores, limit)
    return [await _search(store, swept.get(store.keys.queue, _Swept()), limit, whole=whole) for store in stores]


async def repair(found: Survey) -> tuple[list[JobId], list[WorkerId]]:
    """Mend what a survey has found and is still so; return which jobs and workers that was."""
    store = found.store
    workers: list[WorkerId] = []
    for some in _batches(found.workers, EXAMINED):
        workers += await store.repairs.readmit(some)
    jobs: list[JobId] = []
    for few in _batches(list(found.jobs.items()), SOUGHT):
        jobs += await store.repairs.mend(few, LOOK)
    return jobs, workers


async def _sweep(stores: Sequence[Client], limit: int) -> tuple[dict[QueueName, _Swept], bool]:
    """Walk the keys of every server that has one of the queues, once."""
    swept: dict[QueueName, _Swept] = {}
    whole = True
    nodes = {await store.links.route.node(store.keys.queued): store for store in stores}
    for store in nodes.values():
        pattern = pattern_of_all(store.keys.prefix)
        cursor = b"0"
        for _ in range(0, limit, STEP):
            command = ("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
            cursor, keys = await store.links.send(store.keys.queued, command)
            for key in keys:
                _note(swept, store.keys.prefix, key.decode("utf-8", "replace"))
            if cursor == b"0":
                break
        whole = whole and cursor == b"0"
    return swept, whole


def _note(swept: dict[QueueName, _Swept], prefix: str, key: str) -> None:
    parts = parts_of(prefix, key)
    if parts is None:
        return
    queue, kind, name = parts
    seen = swept.setdefault(queue, _Swept())
    if kind in ("job", "payload"):
        seen.jobs.add(JobId(name))
    elif kind in ("worker", "held", "inbox"):
        seen.workers.add(WorkerId(name))
    elif kind in GATES:
        seen.gates.add(key)


async def _search(store: Client, swept: _Swept, limit: int, *, whole: bool) -> Survey:
    found = Survey(store, misfits=await misfits(store, swept.workers), whole=whole)
    if found.misfits:
        return found
    found.misfits = await gate_misfits(store, swept.gates)
    for zset in (store.keys.scheduled, store.keys.failed):
        members = await _members(store, zset, limit)
        swept.jobs |= {JobId(member) for member in members.entries}
        found.whole = found.whole and members.whole
    lists = await _walk_lists(store, swept, limit)
    found.whole = found.whole and lists.whole
    found.examined = len(swept.jobs)
    suspicions = await _examine(store, swept.jobs, 0, EXAMINED)
    await _look_again(found, suspicions, lists, swept, limit)
    found.workers = await _forgotten(store, swept.workers)
    return found


async def _look_again(found: Survey, suspicions: dict[JobId, Symptom], lists: Walk, swept: _Swept, limit: int) -> None:
    """Keep of the suspicions what is no mere movement: who has not moved and is not met a second time either."""
    if not lists.whole:
        lost = {Fault.QUEUED_NOWHERE}  # it may well lie where nobody looked
        suspicions = {job_id: seen for job_id, seen in suspicions.items() if seen.fault not in lost}
    nowhere = {
        job_id
        for job_id, seen in suspicions.items()
        if seen.fault is Fault.QUEUED_NOWHERE and job_id not in lists.entries
    }
    if nowhere:
        again = await _walk_lists(found.store, swept, limit)
        found.whole = found.whole and again.whole
        nowhere = nowhere - again.entries if again.whole else set()
    kept = [
        job_id for job_id, seen in suspicions.items() if seen.fault is not Fault.QUEUED_NOWHERE or job_id in nowhere
    ]
    confirmed = await _examine(found.store, kept, LOOK, SOUGHT)
    found.jobs = {
        job_id: seen.fault
        for job_id, seen in confirmed.items()
        if seen.fault is not None and seen == suspicions[job_id]
    }


async def _examine(store: Client, job_ids: Iterable[JobId], look: int, at_once: int) -> dict[JobId, Symptom]:
    """Give those of the jobs with which something is wrong."""
    wrong: dict[JobId, Symptom] = {}
    for batch in _batches(sorted(job_ids), at_once):
        seen = zip(batch, await store.repairs.examine(batch, look), strict=True)
        wrong |= {job_id: symptom for job_id, symptom in seen if symptom.fault is not None}
    return wrong


async def _walk_lists(store: Client, swept: _Swept, limit: int) -> Walk:
    """Read the lists of waiting jobs from the end at which new ones arrive, so that nothing slips by.

    The inboxes come last: whatever leaves the queue without being claimed lies in one of them.
    """
    keys = store.keys
    alive = await store.plain("ZRANGE", keys.workers, 0, -1)
    inboxes = [keys.inbox(name) for name in {WorkerId(name.decode()) for name in alive} | swept.workers]
    walk = Walk()
    for key in (keys.queued, keys.suspects, *inboxes):
        for start in range(0, limit, STEP):
            page = await store.plain("LRANGE", key, start, start + STEP - 1)
            walk.take(page)
            if len(page) < STEP:
                break
        else:
            walk.whole = False
    return walk


async def _members(store: Client, key: str, limit: int) -> Walk:
    """Read the members of a sorted set."""
    walk, cursor = Walk(), b"0"
    for _ in range(0, limit, STEP):
        cursor, page = await store.plain("ZSCAN", key, cursor, "COUNT", STEP)
        walk.take(page[::2])
        if cursor == b"0":
            return walk
    walk.whole = False
    return walk


async def _forgotten(store: Client, names: Iterable[WorkerId]) -> list[WorkerId]:
    """Give the workers that are not in the fleet although keys of theirs are still there."""
    found = []
    for batch in _batches(sorted(names), EXAMINED):
        deadlines = await store.plain("ZMSCORE", store.keys.workers, *batch)
        for name in (name for name, deadline in zip(batch, deadlines, strict=True) if deadline is None):
            keys = store.keys
            if await store.plain("EXISTS", keys.worker(name), keys.inbox(name), keys.held(name)):
                found.append(name)
    return found


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
