"""What happened, as seen from outside of the system under test, and whether it may have happened.

Producers and tasks write the history; the store's own keys say where every job has ended up. The checker knows neither
scripts nor workers: it compares the two, and everything it finds is a sentence about one job.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import redis
from leaks import leaks

ENDED: Final = {"completed", "failed", "cancelled", "expired"}


@dataclass
class History:
    """What producers were told and what tasks did, by job."""

    asked: int = 0
    """Jobs that producers have tried to enqueue, whether or not they got an answer."""
    acknowledged: set[str] = field(default_factory=set)
    """Jobs whose enqueue has returned."""
    removed: set[str] = field(default_factory=set)
    """Jobs that an operator deleted or purged, or may have: nobody need find them again."""
    events: list[tuple[str, str]] = field(default_factory=list)
    """(job, "start" or "end"), in their order; an end is a run that has returned."""
    told: set[str] = field(default_factory=set)
    """Jobs whose result a waiter was given."""
    causes: Counter[str] = field(default_factory=Counter)
    """Runs beyond the first that a job may have: failed attempts, crashes, releases, reruns."""

    def start(self, job_id: str) -> None:
        self.events.append((job_id, "start"))

    def end(self, job_id: str) -> None:
        self.events.append((job_id, "end"))

    def cause(self, job_id: str) -> None:
        """Note why the job may run once more."""
        self.causes[job_id] += 1

    def runs(self, what: str) -> Counter[str]:
        return Counter(job_id for job_id, event in self.events if event == what)


@dataclass
class Remains:
    """What lies in the store when all is over."""

    states: dict[str, str] = field(default_factory=dict)
    """Of every record."""
    places: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Where a job's id lies: queued, suspects, scheduled, failed, or held and inbox of a worker that has a lease."""
    counters: dict[str, int] = field(default_factory=dict)
    leaked: list[str] = field(default_factory=list)
    """Keys that would stay for ever."""


def remains(client: redis.Redis, queue: str) -> Remains:
    """Read what lies in the store of one queue, by plain commands."""
    base, found = f"aqueue:{{{queue}}}:", Remains()
    for key in map(str, client.scan_iter(f"{base}job:*", count=1000)):
        found.states[key.removeprefix(f"{base}job:")] = str(client.hget(key, "state"))
    for name in ("queued", "suspects"):
        for job_id in map(str, client.lrange(f"{base}{name}", 0, -1)):
            found.places[job_id].append(name)
    for name in ("ranked", "held_back", "scheduled", "failed"):
        for job_id in map(str, client.zrange(f"{base}{name}", 0, -1)):
            found.places[job_id].append(name)
    for worker in map(str, client.zrange(f"{base}workers", 0, -1)):
        for job_id in map(str, client.lrange(f"{base}inbox:{worker}", 0, -1)):
            found.places[job_id].append("inbox")
        for job_id in map(str, client.hkeys(f"{base}held:{worker}")):
            found.places[job_id].append("held")
    found.counters = {str(name): int(value) for name, value in dict(client.hgetall(f"{base}stats")).items()}
    found.leaked = leaks(client, base.removesuffix(":"))
    return found


PLACES: Final = {
    "queued": {"queued", "ranked", "held_back", "suspects", "inbox"},
    "scheduled": {"scheduled"},
    "running": {"held"},
    "failed": {"failed"},
}
"""Where the id of a job in this state must lie, exactly once. A cancelled one may lie in the queue until it is met."""


def complaints(history: History, store: Remains) -> list[str]:
    """List everything that must not have happened."""
    return [
        *_lost(history, store),
        *_misplaced(store),
        *_doubles(history),
        *_results(history, store),
        *_miscounted(history, store),
        *(f"{key} would stay for ever" for key in store.leaked),
    ]


def _lost(history: History, store: Remains) -> Iterable[str]:
    for job_id in sorted(history.acknowledged - history.removed - store.states.keys()):
        yield f"{job_id} was acknowledged and is nowhere"
    for job_id in sorted(history.runs("start").keys() - history.removed - store.states.keys()):
        yield f"{job_id} has run and has no record"


def _misplaced(store: Remains) -> Iterable[str]:
    for job_id, state in sorted(store.states.items()):
        wanted, found = PLACES.get(state), store.places.get(job_id, [])
        if wanted is not None and [place in wanted for place in found] != [True]:
            yield f"{job_id} is {state} and lies in {found or 'no list'}"
        if wanted is None and set(found) - {"queued"}:
            yield f"{job_id} is {state} and still lies in {found}"


def _doubles(history: History) -> Iterable[str]:
    running: Counter[str] = Counter()
    for job_id, event in history.events:
        running[job_id] += 1 if event == "start" else -1
        if running[job_id] > 1 + history.causes[job_id]:
            yield f"{job_id} was started while it was running"
    for job_id, count in history.runs("start").items():
        if count > 1 + history.causes[job_id]:
            yield f"{job_id} ran {count} times with {history.causes[job_id]} causes for another run"


def _results(history: History, store: Remains) -> Iterable[str]:
    ends = history.runs("end")
    for job_id, state in sorted(store.states.items()):
        if state == "completed" and not ends[job_id]:
            yield f"{job_id} is completed and no run of it has returned"
    for job_id in sorted(history.told):
        if not ends[job_id]:
            yield f"{job_id} gave a result and no run of it has returned"


def _miscounted(history: History, store: Remains) -> Iterable[str]:
    """Compare counters and records; only what was removed, or has failed and was run again, has no record any more."""
    again = {"completed": 0, "failed": history.causes.total(), "expired": 0}
    for state, more in again.items():
        kept = sum(1 for other in store.states.values() if other == state)
        counted = store.counters.get(state, 0)
        if not kept <= counted <= kept + len(history.removed) + more:
            yield f"{kept} jobs are {state} and {counted} were counted"
    if damaged := store.counters.get("damaged", 0):
        yield f"{damaged} records were found damaged"
    jobs = len(store.states.keys() | history.runs("start").keys())
    if jobs > history.asked:
        yield f"{jobs} jobs exist and {history.asked} were asked for"
