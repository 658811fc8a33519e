"""What is measured, and what came of it: plain records, stored as JSON by msgspec."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final


@dataclass(frozen=True)
class Entrant:
    """A peer in one of its variants."""

    peer: str
    variant: str = ""
    one_at_a_time: bool = False
    """A worker process of it runs one job at once, whatever is asked; it is measured at concurrency 1 only."""
    enqueues_like: str = ""
    """Label of the entrant whose producing side is the same, so that it is not measured twice."""

    @property
    def label(self) -> str:
        return f"{self.peer} {self.variant}".strip()

    @property
    def module(self) -> str:
        return f"bench.peers.peer_{self.peer}"


AQUEUE: Final = Entrant("aqueue")
BARE: Final = Entrant("bare")
"""No queue at all: one EVALSHA that does nothing, sent with redis-py. The yardstick of a single enqueue."""
PEERS: Final = (
    Entrant("arq"),
    Entrant("bullmq"),
    Entrant("celery"),
    Entrant("docket"),
    Entrant("dramatiq", "threads"),
    Entrant("dramatiq", "asyncio", enqueues_like="dramatiq threads"),
    Entrant("huey"),
    Entrant("rq", "simple", one_at_a_time=True),
    Entrant("rq", "fork", one_at_a_time=True, enqueues_like="rq simple"),
    Entrant("saq"),
    Entrant("streaq"),
    Entrant("taskiq", "stream"),
    Entrant("taskiq", "list"),
)


@dataclass(frozen=True)
class Cell:
    """One figure to take, or a few that are taken together."""

    measure: str
    """Name of a function in MEASURES."""
    label: str
    """What tells the measure's cells apart for one entrant: "c=100", "1 KiB"; may be empty."""
    entrant: Entrant
    task: str = "noop"
    concurrency: int = 100
    processes: int = 1
    payload: int | None = None
    level: int = 0
    rounds: int = 1

    @property
    def key(self) -> tuple[str, str, str]:
        return self.measure, self.label, self.entrant.label


@dataclass(frozen=True)
class Reading:
    """What one round of one cell gave."""

    values: Mapping[str, float] = field(default_factory=dict)
    jobs: int = 0
    """How many jobs were enqueued for it."""
    ran: int = 0
    """How many of them the trace shows, each counted once."""
    doubles: int = 0
    """Runs beyond the first of a job."""
    results: int | None = None
    """How many stored results were read and right; None where the peer stores none, or none were asked for."""
    error: str = ""
    """What went wrong. With values beside it: all jobs ran, but what they left was not as it should be."""
    unsupported: str = ""
    note: str = ""
    seconds: float = 0.0
    """Wall time of the whole cell, starts and stops included."""


UNITS: Final = {
    "rate": "jobs/s",
    "steady": "jobs/s",
    "one": "jobs/s",
    "producers": "jobs/s",
    "bulk": "jobs/s",
    "start_p50": "ms",
    "start_p99": "ms",
    "start_max": "ms",
    "result_p50": "ms",
    "result_p99": "ms",
    "result_max": "ms",
    "late_p50": "ms",
    "late_p99": "ms",
    "late_max": "ms",
    "redis_cpu": "µs/job",
    "redis_cpu_work": "µs/job",
    "commands": "per job",
    "round_trips": "per job",
    "idle_round_trips": "per s",
    "bytes": "bytes/job",
    "rss": "MiB",
    "rss_drained": "MiB",
    "rss_again": "MiB",
    "evalsha": "requests/s",
    "evalsha_producers": "requests/s",
    "share": "of the bare rate",
    "ping": "requests/s",
}
"""Metric -> unit. `bytes` is of a waiting no-op job, its argument included. `redis_cpu` is that of a whole cycle,
the enqueue in bulk included; `redis_cpu_work`, `commands` and `round_trips` are those of the worker's side."""


@dataclass(frozen=True)
class Spread:
    """A metric over the rounds."""

    median: float
    low: float
    high: float
    rounds: int
    unit: str


@dataclass(frozen=True)
class Result:
    """A cell over all its rounds."""

    cell: Cell
    readings: tuple[Reading, ...]

    @property
    def metrics(self) -> dict[str, Spread]:
        names = dict.fromkeys(name for reading in self.readings for name in reading.values)
        return {name: spread([r.values[name] for r in self.readings if name in r.values], name) for name in names}

    @property
    def error(self) -> str:
        return next((reading.error for reading in self.readings if reading.error), "")

    @property
    def unsupported(self) -> str:
        return next((reading.unsupported for reading in self.readings if reading.unsupported), "")

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(reading.note for reading in self.readings if reading.note))

    @property
    def failed(self) -> bool:
        """Whether there is nothing to show but the error."""
        return bool(self.error) and not self.metrics

    def median(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return None if found is None else found.median

    def with_reading(self, reading: Reading) -> Result:
        return replace(self, readings=(*self.readings, reading))


def spread(values: Sequence[float], metric: str) -> Spread:
    """Give median, lowest and highest."""
    return Spread(statistics.median(values), min(values), max(values), len(values), UNITS[metric])


@dataclass(frozen=True)
class Run:
    """Everything that one run of the benchmark found."""

    kind: str
    """full, quick or smoke."""
    machine: Mapping[str, str]
    server: Mapping[str, str]
    peers: Mapping[str, Mapping[str, Any]]
    """Entrant label -> what its file says of itself: settings, versions; or its error."""
    results: tuple[Result, ...] = ()
    seconds: float = 0.0

    def of(self, measure: str, label: str | None = None) -> list[Result]:
        """Give the results of a measure, in their order."""
        return [
            result
            for result in self.results
            if result.cell.measure == measure and (label is None or result.cell.label == label)
        ]

    def value(self, measure: str, label: str, metric: str, entrant: str = "aqueue") -> float | None:
        for result in self.of(measure, label):
            if result.cell.entrant.label == entrant:
                return result.median(metric)
        return None
