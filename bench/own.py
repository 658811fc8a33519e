"""Measures of aqueue alone: a full queue, retries, and the distance to a bare script call."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from typing import Final

from bench.draining import SETTLE_SECONDS, Scale, check, per_job, verified, wanted_jobs
from bench.driver import Stage
from bench.records import BARE, Cell, Reading

SLICES: Final = 8
WARM_JOBS: Final = 20


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
    results, problem = check(producer)
    stage.stop_workers()
    traced = stage.traced()
    again = traced.doubles
    error = "" if again == jobs else f"{again} second runs of {jobs} jobs"
    span = (traced.end - min(traced.starts.values())) / 1e9
    values = {"rate": jobs / span, **per_job(used, len(traced.starts))}
    return verified(Reading(values, jobs, len(traced.starts), again, results, error), problem)
