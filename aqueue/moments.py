"""What middleware is told: one small frozen record for each moment in the life of a job, a worker or a process.

Units: durations are seconds, by the server's clock for `waited` and by the worker's for `ran`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from aqueue.job import Failure, Job, JobError, JobId, JobInfo, JobState, WorkerId

NO_HEADERS: Mapping[str, str] = {}


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of calls was stored: a single enqueue is a batch of one, and so is what a schedule makes of its slots."""

    queue: str
    tasks: tuple[str, ...]
    jobs: tuple[Job[Any], ...]
    """As many as tasks; `created` of each says whether it is new, or stood for an equal call already."""


class JobMoment(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to one job."""

    job: Job[Any]
    task: str
    """`?` where it could not be read, or the job's record was gone before it could be looked at."""

    @property
    def job_id(self) -> JobId:
        return self.job.id

    @property
    def queue(self) -> str:
        return self.job.queue


class RunMoment(JobMoment, frozen=True, kw_only=True):
    """Something happened to one run of a job."""

    attempt: int
    """Counts from 1."""
    max_attempts: int
    """0 where the task is not known here."""
    crashes: int
    waited: float
    """Since the job was due."""
    headers: Mapping[str, str] = NO_HEADERS


class Started(RunMoment, frozen=True, kw_only=True):
    """The code of the job is about to start."""


class Ending(RunMoment, frozen=True, kw_only=True):
    """A run has ended, and that is stored."""

    ran: float


class Completed(Ending, frozen=True, kw_only=True):
    """The run returned, and its result is stored."""


class Skipped(Ending, frozen=True, kw_only=True):
    """The job has ended without being done: by a Discard, or by a layer that answered in its place."""

    state: JobState
    """Failed after a Discard; completed when a layer never called `proceed`."""
    reason: str


class Unsuccessful(Ending, frozen=True, kw_only=True):
    """A run has raised or timed out."""

    job_error: JobError
    """What is stored of the error."""
    error: BaseException | None
    """The exception itself with its traceback; None where a worker died instead of raising one."""


class Retrying(Unsuccessful, frozen=True, kw_only=True):
    """The run has failed, and the job runs again."""

    delay: float


class Exhausted(Unsuccessful, frozen=True, kw_only=True):
    """The last attempt has failed. The only moment that is told before the outcome is stored, and at least once."""


class Failed(Unsuccessful, frozen=True, kw_only=True):
    """The job has failed for good."""

    @property
    def exhausted(self) -> bool:
        """Its attempts were used up; else another one would not have helped, and `job_error.failure` says why."""
        return self.job_error.failure is Failure.EXHAUSTED


class Cancelled(Ending, frozen=True, kw_only=True):
    """The run ended because somebody cancelled the job."""


WhyReleased: TypeAlias = Literal["shutdown", "asked to", "unknown task", "newer release", "broken down"]


class Released(Ending, frozen=True, kw_only=True):
    """The job went back to the queue, for reasons that are not its own; nothing was counted."""

    reason: WhyReleased
    """`asked to` is a `RetryLater(count=False)`."""
    delay: float
    """0 puts it at the front of the queue."""


class LeaseLost(Ending, frozen=True, kw_only=True):
    """The outcome of the run was refused: the job runs elsewhere, or has already."""


class Found(JobMoment, frozen=True, kw_only=True):
    """A worker came across a job that it does not run, and looked it up."""

    info: JobInfo | None
    """Its record a little later; None where that was gone or could not be read."""


class Limited(Found, frozen=True, kw_only=True):
    """The job was held back by a limit, or its run was turned away by a limiter; nothing was counted."""

    delay: float | None
    """After which it is tried again; None while it waits in line before a gate of `limit=`."""
    by: str | None = None
    """The limiter that has turned the run away; there is no `info` then."""


class Expired(Found, frozen=True, kw_only=True):
    """The `ttl` of the job passed before a start; a claim came across it."""


class Crashed(Found, frozen=True, kw_only=True):
    """The worker that ran the job died or fell silent."""

    worker: WorkerId
    """The one that has gone."""
    silent_for: float
    failed: bool
    """It was one crash too many; else the job is queued again."""


class WorkerMoment(msgspec.Struct, frozen=True, kw_only=True):
    """A worker opens or closes, in whatever process."""

    worker: WorkerId
    queues: tuple[str, ...]
    concurrency: int


class ProcessMoment(msgspec.Struct, frozen=True, kw_only=True):
    """A process of `python -m aqueue.worker` starts or ends."""

    pid: int
    queues: tuple[str, ...]


Event: TypeAlias = Enqueued | JobMoment | WorkerMoment | ProcessMoment
