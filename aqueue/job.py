"""What a job is to its owner: its states, a snapshot of its record, and the handle that `enqueue` returns.

A handle holds no connection of its own; it asks the queue it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, NewType, Protocol, TypeVar

from aqueue import errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aqueue.settings import Duration

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

JobId = NewType("JobId", str)
QueueName = NewType("QueueName", str)
WorkerId = NewType("WorkerId", str)
"""One incarnation of a worker: never a host name or a pid, both of which come back."""
LeaseToken = NewType("LeaseToken", str)


class JobState(StrEnum):
    """Where a job is. Stored with every move, never inferred."""

    SCHEDULED = "scheduled"
    """Waits for its due time; enqueue, retry, release and rerun with a delay move jobs here, promote takes them out."""
    QUEUED = "queued"
    """Waits for a free worker; enqueue, promote, release, reclaim and rerun move jobs here, claim takes them out."""
    RUNNING = "running"
    """A worker holds a lease; claim moves jobs here, a settle or reclaim takes them out."""
    COMPLETED = "completed"
    """Ended with a result."""
    FAILED = "failed"
    """Ended in an error, or killed its worker too often; rerun takes jobs out."""
    CANCELLED = "cancelled"
    """Ended on request."""
    EXPIRED = "expired"
    """Ended because its ttl passed before a start."""

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

TRANSITIONS: Final[dict[str, tuple[tuple[JobState | None, JobState | None], ...]]] = {
    "enqueue": ((None, JobState.QUEUED), (None, JobState.SCHEDULED)),
    "promote": ((JobState.SCHEDULED, JobState.QUEUED),),
    "claim": ((JobState.QUEUED, JobState.RUNNING),),
    "expire": ((JobState.QUEUED, JobState.EXPIRED), (JobState.SCHEDULED, JobState.EXPIRED)),
    "complete": ((JobState.RUNNING, JobState.COMPLETED),),
    "retry": ((JobState.RUNNING, JobState.SCHEDULED),),
    "fail": ((JobState.RUNNING, JobState.FAILED),),
    "release": ((JobState.RUNNING, JobState.QUEUED), (JobState.RUNNING, JobState.SCHEDULED)),
    "limit": ((JobState.RUNNING, JobState.SCHEDULED),),
    "reclaim": ((JobState.RUNNING, JobState.QUEUED), (JobState.RUNNING, JobState.FAILED)),
    "cancel": (
        (JobState.SCHEDULED, JobState.CANCELLED),
        (JobState.QUEUED, JobState.CANCELLED),
        (JobState.RUNNING, JobState.CANCELLED),
    ),
    "reschedule": (
        (JobState.QUEUED, JobState.SCHEDULED),
        (JobState.SCHEDULED, JobState.SCHEDULED),
        (JobState.SCHEDULED, JobState.QUEUED),
    ),
    "rerun": (
        (JobState.FAILED, JobState.QUEUED),
        (JobState.CANCELLED, JobState.QUEUED),
        (JobState.EXPIRED, JobState.QUEUED),
        (JobState.FAILED, JobState.SCHEDULED),
        (JobState.CANCELLED, JobState.SCHEDULED),
        (JobState.EXPIRED, JobState.SCHEDULED),
    ),
}
"""The arrows of the state machine. `docs/states.md` draws them; a test compares the two."""


class Cancellation(StrEnum):
    """What a request to cancel has done."""

    CANCELLED = "cancelled"
    """The job had not started and never will."""
    REQUESTED = "requested"
    """The job was running; its worker has been told."""
    TOO_LATE = "too_late"
    """The job had already ended; nothing changed."""


class Failure(StrEnum):
    """Why a job was given up, where `JobError` says what went wrong."""

    EXHAUSTED = "exhausted"
    """It has used up the attempts that its Retry allows."""
    NOT_RETRIED = "not_retried"
    """Its Retry does not repeat runs that ended with this error, or that exceeded their timeout."""
    DISCARDED = "discarded"
    """The task raised Discard."""
    CRASHED = "crashed"
    """Its workers died of it too often."""
    INVALID = "invalid"
    """It cannot be run, or what it returned or asked for cannot be used: no attempt would help."""


WORDS_OF_FAILURE: Final = frozenset(Failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """What went wrong in the last failed run; `failure` is None while the job is to run again."""

    type: str
    message: str
    traceback: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a job that was counted, or that ended in another way after such runs.

    Units: instants are aware UTC datetimes by the server's clock.
    """

    started_at: datetime
    ended_at: datetime
    worker: WorkerId
    outcome: str
    """`retried`, `failed`, `crashed`, `cancelled` or, after one of these, `completed`."""
    error: JobError | None
    """Type and the start of the message, without a traceback; None where the outcome says it all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job's record at one moment, as the server stored it.

    Units: instants are aware UTC datetimes by the server's clock, durations are seconds.
    """

    id: JobId
    queue: QueueName
    task: str
    state: JobState
    payload: str | None
    """`plain`, or how it is sealed, such as `signed`; None once the job has completed: it is gone by then."""
    args: list[Any] | None
    """None where there is no payload, or none that can be opened here."""
    kwargs: dict[str, Any] | None
    attempt: int
    crashes: int
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    worker: WorkerId | None
    error: JobError | None
    result_bytes: int | None
    limited: int = 0
    """How often a limiter has turned a run of it away."""
    limited_by: str | None = None
    """The last one that did."""
    history: list[Attempt] = field(default_factory=list)
    """The last twenty runs that are worth telling, oldest first; empty for a job that completed at once."""

    @property
    def failure(self) -> Failure | None:
        """Why the job was given up; None unless it has failed, and where its error cannot be read."""
        return None if self.error is None else self.error.failure

    @property
    def waited(self) -> float | None:
        """Seconds between due and start of the last run; None while the job waits for its next."""
        if self.started_at is None or self.state in (JobState.SCHEDULED, JobState.QUEUED):
            return None
        return max(0.0, (self.started_at - (self.due_at or self.enqueued_at)).total_seconds())

    @property
    def ran(self) -> float | None:
        """Seconds between start and end of the last run; None unless the job has ended after a run."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


class JobSource(Protocol):
    """What a handle asks of its queue."""

    @property
    def name(self) -> QueueName: ...
    async def job_status(self, job_id: JobId) -> JobState: ...
    async def job_info(self, job_id: JobId) -> JobInfo: ...
    async def job_result(self, job_id: JobId, timeout: float | None, decode: Callable[[bytes], R]) -> R: ...
    async def cancel(self, job_id: JobId) -> Cancellation: ...
    async def reschedule(self, job_id: JobId, *, delay: Duration | None, at: datetime | None) -> datetime: ...


class Job(Generic[R_co]):
    """Handle to one stored unit of work."""

    __slots__ = ("_decode", "_source", "created", "id")

    def __init__(
        self, source: JobSource, job_id: JobId, *, created: bool = True, decode: Callable[[bytes], R_co]
    ) -> None:
        self._source = source
        self._decode = decode
        self.id = job_id
        self.created = created
        """False when `key=` found an unfinished job and this is its handle."""

    def __repr__(self) -> str:
        return f"Job({self.id!r}, queue={self.queue!r}{'' if self.created else ', created=False'})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (self.id, self.queue) == (other.id, other.queue)

    def __hash__(self) -> int:
        return hash((self.id, self.queue))

    @property
    def queue(self) -> QueueName:
        return self._source.name

    async def status(self) -> JobState:
        """Ask for the state. Errors: JobNotFound."""
        return await self._source.job_status(self.id)

    async def info(self) -> JobInfo:
        """Ask for the whole record. Errors: JobNotFound."""
        return await self._source.job_info(self.id)

    async def result(self, timeout: float | None = None) -> R_co:
        """Wait until the job has ended and return what it returned.

        Units:  `timeout` in seconds, None waits for ever.
        Errors: ResultTimeout, JobFailed, JobCancelled, JobExpired, JobNotFound, PayloadRefused.
        """
        try:
            return await self._source.job_result(self.id, timeout, self._decode)
        except ValueError as error:
            raise errors.JobError(
                self.id, f"The result of job {self.id} is not what {error}; correct the task's return annotation."
            ) from error

    async def cancel(self) -> Cancellation:
        """Cancel the job wherever it is, and say what that did. Errors: JobNotFound."""
        return await self._source.cancel(self.id)

    async def reschedule(self, *, delay: Duration | None = None, at: datetime | None = None) -> datetime:
        """Give the job another time, if it waits for its start, and return when it is due.

        Also one that waits before a limit, or for its next attempt. The time of its `ttl` counts from then on.
        Units:  `delay` from now, in seconds, a timedelta or text such as "5m"; `at` is an aware datetime.
        Errors: JobNotFound; ConfigurationError if the job runs or has ended, and unless one of both is given.
        """
        return await self._source.reschedule(self.id, delay=delay, at=at)
