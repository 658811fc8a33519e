"""How schedules are written: decorators of a queue that make a function a task, and have it called again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack, overload

from aqueue.errors import ConfigurationError
from aqueue.limits import Concurrency
from aqueue.options import Options
from aqueue.schedule import Cron, Every, Misfire, Overlap, Schedule, make_schedule
from aqueue.settings import Duration, Settings
from aqueue.store.keys import checked_name
from aqueue.store.wire import Wire
from aqueue.submission import encoded, outgoing
from aqueue.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class ScheduleOptions(TypedDict, total=False):
    """What `@queue.cron(...)` and `@queue.every(...)` take besides the time.

    `misfire` is for slots that nobody could start: "skip" them, make up for the last one "once", or for "all", up to a
    hundred. `overlap` is for a slot whose predecessor has not ended: "allow" both, "skip" it, or "queue" it.
    `run_at_start` starts a job also when the schedule is new, or has changed.
    Units: `jitter` in seconds, a timedelta or "5s", delays each job by up to that; `start` and `end` are aware.
    """

    id: str | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    misfire: Misfire
    overlap: Overlap
    jitter: Duration
    start: datetime | None
    end: datetime | None
    run_at_start: bool


class Scheduling(ABC):
    """The part of a queue that has to do with time."""

    schedules: dict[str, Schedule]
    settings: Settings
    wire: Wire

    @abstractmethod
    def register(self, function: Callable[..., Any], name: str | None, defaults: Options) -> Task[..., Any]:
        """Add a function under a name; see Queue.register."""

    def cron(
        self, expression: str, *, tz: str | tzinfo = "UTC", **options: Unpack[ScheduleOptions]
    ) -> ScheduleDecorator:
        """Call a function, or a task, whenever a cron expression says so: five fields, six with seconds, or @hourly.

        Errors: ConfigurationError naming the bad field or zone; BadArguments if it cannot be called like that.
        """
        return ScheduleDecorator(self, Cron(expression, tz), options)

    def every(self, interval: Duration, **options: Unpack[ScheduleOptions]) -> ScheduleDecorator:
        """Call a function, or a task, every so many seconds, counted from the hour, not from the start.

        Errors: as cron.
        """
        return ScheduleDecorator(self, Every(interval), options)


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
        if name in self._queue.schedules:
            raise ConfigurationError(f"There is a schedule {name!r} already; give one of the two another id.")
        called = task
        if self._options.get("overlap") == "queue":
            gate = Concurrency(1, name=f"schedule {name}")
            called = task.options(limit=[*(task.options_of_calls.limit or ()), gate])
        call = called.call(*args, **kwargs)
        encoded(call, outgoing(call), self._queue.settings, self._queue.wire)  # refused now, not at three at night
        self._queue.schedules[name] = make_schedule(call, self._timing, id=name, **options)
        return task

    def _free_name(self, name: str) -> str:
        number, free = 1, name
        while free in self._queue.schedules:
            number += 1
            free = f"{name}:{number}"
        return free
