"""What aqueue set out to reach, each compared with what one run has measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.records import Run

FLAT: Final = 0.05
"""Memory that grows by less than this share from one drain to the next counts as flat."""


@dataclass(frozen=True)
class Verdict:
    """One target against one run."""

    target: str
    wanted: str
    measured: str
    met: bool | None
    """None where the run has not measured it."""


@dataclass(frozen=True)
class Target:
    """What is to be reached, and how it is read off a run: a value, and words to show it."""

    text: str
    wanted: str
    judge: Callable[[Run], tuple[bool, str] | None]

    def against(self, run: Run) -> Verdict:
        judged = self.judge(run)
        if judged is None:
            return Verdict(self.text, self.wanted, "not measured", None)
        return Verdict(self.text, self.wanted, judged[1], judged[0])


def others(run: Run, measure: str, label: str, metric: str, *, only_async: bool = False) -> dict[str, float]:
    """Give what the peers reached, by label."""
    return {
        result.cell.entrant.label: value
        for result in run.of(measure, label)
        if result.cell.entrant.peer != "aqueue"
        and (value := result.median(metric)) is not None
        and not (only_async and not run.peers.get(result.cell.entrant.label, {}).get("async"))
    }


def times_fastest(measure: str, label: str, metric: str, least: float, *, only_async: bool = False) -> Target:
    """Be so many times as fast as the fastest peer."""
    who = "the fastest asynchronous peer" if only_async else "the fastest peer"

    def judge(run: Run) -> tuple[bool, str] | None:
        own, peers = run.value(measure, label, metric), others(run, measure, label, metric, only_async=only_async)
        if own is None or not peers:
            return None
        name, best = max(peers.items(), key=lambda item: item[1])
        return own >= least * best, f"{own / best:.2f} x ({own:,.0f}/s; {name} {best:,.0f}/s)"

    return Target(TEXTS[measure, label, metric], f"at least {least:g} x {who}", judge)


def limit(
    measure: str, label: str, metric: str, *, least: float | None = None, most: float | None = None, unit: str
) -> Target:
    """Stay on the right side of a fixed figure."""
    wanted = f"at least {least:,g}{unit}" if least is not None else f"at most {most:,g}{unit}"

    def judge(run: Run) -> tuple[bool, str] | None:
        own = run.value(measure, label, metric)
        if own is None:
            return None
        met = (least is None or own >= least) and (most is None or own <= most)
        return met, f"{own:,.{2 if own < 10 else 0}f}{unit}"

    return Target(TEXTS[measure, label, metric], wanted, judge)


def _share_of_bare(run: Run) -> tuple[bool, str] | None:
    share, own, bare = (run.value("yardstick", "", metric) for metric in ("share", "one", "evalsha"))
    if share is None or own is None or bare is None:
        return None
    return share >= 0.8, f"{share:.0%} ({own:,.0f}/s; EVALSHA {bare:,.0f}/s)"


def _bulk(run: Run) -> tuple[bool, str] | None:
    own, peers = run.value("enqueue", "", "bulk"), others(run, "enqueue", "", "bulk")
    if own is None:
        return None
    best = max(peers.values(), default=None)
    ratio = "" if best is None else f", {own / best:.2f} x"
    return own >= 100_000 or (best is not None and own >= 6 * best), f"{own:,.0f}/s{ratio}"


def _half_the_wait(run: Run) -> tuple[bool, str] | None:
    own, peers = run.value("latency", "", "result_p50"), others(run, "latency", "", "result_p50")
    if own is None or not peers:
        return None
    name, best = min(peers.items(), key=lambda item: item[1])
    return own <= 0.5 * best, f"{own / best:.2f} x ({own:.2f} ms; {name} {best:.2f} ms)"


def _flat_backlog(run: Run) -> tuple[bool, str] | None:
    results = run.of("backlog")
    levels = sorted(results, key=lambda result: result.cell.level)
    if len(levels) < 2:
        return None
    shares = {}
    for metric in ("bulk", "one", "rate"):
        low, high = levels[0].median(metric), levels[-1].median(metric)
        if low is None or high is None:
            return None
        shares[metric] = high / low
    words = f"bulk {shares['bulk']:.2f}, single {shares['one']:.2f}, drain {shares['rate']:.2f}"
    text = f"{words} (at {levels[-1].cell.level:,} : at {levels[0].cell.level:,})"
    return min(shares.values()) >= 0.9, text


def _flat_memory(run: Run) -> tuple[bool, str] | None:
    first, second = run.value("idle", "", "rss_drained"), run.value("idle", "", "rss_again")
    if first is None or second is None:
        return None
    return second <= first * (1 + FLAT), f"{first:.1f} MiB after one drain, {second:.1f} MiB after another"


TEXTS: Final = {
    ("drain", "c=100", "rate"): "drain, concurrency 100",
    ("drain", "c=10", "rate"): "drain, concurrency 10",
    ("io", "c=100", "rate"): "jobs of 10 ms of I/O, concurrency 100",
    ("enqueue", "", "one"): "single enqueue",
    ("enqueue", "", "producers"): "enqueue, 50 producers",
    ("enqueue", "", "bytes"): "Redis memory of a waiting no-op job",
    ("latency", "", "result_p99"): "enqueue to result, idle worker, p99",
    ("delayed", "", "late_p99"): "delayed job, due to start, p99",
    ("drain", "c=100", "redis_cpu"): "Redis CPU per job, enqueue to end, concurrency 100",
    ("drain", "c=100", "round_trips"): "worker's round trips per job, concurrency 100",
    ("idle", "", "idle_round_trips"): "round trips of an idle worker",
    ("idle", "", "rss"): "memory of an idle worker",
}

TARGETS: Final = (
    times_fastest("drain", "c=100", "rate", 10),
    times_fastest("drain", "c=10", "rate", 6),
    limit("io", "c=100", "rate", least=9_000, unit="/s"),
    times_fastest("enqueue", "", "one", 1, only_async=True),
    Target("single enqueue", "at least 80 % of a bare EVALSHA with redis-py", _share_of_bare),
    times_fastest("enqueue", "", "producers", 4),
    Target("enqueue in bulk", "at least 100,000/s, or 6 x the fastest peer", _bulk),
    Target("enqueue to result, idle worker, p50", "at most 0.5 x the fastest peer", _half_the_wait),
    limit("latency", "", "result_p99", most=3, unit=" ms"),
    limit("delayed", "", "late_p99", most=20, unit=" ms"),
    limit("drain", "c=100", "redis_cpu", most=15, unit=" µs"),
    limit("drain", "c=100", "round_trips", most=0.2, unit=""),
    limit("idle", "", "idle_round_trips", most=1, unit="/s"),
    limit("enqueue", "", "bytes", most=350, unit=" bytes"),
    Target("rates on a full queue", "at least 0.9 x those at 1,000 waiting jobs", _flat_backlog),
    limit("idle", "", "rss", most=60, unit=" MiB"),
    Target("memory of a draining worker", f"grows by at most {FLAT:.0%} from drain to drain", _flat_memory),
)


def verdicts(run: Run) -> list[Verdict]:
    """Hold every target against a run."""
    return [target.against(run) for target in TARGETS]
