"""Tells middleware what becomes of jobs, in tasks beside them: only the settle of an exhausted job waits for that.

A run's end is told when the server has answered the turn that stored it, so what is told is true. Who dies before that
tells nothing; the job runs again elsewhere. Of jobs that it does not run, a worker learns ids, and looks the rest up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from aqueue import moments
from aqueue.context import current_context
from aqueue.errors import AqueueError
from aqueue.job import Failure, Job, JobId, JobInfo, JobState, WorkerId
from aqueue.middleware import Middleware
from aqueue.queue import Queue
from aqueue.store import codec
from aqueue.store.client import BATCH
from aqueue.store.inspection import job_info
from aqueue.store.records import Cancelled, Completed, Failed, Gone, Limited, Outcome, Released, Retried, Turn
from aqueue.telling import Audience, Complaints
from aqueue.worker.run import Reason, Run

if TYPE_CHECKING:
    from aqueue.worker.worker import Worker

log = logging.getLogger("aqueue.middleware")

PENDING_LIMIT: Final = 10_000
"""Moments that may be on their way in one worker; slow layers must not fill its memory."""
CLOSE_SECONDS: Final = 3.0
"""A worker that stops gives its layers so long, for all that is still to be told."""
STOP_SECONDS: Final = 5.0
"""And so long for each of on_worker_stop and on_process_stop."""
BESIDES: Final = 1.0
"""Seconds that telling may take longer than its layers, before it is given up."""
ERRORS_MATTER: Final = ("on_retry", "on_failed", "on_exhausted")
ANSWERED: Final = "a layer of middleware answered in its place"

Told: TypeAlias = tuple[str, Callable[..., moments.JobMoment]]
"""The method, and how its event is made."""


class Messengers:
    """The tasks of one worker that tell."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaints = Complaints()

    def send(self, telling: Coroutine[Any, Any, None], *, urgent: bool = False) -> asyncio.Task[None] | None:
        """Tell beside everything else; None if so much is being told already that this is left out."""
        if len(self._tasks) >= PENDING_LIMIT and not urgent:
            telling.close()
            self._complaints.complain("is too slow:", f"{PENDING_LIMIT} moments are being told, another is left out")
            return None
        task = asyncio.get_running_loop().create_task(telling, name="aqueue moment")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait for a while until all is told, then give up."""
        with anyio.move_on_after(CLOSE_SECONDS):
            while self._tasks:
                await asyncio.wait(self._tasks)
        if self._tasks:
            log.error("%d moments were not told: their middleware had not ended when the worker did", len(self._tasks))
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)


class Herald:
    """Tells the layers of one queue, as one worker sees it."""

    def __init__(self, queue: Queue, audience: Audience, messengers: Messengers) -> None:
        self._queue = queue
        self._audience = audience
        self._messengers = messengers
        self._starts: dict[Run, asyncio.Task[None]] = {}
        """Told of, and not by all layers yet: a run's end waits for that."""
        self.keeps_errors = audience.hears(*ERRORS_MATTER)

    # runs

    def started(self, run: Run) -> None:
        """The code of a job is about to start."""
        if not self._audience.hears("on_started"):
            return
        task = self._send(run, "on_started", moments.Started(**self._facts(run)))
        if task is not None:
            self._starts[run] = task
            task.add_done_callback(lambda _: self._starts.pop(run, None))

    async def exhausted(self, run: Run, outcome: Failed) -> None:
        """Tell of a last failure, and return when that is done, or has taken too long."""
        if not self._audience.hears("on_exhausted"):
            return
        ran = time.perf_counter() - run.began
        event = moments.Exhausted(**self._facts(run), ran=ran, job_error=outcome.error, error=run.raised)
        task = self._send(run, "on_exhausted", event, urgent=True)
        assert task is not None  # noqa: S101  # what is urgent is always sent
        patience = self._audience.patience("on_started") + self._audience.patience("on_exhausted") + BESIDES
        try:
            await asyncio.wait([task], timeout=patience)
        finally:
            task.cancel()

    def settled(self, run: Run, outcome: Outcome, *, refused: bool) -> None:
        """The outcome of a run is stored, or was refused."""
        told = ("on_lease_lost", moments.LeaseLost) if refused else _ending_of(run, outcome)
        run.raised = None  # whose frames know the run
        if told is not None and self._audience.hears(told[0]):
            moment, event = told
            self._send(run, moment, event(**self._facts(run), ran=run.ran))

    def _facts(self, run: Run) -> dict[str, Any]:
        lease, context = run.lease, run.context
        return {
            "job": self._job(lease.id),
            "task": run.name,
            "attempt": lease.attempt + 1,
            "max_attempts": 0 if context is None else context.max_attempts,
            "crashes": lease.crashes,
            "waited": lease.waited_ms / 1000,
            "headers": moments.NO_HEADERS if context is None else context.headers,
        }

    def _job(self, job_id: JobId) -> Job[Any]:
        return Job(self._queue, job_id, decode=codec.decode_plain)

    def _send(
        self, run: Run, moment: str, event: moments.JobMoment, *, urgent: bool = False
    ) -> asyncio.Task[None] | None:
        return self._messengers.send(self._tell(run, moment, event), urgent=urgent)

    async def _tell(self, run: Run, moment: str, event: moments.JobMoment) -> None:
        before = self._starts.get(run)
        if before is not None and moment != "on_started":
            await asyncio.wait([before])
        current_context.set(run.context)  # of this task alone: what a layer logs or enqueues belongs to the job
        await self._audience.tell(moment, event)

    def enqueued(self, task: str, ids: Sequence[JobId]) -> None:
        """A schedule has made these jobs, by this worker's doing."""
        if ids and self._audience.hears("on_enqueued"):
            jobs = tuple(self._job(job_id) for job_id in ids)
            event = moments.Enqueued(queue=self._queue.name, tasks=(task,) * len(jobs), jobs=jobs)
            self._messengers.send(self._audience.tell("on_enqueued", event))

    # jobs that do not run here

    def passed_by(self, turn: Turn) -> None:
        """A claim has come across jobs that it did not lease."""
        self._look_up("on_expired", turn.expired, moments.Expired)
        self._look_up("on_limited", turn.held_back, partial(moments.Limited, delay=None))

    def crashed(self, gone: Gone) -> None:
        """A dead worker's jobs were taken back."""
        told = partial(moments.Crashed, worker=gone.worker, silent_for=gone.silent_for)
        self._look_up("on_crashed", gone.requeued, partial(told, failed=False))
        self._look_up("on_crashed", gone.failed, partial(told, failed=True))

    def _look_up(self, moment: str, ids: Sequence[JobId], event: Callable[..., moments.JobMoment]) -> None:
        if ids and self._audience.hears(moment):
            self._messengers.send(self._tell_of(moment, ids, event))

    async def _tell_of(self, moment: str, ids: Sequence[JobId], event: Callable[..., moments.JobMoment]) -> None:
        for first in range(0, len(ids), BATCH):
            part = ids[first : first + BATCH]
            for job_id, info in zip(part, await self._infos(part), strict=True):
                told = event(job=self._job(job_id), task="?" if info is None else info.task, info=info)
                self._messengers.send(self._audience.tell(moment, told))

    async def _infos(self, ids: Sequence[JobId]) -> Sequence[JobInfo | None]:
        try:
            found = await self._queue.unchecked_store().inspect(ids)
        except AqueueError as error:
            log.debug("queue %s: %d jobs could not be looked up: %s", self._queue.name, len(ids), error)
            return [None] * len(ids)
        return [self._info(job_id, *one) for job_id, one in zip(ids, found, strict=True)]

    def _info(self, job_id: JobId, *found: Any) -> JobInfo | None:
        try:
            return job_info(self._queue.wire, job_id, *found)
        except AqueueError:  # gone, damaged, or sealed with a key that is not here
            return None


def herald_for(queue: Queue, layers: Sequence[Middleware], messengers: Messengers) -> Herald | None:
    """Give who tells these layers; None where nobody wants to be told, which then costs nothing."""
    audience = Audience(layers)
    return Herald(queue, audience, messengers) if audience else None


def _ending_of(run: Run, outcome: Outcome) -> Told | None:
    """Say what is told of an outcome; None for a job that was claimed and given back before it was started."""
    match outcome:
        case Completed():
            answered = partial(moments.Skipped, state=JobState.COMPLETED, reason=ANSWERED)
            return ("on_skipped", answered) if run.left_out else ("on_completed", moments.Completed)
        case Retried(error, delay):
            return "on_retry", partial(moments.Retrying, job_error=error, error=run.raised, delay=delay)
        case Failed(error):
            if error.failure is Failure.DISCARDED:
                return "on_skipped", partial(moments.Skipped, state=JobState.FAILED, reason=error.message)
            return "on_failed", partial(moments.Failed, job_error=error, error=run.raised)
        case Cancelled():
            return "on_cancelled", moments.Cancelled
        case Released() | Limited():
            return _release_of(run, outcome)


def _turned_away(outcome: Limited, *, job: Job[Any], task: str, **_: Any) -> moments.Limited:
    return moments.Limited(job=job, task=task, info=None, delay=outcome.delay, by=outcome.by or None)


def _release_of(run: Run, outcome: Released | Limited) -> Told | None:
    if isinstance(outcome, Limited):
        return "on_limited", partial(_turned_away, outcome)
    if run.reason is Reason.LEASE_LOST:
        return "on_lease_lost", moments.LeaseLost
    if run.task is None:
        return None
    reason: moments.WhyReleased = "broken down" if run.reason is None else "shutdown"
    if outcome.error is not None:
        reason = "asked to"
    elif outcome.unknown_task:
        reason = "newer release" if outcome.too_new else "unknown task"
    return "on_released", partial(moments.Released, reason=reason, delay=outcome.delay)


# workers and processes


@asynccontextmanager
async def on_duty(worker: Worker, worker_id: WorkerId, messengers: Messengers) -> AsyncGenerator[None]:
    """Tell that a worker starts, and when it has stopped, after all that was still to be told."""
    audience = Audience(_all_layers(worker), ("on_worker_start", "on_worker_stop"))
    event = moments.WorkerMoment(worker=worker_id, queues=_names(worker), concurrency=worker.concurrency)
    await _tell_in_time(audience, "on_worker_start", event, audience.patience("on_worker_start"))
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await messengers.close()
            await _tell_in_time(audience, "on_worker_stop", event, STOP_SECONDS)


@asynccontextmanager
async def in_process(worker: Worker) -> AsyncGenerator[None]:
    """Tell that the process of a worker starts, and that it ends."""
    audience = Audience(_all_layers(worker), ("on_process_start", "on_process_stop"))
    event = moments.ProcessMoment(pid=os.getpid(), queues=_names(worker))
    await _tell_in_time(audience, "on_process_start", event, audience.patience("on_process_start"))
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await _tell_in_time(audience, "on_process_stop", event, STOP_SECONDS)


def _all_layers(worker: Worker) -> list[Middleware]:
    """Give every layer of a worker once, those of its queues first."""
    layers = [layer for queue in worker.queues for layer in queue.middleware] + worker.middleware
    return list({id(layer): layer for layer in layers}.values())


def _names(worker: Worker) -> tuple[str, ...]:
    return tuple(queue.name for queue in worker.queues)


async def _tell_in_time(audience: Audience, moment: str, event: moments.Event, seconds: float) -> None:
    if not audience.hears(moment):
        return
    task = asyncio.get_running_loop().create_task(audience.tell(moment, event), name="aqueue moment")
    try:
        _, late = await asyncio.wait([task], timeout=seconds + BESIDES)
    finally:
        task.cancel()
    if late:
        log.error("middleware was not told to the end of %s: it took longer than %g s", moment, seconds + BESIDES)
