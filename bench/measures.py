"""One function per measure: it sets one cell up, runs it, verifies it, and returns a reading.

Rates and latencies of jobs come from the trace that the job bodies write, never from what a queue says of itself.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.driver import PeerFailed, PeerUnsupported, Producer, Stage
from bench.records import BARE, Cell, Reading
from bench.servers import Usage

WARM_JOBS: Final = 20
WARM_SECONDS: Final = 25.0
CHECKED: Final = 300
"""Results read per cell."""
CHECK_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 0.3
"""After the last start, for the last settles, before the server's figures are read."""
ENOUGH: Final = 0.35
"""A drain that lasted less than this share of the wanted time is repeated with more jobs."""
TRIES: Final = 3
SLICES: Final = 8
WAVES: Final = 10
"""A drain has at least so many jobs per slot."""


@dataclass
class Scale:
    """How much is measured; differs between full, quick and smoke."""

    drain_seconds: float = 2.0
    drain_most: int = 60_000
    enqueue_seconds: float = 1.5
    bulk: int = 50_000
    samples: int = 1_000
    sample_seconds: float = 6.0
    delayed: int = 200
    idle_seconds: float = 10.0
    backlog_drain: int = 20_000
    backlog_one: int = 1_000
    patience: float = 20.0
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


# draining


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
        if drained.span >= ENOUGH * scale.drain_seconds or drained.reading.note:
            break
    assert drained is not None
    return drained.reading


def wanted_jobs(rate: float, scale: Scale, cell: Cell) -> int:
    """Give a number of jobs that lasts for the wanted time at this rate."""
    least = min(scale.drain_most, max(20, WAVES * cell.concurrency * cell.processes))
    return max(least, min(scale.drain_most, round(rate * scale.drain_seconds)))


def _guess(cell: Cell, scale: Scale) -> float:
    """Expect what the entrant did elsewhere; of a stranger, little."""
    others = [rate for known, rate in scale.rates.items() if known[0] == cell.entrant.label]
    ceiling = 100.0 * cell.concurrency * cell.processes if cell.task == "io" else float("inf")
    return min(max(others, default=50.0), ceiling)


def drain_once(stage: Stage, cell: Cell, jobs: int, *, first: int = 0, patience: float) -> Drained:
    """Enqueue so many jobs, run them all, verify them and read some results."""
    producer = stage.producer()
    empty = stage.server.usage()
    filled = producer.ask("fill", task=cell.task, first=first, count=jobs, payload=cell.payload, limit=patience)
    enqueued, traced_before = filled["count"], stage.count()
    before = stage.server.usage()
    stage.start_workers(cell.concurrency, cell.processes)
    complete = stage.wait_for(traced_before + enqueued, patience)
    time.sleep(SETTLE_SECONDS)
    after = stage.server.usage()
    traced = stage.traced().since(first)
    results = check(producer) if complete else None
    willing = stage.stop_workers()
    producer.end()
    rate = traced.rate(cell.concurrency * cell.processes)
    values = {"rate": rate, "steady": traced.steady(), **per_job(after - before, len(traced.starts))}
    if complete:
        values["redis_cpu"] = (after - empty).cpu / enqueued * 1e6
    if filled["way"] == "bulk":
        values["bulk"] = enqueued / filled["seconds"]
    note = "" if complete else f"time was up after {len(traced.starts):,} of {enqueued:,} jobs"
    if not willing:
        note = "; ".join(filter(None, (note, "a worker had to be killed")))
    reading = Reading(values, enqueued, len(traced.starts), stage.traced().doubles, results, note=note)
    return Drained(jobs, rate, traced.span, verified(reading, complete=complete))


def per_job(used: Usage, jobs: int) -> dict[str, float]:
    """Spread what the server did over the jobs that ran."""
    if not jobs:
        return {}
    return {
        "redis_cpu_work": used.cpu / jobs * 1e6,
        "commands": used.commands / jobs,
        "round_trips": used.reads / jobs,
    }


def check(producer: Producer) -> int | None:
    """Read results of the last jobs; how many were right, None if the peer stores none."""
    try:
        answer = producer.ask("check", count=CHECKED, timeout=CHECK_SECONDS)
    except PeerUnsupported:
        return None
    return int(answer["found"]) - int(answer["wrong"])


def verified(reading: Reading, *, complete: bool) -> Reading:
    """Turn missing jobs and wrong or missing results into the cell's error."""
    expected = min(CHECKED, reading.jobs)
    if complete and reading.ran != reading.jobs:
        return replace(reading, error=f"only {reading.ran} of {reading.jobs} different jobs ran")
    if reading.results is not None and reading.results < expected:
        return replace(reading, error=f"only {reading.results} of {expected} results were there and right")
    return reading


# enqueueing


def enqueue(stage: Stage, cell: Cell, scale: Scale) -> Reading:  # noqa: ARG001  # as every measure
    """Enqueue one awaited at a time, by 50 producers, and in bulk, with no worker; weigh what waits."""
    producer = stage.producer()
    producer.ask("one", count=WARM_JOBS)
    limit = {"count": scale.bulk, "limit": scale.enqueue_seconds}
    one = producer.ask("one", **limit)
    many = producer.ask("producers", producers=50, **limit)
    before = stage.server.usage()
    bulk = producer.ask("fill", count=scale.bulk, limit=2 * scale.enqueue_seconds)
    memory = (stage.server.usage() - before).memory
    values = {
        "one": one["count"] / one["seconds"],
        "producers": many["count"] / many["seconds"],
        "bytes": memory / bulk["count"],
    }
    note = "" if bulk["way"] == "bulk" else "no bulk way: filled by 50 producers"
    if bulk["way"] == "bulk":
        values["bulk"] = bulk["count"] / bulk["seconds"]
    return Reading(values, jobs=one["count"] + many["count"] + bulk["count"], note=note)


def yardstick(stage: Stage, cell: Cell, scale: Scale) -> Reading:  # noqa: ARG001  # as every measure
    """Hold a single enqueue against a script that does nothing, sent with redis-py.

    Both take turns in short slices on the same server, so that what else the machine does hits both.
    """
    own, bare = stage.producer(), stage.producer(BARE)
    for producer in (own, bare):
        producer.ask("one", count=WARM_JOBS)
    slices: dict[str, list[float]] = {"one": [], "producers": [], "evalsha": [], "evalsha_producers": []}
    for _ in range(SLICES):
        for prefix, producer in (("", own), ("evalsha_", bare)):
            for do in ("one", "producers"):
                answer = producer.ask(do, count=scale.bulk, limit=scale.enqueue_seconds / SLICES, producers=50)
                slices[f"{prefix}{do}".removesuffix("_one")].append(answer["count"] / answer["seconds"])
    values = {name: statistics.median(rates) for name, rates in slices.items()}
    values["share"] = statistics.median(
        mine / theirs for mine, theirs in zip(slices["one"], slices["evalsha"], strict=True)
    )
    if (ping := ping_rate(stage.server.port)) is not None:
        values["ping"] = ping
    return Reading(values)


def ping_rate(port: int) -> float | None:
    """Ask redis-benchmark for the server's own pace, where that program is."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return None
    command = [program, "-p", str(port), "-t", "ping_mbulk", "-n", "100000", "-c", "50", "--csv"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
    lines = [line for line in text.splitlines() if line.startswith('"PING')]
    return float(lines[0].split(",")[1].strip('"')) if lines else None


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
    return Reading(values, answer["count"], len(late), stage.traced().doubles, results, note=_few(late))


def _few(samples: Sequence[float]) -> str:
    return f"only {len(samples)} samples, so p99 is little more than the worst" if len(samples) < 100 else ""


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
    return verified(reading, complete=True)


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
            stage.wait_for(WARM_JOBS + (number + 1) * jobs, scale.patience)
            time.sleep(SETTLE_SECONDS)
            values[name] = sum(worker.rss_mib() for worker in stage.workers)
    except PeerFailed as error:
        note = f"not drained: {error}"
    traced = stage.traced()
    return Reading(values, WARM_JOBS + 2 * jobs, len(traced.starts), traced.doubles, note=note)


# aqueue alone


def backlog(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Enqueue onto so many waiting jobs, then claim and settle until that many remain again.

    The same number of jobs is enqueued and drained at every depth, so that the rates can be compared.
    """
    producer = stage.producer()
    producer.ask("fill", count=cell.level, first=0, within=300)
    bulk = producer.ask("fill", count=scale.backlog_drain, first=cell.level)
    at_top = cell.level + scale.backlog_drain
    one = producer.ask("one", count=scale.backlog_one, first=at_top)
    target = scale.backlog_drain + scale.backlog_one
    before = stage.server.usage()
    stage.start_workers(cell.concurrency, max_jobs=target)
    stage.wait_for(target, 2 * scale.patience)
    stage.workers[0].popen.wait(scale.patience)
    used = stage.server.usage() - before
    traced = stage.traced()
    stage.stop_workers()
    values = {
        "bulk": bulk["count"] / bulk["seconds"],
        "one": one["count"] / one["seconds"],
        "rate": traced.rate(cell.concurrency),
        **per_job(used, target),
    }
    oldest_first = set(traced.starts) == set(range(target))
    error = "" if oldest_first else "what ran is not what had waited longest"
    return Reading(values, target, len(traced.starts), traced.doubles, error=error)


def retries(stage: Stage, cell: Cell, scale: Scale) -> Reading:
    """Drain jobs that fail once and are tried again at once: two runs, a failure and a move per job."""
    known = ("aqueue", "noop", cell.concurrency, 1, None)
    jobs = wanted_jobs(scale.rates.get(known, 2_000.0) / 3, scale, cell)
    producer = stage.producer()
    producer.ask("fill", task=cell.task, count=jobs)
    before = stage.server.usage()
    stage.start_workers(cell.concurrency)
    stage.wait_for(2 * jobs, scale.patience)
    time.sleep(SETTLE_SECONDS)
    used = stage.server.usage() - before
    results = check(producer)
    stage.stop_workers()
    traced = stage.traced()
    again = traced.doubles
    error = "" if again == jobs else f"{again} second runs of {jobs} jobs"
    span = (traced.end - min(traced.starts.values())) / 1e9
    values = {"rate": jobs / span, **per_job(used, len(traced.starts))}
    return verified(Reading(values, jobs, len(traced.starts), again, results, error), complete=True)


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
