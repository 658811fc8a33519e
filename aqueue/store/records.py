"""What travels between the store and its callers: frozen records, no dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from aqueue.job import JobError, JobId, JobState, LeaseToken, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """One job to be stored.

    Units: milliseconds; `at_ms` is Unix time, the lifetimes are -1 for ever, None for the worker's choice.
    """

    id: JobId
    envelope: bytes
    delay_ms: int = 0
    at_ms: int = 0
    ttl_ms: int = 0
    digest: str = ""
    result_ttl_ms: int | None = None
    failure_ttl_ms: int | None = None


@dataclass(slots=True)
class Lease:
    """One job that this worker may run until its lease ends.

    Units: milliseconds by the server's clock; `unknown_for_ms` is -1 unless a worker has already handed the job
    back because it did not know its task.
    """

    id: JobId
    token: LeaseToken
    attempt: int
    """Failed runs so far."""
    crashes: int
    waited_ms: int
    enqueued_ms: int
    unknown_for_ms: int
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Completed:
    """The run returned; `result` is encoded."""

    result: bytes
    ttl_ms: int
    task: str


@dataclass(frozen=True, slots=True)
class Retried:
    """The run failed and is to be repeated after `delay` seconds, as one of `max_attempts` runs at the most."""

    error: JobError
    delay: float
    max_attempts: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The run failed for good."""

    error: JobError
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run ended on request."""

    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Released:
    """The run ended for reasons that are not the job's; nothing is counted.

    Units: `delay` in seconds, 0 puts the job at the front of the queue.
    """

    delay: float = 0.0
    unknown_task: bool = False


Outcome: TypeAlias = Completed | Retried | Failed | Cancelled | Released


@dataclass(frozen=True, slots=True)
class Settle:
    """How the run of one lease has ended."""

    id: JobId
    token: LeaseToken
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to settle_and_claim.

    Units: `next_due` in seconds from now, None when nothing is scheduled.
    """

    refused: frozenset[JobId]
    leases: list[Lease]
    next_due: float | None
    state: Literal["OK", "PAUSED", "MORE"]


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to extend.

    Units: seconds from now, None when there is nothing to wait for.
    """

    lost: list[JobId]
    cancelled: list[JobId]
    returned: list[JobId]
    next_reclaim: float | None
    next_due: float | None


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker that was taken for dead, and what became of its jobs."""

    worker: WorkerId
    info: str
    requeued: list[JobId]
    failed: list[JobId]
    silent_for: float


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job stands for somebody who waits for it; `state` is None where no record exists."""

    state: JobState | None
    result: bytes | None
    error: bytes | None
    damaged: bool = False
    """A record exists and cannot be read."""


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker incarnation; `lease_left` in seconds."""

    id: WorkerId
    info: str
    running: int
    lease_left: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What a queue holds; `oldest` is the age of its oldest queued job in seconds, if any."""

    name: str
    queued: int
    scheduled: int
    running: int
    failed: int
    paused: bool
    oldest: float | None
    counters: dict[str, int] = field(default_factory=dict)
    workers: list[WorkerStats] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself."""

    product: str
    version: tuple[int, ...]
    eviction: str
    append_only: bool
    used_memory_human: str
