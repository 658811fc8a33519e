"""A schedule whole: when jobs are started, and what they are made of; written so that any worker can start them.

Those that code declares and those that users make at run time are stored alike, and started alike. What is stored says
everything: a worker need not know the code that declared a schedule, nor the process in which it was made.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from typing import Any, Final

import msgspec

from aqueue.errors import ConfigurationError, StoreError, shown
from aqueue.identity import gate_word
from aqueue.job import JobId
from aqueue.limits import Concurrency
from aqueue.schedule import MISFIRE_GRACE_SECONDS, At, Cron, Every, Misfire, Overlap, Schedule, Timing
from aqueue.settings import Settings
from aqueue.store.records import NewJob
from aqueue.store.schedules import Declaration, Described, Owner, Slot
from aqueue.store.wire import Wire
from aqueue.submission import encoded, new_job, outgoing
from aqueue.task import Call

AT_START: Final = -1
"""A slot that comes once, when the schedule is new."""
DIGEST_CHARACTERS: Final = 32


class Times(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When, as it is stored: exactly one of `cron`, `every` and `at_ms`. Units: seconds, Unix ms."""

    cron: str | None = None
    tz: str = "UTC"
    every: float | None = None
    at_ms: int | None = None
    start_ms: int = 0
    end_ms: int | None = None

    def timing(self) -> Timing:
        """Errors: ConfigurationError."""
        if self.cron is not None:
            return Cron(self.cron, self.tz)
        if self.every is not None:
            return Every(self.every, None if self.tz == "UTC" else self.tz, self.start_ms)
        return At(self.at_ms or 0)


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is stored of a schedule beside its call. What a later release adds is not read."""

    times: Times
    misfire: Misfire = "once"
    misfire_grace_ms: int = round(MISFIRE_GRACE_SECONDS * 1000)
    overlap: Overlap = "allow"
    jitter_ms: int = 0
    repeat: int = 0
    run_at_start: bool = False
    job: NewJob
    """What each job asks for; without id and envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One schedule with what its jobs are made of."""

    schedule: Schedule
    task: str
    call: bytes
    """The envelope, sealed for this schedule."""
    job: NewJob
    """What each job asks for; without id and envelope."""
    digest: str
    """Another one is another schedule."""

    @property
    def id(self) -> str:
        return self.schedule.id

    def job_of(self, slot_ms: int, wire: Wire) -> NewJob:
        """Make the job of a slot; whoever makes it gives it the same id. Errors: PayloadRefused."""
        job = self._job(None if slot_ms == AT_START else JobId(f"{self.id}.{slot_ms}"), wire)
        return msgspec.structs.replace(job, delay_ms=job.delay_ms + self._jitter(job.id))

    def job_now(self, call: str, wire: Wire) -> NewJob:
        """Make a job that stands for no slot and does not wait, one for each `call`. Errors: PayloadRefused."""
        return msgspec.structs.replace(self._job(JobId(f"{self.id}.run-{call}"), wire), delay_ms=0)

    def _job(self, given: JobId | None, wire: Wire) -> NewJob:
        job_id = wire.new_id(self.job.unique, given)
        envelope = wire.seal_slot(self.id, self.call, job_id, self.job.unique)
        return msgspec.structs.replace(self.job, id=job_id, envelope=envelope)

    def _jitter(self, job_id: JobId) -> int:
        """All workers draw the same."""
        if not self.schedule.jitter_ms:
            return 0
        return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:6]) % (self.schedule.jitter_ms + 1)

    def slot(self, at_ms: int, wire: Wire) -> Slot:
        """Errors: PayloadRefused."""
        return Slot(at_ms, self.job_of(at_ms, wire))

    def declaration(self, owner: Owner) -> Declaration:
        """Write it as the store takes it."""
        schedule = self.schedule
        return Declaration(
            id=schedule.id,
            owner=owner,
            task=self.task,
            definition=self.digest,
            spec=_write(spec_of(schedule, self.job)),
            call=self.call,
            timing=_write(times_of(schedule)),
            once_ms=schedule.timing.at_ms if isinstance(schedule.timing, At) else None,
            overlap=schedule.overlap,
            most=schedule.repeat,
            begins=schedule.run_at_start,
        )


def define(call: Call[Any], schedule: Schedule, settings: Settings, wire: Wire) -> Definition:
    """Make a schedule of a call. Errors: ConfigurationError, BadArguments, NotSerializable."""
    task = call.task
    if task.options_of_calls.at_ms is not None:
        raise ConfigurationError(f"The schedule says when {task.name} is called; leave out the option at.")
    if schedule.overlap == "queue":
        task = task.options(limit=[*(task.options_of_calls.limit or ()), _gate(schedule.id)])
        call = Call(task, call.args, call.kwargs)
    sent = outgoing(call)
    envelope = encoded(call, sent, settings, wire)
    job = msgspec.structs.replace(new_job(call, sent, settings, wire, JobId("-")), id=JobId(""), envelope=b"")
    return made_of(schedule, task.name, wire.seal_schedule(schedule.id, task.name, envelope), job, _digest_of(envelope))


def changed(one: Definition, schedule: Schedule, wire: Wire) -> Definition:
    """Give a definition other times, and leave its call as it is, sealed with today's key."""
    word = gate_word(_gate(one.id), f"schedule {one.id}")
    words = [other for other in one.job.limits.split(",") if other and other != word]
    if schedule.overlap == "queue":
        words.insert(0, word)
    job = msgspec.structs.replace(one.job, limits=",".join(words))
    return made_of(schedule, one.task, wire.renew_schedule(one.id, one.call), job, one.digest[DIGEST_CHARACTERS:])


def _gate(schedule_id: str) -> Concurrency:
    """What jobs of one schedule wait for that are not to overlap."""
    return Concurrency(1, name=f"schedule {schedule_id}")


def made_of(schedule: Schedule, task: str, call: bytes, job: NewJob, of_call: str) -> Definition:
    """Put a schedule together; `of_call` stands for the call before it was sealed."""
    spec = _write(spec_of(schedule, job))
    digest = _digest_of(f"{task}\0{spec}".encode()) + of_call
    return Definition(schedule=schedule, task=task, call=call, job=job, digest=digest)


def stored(one: Described) -> Definition:
    """Read a schedule that is stored. Errors: StoreError for one that cannot be read."""
    try:
        spec = msgspec.json.decode(one.spec, type=Spec)
        times = spec.times
        schedule = Schedule(
            id=one.id,
            timing=times.timing(),
            misfire=spec.misfire,
            misfire_grace_ms=spec.misfire_grace_ms,
            overlap=spec.overlap,
            jitter_ms=spec.jitter_ms,
            start_ms=times.start_ms,
            end_ms=times.end_ms,
            repeat=spec.repeat,
            run_at_start=spec.run_at_start,
        )
    except (msgspec.MsgspecError, ConfigurationError, UnicodeDecodeError) as error:
        raise StoreError(
            f"Schedule {one.id} cannot be read here ({error}); delete it and make it anew, or upgrade this process."
        ) from None
    return Definition(schedule=schedule, task=one.task, call=one.call, job=spec.job, digest=one.definition)


def spec_of(schedule: Schedule, job: NewJob) -> Spec:
    return Spec(
        times=times_of(schedule),
        misfire=schedule.misfire,
        misfire_grace_ms=schedule.misfire_grace_ms,
        overlap=schedule.overlap,
        jitter_ms=schedule.jitter_ms,
        repeat=schedule.repeat,
        run_at_start=schedule.run_at_start,
        job=job,
    )


def times_of(schedule: Schedule) -> Times:
    bounds: dict[str, Any] = {"start_ms": schedule.start_ms, "end_ms": schedule.end_ms}
    match schedule.timing:
        case Cron(expression, tz):
            return Times(cron=expression, tz=zone_name(tz) or "", **bounds)
        case Every(interval, tz):
            zone = "UTC" if tz is None else zone_name(tz) or ""
            return Times(every=float(interval), tz=zone, **bounds)  # type: ignore[arg-type]  # its unit is settled
        case At(at_ms):
            return Times(at_ms=at_ms, **bounds)


def zone_name(tz: str | tzinfo) -> str | None:
    """Give the name by which a zone is known everywhere, if it has one."""
    if isinstance(tz, str):
        return tz
    if isinstance(tz, timezone) and tz.utcoffset(None) % timedelta(minutes=1) == timedelta(0):
        return timezone(tz.utcoffset(None)).tzname(None)
    return tz.key if isinstance(tz, zoneinfo.ZoneInfo) else None


def storable(timing: Timing) -> Timing:
    """Refuse a time that only this process knows. Errors: ConfigurationError."""
    if isinstance(timing, Cron | Every) and timing.tz is not None and zone_name(timing.tz) is None:
        raise ConfigurationError(
            f"tz must be a zone's name such as 'Europe/Paris', or have one, since it is stored, not {shown(timing.tz)}."
        )
    return timing


def _write(struct: msgspec.Struct) -> str:
    return msgspec.json.encode(struct).decode()


def _digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:DIGEST_CHARACTERS]
