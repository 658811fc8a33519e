"""Fill a queue, let workers drain it, verify what ran: the heart of most measures.

Rates of jobs come from the trace that the job bodies write, never from what a queue says of itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.driver import PeerUnsupported, Producer, Stage
from bench.records import Cell, Reading
from bench.servers import Usage

CHECKED: Final = 300
"""Results read per cell."""
CHECK_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 0.3
"""After the last start, for the last settles, before the server's figures are read."""
ENOUGH: Final = 0.35
"""A drain that lasted less than this share of the wanted time is repeated with more jobs."""
TRIES: Final = 3
WAVES: Final = 10
"""A drain has at least so many jobs per slot."""


@dataclass
class Scale:
    """How much is measured; differs between full, quick and smoke."""

    drain_seconds: float = 1.6
    side_seconds: float = 1.0
    """How long a drain lasts that is not the main figure: other payloads, more processes."""
    drain_most: int = 60_000
    enqueue_seconds: float = 1.5
    bulk: int = 50_000
    samples: int = 1_000
    sample_seconds: float = 6.0
    delayed: int = 200
    idle_seconds: float = 10.0
    backlog_drain: int = 20_000
    backlog_one: int = 1_000
    patience: float = 8.0
    """A drain may last this long; what has run by then is what is counted."""
    rates: dict[tuple[Any, ...], float] = field(default_factory=dict)
    """What each entrant was found to do, so that the next drain has a fitting number of jobs."""


@dataclass(frozen=True)
class Drained:
    """A drain before it is turned into figures."""

    jobs: int
    rate: float
    span: float
    reading: Reading


def drain(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Fill first, then start the workers; the rate is from the first start to the last."""
    known = (cell.entrant.label, cell.task, cell.concurrency, cell.processes, cell.payload)
    guess = scale.rates.get(known) or _guess(cell, scale)
    jobs, drained = 0, None
    for _ in range(TRIES):
        wanted = wanted_jobs(guess, scale, cell)
        if drained is not None and wanted < 1.5 * drained.jobs:
            break
        drained = drain_once(stage, cell, wanted, first=jobs, patience=scale.patience)
        jobs += wanted
        guess = scale.rates[known] = drained.rate
        if drained.span >= ENOUGH * wanted_seconds(scale, cell) or drained.reading.note or drained.reading.error:
            break
    assert drained is not None
    return drained.reading


def wanted_jobs(rate: float, scale: Scale, cell: Cell) -> int:
    """Give a number of jobs that lasts for the wanted time at this rate."""
    least = min(scale.drain_most, max(20, WAVES * cell.concurrency * cell.processes))
    return max(least, min(scale.drain_most, round(rate * wanted_seconds(scale, cell))))


def wanted_seconds(scale: Scale, cell: Cell) -> float:
    return scale.side_seconds if cell.measure in ("payload", "processes") else scale.drain_seconds


def _guess(cell: Cell, scale: Scale) -> float:
    """Expect what the entrant did elsewhere; of a stranger, little."""
    others = [rate for known, rate in scale.rates.items() if known[0] == cell.entrant.label]
    ceiling = 100.0 * cell.concurrency * cell.processes if cell.task == "io" else float("inf")
    return min(max(others, default=50.0), ceiling)


def drain_once(stage: Stage, cell: Cell, jobs: int, *, first: int = 0, patience: float) -> Drained:
    """Enqueue so many jobs, run them all, verify them and read some results."""
    producer, begun_at = stage.producer(), stage.count()
    empty = stage.server.usage()
    filled = producer.ask("fill", task=cell.task, first=first, count=jobs, payload=cell.payload, limit=patience)
    full = stage.server.usage()
    stage.start_workers(cell.concurrency, cell.processes)
    complete = stage.wait_for(begun_at + filled["count"], patience)
    time.sleep(SETTLE_SECONDS)
    drained = stage.server.usage()
    results, problem = check(producer) if complete else (None, "")
    notes = [] if complete else [f"time was up after {stage.count() - begun_at:,} of {filled['count']:,} jobs"]
    if not stage.stop_workers():
        notes.append("a worker had to be killed")
    producer.end()
    traced = stage.traced().since(first)
    values = {
        "rate": traced.rate(cell.concurrency * cell.processes),
        "steady": traced.steady(),
        **per_job(drained - full, len(traced.starts)),
    }
    if complete:
        values["redis_cpu"] = (drained - empty).cpu / filled["count"] * 1e6
    reading = Reading(values, filled["count"], len(traced.starts), traced.doubles, results, note="; ".join(notes))
    return Drained(jobs, values["rate"], traced.span, verified(reading, problem, complete=complete))


def per_job(used: Usage, jobs: int) -> dict[str, float]:
    """Spread what the server did over the jobs that ran."""
    if not jobs:
        return {}
    return {
        "redis_cpu_work": used.cpu / jobs * 1e6,
        "commands": used.commands / jobs,
        "round_trips": used.reads / jobs,
    }


def check(producer: Producer) -> tuple[int | None, str]:
    """Read results of the last jobs: how many were right, and what was wrong; None if the peer stores none."""
    try:
        answer = producer.ask("check", count=CHECKED, timeout=CHECK_SECONDS)
    except PeerUnsupported:
        return None, ""
    return int(answer["found"]) - int(answer["wrong"]), str(answer["problem"])


def verified(reading: Reading, problem: str = "", *, complete: bool = True) -> Reading:
    """Turn missing jobs and wrong or missing results into the cell's error."""
    expected = min(CHECKED, reading.jobs)
    if complete and reading.ran != reading.jobs:
        return replace(reading, error=f"only {reading.ran} of {reading.jobs} different jobs ran")
    if reading.results is not None and reading.results < expected:
        return replace(
            reading, error=f"only {reading.results} of {expected} results were there and right {problem}".strip()
        )
    return reading
