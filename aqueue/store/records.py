"""What travels between the store and its callers: frozen records, no dictionaries.

Structs rather than dataclasses: each job makes several of them, and a Struct is made five times as fast. None can be
part of a cycle, so the collector of cycles is not told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from aqueue.job import JobError, JobId, JobState, LeaseToken, WorkerId
from aqueue.settings import Durable


class Unique(msgspec.Struct, frozen=True, gc=False):
    """The user's key that a job holds, by its digest: until it ends, or starts, or for `window_ms`.

    `replace`: if a waiting job holds the key, it is to do what this one asks for, by when this one asks for it, and no
    later than `max_wait_ms` after it was enqueued.
    """

    digest: str
    scope: Literal["finished", "started", "window"] = "finished"
    window_ms: int = 0
    replace: bool = False
    max_wait_ms: int = 0


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One job to be stored.

    Units: milliseconds; `at_ms` is Unix time, the lifetimes are -1 for ever, None for the worker's choice.
    """

    id: JobId
    envelope: bytes
    delay_ms: int = 0
    at_ms: int = 0
    ttl_ms: int = 0
    rank: int | None = None
    """Where it stands among queued jobs, see priorities.py; None is the usual place."""
    front: bool = False
    unique: Unique | None = None
    limits: str = ""
    """The gates that it passes before each run, in the words of lua/include/limiting.lua."""
    result_ttl_ms: int | None = None
    failure_ttl_ms: int | None = None
    durable: Durable = "memory"
    """Where it must be before its enqueue returns."""


class Lease(msgspec.Struct, frozen=True, gc=False):
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


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The run returned; `result` is encoded."""

    result: bytes
    ttl_ms: int
    task: str


class Retried(msgspec.Struct, frozen=True, gc=False):
    """The run failed and is to be repeated after `delay` seconds, as one of `max_attempts` runs at the most."""

    error: JobError
    delay: float
    max_attempts: int


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The run failed for good."""

    error: JobError
    ttl_ms: int


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """The run ended on request."""

    ttl_ms: int


class Released(msgspec.Struct, frozen=True, gc=False):
    """The run ended for reasons that are not the job's; nothing is counted.

    Units: `delay` in seconds, 0 puts the job at the front of the queue.
    """

    delay: float = 0.0
    unknown_task: bool = False
    too_new: bool = False
    """Not even the task's name could be read."""
    error: JobError | None = None
    """What the job says of it, if it asked for that itself."""


class Limited(msgspec.Struct, frozen=True, gc=False):
    """A limiter has turned the run away; nothing is counted, and it comes back after `delay` seconds."""

    delay: float
    by: str


Outcome: TypeAlias = Completed | Retried | Failed | Cancelled | Released | Limited


class Settle(msgspec.Struct, frozen=True, gc=False):
    """How the run of one lease has ended."""

    id: JobId
    token: LeaseToken
    outcome: Outcome


class Turn(msgspec.Struct, frozen=True, gc=False):
    """The answer to settle_and_claim.

    Units: `next_due` in seconds from now, None when nothing is scheduled.
    """

    refused: frozenset[JobId]
    leases: list[Lease]
    next_due: float | None
    state: Literal["OK", "PAUSED", "MORE"]
    expired: Sequence[JobId] = ()
    held_back: Sequence[JobId] = ()
    """By a limit. Both are what this claim came across, and are not told again if the answer gets lost."""


class Beat(msgspec.Struct, frozen=True, gc=False):
    """The answer to extend.

    Units: seconds from now, None when there is nothing to wait for.
    """

    lost: list[JobId]
    cancelled: list[JobId]
    returned: list[JobId]
    next_reclaim: float | None
    next_due: float | None
    caught: int = 0
    """Jobs in the inbox that no turn has taken yet."""
    change: str = ""
    """Which change of a schedule was the last; empty if there was none lately."""


class Gone(msgspec.Struct, frozen=True, gc=False):
    """A worker that was taken for dead, and what became of its jobs."""

    worker: WorkerId
    info: str
    requeued: list[JobId]
    failed: list[JobId]
    silent_for: float


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a job stands for somebody who waits for it; `state` is None where no record exists. Units: seconds."""

    state: JobState | None
    result: bytes | None
    error: bytes | None
    damaged: bool = False
    """A record exists and cannot be read."""
    left: float | None = None
    """Until its ttl ends it, if it has one and has not started; 0 or less once that has passed."""


class WorkerStats(msgspec.Struct, frozen=True, gc=False):
    """One worker incarnation; `lease_left` in seconds."""

    id: WorkerId
    info: str
    running: int
    lease_left: float


class Shelf(msgspec.Struct, frozen=True, gc=False):
    """The jobs of a task that were set aside; `paused_for` in seconds, None once the task was resumed."""

    task: str
    paused_for: float | None
    jobs: int


class QueueStats(msgspec.Struct, frozen=True, gc=False):
    """What a queue holds; `oldest` is the age of its oldest queued job in seconds, if any, but for paused tasks."""

    name: str
    queued: int
    scheduled: int
    running: int
    failed: int
    paused: bool
    oldest: float | None
    held_back: int = 0
    """Of the queued jobs, those that wait for a limit."""
    counters: dict[str, int] = {}
    workers: list[WorkerStats] = []
    shelves: list[Shelf] = []

    @property
    def shelved(self) -> int:
        """Of the queued jobs, those that were set aside because their task is, or was, paused."""
        return sum(shelf.jobs for shelf in self.shelves)


class Fault(StrEnum):
    """What can be wrong with one job; lua/include/diagnosis.lua says when, lua/mend.lua what is done about it."""

    UNREADABLE = "unreadable"
    RECORD_LOST = "record_lost"
    ARGUMENTS_LOST = "arguments_lost"
    QUEUED_NOWHERE = "queued_nowhere"
    SCHEDULED_NOWHERE = "scheduled_nowhere"
    RUNNING_NOWHERE = "running_nowhere"
    FAILED_UNLISTED = "failed_unlisted"
    DUE_WITHOUT_JOB = "due_without_job"
    FAILED_WITHOUT_JOB = "failed_without_job"


class Symptom(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with a job, if anything; `since` changes when it moves on."""

    fault: Fault | None
    since: bytes


class ServerFacts(msgspec.Struct, frozen=True, gc=False):
    """What the server says of itself."""

    product: str
    version: tuple[int, ...]
    eviction: str
    append_only: bool
    used_memory_human: str
