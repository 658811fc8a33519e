"""One function per measure: it sets one cell up, runs it, verifies it, and returns a reading."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.draining import SETTLE_SECONDS, Scale, drain, verified, wanted_jobs
from bench.driver import PeerFailed, Producer, Stage
from bench.own import WARM_JOBS, backlog, retries, yardstick
from bench.records import Cell, Reading

WARM_SECONDS: Final = 25.0
FEW_SAMPLES: Final = 100
FAR: Final = 1_000_000
"""Keeps the numbers of one command's jobs apart from those of the next."""


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value below which that share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantiles(values: Sequence[float], prefix: str) -> dict[str, float]:
    """Name the median, the 99th percentile and the worst."""
    return {
        f"{prefix}_p50": statistics.median(values),
        f"{prefix}_p99": percentile(values, 0.99),
        f"{prefix}_max": max(values),
    }


def enqueue(stage: Stage, cell: Cell, scale: Scale) -> Reading:  # noqa: ARG001  # as every measure
    """Enqueue one awaited at a time, by 50 producers, and in bulk, with no worker; weigh what waits."""
    producer = stage.producer()
    producer.ask("one", count=WARM_JOBS)
    before = stage.server.usage()  # with the queue's scripts and other fixed costs
    limit = {"count": scale.bulk, "limit": scale.enqueue_seconds}
    one = producer.ask("one", first=FAR, **limit)
    many = producer.ask("producers", first=2 * FAR, producers=50, **limit)
    bulk = producer.ask("fill", first=3 * FAR, count=scale.bulk, limit=2 * scale.enqueue_seconds)
    producer.end()  # what its connections take is not the jobs'
    time.sleep(SETTLE_SECONDS)
    memory = (stage.server.usage() - before).memory
    jobs = one["count"] + many["count"] + bulk["count"]
    values = {
        "one": one["count"] / one["seconds"],
        "producers": many["count"] / many["seconds"],
        "bytes": memory / jobs,
    }
    note = "" if bulk["way"] == "bulk" else "no bulk way: filled by 50 producers"
    if bulk["way"] == "bulk":
        values["bulk"] = bulk["count"] / bulk["seconds"]
    return Reading(values, jobs=jobs, note=note)


# latencies


def warm(stage: Stage, cell: Cell) -> Producer:
    """Start a worker and let it run a few jobs, so that what follows meets an idle one."""
    producer = stage.producer()
    stage.start_workers(cell.concurrency, cell.processes)
    producer.ask("one", task=cell.task, count=WARM_JOBS)
    stage.wait_for(WARM_JOBS, WARM_SECONDS)
    time.sleep(SETTLE_SECONDS)
    return producer


def latency(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Enqueue on an idle worker, wait for the result, and pause; one job at a time."""
    producer = warm(stage, cell)
    limit = {"count": scale.samples, "limit": scale.sample_seconds}
    answer = producer.ask("latency", first=WARM_JOBS, gap=0.003, **limit)
    stage.wait_for(WARM_JOBS + answer["count"], WARM_SECONDS)
    starts = stage.traced().starts
    sent = dict(enumerate(answer["sent_ns"], WARM_JOBS))
    late = [(starts[number] - at) / 1e6 for number, at in sent.items() if number in starts]
    values = quantiles(late, "start")
    if answer["result_ms"]:
        values |= quantiles(answer["result_ms"], "result")
    results = len(answer["result_ms"] or ()) or None
    doubles = stage.traced().doubles
    return Reading(values, answer["count"], len(late), doubles, results, answer["problem"], note=_few(late))


def _few(samples: Sequence[float]) -> str:
    return f"only {len(samples)} samples, so p99 is hardly less than the worst" if len(samples) < FEW_SAMPLES else ""


def delayed(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Enqueue jobs that are due in a second, a few milliseconds apart; how late does each start?"""
    producer = warm(stage, cell)
    limit = {"count": scale.delayed, "limit": scale.sample_seconds}
    answer = producer.ask("delayed", first=WARM_JOBS, seconds=1.0, gap=0.013, **limit)
    stage.wait_for(WARM_JOBS + answer["count"], WARM_SECONDS, stall=10.0)
    starts = stage.traced().starts
    due = dict(enumerate(answer["due_ns"], WARM_JOBS))
    late = [(starts[number] - at) / 1e6 for number, at in due.items() if number in starts]
    early = sum(one < -1 for one in late)
    note = f"{early} of {len(late)} started over 1 ms early" if early else ""
    reading = Reading(quantiles(late, "late"), answer["count"], len(late), stage.traced().doubles, note=note)
    return verified(reading)


# resources


def idle(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Let a worker with nothing to do be, and weigh it; then again when it has drained some."""
    producer = warm(stage, cell)
    time.sleep(1.0)
    rss = sum(worker.rss_mib() for worker in stage.workers)
    before = stage.server.usage()
    begun = time.monotonic()
    time.sleep(scale.idle_seconds)
    used = stage.server.usage() - before
    values = {"idle_round_trips": used.reads / (time.monotonic() - begun), "rss": rss}
    known = (cell.entrant.label, "noop", cell.concurrency, 1, None)
    jobs, note = wanted_jobs(scale.rates.get(known, 100.0), scale, cell), ""
    try:
        for number, name in enumerate(("rss_drained", "rss_again")):
            producer.ask("fill", first=WARM_JOBS + number * jobs, count=jobs)
            stage.wait_for(WARM_JOBS + (number + 1) * jobs, 2 * scale.patience, stall=12.0)  # some wake up late
            time.sleep(SETTLE_SECONDS)
            values[name] = sum(worker.rss_mib() for worker in stage.workers)
    except PeerFailed as error:
        note = f"not drained: {error}"
    traced = stage.traced()
    return Reading(values, WARM_JOBS + 2 * jobs, len(traced.starts), traced.doubles, note=note)


Measure = Callable[[Stage, Cell, Scale], Reading]
MEASURES: Final[dict[str, Measure]] = {
    "drain": drain,
    "io": drain,
    "enqueue": enqueue,
    "yardstick": yardstick,
    "latency": latency,
    "delayed": delayed,
    "payload": drain,
    "processes": drain,
    "backlog": backlog,
    "feature": drain,
    "retries": retries,
    "idle": idle,
}
