"""The schedules of one queue at the server: how far each is, and the jobs of its slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from aqueue.job import WorkerId
from aqueue.store import layout
from aqueue.store.part import Part
from aqueue.store.records import NewJob
from aqueue.store.scripts import Arg

State: TypeAlias = Literal["new", "known", "behind", "outdated"]

TIMES_END: Final = "; "
"""In a definition, after the part that says when, for people."""

_STATES: Final[dict[bytes, State]] = {word.encode(): word for word in get_args(State)}


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One instant of a schedule, Unix ms, and the job that it starts; -1 comes once, when the schedule is new."""

    at_ms: int
    job: NewJob


class Declaration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A schedule as one worker knows it, since `declared_ms` by the server's clock."""

    id: str
    task: str
    definition: str
    overlap: Literal["allow", "skip", "queue"]
    declared_ms: int = 0


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Up to which instant a schedule has been dealt with. Units: Unix ms of the server."""

    state: State
    last_ms: int
    now_ms: int
    stored: int


class ScheduleEntry(msgspec.Struct, frozen=True, gc=False):
    """One schedule as people see it. Units: Unix ms; no `next_ms` once it has ended."""

    id: str
    task: str
    times: str
    next_ms: int | None
    last_ms: int
    job: str


class ScheduleStore(Part):
    """The transitions of schedules."""

    async def tick(
        self,
        worker: WorkerId,
        one: Declaration,
        slots: Sequence[Slot],
        *,
        after_ms: int,
        upto_ms: int,
        next_ms: int | None,
    ) -> Tick:
        """Let slots start their jobs, unless that was done; without slots make the schedule known.

        The slots are all of those after `after_ms` and up to `upto_ms` that are to be started; 0 for a caller who does
        not know yet how far the schedule is.
        Source: lua/tick.lua.
        """
        keys = self.keys
        return await self._run(
            "tick",
            _tick,
            [keys.queued, keys.ranked, keys.scheduled, keys.schedules, keys.schedule(one.id), keys.workers],
            [
                keys.base, one.id, worker, one.task, one.definition, one.declared_ms, after_ms, upto_ms,
                -1 if next_ms is None else next_ms, one.overlap,
            ],
            each=[keys.job(slot.job.id) for slot in slots],
            items=[part for slot in slots
             for part in (slot.job.id, slot.at_ms, slot.job.envelope, layout.wishes(slot.job))],
        )  # fmt: skip

    async def withdraw(
        self, worker: WorkerId, declared_ms: int, tasks: Sequence[str], kept: Sequence[str]
    ) -> list[str]:
        """Forget the schedules of these tasks but for those that are kept; return which were forgotten."""
        keys = self.keys
        words: list[Arg] = [word for task in tasks for word in ("task", task)]
        words += [word for name in kept for word in ("schedule", name)]
        return await self._run(
            "withdraw", _names, [keys.schedules, keys.workers], [keys.base, worker, declared_ms], items=words
        )

    async def entries(self) -> list[ScheduleEntry]:
        """List the schedules by their next slot."""
        keys = self.keys
        return await self._run("schedules", _entries, [keys.schedules], [keys.base])


def _tick(reply: Any) -> Tick:
    state, last, now, stored = reply
    return Tick(_STATES[state], layout.integer(last), layout.integer(now), layout.integer(stored))


def _names(reply: Any) -> list[str]:
    return [layout.text(name) for name in reply]


def _entries(reply: Any) -> list[ScheduleEntry]:
    return [_entry(one) for one in reply]


def _entry(reply: Any) -> ScheduleEntry:
    name, due, last, job, task, definition = reply
    return ScheduleEntry(
        id=layout.text(name),
        task=layout.text(task),
        times=layout.text(definition).partition(TIMES_END)[0],
        next_ms=None if due == b"inf" else int(due),
        last_ms=int(last),
        job=layout.text(job),
    )
