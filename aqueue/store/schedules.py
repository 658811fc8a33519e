"""The schedules of one queue at the server: how far each is, and the jobs of its slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from aqueue.job import WorkerId
from aqueue.store import layout
from aqueue.store.records import NewJob
from aqueue.store.scripts import Arg, load

if TYPE_CHECKING:
    from aqueue.store.client import Client


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

    state: Literal["new", "known", "behind", "outdated"]
    last_ms: int
    now_ms: int
    stored: int


class ScheduleEntry(msgspec.Struct, frozen=True, gc=False):
    """One schedule as people see it. Units: Unix ms; no `next_ms` once it has ended."""

    id: str
    task: str
    definition: str
    next_ms: int | None
    last_ms: int
    job: str


class ScheduleStore:
    """The transitions of schedules."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def _run(
        self, name: str, keys: Sequence[str], argv: Sequence[Arg], each: Sequence[str] = (), items: Sequence[Arg] = ()
    ) -> Any:
        script = load(name)
        queued = self._client.keys.queued
        return await self._client.links.run(queued, script, script.arguments(keys, argv, each, items))

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
        keys = self._client.keys
        state, last, now, stored = await self._run(
            "tick",
            [keys.queued, keys.ranked, keys.scheduled, keys.schedules, keys.schedule(one.id), keys.workers],
            [
                keys.base, one.id, worker, one.task, one.definition, one.declared_ms, after_ms, upto_ms,
                -1 if next_ms is None else next_ms, one.overlap,
            ],
            [keys.job(slot.job.id) for slot in slots],
            [part for slot in slots
             for part in (slot.job.id, slot.at_ms, slot.job.envelope, layout.wishes(slot.job))],
        )  # fmt: skip
        return Tick(state.decode(), last, now, stored)

    async def withdraw(
        self, worker: WorkerId, declared_ms: int, tasks: Sequence[str], kept: Sequence[str]
    ) -> list[str]:
        """Forget the schedules of these tasks but for those that are kept; return which were forgotten."""
        keys = self._client.keys
        words: list[Arg] = [word for task in tasks for word in ("task", task)]
        words += [word for name in kept for word in ("schedule", name)]
        reply = await self._run("withdraw", [keys.schedules, keys.workers], [keys.base, worker, declared_ms], [], words)
        return [name.decode() for name in reply]

    async def entries(self) -> list[ScheduleEntry]:
        """List the schedules by their next slot."""
        keys = self._client.keys
        reply = await self._run("schedules", [keys.schedules], [keys.base])
        return [
            ScheduleEntry(
                id=name.decode(),
                task=task.decode(),
                definition=definition.decode(),
                next_ms=None if due == b"inf" else int(due),
                last_ms=int(last),
                job=job.decode(),
            )
            for name, due, last, job, task, definition in reply
        ]
