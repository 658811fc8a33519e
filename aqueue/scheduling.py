"""How schedules are written: as decorators that have a task called again and again, or at run time.

And how a job is given another time.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from aqueue.definition import define, storable
from aqueue.errors import ConfigurationError, JobNotFound, shown
from aqueue.job import JobId, QueueName
from aqueue.options import Options
from aqueue.schedule import Cron, Every, RunTimeOptions, TimingOptions, make_schedule
from aqueue.schedules import ScheduleInfo, Schedules, timing_of
from aqueue.settings import Duration, Settings, instant, instant_ms, seconds
from aqueue.store.client import Client
from aqueue.store.keys import checked_name
from aqueue.store.wire import Wire
from aqueue.task import Call, Task
from aqueue.telling import Producers

P = ParamSpec("P")
R = TypeVar("R")


class ScheduleOptions(TimingOptions, total=False):
    """What `@queue.cron(...)` and `@queue.every(...)` take besides the time; `args` and `kwargs` are of the call."""

    id: str | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Scheduling(ABC):
    """The part of a queue that has to do with time."""

    name: QueueName
    producers: Producers
    schedules: Schedules
    settings: Settings
    tasks: dict[str, Task[..., Any]]
    wire: Wire

    @abstractmethod
    def register(self, function: Callable[..., Any], name: str | None, defaults: Options) -> Task[..., Any]:
        """Add a function under a name; see Queue.register."""

    @abstractmethod
    async def store(self) -> Client:
        """Give the store client; see Queue.store."""

    def cron(
        self, expression: str, *, tz: str | tzinfo = "UTC", **options: Unpack[ScheduleOptions]
    ) -> ScheduleDecorator:
        """Call a function, or a task, whenever a cron expression says so: five fields, six with seconds, or @hourly.

        Errors: ConfigurationError naming the bad field or zone; BadArguments if it cannot be called like that.
        """
        return ScheduleDecorator(self, Cron(expression, tz), options)

    def every(
        self, interval: Duration, *, tz: str | tzinfo | None = None, **options: Unpack[ScheduleOptions]
    ) -> ScheduleDecorator:
        """Call a function, or a task, every so many seconds, counted from `start` or the hour, not from the deploy.

        With a time zone, every so many days at the same time of day there. Errors: as cron.
        """
        return ScheduleDecorator(self, Every(interval, tz), options)

    async def schedule(
        self,
        call: Call[Any],
        *,
        id: str,  # noqa: A002  # the word that people know it by
        cron: str | None = None,
        every: Duration | None = None,
        at: datetime | None = None,
        tz: str | tzinfo | None = None,
        **options: Unpack[RunTimeOptions],
    ) -> ScheduleInfo:
        """Have a call made again and again, or once at a time, by any worker of the queue, from now on.

        Exactly one of `cron`, `every` and `at` says when. The same id again replaces what it stood for, and changes
        nothing where that is the same.
        Units:  as for the decorators; `at` is an aware datetime.
        Errors: ConfigurationError, also for an id that belongs to the code; NotSerializable; StoreFull,
                StoreUnavailable.
        """
        name = checked_name(id, "schedule id")
        schedule = make_schedule(timing_of(cron, every, at, tz), id=name, **options)
        await self.schedules.define(define(self.own_call(call), schedule, self.settings, self.wire))
        return await self.schedules.get(name)

    def own_call(self, call: Call[R]) -> Call[R]:
        """Refuse what is no call of a task of this queue. Errors: ConfigurationError."""
        if not isinstance(call, Call):
            raise ConfigurationError(f"A schedule takes a call such as task.call(...), not {shown(call)}.")
        if call.task.queue is not self:
            raise ConfigurationError(f"{call.task.name} is a task of queue {call.task.queue.name}; schedule it there.")
        return call

    async def reschedule(self, job_id: JobId, *, delay: Duration | None = None, at: datetime | None = None) -> datetime:
        """Give a job that waits another time; see Job.reschedule."""
        if (delay is None) == (at is None):
            raise ConfigurationError("delay and at both say when to start; give exactly one of them.")
        at_ms = None if at is None else max(1, instant_ms(at, "at"))
        delay_ms = 0 if delay is None else round(seconds(delay, "delay") * 1000)
        done, due_ms = await (await self.store()).schedules.reschedule(
            JobId(checked_name(job_id, "job id")), uuid.uuid4().hex, delay_ms=delay_ms, at_ms=at_ms
        )
        match done:
            case "missing":
                raise JobNotFound(job_id)
            case "running":
                raise ConfigurationError(f"Job {job_id} is running; cancel it, or let it raise RetryLater.")
            case "ended":
                raise ConfigurationError(f"Job {job_id} has ended; run it again, or enqueue it anew.")
            case _:
                return instant(due_ms)


class ScheduleDecorator:
    """What `@queue.cron(...)` and `@queue.every(...)` return; several of them may stand above one function."""

    def __init__(self, queue: Scheduling, timing: Cron | Every, options: ScheduleOptions) -> None:
        self._queue = queue
        self._timing = timing
        self._options = options

    @overload
    def __call__(self, function: Task[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        task = function if isinstance(function, Task) else self._queue.register(function, None, Options())
        if task.queue is not self._queue:
            raise ConfigurationError(f"{task.name} is a task of queue {task.queue.name}; schedule it there.")
        options: dict[str, Any] = dict(self._options)
        args, kwargs = options.pop("args", ()), options.pop("kwargs", {})
        name = checked_name(options.pop("id", None) or self._free_name(task.name), "schedule id")
        declared = self._queue.schedules.declared
        if name in declared:
            raise ConfigurationError(f"There is a schedule {name!r} already; give one of the two another id.")
        schedule = make_schedule(storable(self._timing), id=name, **options)
        call = task.call(*args, **kwargs)  # refused now, not at three at night, as is what cannot be written
        declared[name] = define(call, schedule, self._queue.settings, self._queue.wire)
        return task

    def _free_name(self, name: str) -> str:
        number, free = 1, name
        while free in self._queue.schedules.declared:
            number += 1
            free = f"{name}:{number}"
        return free
