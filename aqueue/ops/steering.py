"""What the command line does with schedules: find them, whatever their queue, and steer them. Knows no terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aqueue.errors import ConfigurationError, ScheduleNotFound
from aqueue.ops.reports import ScheduleDone, SchedulesDone
from aqueue.ops.site import NotFound, Site
from aqueue.queue import Queue


async def _pause(queue: Queue, schedule_id: str) -> ScheduleDone:
    changed = await queue.schedules.pause(schedule_id)
    return ScheduleDone(id=schedule_id, queue=queue.name, done="paused" if changed else "already", job=None)


async def _resume(queue: Queue, schedule_id: str) -> ScheduleDone:
    changed = await queue.schedules.resume(schedule_id)
    return ScheduleDone(id=schedule_id, queue=queue.name, done="resumed" if changed else "already", job=None)


async def _run(queue: Queue, schedule_id: str) -> ScheduleDone:
    job = await queue.schedules.run(schedule_id)
    return ScheduleDone(id=schedule_id, queue=queue.name, done="started", job=job.id)


async def _delete(queue: Queue, schedule_id: str) -> ScheduleDone:
    await queue.schedules.delete(schedule_id)
    return ScheduleDone(id=schedule_id, queue=queue.name, done="deleted", job=None)


VERBS: Final[dict[str, Callable[[Queue, str], Awaitable[ScheduleDone]]]] = {
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "delete": _delete,
}


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Give the verb, if the first word is one, and the rest: ids after a verb, else queues."""
    return (words[0], list(words[1:])) if words and words[0] in VERBS else (None, list(words))


async def steer(site: Site, verb: str, ids: Sequence[str], names: Sequence[str]) -> SchedulesDone:
    """Do it to each of these schedules, on the queues of these names or on all.

    Errors: NotFound for an id that no queue has, ConfigurationError for one that several have, and for what cannot be
            done to it; before anything is done where that can be known.
    """
    if not ids:
        raise ConfigurationError(f"Name the schedules to {verb} by their ids; `aqueue schedules` lists them.")
    places = {schedule_id: await _place(site, schedule_id, names) for schedule_id in dict.fromkeys(ids)}
    return SchedulesDone(schedules=[await VERBS[verb](queue, schedule_id) for schedule_id, queue in places.items()])


async def _place(site: Site, schedule_id: str, names: Sequence[str]) -> Queue:
    found: list[Queue] = []
    missing: list[str] = []
    for queue in site.chosen(names):
        try:
            await queue.schedules.get(schedule_id)
            found.append(queue)
        except ScheduleNotFound as error:
            missing.append(str(error))
    if len(found) > 1:
        raise ConfigurationError(
            f"There is a schedule {schedule_id!r} on each of {', '.join(queue.name for queue in found)}; "
            "say which one with --queue."
        )
    if not found:
        near = [text for text in missing if "did you mean" in text]
        raise NotFound(near[0] if near else f"There is no schedule {schedule_id!r}; `aqueue schedules` lists them.")
    return found[0]
