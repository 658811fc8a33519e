"""The schedules of one queue at the server: what each is, how far it is, and the jobs of its slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import msgspec

from aqueue.job import JobId, WorkerId
from aqueue.store import layout
from aqueue.store.part import Part
from aqueue.store.records import NewJob
from aqueue.store.scripts import Arg

Owner: TypeAlias = Literal["code", "user"]
State: TypeAlias = Literal["new", "known", "behind", "outdated", "paused", "taken", "gone", "ended"]
Defined: TypeAlias = Literal["new", "changed", "kept", "code", "other"]
Steering: TypeAlias = Literal["pause", "resume", "delete"]
Steered: TypeAlias = Literal["done", "already", "code", "ended", "missing"]
Rescheduled: TypeAlias = Literal["scheduled", "queued", "running", "ended", "missing"]

PAGE: Final = 1000
"""Schedules that one call lists."""
DESCRIBED: Final = 50
"""Schedules that one call reads, with what their jobs are made of."""


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One instant of a schedule, Unix ms, and the job that it starts; -1 comes once, when the schedule is new."""

    at_ms: int
    job: NewJob


class Declaration(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A schedule as it is stored; of one that the code has, since when a worker knows it, by the server's clock."""

    id: str
    owner: Owner
    task: str
    definition: str
    """Another one is another schedule."""
    spec: str
    """When jobs are started and how, as text; see definition.py."""
    call: bytes
    """What they are made of, sealed for this schedule."""
    timing: str = ""
    """The part of the spec that says when: where it stays the same, slots that were missed are not forgotten."""
    once_ms: int | None = None
    """The only instant of one that does not repeat."""
    overlap: Literal["allow", "skip", "queue"] = "allow"
    most: int = 0
    begins: bool = False
    declared_ms: int = 0


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Up to which instant a schedule has been dealt with, and the jobs that this has made. Units: server ms."""

    state: State
    last_ms: int
    now_ms: int
    stored: list[JobId]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line of the list of schedules; `next_ms` is when a worker is to look at it, None for never."""

    id: str
    next_ms: int | None
    definition: str


class Page(msgspec.Struct, frozen=True, gc=False):
    """A part of the list of schedules, at one instant of the server's clock."""

    now_ms: int
    rows: list[Row]


class Described(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that is stored of one schedule. Units: Unix ms."""

    id: str
    owner: str
    task: str
    definition: str
    spec: bytes
    call: bytes
    slot_ms: int
    """Up to when it is dealt with."""
    job: JobId | None
    started: int
    paused: bool
    begins: bool
    ended: bool


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
        """Let slots start their jobs, unless that was done; without slots make one of the code known.

        The slots are all of those after `after_ms` and up to `upto_ms` that are to be started; 0 for a caller who does
        not know yet how far the schedule is.
        Source: lua/tick.lua.
        """
        keys = self.keys
        return await self._run(
            "tick",
            _tick,
            [
                keys.queued, keys.ranked, keys.scheduled, self._index(one.owner), keys.schedule(one.id), keys.workers,
            ],
            [
                keys.base, one.id, worker, one.owner, one.task, one.definition, one.spec, one.call, one.declared_ms,
                after_ms, upto_ms, -1 if next_ms is None else next_ms, one.overlap, one.most,
            ],
            each=[keys.job(slot.job.id) for slot in slots],
            items=[part for slot in slots
             for part in (slot.job.id, slot.at_ms, slot.job.envelope, layout.wishes(slot.job))],
        )  # fmt: skip

    async def withdraw(
        self, worker: WorkerId, declared_ms: int, tasks: Sequence[str], kept: Sequence[str]
    ) -> list[str]:
        """Forget schedules of the code; return which.

        Those of these tasks but for those that are kept, and those of any task that no worker has started for a week.
        """
        keys = self.keys
        words: list[Arg] = [word for task in tasks for word in ("task", task)]
        words += [word for name in kept for word in ("schedule", name)]
        return await self._run(
            "withdraw", _names, [keys.schedules, keys.workers], [keys.base, worker, declared_ms], items=words
        )

    def _index(self, owner: Owner) -> str:
        return self.keys.user_made if owner == "user" else self.keys.schedules

    async def page(self, owner: Owner, skip: int = 0, *, within_ms: int | None = None) -> Page:
        """List up to a page of schedules by when a worker is to look at them, or those for which that is soon."""
        within = -1 if within_ms is None else within_ms
        return await self._run("schedules", _page, [self._index(owner)], [self.keys.base, within, skip, PAGE])

    async def describe(self, ids: Sequence[str]) -> tuple[int, list[Described]]:
        """Read some schedules, those that exist; and the server's clock, Unix ms."""
        each = [self.keys.schedule(one) for one in ids]
        return await self._run("describe", _described(ids), [], each=each, items=ids)

    async def define(self, one: Declaration, call: str, *, expected: str = "") -> Defined:
        """Store a schedule that a user makes; with `expected`, only in the place of that definition.

        `call` tells this call from others. Source: lua/define.lua.
        """
        keys = self.keys
        word = await self._run(
            "define",
            _defined,
            [keys.user_made, keys.schedule(one.id), keys.changed],
            [
                keys.base, one.id, call, expected, one.task, one.definition, one.spec, one.call, one.timing,
                -1 if one.once_ms is None else one.once_ms, int(one.begins),
            ],
        )  # fmt: skip
        return cast("Defined", word)

    async def steer(self, schedule_id: str, what: Steering, call: str) -> Steered:
        """Pause a schedule, let it go on, or delete it; `call` tells this call from others."""
        keys = self.keys
        word = await self._run(
            "steer",
            layout.one_of(*get_args(Steered)),
            [keys.schedules, keys.user_made, keys.schedule(schedule_id), keys.changed],
            [keys.base, schedule_id, call, what],
        )
        return cast("Steered", word)

    async def reschedule(
        self, job_id: JobId, call: str, *, delay_ms: int, at_ms: int | None
    ) -> tuple[Rescheduled, int]:
        """Give a job that waits another time; return where it is now, and when it is due, Unix ms.

        `call` tells this call from others.
        """
        keys = self.keys
        named = [keys.queued, keys.ranked, keys.held_back, keys.scheduled, keys.job(job_id)]
        argv: list[Arg] = [keys.base, job_id, call, delay_ms, at_ms or 0]
        return await self._run("reschedule", _rescheduled, named, argv)


_STATES: Final = layout.one_of(*get_args(State))
_DEFINED: Final = layout.one_of(*get_args(Defined))
_RESCHEDULED: Final = layout.one_of(*get_args(Rescheduled))


def _tick(reply: Any) -> Tick:
    state, last, now, stored = reply
    known = cast("State", _STATES(state))
    return Tick(known, layout.integer(last), layout.integer(now), [JobId(one) for one in _names(stored)])


def _names(reply: Any) -> list[str]:
    return [layout.text(name) for name in reply]


def _page(reply: Any) -> Page:
    now, rows = reply
    return Page(layout.integer(now), [_row(*row) for row in rows])


def _row(name: Any, due: Any, definition: Any) -> Row:
    score = float(layout.text(due))
    when = None if score == float("inf") else round(score)
    return Row(layout.text(name), when, layout.text(definition))


def _described(ids: Sequence[str]) -> Callable[[Any], tuple[int, list[Described]]]:
    def read(reply: Any) -> tuple[int, list[Described]]:
        now, found = reply
        records = layout.each(layout.pairs, len(ids))(found)
        known = [_entry(*one) for one in zip(ids, records, strict=True) if one[1].get("definition")]
        return layout.integer(now), known

    return read


def _entry(schedule_id: str, record: Mapping[str, bytes]) -> Described:
    job = record.get("job")
    return Described(
        id=schedule_id,
        owner=_word(record, "owner"),
        task=_word(record, "task"),
        definition=_word(record, "definition"),
        spec=record.get("spec", b""),
        call=record.get("call", b""),
        slot_ms=_number(record, "slot_ms"),
        job=None if job is None else JobId(layout.text(job)),
        started=_number(record, "started"),
        paused="paused" in record,
        begins="begins" in record,
        ended="ended_ms" in record,
    )


def _word(record: Mapping[str, bytes], field: str) -> str:
    return layout.text(record.get(field, b""))


def _number(record: Mapping[str, bytes], field: str) -> int:
    """Read a number; what is damaged counts as 0, as in the scripts."""
    try:
        return int(float(record.get(field, b"0")))
    except (ValueError, OverflowError):
        return 0


def _defined(reply: Any) -> str:
    word, now = reply
    layout.integer(now)
    return _DEFINED(word)


def _rescheduled(reply: Any) -> tuple[Rescheduled, int]:
    word, due = reply
    return cast("Rescheduled", _RESCHEDULED(word)), layout.integer(due)
