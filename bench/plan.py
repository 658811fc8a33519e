"""Which cells a run has: groups of cells that differ only by the queue, so that the queues take turns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.draining import Scale
from bench.records import AQUEUE, PEERS, Cell, Entrant

QUICK_PEERS: Final = ("bullmq", "dramatiq threads", "saq", "taskiq list")
"""The fastest of the others, by earlier full runs."""
SIZES: Final = {"100 B": 100, "1 KiB": 1024, "64 KiB": 65_536}

Group = tuple[Cell, ...]


@dataclass(frozen=True)
class Plan:
    """A kind of run."""

    kind: str
    entrants: tuple[Entrant, ...]
    groups: tuple[Group, ...]
    scale: Scale
    budget: float
    """Seconds; no further round of a cell begins once it would not end in time."""

    @property
    def cells(self) -> int:
        return sum(cell.rounds for group in self.groups for cell in group)


def make_plan(
    kind: str, *, peers: Collection[str] = (), measures: Collection[str] = (), rounds: int | None = None
) -> Plan:
    """Choose the cells of "full", "quick" or "smoke"; a peer is named by itself or with its variant."""
    make = {"full": _full, "quick": _quick, "smoke": _smoke}[kind]
    others = _chosen(QUICK_PEERS if kind == "quick" and not peers else peers)
    plan = make((AQUEUE, *(() if kind == "smoke" and not peers else others)))
    groups = [tuple(cell for cell in group if not measures or cell.measure in measures) for group in plan.groups]
    if rounds is not None:
        groups = [tuple(replace(cell, rounds=rounds) for cell in group) for group in groups]
    return replace(plan, groups=tuple(group for group in groups if group))


def _chosen(names: Collection[str]) -> list[Entrant]:
    known = {name for entrant in PEERS for name in (entrant.peer, entrant.label)} | {AQUEUE.label}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"no such peer: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return [entrant for entrant in PEERS if not names or {entrant.peer, entrant.label} & set(names)]


def _full(entrants: Sequence[Entrant]) -> Plan:
    """What matters most comes first: where time is short, the further rounds of what comes last are left out."""
    groups = [
        *_drains(entrants, {100: 3, 10: 3}),
        _enqueues(entrants, 3),
        _latencies(entrants, "latency", 2),
        _io(entrants, 2),
        _backlogs({1_000: 3, 100_000: 3, 1_000_000: 2}),
        _features(3),
        *_drains(entrants, {1: 2}),
        _latencies(entrants, "delayed", 1),
        *_payloads(entrants, 1),
        *_processes(entrants, (2, 4), 1),
        _idle(entrants, 1),
    ]
    return Plan("full", tuple(entrants), tuple(groups), Scale(), budget=24 * 60.0)


def _quick(entrants: Sequence[Entrant]) -> Plan:
    scale = Scale(
        drain_seconds=0.8, side_seconds=0.8,
        enqueue_seconds=0.5, bulk=20_000, samples=300, sample_seconds=2.0, delayed=60,
        idle_seconds=4.0, backlog_drain=10_000, backlog_one=300, patience=6.0,
    )  # fmt: skip
    only = entrants[:1]
    groups = [
        *_drains(only, {1: 1}),
        *_drains(entrants, {10: 1, 100: 2}),
        _io(entrants, 1),
        _enqueues(entrants, 1),
        _latencies(entrants, "latency", 1),
        _latencies(only, "delayed", 1),
        *_payloads(only, 1),
        *_processes(only, (2,), 1),
        _backlogs({1_000: 2, 100_000: 2}),
        _features(1),
        _idle(only, 1),
    ]
    return Plan("quick", tuple(entrants), tuple(groups), scale, budget=165.0)


def _smoke(entrants: Sequence[Entrant]) -> Plan:
    scale = Scale(
        drain_seconds=0.02, side_seconds=0.02,
        drain_most=200, enqueue_seconds=0.2, bulk=200, samples=5, sample_seconds=1.0, delayed=5,
        idle_seconds=0.1, backlog_drain=100, backlog_one=20,
    )  # fmt: skip
    groups = [
        *_drains(entrants, {100: 1}),
        _io(entrants, 1),
        _enqueues(entrants, 1),
        _latencies(entrants, "latency", 1),
        _latencies(entrants, "delayed", 1),
        *_payloads(entrants, 1),
        *_processes(entrants, (2,), 1),
        _backlogs({100: 1, 1_000: 1}),
        _features(1),
        _idle(entrants, 1),
    ]
    return Plan("smoke", tuple(entrants), tuple(groups), scale, budget=120.0)


def _slots(entrant: Entrant, concurrency: int) -> int:
    return 1 if entrant.one_at_a_time else concurrency


def _drains(entrants: Sequence[Entrant], rounds: dict[int, int]) -> Iterator[Group]:
    """Every queue at every concurrency; one that runs a job at a time is measured once, at 1."""
    for concurrency, count in rounds.items():
        yield tuple(
            Cell("drain", f"c={concurrency}", entrant, concurrency=concurrency, rounds=count)
            for entrant in entrants
            if concurrency == 1 or not entrant.one_at_a_time
        )


def _io(entrants: Sequence[Entrant], rounds: int) -> Group:
    return tuple(
        Cell("io", "c=100", entrant, task="io", concurrency=_slots(entrant, 100), rounds=rounds) for entrant in entrants
    )


def _enqueues(entrants: Sequence[Entrant], rounds: int) -> Group:
    return (
        Cell("yardstick", "", AQUEUE, rounds=rounds),
        *(Cell("enqueue", "", entrant, rounds=rounds) for entrant in entrants if not entrant.enqueues_like),
    )


def _latencies(entrants: Sequence[Entrant], measure: str, rounds: int) -> Group:
    return tuple(Cell(measure, "", entrant, concurrency=_slots(entrant, 10), rounds=rounds) for entrant in entrants)


def _payloads(entrants: Sequence[Entrant], rounds: int) -> Iterator[Group]:
    for label, size in SIZES.items():
        yield tuple(
            Cell("payload", label, one, task="echo", concurrency=_slots(one, 100), payload=size, rounds=rounds)
            for one in entrants
        )


def _processes(entrants: Sequence[Entrant], counts: Sequence[int], rounds: int) -> Iterator[Group]:
    """One process is what the drains measure."""
    for count in counts:
        yield tuple(
            Cell("processes", str(count), one, concurrency=_slots(one, 100), processes=count, rounds=rounds)
            for one in entrants
        )


def _backlogs(levels: dict[int, int]) -> Group:
    """Take turns between the depths, too; each has its number of rounds."""
    return tuple(Cell("backlog", f"{level:,}", AQUEUE, level=level, rounds=rounds) for level, rounds in levels.items())


def _features(rounds: int) -> Group:
    """What single features of aqueue cost, beside the same drain without them."""
    return (
        Cell("feature", "plain", AQUEUE, rounds=rounds),
        Cell("feature", "unique key", Entrant("aqueue", "key"), rounds=rounds),
        Cell("feature", "middleware", Entrant("aqueue", "middleware"), rounds=rounds),
        Cell("retries", "retry", AQUEUE, task="flaky", rounds=rounds),
    )


def _idle(entrants: Sequence[Entrant], rounds: int) -> Group:
    return tuple(Cell("idle", "", one, concurrency=_slots(one, 100), rounds=rounds) for one in entrants)
