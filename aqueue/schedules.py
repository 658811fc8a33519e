"""Schedules as an application sees them while it runs: made, looked at, changed and removed, from any process.

The workers of the queue start them, whether or not their code knows of them. Here slots are computed only to be shown.
"""

from __future__ import annotations

import builtins
import difflib
import itertools
import logging
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, cast

from aqueue.definition import Definition, changed, define, storable, stored
from aqueue.errors import ConfigurationError, ScheduleNotFound, StoreError
from aqueue.job import Job, JobId, QueueName
from aqueue.job_ids import slot_of
from aqueue.schedule import At, Cron, Every, Misfire, Overlap, RunTimeOptions, Schedule, Timing, make_schedule
from aqueue.settings import Duration, instant, instant_ms
from aqueue.store import codec
from aqueue.store.keys import checked_name
from aqueue.store.schedules import DESCRIBED, Described, Owner, ScheduleStore, Steered, Steering
from aqueue.store.wire import Wire
from aqueue.task import Call

if TYPE_CHECKING:
    from aqueue.queue import Queue
    from aqueue.scheduling import Scheduling

log = logging.getLogger("aqueue")

SHOWN: Final = 3
"""Instants to come, in a snapshot."""
NEAR: Final = 3
"""Ids in an error message that look like the one that is not there."""
LATEST: Final = datetime.max.replace(tzinfo=UTC)
TRIES: Final = 20
"""Others who change the same schedule at the same time; so many in a row do not happen."""


class ScheduleChanges(RunTimeOptions, total=False):
    """What `queue.schedules.edit(...)` takes; what is not named stays. Units: as for `queue.schedule`."""

    call: Call[Any]
    cron: str
    every: Duration
    at: datetime
    tz: str | tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A schedule at one moment.

    Units: instants are aware UTC datetimes by the server's clock, durations are seconds.
    """

    id: str
    queue: QueueName
    task: str
    owner: Owner
    """Who may change it: whoever changes the code, or whoever calls `queue.schedules`."""
    state: Literal["active", "paused", "ended"]
    times: str
    """When, for people: `0 3 * * * Europe/Paris`, `every 30 s`, `at 2026-01-01 00:00:00+00:00`."""
    next: list[datetime]
    """The next few; none while it is paused, and none once it has ended."""
    last_slot: datetime | None
    """The slot of `last_job`, if that stands for one."""
    last_job: JobId | None
    jobs: int
    """Started so far by its slots; one whose definition was replaced begins anew."""
    repeat: int | None
    misfire: Misfire
    misfire_grace: float
    overlap: Overlap
    jitter: float
    start: datetime | None
    end: datetime | None
    payload: str
    """`plain`, or how the call is sealed, such as `signed`."""
    args: list[Any] | None
    """None where the call cannot be opened here."""
    kwargs: dict[str, Any] | None


def timing_of(cron: str | None, every: Duration | None, at: datetime | None, tz: str | tzinfo | None) -> Timing:
    """Take exactly one of three ways to say when. Errors: ConfigurationError."""
    given = [name for name, value in (("cron", cron), ("every", every), ("at", at)) if value is not None]
    if len(given) != 1:
        raise ConfigurationError(
            f"A schedule takes exactly one of cron, every and at, not {' and '.join(given) or 'none of them'}."
        )
    if cron is not None:
        return storable(Cron(cron, "UTC" if tz is None else tz))
    if every is not None:
        return storable(Every(every, tz))
    if tz is not None:
        raise ConfigurationError("tz is for cron and every; at knows its own.")
    return At(instant_ms(at, "at"))  # type: ignore[arg-type]  # given, as the other two are not


class Schedules:
    """The schedules of one queue: `queue.schedules`."""

    def __init__(self, queue: Scheduling) -> None:
        self._queue = queue
        self.declared: dict[str, Definition] = {}
        """Those that the code of this process has, by id."""

    async def _store(self) -> ScheduleStore:
        return (await self._queue.store()).schedules

    # looking

    async def list(self) -> builtins.list[ScheduleInfo]:
        """Give all schedules that run or are paused, the next to come first.

        A schedule of the code is there once a worker has come up with it; one that has ended is no longer there.
        """
        store = await self._store()
        names = builtins.list(dict.fromkeys([*await self._ids("code"), *await self._ids("user")]))
        found = builtins.list[ScheduleInfo]()
        for first in range(0, len(names), DESCRIBED):
            now, some = await store.describe(names[first : first + DESCRIBED])
            for one in some:
                try:
                    found.append(self._info(one, now))
                except StoreError as error:  # one that a later release has written must not hide the others
                    log.warning("queue %s: %s", self._queue.name, error)
        return sorted((one for one in found if one.state != "ended"), key=_by_next)

    async def _ids(self, owner: Owner) -> builtins.list[str]:
        store, ids = await self._store(), dict[str, None]()
        while rows := (await store.page(owner, len(ids))).rows:
            before = len(ids)
            ids |= dict.fromkeys(row.id for row in rows)
            if len(ids) == before:
                break
        return builtins.list(ids)

    async def get(self, schedule_id: str) -> ScheduleInfo:
        """Give one schedule, also for a day after it has ended. Errors: ScheduleNotFound."""
        now, one = await self._read(schedule_id)
        return self._info(one, now)

    async def _read(self, schedule_id: str) -> tuple[int, Described]:
        store = await self._store()
        now, found = await store.describe([checked_name(schedule_id, "schedule id")])
        if not found:
            raise await self._missing(schedule_id)
        return now, found[0]

    async def _missing(self, schedule_id: str) -> ScheduleNotFound:
        store = await self._store()
        ids = [row.id for row in (*(await store.page("code")).rows, *(await store.page("user")).rows)]
        return ScheduleNotFound(schedule_id, self._queue.name, difflib.get_close_matches(schedule_id, ids, n=NEAR))

    def _info(self, one: Described, now_ms: int) -> ScheduleInfo:
        return schedule_info(one, now_ms, self._queue.name, self._queue.wire)

    # changing

    async def define(self, definition: Definition, *, expected: str = "") -> bool:
        """Store a schedule; with `expected`, say whether that was the definition that there was until now.

        Errors: ConfigurationError for one that belongs to the code; StoreFull.
        """
        if definition.id in self.declared:
            raise self._of_code(definition.id)
        client = await self._queue.store()
        await client.register()
        done = await client.schedules.define(definition.declaration("user"), uuid.uuid4().hex, expected=expected)
        if done == "code":
            raise self._of_code(definition.id)
        return done != "other"

    def _of_code(self, schedule_id: str) -> ConfigurationError:
        return ConfigurationError(
            f"Schedule {schedule_id!r} of queue {self._queue.name} belongs to the code; change it there, or take "
            "another id."
        )

    async def edit(self, schedule_id: str, **changes: Unpack[ScheduleChanges]) -> ScheduleInfo:
        """Change what is named of a schedule that was made at run time, and leave the rest.

        Slots that have passed do not come again. Errors: ScheduleNotFound; ConfigurationError for one that belongs to
        the code, or has ended, and for bad options.
        """
        unknown = sorted(changes.keys() - ScheduleChanges.__annotations__.keys())
        if unknown:
            raise TypeError(f"there is nothing called {', '.join(unknown)} to change about a schedule")
        for _ in range(TRIES):
            _, one = await self._read(schedule_id)
            if one.owner == "code":
                raise self._of_code(schedule_id)
            if one.ended:
                raise ConfigurationError(f"Schedule {schedule_id!r} has ended; make it anew with queue.schedule(...).")
            if await self.define(self._edited(stored(one), changes), expected=one.definition):
                return await self.get(schedule_id)
        raise StoreError(f"Schedule {schedule_id!r} is changed by others all the time; try again later.")

    def _edited(self, one: Definition, changes: ScheduleChanges) -> Definition:
        schedule = make_schedule(_timing_edited(one.schedule, changes), id=one.id, **_options_edited(one, changes))
        if "call" in changes:
            return define(self._queue.own_call(changes["call"]), schedule, self._queue.settings, self._queue.wire)
        return changed(one, schedule, self._queue.wire)

    async def pause(self, schedule_id: str) -> bool:
        """Let no further slot start a job; return whether that is a change. Errors: as resume."""
        return await self._steer(schedule_id, "pause")

    async def resume(self, schedule_id: str) -> bool:
        """Let slots start jobs again, but for those that have passed; return whether that is a change.

        Errors: ScheduleNotFound; ConfigurationError for one that has ended.
        """
        return await self._steer(schedule_id, "resume")

    async def delete(self, schedule_id: str) -> None:
        """Remove a schedule that was made at run time; jobs that it has started go on.

        Errors: ScheduleNotFound; ConfigurationError for one that belongs to the code.
        """
        await self._steer(schedule_id, "delete")

    async def _steer(self, schedule_id: str, what: Steering) -> bool:
        store = await self._store()
        done: Steered = await store.steer(checked_name(schedule_id, "schedule id"), what, uuid.uuid4().hex)
        match done:
            case "missing":
                raise await self._missing(schedule_id)
            case "code":
                raise self._of_code(schedule_id)
            case "ended":
                raise ConfigurationError(f"Schedule {schedule_id!r} has ended; make it anew with queue.schedule(...).")
            case _:
                return done == "done"

    async def run(self, schedule_id: str, *, call: str | None = None) -> Job[Any]:
        """Start one job of a schedule now, beside its slots, also while it is paused.

        `call` makes it safe to ask again: the same text starts the same job.
        Errors: ScheduleNotFound; PayloadRefused for a call that is sealed with a key that is not here.
        """
        _, one = await self._read(schedule_id)
        job = stored(one).job_now(uuid.uuid4().hex if call is None else call, self._queue.wire)
        checked_name(job.id, "the id of the job")
        stands = await (await self._queue.store()).enqueue_one(job)
        task = self._queue.tasks.get(one.task)
        decode = codec.decode_plain if task is None else task.decode_result
        handle = Job(cast("Queue", self._queue), stands, created=stands == job.id, decode=decode)
        await self._queue.producers.told(self._queue.name, [one.task], [handle])
        return handle


def schedule_info(one: Described, now_ms: int, queue: QueueName, wire: Wire) -> ScheduleInfo:
    """Turn what is stored into a snapshot. Errors: StoreError for what cannot be read."""
    schedule, look = stored(one).schedule, wire.look(JobId(one.id), one.call, "schedule")
    state: Literal["active", "paused", "ended"] = "ended" if one.ended else "paused" if one.paused else "active"
    return ScheduleInfo(
        id=one.id,
        queue=queue,
        task=one.task,
        owner="user" if one.owner == "user" else "code",
        state=state,
        times=str(schedule.timing),
        next=[] if state != "active" else [instant(slot) for slot in _upcoming(one, schedule, now_ms)],
        last_slot=None if one.job is None else slot_of(one.job),
        last_job=one.job,
        jobs=one.started,
        repeat=schedule.repeat or None,
        misfire=schedule.misfire,
        misfire_grace=schedule.misfire_grace_ms / 1000,
        overlap=schedule.overlap,
        jitter=schedule.jitter_ms / 1000,
        start=instant(schedule.start_ms) if schedule.start_ms else None,
        end=None if schedule.end_ms is None else instant(schedule.end_ms),
        payload=look.payload,
        args=look.args,
        kwargs=look.kwargs,
    )


def _upcoming(one: Described, schedule: Schedule, now_ms: int) -> builtins.list[int]:
    once = isinstance(schedule.timing, At)  # which may be overdue, if no worker is there
    left = schedule.repeat - one.started if schedule.repeat else SHOWN
    after = one.slot_ms if once else max(one.slot_ms, now_ms)
    return builtins.list(itertools.islice(schedule.upcoming(after), max(0, min(left, SHOWN))))


def _by_next(info: ScheduleInfo) -> tuple[datetime, str]:
    return info.next[0] if info.next else LATEST, info.id


def _timing_edited(schedule: Schedule, changes: ScheduleChanges) -> Timing:
    """Give the times after a change, which may name another zone for the same expression."""
    timing, tz = schedule.timing, changes.get("tz")
    if not changes.keys() & {"cron", "every", "at"}:
        if tz is None:
            return timing
        if isinstance(timing, At):
            raise ConfigurationError(f"tz is for cron and every; schedule {schedule.id!r} is {timing}.")
        return storable(replace(timing, tz=tz))
    same = "cron" if isinstance(timing, Cron) else "every" if isinstance(timing, Every) else ""
    if tz is None and same in changes and not isinstance(timing, At):
        tz = timing.tz
    return timing_of(changes.get("cron"), changes.get("every"), changes.get("at"), tz)


def _options_edited(one: Definition, changes: ScheduleChanges) -> dict[str, Any]:
    schedule = one.schedule
    options: dict[str, Any] = {
        "misfire": schedule.misfire,
        "overlap": schedule.overlap,
        "jitter": schedule.jitter_ms / 1000,
        "start": instant(schedule.start_ms) if schedule.start_ms else None,
        "end": None if schedule.end_ms is None else instant(schedule.end_ms),
        "repeat": schedule.repeat or None,
        "run_at_start": schedule.run_at_start,
    }
    options = {name: changes.get(name, value) for name, value in options.items()}
    grace = schedule.misfire_grace_ms / 1000 if options["misfire"] == schedule.misfire == "skip" else None
    return options | {"misfire_grace": changes.get("misfire_grace", grace)}
