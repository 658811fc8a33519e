"""The queue as its users see it: a name, the tasks that belong to it, and what can be done with its jobs.

A queue speaks to Redis only through its store client, which opens at the first await.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeAlias, TypeVar, Unpack, cast, overload
from weakref import WeakKeyDictionary

from aqueue.errors import ConfigurationError, JobNotFound, ResultTimeout, UnknownTask, shown
from aqueue.failed import FailedJobs
from aqueue.job import Cancellation, Job, JobId, JobInfo, JobState, QueueName
from aqueue.limiters import Limiting
from aqueue.middleware import Middleware, Outgoing, around_enqueue, checked_layers
from aqueue.opening import Opening
from aqueue.options import Options, TaskOptions, make_task_options
from aqueue.pausing import Pausing
from aqueue.schedules import Schedules
from aqueue.scheduling import Scheduling
from aqueue.settings import Settings
from aqueue.store import codec
from aqueue.store.client import BATCH, Client
from aqueue.store.inspection import damaged, job_info, result_of
from aqueue.store.keys import checked_name
from aqueue.store.records import NewJob, QueueStats
from aqueue.store.waiting import Waiting
from aqueue.store.wire import wire_of
from aqueue.submission import encoded, new_job, outgoing
from aqueue.task import Call, TakesContext, TakesCtx, Task, TaskDecorator
from aqueue.telling import Producers

if TYPE_CHECKING:
    import redis.asyncio as redis_asyncio

P = ParamSpec("P")
R = TypeVar("R")
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]

log = logging.getLogger("aqueue")


class Queue(Scheduling, Pausing, Limiting):
    """One name in Redis: one FIFO of jobs, with the tasks that may run on it.

    Opening needs no ceremony: the first await connects, `async with queue:` or `await queue.close()` gives the
    connections back, and a closed queue opens again when it is used again.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        url: str | None = None,
        client: redis_asyncio.Redis | redis_asyncio.RedisCluster | None = None,
        settings: Settings | None = None,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        """Name a queue.

        `url` says where Redis is; without it AQUEUE_URL does, and without that the embedded server of ./.aqueue
        serves. `client` takes address and credentials from your own redis.asyncio client instead. What `lifespan`
        yields in a worker reaches jobs as `ctx.state`.
        """
        self.name = QueueName(checked_name(name, "queue name"))
        self.settings = settings or Settings()
        self.wire = wire_of(self.name, self.settings)
        self.lifespan = lifespan
        self.middleware = checked_layers(middleware, "Queue")
        self.producers = Producers(self.middleware)
        self.tasks: dict[str, Task[..., Any]] = {}
        self.schedules = Schedules(self)
        self._opening = Opening(self.name, self.settings, self.wire, url=url, given=client)
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, Waiting] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    @cached_property
    def failed(self) -> FailedJobs:
        """The jobs that have failed: to be listed, run again or deleted, all of them or by what they have in common."""
        return FailedJobs(self)

    # tasks

    @overload
    def task(self, function: TakesCtx[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: TakesContext[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def task(self, function: TakesCtx[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: TakesContext[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Register a function, async or plain, as a task of this queue; bare or with options.

        Errors: ConfigurationError for bad options, or when another function has the name.
        """
        decorator = TaskDecorator(self, name, make_task_options(**options))
        return decorator if function is None else decorator(function)

    def register(self, function: Callable[..., Any], name: str | None, defaults: Options) -> Task[..., Any]:
        """Add a function under a name. Errors: ConfigurationError if another function has it."""
        name = checked_name(name or str(getattr(function, "__name__", "")), "task name")
        known = self.tasks.get(name)
        if known is not None and not _same_function(known.function, function):
            raise ConfigurationError(
                f"Queue {self.name} already has a task {name!r}; give one of the two another name with task(name=...)."
            )
        task: Task[..., Any] = Task(function, name, self, defaults)
        self.tasks[name] = task
        return task

    def remote(self, name: str) -> Task[..., Any]:
        """Give a task whose code lives elsewhere, to be enqueued by name, with options if need be."""

        async def elsewhere(*_: Any, **__: Any) -> Any:
            raise UnknownTask(name, [])

        return self.tasks.get(name) or Task(elsewhere, checked_name(name, "task name"), self)

    # enqueue

    @overload
    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    async def enqueue(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]: ...
    async def enqueue(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Store one call on this queue, of a task or by the task's name.

        Errors: BadArguments, NotSerializable, StoreFull, StoreUnavailable, DurabilityError.
        """
        if isinstance(task, str):
            task = self.remote(task)
        elif not isinstance(task, Task):
            raise ConfigurationError(
                f"enqueue takes a task or its name, not {shown(task)}; decorate it with @queue.task."
            )
        return await self.submit(task.call(*args, **kwargs))

    async def submit(self, call: Call[R]) -> Job[R]:
        """Store one bound call on this queue."""
        sent = outgoing(call)
        if self.middleware and self.producers.listen:
            return (await self._submit([call], [sent]))[0]
        job = new_job(call, sent, self.settings, self.wire)
        client = self._opening.checked or await self.store()
        if job.durable != "memory":
            (stands,) = await client.durability.enqueue([job])
            return self._handle_of(call, job, stands)
        return self._handle_of(call, job, await client.enqueue_one(job))

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls, atomically per batch of 500; every handle says in `.created` whether it is new.

        All calls are checked before the first is stored.
        """
        calls = [_checked(call) for call in calls]
        sent = [outgoing(call) for call in calls]
        ready = None if self.producers.listen else self._jobs(calls, sent)
        if ready is None:  # what middleware makes of them is known only batch by batch
            for call, item in zip(calls, sent, strict=True):
                encoded(call, item, self.settings, self.wire)
        handles: list[Job[R]] = []
        for first in range(0, len(calls), BATCH):
            part = slice(first, first + BATCH)
            handles += await self._submit(calls[part], sent[part], ready and ready[part])
        return handles

    async def _submit(
        self, calls: Sequence[Call[R]], sent: Sequence[Outgoing], ready: Sequence[NewJob] | None = None
    ) -> list[Job[R]]:
        async def store(batch: Sequence[Outgoing]) -> list[Job[Any]]:
            jobs = ready or self._jobs(calls, batch)
            client = await self.store()
            if any(job.durable != "memory" for job in jobs):
                ids = await client.durability.enqueue(jobs)
            else:
                ids = [await client.enqueue_one(jobs[0])] if len(jobs) == 1 else await client.enqueue(jobs)
            handles = [self._handle_of(*one) for one in zip(calls, jobs, ids, strict=True)]
            await self.producers.told(self.name, [one.task for one in batch], handles)
            return handles

        return cast("list[Job[R]]", await around_enqueue(self.middleware, store)(sent))

    def _handle_of(self, call: Call[R], job: NewJob, stands: JobId) -> Job[R]:
        return Job(self, stands, created=stands == job.id, decode=call.task.decode_result)

    def _jobs(self, calls: Sequence[Call[Any]], sent: Sequence[Outgoing]) -> list[NewJob]:
        return [new_job(call, item, self.settings, self.wire) for call, item in zip(calls, sent, strict=True)]

    # one job

    def job(self, job_id: str) -> Job[Any]:
        """Give the handle of a job by its id, without asking whether it exists."""
        return self.handle(job_id, codec.decode_plain)

    def handle(self, job_id: str, decode: Callable[[bytes], R]) -> Job[R]:
        """Give the handle of a job whose result `decode` reads."""
        return Job(self, _job_id(job_id), decode=decode)

    async def job_status(self, job_id: JobId) -> JobState:
        """Ask for a job's state. Errors: JobNotFound."""
        return (await self.job_info(job_id)).state

    async def job_info(self, job_id: JobId) -> JobInfo:
        """Ask for a job's whole record. Errors: JobNotFound, StoreError for a damaged record."""
        (found,) = await (await self.store()).inspect([_job_id(job_id)])
        return job_info(self.wire, job_id, *found)

    async def job_result(self, job_id: JobId, timeout: float | None, decode: Callable[[bytes], R]) -> R:
        """Wait for a job's result. Errors: see Job.result; ValueError for one that `decode` cannot read."""
        await self.store()
        try:
            async with asyncio.timeout(timeout):
                ended = await self._waiting_here().wait(job_id)
        except TimeoutError:
            raise ResultTimeout(job_id, timeout or 0) from None
        return self.wire.decode_result(job_id, result_of(self.wire, job_id, ended), decode)

    def _waiting_here(self) -> Waiting:
        loop = asyncio.get_running_loop()
        if loop not in self._waiting:
            for closed in [known for known in self._waiting if known.is_closed()]:
                del self._waiting[closed]
            self._waiting[loop] = Waiting(self.unchecked_store())
        return self._waiting[loop]

    async def cancel(self, job_id: JobId) -> Cancellation:
        """Cancel a job and say what that did. Errors: JobNotFound."""
        done = await (await self.store()).cancel(_job_id(job_id))
        if done is None:
            raise JobNotFound(job_id)
        return done

    async def rerun(self, job_id: str) -> None:
        """Queue a failed, cancelled or expired job again, with fresh counters.

        Errors: JobNotFound; ConfigurationError if it has not ended, or has completed.
        """
        match await (await self.store()).rerun(_job_id(job_id)):
            case "missing":
                raise JobNotFound(job_id)
            case "unfinished":
                raise ConfigurationError(f"Job {job_id} has not ended yet; cancel it first, or wait.")
            case "gone":
                raise ConfigurationError(f"Job {job_id} has completed, so its arguments are gone; enqueue it anew.")
            case "damaged":
                raise damaged(self.name, JobId(job_id))
            case _:
                return

    async def delete(self, job_id: str) -> None:
        """Remove a job that is not running. Errors: JobNotFound; ConfigurationError while it runs."""
        match await (await self.store()).delete(_job_id(job_id)):
            case "missing":
                raise JobNotFound(job_id)
            case "running":
                raise ConfigurationError(f"Job {job_id} is running; cancel it first.")
            case _:
                return

    # the whole queue

    async def jobs(self, state: JobState | str, *, offset: int = 0, limit: int = 50) -> list[JobInfo]:
        """Give a page of scheduled, queued, running or failed jobs.

        A page may be shorter than `limit` although more follow: ids of jobs that have moved on since are left out.
        Errors: ConfigurationError for the other states, whose jobs are found by id only, and for a page that is none.
        """
        if offset < 0 or limit < 1:
            raise ConfigurationError(f"offset must be at least 0 and limit at least 1, not {offset} and {limit}.")
        listed = (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING, JobState.FAILED)
        if state not in listed:
            raise ConfigurationError(
                f"Jobs that are {state} are not listed; look one up by its id, or list {', '.join(listed)} ones."
            )
        store = await self.store()
        ids = await store.list_ids(JobState(state), offset, limit)
        found = await store.inspect(ids) if ids else []
        return [
            job_info(self.wire, job_id, record, envelope)
            for job_id, (record, envelope) in zip(ids, found, strict=True)
            if record.get("state") == JobState(state).encode()
        ]

    async def stats(self) -> QueueStats:
        """Count what the queue holds."""
        return await (await self.store()).stats()

    async def purge(self, *, failed: bool = False) -> int:
        """Delete all waiting jobs, or all failed ones, of which `failed.purge` can choose; return how many."""
        if failed:
            return await self.failed.purge()
        store, total, remain = await self.store(), 0, True
        while remain:
            count, remain = await store.purge()
            total += count
        return total

    # connections

    async def store(self) -> Client:
        """Give the store client, connected and checked once per process.

        Errors: StoreUnavailable, UnsafeServer, StoreError for a server that is too old.
        """
        return self._opening.checked or await self._opening.check()

    def unchecked_store(self) -> Client:
        """Give the store client without asking the server anything."""
        return self._opening.client()

    @property
    def address(self) -> str:
        """Where Redis is, without secrets."""
        return self._opening.address

    def use_url(self, url: str) -> None:
        """Point an unopened queue elsewhere, as `--url` does."""
        self._opening = Opening(self.name, self.settings, self.wire, url=url)

    async def close(self) -> None:
        """Give the running loop's connections back; waits for results end with StoreUnavailable."""
        waiting = self._waiting.pop(asyncio.get_running_loop(), None)
        if waiting is not None:
            await waiting.close()
        await self._desk.close()
        await self._opening.close()

    async def __aenter__(self) -> Self:
        await self.store()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def enqueue(task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
    """Store one call of a task on the task's own queue."""
    if not isinstance(task, Task):
        raise ConfigurationError(f"enqueue takes a task, not {shown(task)}; decorate the function with @queue.task.")
    return await task.enqueue(*args, **kwargs)


def _checked(call: Call[R]) -> Call[R]:
    if not isinstance(call, Call):
        raise ConfigurationError(f"enqueue_many takes calls such as task.call(...), not {shown(call)}.")
    return call


def _job_id(job_id: str) -> JobId:
    return JobId(checked_name(job_id, "job id"))


def _same_function(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Say whether these are the same definition, imported or run twice."""
    return all(getattr(one, name, one) == getattr(other, name, other) for name in ("__module__", "__qualname__"))
