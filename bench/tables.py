"""Which tables a report has, and how one is made of a run's results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.records import Result, Run

NOTHING: Final = "-"
FAULTY: Final = "†"
"""Marks figures of cells in which not all was as it should be; what, the remarks say."""


@dataclass(frozen=True)
class Column:
    """One column of a table: which figure of which cells."""

    title: str
    label: str
    metric: str
    lower_is_better: bool = False
    measure: str = ""
    """Another measure than the table's, as for one process, which the drains measure."""


@dataclass(frozen=True)
class Table:
    """One table: a row per queue, then a row that compares."""

    measure: str
    title: str
    columns: tuple[Column, ...]
    digits: int = 0
    by_label: bool = False
    """A row per cell label instead of per queue; for what is measured of aqueue alone."""


def _each(metric: str, *labels: str) -> tuple[Column, ...]:
    return tuple(Column(label, label, metric) for label in labels)


def _work(label: str) -> tuple[Column, ...]:
    return (
        Column("Redis CPU, whole cycle (µs)", label, "redis_cpu", lower_is_better=True),
        Column("Redis CPU, worker's part (µs)", label, "redis_cpu_work", lower_is_better=True),
        Column("commands", label, "commands", lower_is_better=True),
        Column("round trips", label, "round_trips", lower_is_better=True),
    )


def _three(prefix: str, words: str) -> tuple[Column, ...]:
    return tuple(Column(f"{words} {q}", "", f"{prefix}_{q}", lower_is_better=True) for q in ("p50", "p99", "max"))


TABLES: Final = (
    Table("drain", "No-op jobs per second, one worker process", _each("rate", "c=1", "c=10", "c=100")),
    Table("drain", "Work of the server per no-op job, concurrency 100", _work("c=100"), digits=2),
    Table("io", "Jobs per second that wait 10 ms each, concurrency 100", _each("rate", "c=100")),
    Table(
        "enqueue",
        "Enqueued jobs per second, and bytes of a waiting job",
        (
            Column("one at a time", "", "one"),
            Column("50 producers", "", "producers"),
            Column("bulk", "", "bulk"),
            Column("bytes per waiting job", "", "bytes", lower_is_better=True),
        ),
    ),
    Table(
        "latency",
        "Milliseconds from enqueue on an idle worker",
        (*_three("start", "start"), *_three("result", "result")),
        digits=2,
    ),
    Table("delayed", "Milliseconds from due to start, delayed by one second", _three("late", "late"), digits=2),
    Table(
        "payload",
        "Jobs per second by size of the argument, concurrency 100",
        _each("rate", "100 B", "1 KiB", "64 KiB"),
    ),
    Table(
        "processes",
        "No-op jobs per second by worker processes, concurrency 100 each, while all are busy",
        (Column("1", "c=100", "steady", measure="drain"), *_each("steady", "2", "4")),
    ),
    Table(
        "idle",
        "An idle worker",
        (
            Column("round trips per second", "", "idle_round_trips", lower_is_better=True),
            Column("memory idle (MiB)", "", "rss", lower_is_better=True),
            Column("after a drain (MiB)", "", "rss_drained", lower_is_better=True),
            Column("after another (MiB)", "", "rss_again", lower_is_better=True),
        ),
        digits=1,
    ),
    Table(
        "backlog",
        "aqueue on a full queue: jobs per second while so many wait",
        (Column("enqueue in bulk", "", "bulk"), Column("single enqueue", "", "one"), Column("drain", "", "rate")),
        by_label=True,
    ),
    Table("feature", "Features of aqueue: jobs per second", (Column("drain", "", "rate"),), by_label=True),
    Table(
        "retries",
        "Retries of aqueue: jobs per second, each job failing once and then run again",
        (Column("drain", "", "rate"),),
        by_label=True,
    ),
    Table(
        "yardstick",
        "The yardstick: single enqueues of aqueue against redis-py alone (an EVALSHA that does nothing), in turns",
        (
            Column("aqueue, one at a time", "", "one"),
            Column("EVALSHA, one at a time", "", "evalsha"),
            Column("aqueue, 50 producers", "", "producers"),
            Column("EVALSHA, 50 at once", "", "evalsha_producers"),
            Column("PING by redis-benchmark", "", "ping"),
        ),
    ),
)


def render(run: Run, table: Table) -> str:
    """Give one table, or nothing if the run has none of its cells."""
    results = run.of(table.measure)
    if not results:
        return ""
    if table.by_label:
        names = list(dict.fromkeys(result.cell.label or result.cell.entrant.label for result in results))
        rows = [[name, *_row_of_label(results, name, table)] for name in names]
        return f"### {table.title}\n\n{markdown(('', *(c.title for c in table.columns)), rows)}"
    names = list(dict.fromkeys(result.cell.entrant.label for result in results))
    rows = [[name, *(_figure(_find(run, table, column, name), column, table.digits) for column in table.columns)]
            for name in names]  # fmt: skip
    if len(names) > 1 and "aqueue" in names:
        rows.append(["**aqueue : best peer**", *(_ratio(run, table, column, names) for column in table.columns)])
    return f"### {table.title}\n\n{markdown(('', *(c.title for c in table.columns)), rows)}"


def _row_of_label(results: Iterable[Result], name: str, table: Table) -> list[str]:
    result = next(result for result in results if name in (result.cell.label, result.cell.entrant.label))
    return [_figure(result, column, table.digits) for column in table.columns]


def _find(run: Run, table: Table, column: Column, entrant: str) -> Result | None:
    """Give a queue's cell; one that runs a job at a time has that of concurrency 1 everywhere."""
    found = {r.cell.label: r for r in run.of(column.measure or table.measure) if r.cell.entrant.label == entrant}
    alone = next((result for result in found.values() if result.cell.entrant.one_at_a_time), None)
    return found.get(column.label) or (alone if column.label.startswith("c=") else None)


def _figure(result: Result | None, column: Column, digits: int) -> str:
    if result is None:
        return NOTHING
    if result.failed:
        return "failed"
    if result.unsupported:
        return "not offered"
    if (one := result.metrics.get(column.metric)) is None:
        return NOTHING
    text = f"{one.median:,.{digits}f}"
    if result.error:
        text += f" {FAULTY}"
    if one.rounds > 1:
        text += f" <sub>{one.low:,.{digits}f} to {one.high:,.{digits}f}</sub>"
    return text


def compare(run: Run, table: Table, column: Column, names: Sequence[str]) -> tuple[float, str, float] | None:
    """Give aqueue's figure, the best of the others and its figure."""
    values = {name: value for name in names if (value := _value(run, table, column, name)) is not None}
    own = values.pop("aqueue", None)
    if own is None or not values:
        return None
    name, best = (min if column.lower_is_better else max)(values.items(), key=lambda item: item[1])
    return own, name, best


def _value(run: Run, table: Table, column: Column, entrant: str) -> float | None:
    found = _find(run, table, column, entrant)
    return None if found is None else found.median(column.metric)


def _ratio(run: Run, table: Table, column: Column, names: Sequence[str]) -> str:
    compared = compare(run, table, column, names)
    if compared is None:
        return NOTHING
    own, name, best = compared
    return f"**{own / best:.2f}** ({name})" if best else NOTHING


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
