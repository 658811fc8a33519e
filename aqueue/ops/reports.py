"""What the command line has found out or done, as frozen records.

The names of their fields are the keys of `--json`, which scripts rely on: add some, rename none.
Units: `_s` is seconds, instants are aware UTC datetimes by the server's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from aqueue.job import Attempt, JobError, JobInfo
from aqueue.schedules import ScheduleInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One queue; `workers` counts the live ones, `held_back` those of the queued that wait for a limit.

    `shelved` are those of the queued whose task is paused, or was: `paused_tasks` says how many of each paused one.
    """

    queue: str
    queued: int
    held_back: int
    shelved: int
    scheduled: int
    running: int
    failed: int
    paused: bool
    paused_tasks: dict[str, int]
    oldest_s: float | None
    workers: int
    counters: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """One worker over all its queues; a negative `lease_s` says for how long it has been silent beyond its lease.

    `weights` and `caps` name the queues that have one at this worker.
    """

    worker: str
    host: str
    pid: int
    version: str
    queues: list[str]
    running: int
    concurrency: int
    lease_s: float
    weights: dict[str, int]
    caps: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    url: str
    queues: list[QueueRow]
    workers: list[WorkerRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    type: str
    message: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run in a job's history; `error` has no traceback."""

    started_at: datetime
    ended_at: datetime
    ran_s: float
    worker: str
    outcome: str
    error: ErrorRow | None

    @classmethod
    def of(cls, run: Attempt) -> RunRow:
        """Lay out one run."""
        return cls(
            started_at=run.started_at,
            ended_at=run.ended_at,
            ran_s=max(0.0, (run.ended_at - run.started_at).total_seconds()),
            worker=run.worker,
            outcome=run.outcome,
            error=_error(run.error),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job's record; `payload` is null once it has completed, `args` and `kwargs` where they cannot be read."""

    id: str
    queue: str
    task: str
    state: str
    attempt: int
    crashes: int
    payload: str | None
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    waited_s: float | None
    ran_s: float | None
    worker: str | None
    error: ErrorRow | None
    failure: str | None
    result_bytes: int | None
    limited: int
    limited_by: str | None
    history: list[RunRow]

    @classmethod
    def of(cls, info: JobInfo) -> JobRow:
        """Lay out a snapshot of a job."""
        return cls(
            id=info.id,
            queue=info.queue,
            task=info.task,
            state=info.state.value,
            attempt=info.attempt,
            crashes=info.crashes,
            payload=info.payload,
            args=info.args,
            kwargs=info.kwargs,
            enqueued_at=info.enqueued_at,
            due_at=info.due_at,
            started_at=info.started_at,
            ended_at=info.ended_at,
            waited_s=info.waited,
            ran_s=info.ran,
            worker=info.worker,
            error=_error(info.error),
            failure=info.failure,
            result_bytes=info.result_bytes,
            limited=info.limited,
            limited_by=info.limited_by,
            history=[RunRow.of(run) for run in info.history],
        )


def _error(error: JobError | None) -> ErrorRow | None:
    return None if error is None else ErrorRow(type=error.type, message=error.message, traceback=error.traceback)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """One schedule; `next_at` is None while it is paused and once it has ended, `job` is that of its last slot.

    `owner` is code or user, `state` active, paused or ended; `jobs` counts those that its slots have started.
    """

    id: str
    queue: str
    task: str
    owner: str
    state: str
    times: str
    next_at: datetime | None
    next: list[datetime]
    last_slot: datetime | None
    job: str | None
    jobs: int
    repeat: int | None

    @classmethod
    def of(cls, info: ScheduleInfo) -> ScheduleRow:
        """Lay out a snapshot of a schedule."""
        return cls(
            id=info.id,
            queue=info.queue,
            task=info.task,
            owner=info.owner,
            state=info.state,
            times=info.times,
            next_at=info.next[0] if info.next else None,
            next=info.next,
            last_slot=info.last_slot,
            job=info.last_job,
            jobs=info.jobs,
            repeat=info.repeat,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """All schedules, the next to come first; `now` is the server's clock."""

    now: datetime
    schedules: list[ScheduleRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDone:
    """What became of a request about one schedule: paused, resumed, started (a `job`), deleted, or already so."""

    id: str
    queue: str
    done: str
    job: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesDone:
    schedules: list[ScheduleDone]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """A page of jobs; `more` says that another one follows. `now` is the server's clock.

    `next` is where the page after this one begins in the failed jobs of each queue that has more of them.
    """

    now: datetime
    jobs: list[JobRow]
    more: bool
    next: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneJob:
    """A whole job; `runs_on` is host:pid of the worker that has it now, where that is known."""

    now: datetime
    job: JobRow
    runs_on: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDone:
    """What became of a request about one job, as the store's word for it; `queue` is null where nobody has the job."""

    id: str
    queue: str | None
    done: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsDone:
    jobs: list[JobDone]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRetried:
    """Failed jobs that were queued again, and those that could not be, because they have gone meanwhile."""

    queue: str
    retried: int
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesRetried:
    """Units: `delay_s` is after how many seconds they are queued."""

    queues: list[QueueRetried]
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePaused:
    """Whether a queue, or one task of it, is paused now, and whether that is a change."""

    queue: str
    task: str | None
    paused: bool
    changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesPaused:
    queues: list[QueuePaused]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePurged:
    """How many jobs a purge has found, and how many it deleted: none of them without `--yes`."""

    queue: str
    what: str
    found: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuesPurged:
    queues: list[QueuePurged]


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One thing that was looked at; `queue` is null for the server's."""

    queue: str | None
    check: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """A job or worker whose records contradict each other; `repaired` says whether `remedy` was done."""

    queue: str
    kind: str
    id: str
    fault: str
    what: str
    remedy: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What the doctor has seen; `whole` says that no key or entry was left out because of `limit`."""

    url: str
    checks: list[CheckRow]
    findings: list[FindingRow]
    whole: bool
    limit: int

    @property
    def problems(self) -> int:
        """What is to be done: the checks that say so, and the findings that are still there."""
        checks = sum(row.level is Level.PROBLEM for row in self.checks)
        return checks + sum(not row.repaired for row in self.findings)
