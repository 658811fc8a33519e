"""Pausing: a queue, or one of its tasks, starts nothing until it is resumed, on any worker and from the same moment on.

The server decides with each claim, so that nothing depends on whether a worker has heard of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from aqueue.errors import ConfigurationError
from aqueue.settings import Duration, seconds
from aqueue.store.client import Client
from aqueue.store.keys import checked_name
from aqueue.store.records import QueueStats
from aqueue.task import Task


@dataclass(frozen=True, slots=True)
class Paused:
    """What of a queue is paused: all of it, or some tasks, each with the number of its jobs that were set aside."""

    queue: bool
    tasks: dict[str, int]

    def __bool__(self) -> bool:
        return self.queue or bool(self.tasks)


class Pausing(ABC):
    """The part of a queue that lets jobs wait."""

    @abstractmethod
    async def store(self) -> Client: ...

    @abstractmethod
    async def stats(self) -> QueueStats: ...

    async def pause(self, task: str | Task[..., Any] | None = None, *, duration: Duration | None = None) -> bool:
        """Let no further job start, or none of one task; return whether that is a change. What runs goes on.

        A pause lasts until the resume. That of a whole queue may be given an end; the last call says which.
        Units:  `duration` in seconds, a timedelta or "10m".
        Errors: ConfigurationError for what is no task or name of one, or if a hundred are paused already, and for the
                duration of a task's pause.
        """
        span = None if duration is None else seconds(duration, "duration")
        if span is not None and (task is not None or round(span * 1000) < 1):
            raise ConfigurationError(
                "duration is for the pause of a whole queue, at least a millisecond; resume a task when it may go on."
            )
        pauses = (await self.store()).pauses
        return await (pauses.pause(round((span or 0) * 1000)) if task is None else pauses.pause_task(_name(task)))

    async def resume(self, task: str | Task[..., Any] | None = None) -> bool:
        """Let jobs start again, or those of one task; return whether that is a change.

        Jobs of the task that were set aside start before those that wait in the queue, in their old order.
        """
        pauses = (await self.store()).pauses
        return await (pauses.resume() if task is None else pauses.resume_task(_name(task)))

    async def paused(self) -> Paused:
        """Say what is paused."""
        stats = await self.stats()
        return Paused(stats.paused, {one.task: one.jobs for one in stats.shelves if one.paused_for is not None})


def _name(task: str | Task[..., Any]) -> str:
    return task.name if isinstance(task, Task) else checked_name(task, "task name")
