"""From reports to what people read: tables, sentences, durations. The JSON form needs nothing of this."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aqueue.job import Failure
from aqueue.ops.reports import (
    Checkup,
    ErrorRow,
    FindingRow,
    JobRow,
    Jobs,
    JobsDone,
    Level,
    OneJob,
    QueueRow,
    QueuesPaused,
    QueuesPurged,
    QueuesRetried,
    Schedules,
    Stats,
    WorkerRow,
)
from aqueue.worker.lines import spelled

PIPE_WIDTH: Final = 10_000
"""Columns of what is no terminal: whoever reads a pipe wants whole lines."""
LABEL_WIDTH: Final = len("enqueued") + 2
LEVEL_WIDTH: Final = len("repaired") + 2
CHECK_WIDTH: Final = len("permissions") + 2
TASKS_SHOWN: Final = 3
"""Paused tasks in a table; --json has all of them."""
FINDINGS_SHOWN: Final = 20
"""Damage comes in thousands where it comes at all; the first ones tell its kind."""
MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

SAID: Final = {
    "queued": "queued again",
    "scheduled": "will be queued again after the delay",
    "changed": "has changed meanwhile; look at it again",
    "damaged": "has a record that cannot be read; remove it with `aqueue delete`",
    "unfinished": "has not ended yet; cancel it first, or wait",
    "gone": "has completed, so its arguments are gone; enqueue it anew",
    "cancelled": "cancelled, it will not start",
    "requested": "is running, its worker has been told to cancel it",
    "too_late": "had ended already, nothing changed",
    "deleted": "deleted",
    "running": "is running; cancel it first",
}
"""What each of the store's words means to the one who asked. "missing" is told by the site."""

BECAUSE: Final[Mapping[str, str]] = {
    Failure.EXHAUSTED: "it has used up its attempts",
    Failure.NOT_RETRIED: "its Retry does not repeat this",
    Failure.DISCARDED: "it discarded itself",
    Failure.CRASHED: "its workers died of it too often",
    Failure.INVALID: "it cannot be run, or what it returned or asked for cannot be used",
}
"""Why a job was given up."""


def console() -> Console:
    """Make a console that leaves text as it is; colours and a width only at a terminal."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=False, width=width)


def duration(seconds: float) -> str:
    """Write seconds as people say them: 3ms, 4.2s, 3m12s, 1h02m, 3d04h."""
    if seconds < 0.9995:  # noqa: PLR2004  # what is not rounded up to a second
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if seconds < 59.95:  # noqa: PLR2004  # what is not rounded up to a minute
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02}m"
    return f"{whole // DAY}d{whole % DAY // HOUR:02}h"


def count(number: int, noun: str) -> str:
    """Write a number of things: 1 job, 2 jobs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plain(text: str) -> str:
    """Spell out what would steer a terminal: arguments and errors may come from strangers."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


# stats


def show_stats(out: Console, stats: Stats) -> None:
    """Print the queues, then those who work on them."""
    if not stats.queues:
        out.print(f"No queue was ever used at {stats.url}.")
        return
    table = _table("queue", ">queued", ">scheduled", ">running", ">failed", "paused", ">oldest", ">workers")
    for row in stats.queues:
        table.add_row(*_queue_cells(row))
    out.print(table)
    out.print()
    if not stats.workers:
        out.print("No worker is alive.")
        return
    table = _table("worker", ">running", "lease", "queues")
    for worker in stats.workers:
        table.add_row(*_worker_cells(worker))
    out.print(table)


def show_schedules(out: Console, found: Schedules) -> None:
    """Print when each comes next."""
    if not found.schedules:
        out.print(
            "Nothing is scheduled to repeat; write @queue.cron or @queue.every in the code and start a worker, "
            "or call queue.schedule(...)."
        )
        return
    table = _table("schedule", "queue", "task", "of", "times", "next", "last job")
    for row in found.schedules:
        due = (
            row.state if row.next_at is None else f"in {duration(max(0.0, (row.next_at - found.now).total_seconds()))}"
        )
        table.add_row(
            Text(plain(row.id), style="bold"), Text(row.queue), Text(plain(row.task)), Text(row.owner),
            Text(plain(row.times)), Text(due), Text(plain(row.job or "-")),
        )  # fmt: skip
    out.print(table)


def _queue_cells(row: QueueRow) -> list[Text]:
    return [
        Text(row.queue, style="bold"),
        Text(_queued(row)),
        Text(str(row.scheduled)),
        Text(str(row.running)),
        Text(str(row.failed), style="red" if row.failed else ""),
        Text(_paused(row), style="yellow" if row.paused or row.paused_tasks else ""),
        Text("-" if row.oldest_s is None else duration(row.oldest_s)),
        Text(str(row.workers), style="" if row.workers else "yellow"),
    ]


def _queued(row: QueueRow) -> str:
    apart = ((row.held_back, "held back"), (row.shelved, "shelved"))
    words = ", ".join(f"{number} {what}" for number, what in apart if number)
    return f"{row.queued} ({words})" if words else str(row.queued)


def _paused(row: QueueRow) -> str:
    if row.paused:
        return "paused"
    names = list(row.paused_tasks)
    more = f" and {len(names) - TASKS_SHOWN} more" if len(names) > TASKS_SHOWN else ""
    return plain(", ".join(names[:TASKS_SHOWN]) + more) if names else "-"


def _worker_cells(row: WorkerRow) -> list[Text]:
    silent = row.lease_s <= 0
    lease = f"ended {duration(-row.lease_s)} ago" if silent else duration(row.lease_s)
    return [
        Text(f"{plain(row.host)}:{row.pid}", style="bold"),
        Text(f"{row.running}/{row.concurrency}"),
        Text(lease, style="red" if silent else ""),
        Text(", ".join(spelled(name, row.weights.get(name), row.caps.get(name)) for name in row.queues)),
    ]


# jobs


def show_jobs(out: Console, jobs: Jobs) -> None:
    """Print one line per job."""
    if not jobs.jobs:
        out.print("No such jobs.")
        return
    sealed = any(row.payload not in (None, "plain") for row in jobs.jobs)
    table = _table("id", "queue", "task", "state", *(["payload"] if sealed else []), ">attempt", "age")
    table.expand = out.is_terminal
    table.add_column("error", ratio=1, no_wrap=True)  # gives way when room is short
    for row in jobs.jobs:
        error = _brief(row.error)
        payload = [row.payload or "-"] if sealed else []
        cells = [row.id, row.queue, row.task, row.state, *payload, str(row.attempt), _age(row, jobs.now), error]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    out.print(table)
    for queue, place in jobs.next.items():
        out.print(Text(f"\nThere are more: aqueue jobs {queue} --state failed --after {shlex.quote(place)}"))
    if jobs.more and not jobs.next:
        out.print("\nThere are more: choose them with --state, --limit and --offset.")


def _age(row: JobRow, now: datetime) -> str:
    """Say for how long a job has been in its state, or when it leaves it."""
    since = {"running": row.started_at, "queued": row.due_at or row.enqueued_at, "scheduled": row.due_at}
    moment = since.get(row.state, row.ended_at)
    if moment is None:
        return "-"
    seconds = (now - moment).total_seconds()
    if row.state == "scheduled":
        return f"in {duration(-seconds)}" if seconds < 0 else "now"
    return duration(seconds)


def _brief(error: ErrorRow | None) -> str:
    if error is None:
        return ""
    first = error.message.partition("\n")[0]
    return f"{error.type}: {first}" if first else error.type


def show_job(out: Console, one: OneJob) -> None:
    """Print a job's whole record, its traceback last."""
    row = one.job
    for name, text in _job_lines(one):
        out.print(Text.assemble((f"{name:<{LABEL_WIDTH}}", "dim"), plain(text)), soft_wrap=True)
    if row.history:
        out.print("")
        out.print(_runs(row, one.now))
    if row.error is not None:
        out.print(Text(f"\nerror: {plain(_brief(row.error))}", style="red"), soft_wrap=True)
        out.print(Text(plain(row.error.traceback or row.error.message).rstrip()), soft_wrap=True)


def _runs(row: JobRow, now: datetime) -> Table:
    """Lay out the history of a job, the first run first."""
    table = _table("run", "started", ">ran", "worker", "outcome", "error")
    for number, run in enumerate(row.history, 1):
        since = f"{duration((now - run.started_at).total_seconds())} ago"
        cells = [str(number), since, duration(run.ran_s), run.worker, run.outcome, _brief(run.error)]
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table


def _job_lines(one: OneJob) -> Iterable[tuple[str, str]]:
    row = one.job
    yield "job", row.id
    yield "queue", row.queue
    yield "task", row.task
    yield "state", row.state
    yield from _call(row)
    yield "attempt", str(row.attempt)
    yield "crashes", str(row.crashes)
    if row.limited:
        yield "limited", f"{count(row.limited, 'time')}{f', the last by {row.limited_by}' if row.limited_by else ''}"
    yield "enqueued", _moment(row.enqueued_at, one.now)
    for name, moment in (("due", row.due_at), ("started", row.started_at), ("ended", row.ended_at)):
        if moment is not None:
            yield name, _moment(moment, one.now)
    yield from _timings(one)
    if row.worker is not None:
        yield "worker", row.worker if one.runs_on is None else f"{one.runs_on} ({row.worker})"
    if row.failure is not None:
        yield "because", BECAUSE[row.failure]
    if row.result_bytes is not None:
        yield "result", count(row.result_bytes, "byte")


def _call(row: JobRow) -> Iterable[tuple[str, str]]:
    if row.args is None or row.kwargs is None:
        yield "args", _unshown(row)
        return
    if row.payload != "plain":
        yield "payload", str(row.payload)
    yield "args", ", ".join(_json(value) for value in row.args) or "none"
    if row.kwargs:
        yield "kwargs", ", ".join(f"{name}={_json(value)}" for name, value in row.kwargs.items())


def _unshown(row: JobRow) -> str:
    if row.payload is None:
        return "gone, the job has completed" if row.state == "completed" else "cannot be read"
    return "cannot be read" if row.payload == "plain" else f"{row.payload}, cannot be opened here"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _timings(one: OneJob) -> Iterable[tuple[str, str]]:
    row = one.job
    if row.state in ("queued", "scheduled"):  # its instants may be those of the attempt before
        yield "waits", _age(row, one.now)
        return
    if row.waited_s is not None:
        yield "waited", duration(row.waited_s)
    if row.ran_s is not None:
        yield "ran", duration(row.ran_s)
    elif row.state == "running":
        yield "runs for", _age(row, one.now)


def _moment(moment: datetime, now: datetime) -> str:
    """Write an instant in the reader's time zone, and how far away it is."""
    seconds = (now - moment).total_seconds()
    far = f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(-seconds)}"
    return f"{moment.astimezone().isoformat(sep=' ', timespec='milliseconds')} ({far})"


# what was done


def show_done(out: Console, done: JobsDone) -> None:
    """Print what became of each job that was found."""
    for one in done.jobs:
        if one.queue is not None and one.done in SAID:
            out.print(f"{one.id} on {one.queue}: {SAID[one.done]}", soft_wrap=True)


def show_retried(out: Console, done: QueuesRetried) -> None:
    """Print how many failed jobs of each queue run again."""
    if not done.queues:
        out.print("No queue, so nothing has failed.")
    when = f" in {duration(done.delay_s)}" if done.delay_s else ""
    for row in done.queues:
        skipped = f", {row.skipped} could not be" if row.skipped else ""
        out.print(f"{row.queue}: {count(row.retried, 'failed job')} queued again{when}{skipped}")


def show_paused(out: Console, done: QueuesPaused) -> None:
    """Print how each queue stands now."""
    for row in done.queues:
        now = "paused, what runs goes on" if row.paused else "resumed"
        was = "was paused already" if row.paused else "was not paused"
        what = f"task {row.task} " if row.task else ""
        out.print(f"{row.queue}: {what}{now if row.changed else was}", soft_wrap=True)


def show_purged(out: Console, done: QueuesPurged) -> None:
    """Print how many jobs each queue has lost, or would lose."""
    for row in done.queues:
        out.print(f"{row.queue}: {count(row.deleted, f'{row.what} job')} deleted")


def show_purgeable(out: Console, done: QueuesPurged) -> None:
    """Print how many jobs a purge would delete."""
    for row in done.queues:
        out.print(f"{row.queue}: {count(row.found, f'{row.what} job')} would be deleted")


# doctor


def show_checkup(out: Console, seen: Checkup) -> None:
    """Print what was looked at, what is in the wrong place, and a verdict."""
    colours = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}
    out.print(f"{seen.url}", soft_wrap=True)
    for row in seen.checks:
        words = (f"{row.queue}: " if row.queue else "") + row.text
        head = Text(f"{row.level.value:<{LEVEL_WIDTH}}", style=colours[row.level])
        out.print(head + Text(f"{row.check:<{CHECK_WIDTH}}{plain(words)}"), soft_wrap=True)
    for found in seen.findings[:FINDINGS_SHOWN]:
        out.print(Text(_finding(found), style="yellow" if found.repaired else "red"), soft_wrap=True)
    if len(seen.findings) > FINDINGS_SHOWN:
        out.print(f"and {len(seen.findings) - FINDINGS_SHOWN} more; see them with --json", soft_wrap=True)
    if not seen.whole:
        out.print(f"Only {seen.limit} keys and entries of each kind were looked at; raise --limit to see all.")
    repaired = sum(found.repaired for found in seen.findings)
    done = f"{count(repaired, 'finding')} repaired. " if repaired else ""
    verdict = f"{count(seen.problems, 'problem')}." if seen.problems else "No problem was found."
    out.print(Text(done + verdict, style="red" if seen.problems else "green"), soft_wrap=True)


def _finding(found: FindingRow) -> str:
    head = f"{'repaired' if found.repaired else 'problem':<{LEVEL_WIDTH}}{found.kind:<{CHECK_WIDTH}}"
    would = f" (--repair: {found.remedy})" if found.remedy and not found.repaired else ""
    done = f" -> {found.remedy}" if found.repaired else ""
    return plain(f"{head}{found.queue}: {found.id} {found.what}{would}{done}")


# tables


def _table(*columns: str) -> Table:
    """Make a table without lines; `>` puts a column to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    return table
