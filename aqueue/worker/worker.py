"""Composes a worker out of its agents. No Redis command and no job logic here.

    agents: heartbeat thread, upkeep, the channel on which the worker is spoken to
      running jobs: one asyncio task each
        intake: the fetcher

Stopping goes the other way: intake first, then the jobs (up to `grace`, then cancelled once), then the last settles,
and only then the agents, so that leases live until nothing needs them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, Self

import anyio

from aqueue.errors import ConfigurationError, StoreError, StoreUnavailable, shown
from aqueue.job import WorkerId
from aqueue.middleware import Middleware, checked_layers
from aqueue.queue import Lifespan, Queue
from aqueue.settings import Duration, seconds
from aqueue.store.records import Beat, Outcome, Released
from aqueue.worker.deadlines import Deadlines
from aqueue.worker.ear import Ear
from aqueue.worker.executor import Executor, Shared
from aqueue.worker.farewell import take_leave
from aqueue.worker.fetcher import Fetcher
from aqueue.worker.heartbeat import Heartbeat
from aqueue.worker.herald import on_duty
from aqueue.worker.journal import Journal
from aqueue.worker.lane import Lane
from aqueue.worker.lines import Line, checked_lines
from aqueue.worker.maintenance import Maintenance
from aqueue.worker.run import Reason, Run
from aqueue.worker.shares import Shares
from aqueue.worker.threads import Threads
from aqueue.worker.timetable import Timetable

log = logging.getLogger("aqueue.worker")

DEFAULT_CONCURRENCY: Final = 10
DEFAULT_GRACE_SECONDS: Final = 25.0
"""Orchestrators commonly kill 30 s after SIGTERM; five remain for the rest."""
CANCEL_SECONDS: Final = 3.0
"""After its cancellation a job has this long to clean up before it is left behind."""
BREAKDOWN_SECONDS: Final = 5.0
"""A defect of ours in running a job must not become a hot loop."""


class Worker:
    """Runs the jobs of one or more queues: the first queue before the second, or by weight.

    Embedded in a running loop it touches neither signals nor logging configuration, and never ends the process:

        async with Worker(queue, concurrency=20):
            await serve_my_app()
    """

    def __init__(
        self,
        *queues: Queue,
        concurrency: int = DEFAULT_CONCURRENCY,
        weights: Mapping[Queue, int] | None = None,
        caps: Mapping[Queue, int] | None = None,
        grace: Duration = DEFAULT_GRACE_SECONDS,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
        max_jobs: int | None = None,
        show_arguments: bool = True,
    ) -> None:
        """Name the queues and the limits.

        `weights` share out the starts while several queues have jobs, as in {high: 6, default: 3}; `caps` are how many
        jobs of a queue run here at once. `grace` is how long running jobs may go on after a stop; `max_jobs` ends the
        worker after that many jobs. Units: `grace` in seconds, or a timedelta, or text such as "25s".
        """
        self.lines = checked_lines(queues, weights, caps)
        for name, value in (("concurrency", concurrency), ("max_jobs", 1 if max_jobs is None else max_jobs)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} must be a whole number of at least 1, not {shown(value)}.")
        self.queues = queues
        self.concurrency = concurrency
        self.grace = seconds(grace, "grace")
        self.journal = Journal(show_arguments=show_arguments)
        self._lifespan = lifespan
        self.middleware = checked_layers(middleware, "Worker")
        self._max_jobs = max_jobs
        self._fetcher: Fetcher | None = None
        self._lanes: list[Lane] = []
        self._make_events()
        self._host: asyncio.Task[None] | None = None
        self.threads_left = 0
        """Threads of plain functions that were still running when the worker gave up on them."""

    def _make_events(self) -> None:
        """Make them anew for each run, which may be in another event loop."""
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._ready = asyncio.Event()

    # running

    async def run(self, *, burst: bool = False) -> None:
        """Work until `stop()`; with `burst` until nothing is queued (delayed jobs are left for later).

        Cancelling this call stops the worker at once: running jobs are cancelled and go back to the queue.
        Errors: UnsafeServer, StoreError for a server that cannot be used; one that is away is waited for.
        """
        if self._fetcher is not None:
            raise ConfigurationError("This worker is running already; make another one.")
        if self._host is not asyncio.current_task():
            self._make_events()
        shared = Shared(Threads(self.concurrency), Deadlines())
        weights = [line.weight for line in self.lines if line.weight is not None]
        shares = Shares(weights) if weights else None
        fetcher = self._fetcher = Fetcher(self.concurrency, max_jobs=self._max_jobs, shares=shares)
        worker = WorkerId(uuid.uuid4().hex)
        try:
            await self._wait_for_servers()
            if self._stopping.is_set():
                return
            async with AsyncExitStack() as stack:
                self._lanes = [await self._open_lane(stack, line, worker, fetcher, shared) for line in self.lines]
                await stack.enter_async_context(on_duty(self, worker, shared.messengers))
                await self._work(fetcher, worker, burst=burst)
        finally:
            shared.deadlines.close()
            self.threads_left = shared.threads.unfinished
            self._fetcher = None
            self._lanes = []

    def stop(self, *, now: bool = False) -> None:
        """Claim nothing more and end when the running jobs have; with `now`, cancel them and give them back."""
        self._stopping.set()
        if now:
            self._hurry.set()

    async def _wait_for_servers(self) -> None:
        """Check each server once it answers; a worker may well be up before its Redis."""
        for queue in self.queues:
            pause, told = 0.1, False
            while not self._stopping.is_set():
                try:
                    await queue.store()
                    break
                except StoreUnavailable as error:
                    if not told:
                        log.error("waiting for redis: %s", error)  # noqa: TRY400  # the message says it all
                        told = True
                    await _wait(self._stopping, pause)
                    pause = min(2 * pause, 5.0)

    async def _open_lane(
        self, stack: AsyncExitStack, line: Line, worker: WorkerId, fetcher: Fetcher, shared: Shared
    ) -> Lane:
        queue, state = line.queue, None
        for lifespan in (queue.lifespan, self._lifespan):
            if lifespan is not None:
                state = await stack.enter_async_context(lifespan())
        executor = Executor(queue, self.middleware, state, shared)
        return Lane(
            queue.unchecked_store(), executor, worker, journal=self.journal, start=self._start,
            wake=fetcher.wake, cap=line.cap, info=line.introduction(self.concurrency),
        )  # fmt: skip

    async def _work(self, fetcher: Fetcher, worker: WorkerId, *, burst: bool) -> None:
        upkeep: dict[str, Maintenance] = {lane.name: Maintenance(lane, self.journal) for lane in self._lanes}
        for lane in self._lanes:
            with contextlib.suppress(StoreError):  # the heartbeat goes on trying
                await lane.client.register()
                await lane.client.extend(worker, 0, [], lane.info)
        heartbeat = self._heartbeat(upkeep)
        heartbeat.start()
        try:
            async with anyio.create_task_group() as agents:
                for one in upkeep.values():
                    agents.start_soon(one.run)
                for lane, queue in zip(self._lanes, self.queues, strict=True):
                    agents.start_soon(Ear(lane).run)
                    agents.start_soon(Timetable(lane, queue).run)
                agents.start_soon(self._wind_down, fetcher)
                self._ready.set()
                try:
                    await fetcher.run(self._lanes, burst=burst)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await self._stop_now(fetcher)
                    raise
                finally:
                    agents.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await take_leave(self._lanes, worker, heartbeat)

    def _heartbeat(self, upkeep: dict[str, Maintenance]) -> Heartbeat:
        def take(lane: Lane, beat: Beat) -> None:
            lane.take_beat(beat)
            upkeep[lane.name].take_beat(beat)
            lane.stop_runs(beat.lost, Reason.LEASE_LOST)
            lane.stop_runs(beat.cancelled, Reason.CANCELLED)

        settings = [queue.settings for queue in self.queues]
        return Heartbeat(
            self._lanes,
            take,
            every=min(one.beat for one in settings),
            blocked_cap=min(one.blocked_loop_cap for one in settings),
        )

    # jobs

    def _start(self, lane: Lane, runs: Sequence[Run]) -> None:
        """Start runs when the loop comes round: the next turn leaves before, so the server works while they run."""
        if self._fetcher is None or self._fetcher.draining:  # answered late, to a turn from before the drain
            for run in runs:
                lane.settle(run, Released())
        elif runs:
            if excess := self._fetcher.excess:
                runs, beyond = runs[:-excess], runs[-excess:]
                for run in beyond:
                    lane.hand_back(run)
            asyncio.get_running_loop().call_soon(self._launch, lane, runs)

    def _launch(self, lane: Lane, runs: Sequence[Run]) -> None:
        """Make of each run a plain asyncio task: user code gets the cancellation that libraries expect."""
        loop = asyncio.get_running_loop()
        for run in runs:
            if run.reason is not None:  # told to end meanwhile
                lane.settle(run, lane.executor.never_started(run))
                continue
            run.task = loop.create_task(self._run(lane, run), name=run.lease.id)
            run.task.add_done_callback(partial(self._without_end, lane, run))

    async def _run(self, lane: Lane, run: Run) -> None:
        self.journal.started(lane.name, run)
        run.began = time.perf_counter()
        self._ended(lane, run, await lane.executor.run(run))

    def _ended(self, lane: Lane, run: Run, outcome: Outcome) -> None:
        run.ran = time.perf_counter() - run.began if run.began else 0.0
        if isinstance(outcome, Released):
            if outcome.too_new:
                self.journal.too_new(lane.name)
            elif outcome.unknown_task:
                self.journal.unknown_task(lane.name, run.name, lane.executor.near(run.name), lane.executor.known())
        lane.settle(run, outcome)
        self.journal.ended(lane.name, run, outcome)

    def _without_end(self, lane: Lane, run: Run, task: asyncio.Task[None]) -> None:
        """Settle a run whose code did not: a task that is cancelled before its first step runs none of it."""
        if run.ended:
            return
        outcome = lane.executor.never_started(run)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the run of job %s broke down, please report this", run.lease.id, exc_info=error)
            outcome = Released(delay=BREAKDOWN_SECONDS)
        self._ended(lane, run, outcome)

    # stopping

    async def _wind_down(self, fetcher: Fetcher) -> None:
        await self._stopping.wait()
        fetcher.drain()
        active = sum(lane.active for lane in self._lanes)
        if active:
            jobs = "1 job" if active == 1 else f"{active} jobs"
            log.info("stopping: %s may go on for up to %g s (stop again to end now)", jobs, self.grace)
        await _wait(self._hurry, self.grace)
        await self._stop_now(fetcher)

    async def _stop_now(self, fetcher: Fetcher) -> None:
        """Cancel what runs, once, and leave behind what does not end."""
        fetcher.drain()
        runs = [run for lane in self._lanes for run in lane.running.values()]
        for run in runs:
            run.stop(Reason.SHUTDOWN)
        tasks = [run.task for run in runs if run.task is not None]
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
            if stuck:
                log.warning(
                    "%d jobs did not end when cancelled; they are left behind and go back to the queue", len(stuck)
                )
        fetcher.abandoned = True
        fetcher.wake()

    # embedding

    async def __aenter__(self) -> Self:
        self._make_events()
        self._host = asyncio.get_running_loop().create_task(self.run(), name="aqueue worker")
        self._host.add_done_callback(_log_death)
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait([self._host, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._host.cancel()
            await asyncio.wait([self._host])
            raise
        finally:
            ready.cancel()
            await asyncio.wait([ready])
        if self._host.done():
            await self._host
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        if self._host is not None:
            await self._host


def _log_death(host: asyncio.Task[None]) -> None:
    """Say at once that an embedded worker has died; the error itself is raised where its block ends."""
    if not host.cancelled() and (error := host.exception()) is not None:
        log.error("the embedded worker has ended: %s", error)


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        pass
