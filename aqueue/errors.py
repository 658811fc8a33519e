"""Every error that aqueue raises, as one tree.

    AqueueError
    ├── JobError            JobNotFound, JobFailed, JobCancelled, JobExpired, ResultTimeout, LeaseLost,
    │                       PayloadRefused
    ├── TaskError           UnknownTask, NotSerializable, BadArguments
    ├── RateLimited         (raised by a job, also a signal like those below)
    ├── StoreError          StoreUnavailable, StoreFull, UnsafeServer, DurabilityError
    └── ConfigurationError  (also a ValueError)  ScheduleNotFound

Each message is one sentence that says what to do next. `RetryLater` and `Discard` are not errors: a job
raises them to tell the worker what should become of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

SHOWN_IDS: Final = 3
"""Job ids in a message; the error carries all of them."""
SHOWN_CHARACTERS: Final = 200
"""Of a value that somebody has passed; the beginning says what it is."""


def shown(value: object) -> str:
    """Write a value that was refused as a message can hold it, whatever it is."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # a repr is user code, and that of a very long number raises too
        text = f"<{type(value).__name__} that cannot be written: {type(error).__name__}>"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


class AqueueError(Exception):
    """Root of everything that aqueue raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        """Be copied as it is: an error may have to cross to another process."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(class_: type[AqueueError], args: tuple[object, ...], attributes: dict[str, object]) -> AqueueError:
    error = class_.__new__(class_)
    error.args = args
    error.__dict__.update(attributes)
    return error


class JobError(AqueueError):
    """Something is to be said about one job."""

    def __init__(self, job_id: str, message: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError):
    """No record of this job exists."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            job_id,
            f"Job {job_id} does not exist: its result_ttl or failure_ttl has passed, it was deleted, "
            "or it was never enqueued on this queue; keep it longer with a larger result_ttl.",
        )


class JobFailed(JobError):
    """The job ended in failure.

    `exception_type` is the name of the original exception, `traceback` the remote one as text.
    """

    def __init__(self, job_id: str, exception_type: str, reason: str, traceback: str = "") -> None:
        tail = f"\n\n{traceback}" if traceback else ""
        super().__init__(
            job_id,
            f"Job {job_id} failed with {exception_type}: {reason} "
            f"(mend the cause, then run it again with `aqueue retry {job_id}`).{tail}",
        )
        self.exception_type = exception_type
        self.reason = reason
        self.traceback = traceback


class JobCancelled(JobError):
    """The job was cancelled, so it has no result."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"Job {job_id} was cancelled; enqueue it again if it is still wanted.")


class JobExpired(JobError):
    """The job's ttl passed before any worker could start it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            job_id,
            f"Job {job_id} was not started within its ttl; add workers or enqueue it with a larger ttl.",
        )


class ResultTimeout(JobError, TimeoutError):
    """The job had not ended when the wait for its result was over."""

    def __init__(self, job_id: str, timeout: float) -> None:
        super().__init__(
            job_id,
            f"Job {job_id} had not ended after {timeout:g} s; wait longer, or look at it with `aqueue job {job_id}`.",
        )


class LeaseLost(JobError):
    """Another worker owns this job now, or nobody does; nothing was written."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            job_id,
            f"The lease of job {job_id} was lost, so this run's outcome was not stored; "
            "look for a blocked event loop or a long pause of this process.",
        )


class PayloadRefused(JobError):
    """Arguments or a result come from somebody who may not be trusted, or in a form that was not chosen.

    Nothing of them was decoded.
    """


class TaskError(AqueueError):
    """Something is wrong with a task or with the arguments of a call."""


class UnknownTask(TaskError):
    """No task of this name is registered."""

    def __init__(self, name: str, near: list[str]) -> None:
        hint = f"did you mean {' or '.join(near)}?" if near else "import the module that defines it in the worker."
        super().__init__(f"Task {name!r} is not registered here; {hint}")
        self.name = name


class NotSerializable(TaskError, TypeError):
    """A value cannot be written as JSON, or is larger than the limit."""


class BadArguments(TaskError, TypeError):
    """The arguments do not fit the task's signature."""


class StoreError(AqueueError):
    """Redis answered, but not as it should have."""


class StoreUnavailable(StoreError):
    """Redis could not be reached, or did not answer in time."""


class StoreFull(StoreError):
    """Redis is out of memory and refused to take the job."""


class DurabilityError(StoreError):
    """The jobs exist and run, but the server has not confirmed that they are as durable as was asked.

    `job_ids` names them.
    """

    def __init__(self, job_ids: Sequence[str], why: str) -> None:
        shown = ", ".join(job_ids[:SHOWN_IDS]) + (
            f" and {len(job_ids) - SHOWN_IDS} more" if job_ids[SHOWN_IDS:] else ""
        )
        super().__init__(
            f"Stored, and yet not confirmed as durable: {shown}; {why} (do not enqueue again, the jobs run)."
        )
        self.job_ids = tuple(job_ids)


class UnsafeServer(StoreError):
    """The server may lose jobs, and strictness was asked for."""


class ConfigurationError(AqueueError, ValueError):
    """An option, name or address cannot be right."""


class ScheduleNotFound(ConfigurationError):
    """No schedule has this id."""

    def __init__(self, schedule_id: str, queue: str, near: list[str]) -> None:
        hint = f"did you mean {' or '.join(near)}?" if near else "`aqueue schedules` lists them."
        super().__init__(f"There is no schedule {schedule_id!r} on queue {queue}; {hint}")
        self.schedule_id = schedule_id


class RateLimited(AqueueError):
    """A limiter has no room now.

    A job that lets it pass, or raises it, runs again after `retry_after`, and neither attempt nor crash is counted.
    Raise it yourself where somebody else has no room, as an answer 429 says.
    Units: `retry_after` in seconds, from when it was raised.
    """

    retry_after: float = 0.0
    limiter: str = ""

    def __init__(self, retry_after: float = 0.0, limiter: str = "") -> None:
        name = f"Limiter {limiter!r}" if limiter else "A limiter"
        super().__init__(f"{name} has no room; try again in {shown(retry_after)} s, or wait for it with wait=True.")
        # A remote clock that is behind ours names instants that have passed; what is no number is told when it is used.
        self.retry_after = 0.0 if isinstance(retry_after, int | float) and retry_after < 0 else retry_after
        self.limiter = limiter


class RetryLater(Exception):
    """Raised by a job: try me again after exactly `delay`, whatever the task's Retry says.

    The attempt counts, so that `max_attempts` still bounds the job. With `count=False` it does not: for a job that
    waits for something, as often as it asks; it needs a delay.
    Units: `delay` in seconds, or a timedelta, or text such as "5m".
    Source: `count=False` after Oban's snooze.
    """

    delay: float | timedelta | str = 0
    reason = "asked to run later"
    count = True

    def __init__(self, delay: float | timedelta | str = delay, reason: str = reason, *, count: bool = count) -> None:
        super().__init__(reason)
        self.delay = delay
        self.count = count
        self.reason = str(reason)  # it may well be an exception


class Discard(Exception):
    """Raised by a job: fail me now, with this reason and without any further attempt."""

    reason = "discarded by the task"

    def __init__(self, reason: str = reason) -> None:
        super().__init__(reason)
        self.reason = str(reason)
