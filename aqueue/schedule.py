"""When work repeats: cron expressions and intervals, and the instants that they mean.

Every worker computes the same instants; one script at the server lets each of them start its job once. Nothing here
knows Redis. Daylight saving is cronsim's: what falls into the hour that is skipped runs right after it, what falls into
the hour that comes twice runs once.
"""

from __future__ import annotations

import itertools
import math
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final, Literal, TypeAlias, TypedDict

from cronsim import CronSim, CronSimError

from aqueue.errors import ConfigurationError, shown
from aqueue.settings import MAX_COUNT, Duration, instant_ms, seconds

Misfire: TypeAlias = Literal["skip", "once", "all"]
Overlap: TypeAlias = Literal["allow", "skip", "queue"]

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIXED: Final = re.compile(r"UTC(?:([+-])([01]\d|2[0-3]):([0-5]\d))?")
"""A zone without a history, as Python writes it."""
FIELDS: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
MISFIRE_GRACE_SECONDS: Final = 10.0
"""A slot that nobody could start for longer than this was missed, unless the schedule says otherwise."""
MISFIRE_LIMIT: Final = 100
"""Missed slots that `all` makes up for, the latest ones."""
LONG_MS: Final = 600_000
"""After a longer time without a look, not everything that has passed is gone through."""
MIN_INTERVAL_SECONDS: Final = 0.1
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Cron:
    """The instants of a cron expression in a time zone.

    Five fields, six with seconds in front, or @hourly and its like. Errors: ConfigurationError naming the bad field.
    """

    expression: str
    tz: str | tzinfo = "UTC"

    def __post_init__(self) -> None:
        zone_of(self.tz)
        text = self._text()
        try:
            next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)), None)
        except CronSimError as error:
            raise ConfigurationError(
                f"cron {self.expression!r}: {_named(str(error), text)}; write five fields, or six with seconds in "
                f"front, or one of {', '.join(ALIASES)}."
            ) from None

    def _text(self) -> str:
        if not isinstance(self.expression, str):
            raise ConfigurationError(f"A cron expression is text such as '0 3 * * *', not {self.expression!r}.")
        text = self.expression.strip()
        if text.startswith("@"):
            if text.lower() not in ALIASES:
                raise ConfigurationError(f"cron {text!r} is none of {', '.join(ALIASES)}.")
            return ALIASES[text.lower()]
        return text

    def after(self, instant: int) -> Iterator[int]:
        """Give the instants after this one, in Unix milliseconds, without end or until there are none."""
        for found in self._sim(instant):
            slot = round(found.timestamp() * 1000)
            if slot > instant:  # in an hour that comes twice, what is due in the first one has passed in the second
                instant = slot
                yield slot

    def before(self, instant: int, count: int) -> int:
        """Give an instant from which there are about so many to this one."""
        found = list(itertools.islice(self._sim(instant, reverse=True), count))
        return round(found[-1].timestamp() * 1000) - 1 if found else instant

    def _sim(self, instant: int, *, reverse: bool = False) -> CronSim:
        """Make an iterator whose fixed times come once each day, also where clocks are changed.

        cronsim sees to that where there are five fields; a time of day with its seconds is no less fixed.
        """
        begin = datetime.fromtimestamp(instant // 1000, UTC).astimezone(zone_of(self.tz))
        sim = CronSim(self._text(), begin, reverse=reverse)
        _, minutes, hours, *_ = sim.parts
        if (
            sim.fixup_tz is None
            and not isinstance(begin.tzinfo, timezone)
            and not (minutes.startswith("*") or hours.startswith("*"))
        ):
            sim.fixup_tz, sim.dt = begin.tzinfo, sim.dt.replace(tzinfo=None)
        return sim

    def __str__(self) -> str:
        return f"{self.expression} {self.tz}"


@dataclass(frozen=True, slots=True)
class Every:
    """Instants that are so many seconds apart, on the same grid for everybody, which begins with the anchor.

    With a time zone the interval is of whole days, and every instant has the same time of day there; without an anchor
    that is midnight. A time of day that is skipped comes after the gap, one that comes twice comes the first time.
    """

    interval: Duration
    tz: str | tzinfo | None = None
    anchor_ms: int = 0

    def __post_init__(self) -> None:
        length = seconds(self.interval, "every")
        if length < MIN_INTERVAL_SECONDS:
            raise ConfigurationError(f"every must be at least {MIN_INTERVAL_SECONDS} s, not {self.interval!r}.")
        object.__setattr__(self, "interval", length)
        if self.tz is not None:
            zone_of(self.tz)
            if length % DAY_SECONDS:
                raise ConfigurationError(
                    f"tz keeps the time of day of an interval of whole days; leave it out with every {length:g} s."
                )

    def after(self, instant: int) -> Iterator[int]:
        """As Cron."""
        step = seconds(self.interval, "every") * 1000
        number = math.floor((instant - self.anchor_ms) / step) - 1  # clocks of a zone may be a little ahead or behind
        while True:
            slot = self._slot(number, step)
            if slot > instant:
                yield slot
            number += 1

    def _slot(self, number: int, step: float) -> int:
        if self.tz is None:
            return self.anchor_ms + round(number * step)
        zone = zone_of(self.tz)
        first = (
            datetime.fromtimestamp(self.anchor_ms / 1000, zone) if self.anchor_ms else datetime(1970, 1, 1, tzinfo=zone)
        )
        return round((first + timedelta(milliseconds=number * step)).timestamp() * 1000)

    def before(self, instant: int, count: int) -> int:
        """As Cron."""
        return instant - math.ceil(seconds(self.interval, "every") * 1000 * count)

    def __str__(self) -> str:
        return f"every {self.interval:g} s" if self.tz is None else f"every {self.interval:g} s {self.tz}"


@dataclass(frozen=True, slots=True)
class At:
    """One instant."""

    at_ms: int

    def after(self, instant: int) -> Iterator[int]:
        """As Cron."""
        if self.at_ms > instant:
            yield self.at_ms

    def before(self, instant: int, count: int) -> int:  # noqa: ARG002  # as Cron
        """As Cron."""
        return min(instant, self.at_ms - 1)

    def __str__(self) -> str:
        return f"at {self._shown()}"

    def _shown(self) -> str:
        return datetime.fromtimestamp(self.at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")


Timing: TypeAlias = Cron | Every | At


def zone_of(tz: str | tzinfo) -> tzinfo:
    """Find a time zone. Errors: ConfigurationError."""
    if isinstance(tz, tzinfo):
        return tz
    if not isinstance(tz, str):
        raise ConfigurationError(f"tz must be a zone's name such as 'Europe/Paris', or a tzinfo, not {tz!r}.")
    if fixed := FIXED.fullmatch(tz):
        sign, hours, minutes = fixed.groups(default="0")
        return timezone((-1 if sign == "-" else 1) * timedelta(hours=int(hours), minutes=int(minutes)))
    try:
        return zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"There is no time zone {tz!r}; write a name such as 'Europe/Paris', or install tzdata."
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a call is made again and again, and what becomes of it where that is not as it should be.

    Units: milliseconds.
    """

    id: str
    timing: Timing
    misfire: Misfire = "once"
    misfire_grace_ms: int = round(MISFIRE_GRACE_SECONDS * 1000)
    overlap: Overlap = "allow"
    jitter_ms: int = 0
    start_ms: int = 0
    end_ms: int | None = None
    repeat: int = 0
    """So many jobs in all; 0 without end."""
    run_at_start: bool = False

    def slots(self, after: int, now: int) -> list[int]:
        """Give the slots after one instant and up to another that are to be started."""
        due: list[int] = []
        if now - after > LONG_MS:
            after = max(after, self.timing.before(now, MISFIRE_LIMIT))
        for slot in self.upcoming(after):
            if slot > now:
                break
            due.append(slot)
            del due[:-MISFIRE_LIMIT]
        match self.misfire:
            case "all":
                return due
            case "once":
                return due[-1:]
            case "skip":
                return [slot for slot in due if slot > now - self.misfire_grace_ms][-1:]

    def next(self, after: int) -> int | None:
        """Give the first slot after an instant, if there is one."""
        return next(self.upcoming(after), None)

    def upcoming(self, instant: int) -> Iterator[int]:
        """Give the slots after an instant."""
        for slot in self.timing.after(max(instant, self.start_ms - 1)):
            if self.end_ms is not None and slot > self.end_ms:
                return
            yield slot


class TimingOptions(TypedDict, total=False):
    """What every schedule takes besides the time.

    `misfire` is for slots that nobody could start: "skip" those that are later than `misfire_grace` (10 s), make up for
    the last one "once", or for "all", up to a hundred. `overlap` is for a slot whose predecessor has not ended: "allow"
    both, "skip" it, or "queue" it. `run_at_start` starts a job also when the schedule is new, or has changed.
    Units: `jitter` in seconds, a timedelta or "5s", delays each job by up to that; `start` and `end` are aware.
    """

    misfire: Misfire
    misfire_grace: Duration | None
    overlap: Overlap
    jitter: Duration
    start: datetime | None
    end: datetime | None
    run_at_start: bool


class RunTimeOptions(TimingOptions, total=False):
    """What `queue.schedule(...)` takes besides the time; `repeat` ends it after so many jobs."""

    repeat: int | None


def make_schedule(
    timing: Timing,
    *,
    id: str,  # noqa: A002  # the word that people know it by
    misfire: Misfire = "once",
    misfire_grace: Duration | None = None,
    overlap: Overlap = "allow",
    jitter: Duration = 0,
    start: datetime | None = None,
    end: datetime | None = None,
    repeat: int | None = None,
    run_at_start: bool = False,
) -> Schedule:
    """Check a schedule's options and settle their units. Errors: ConfigurationError."""
    if misfire not in ("skip", "once", "all"):
        raise ConfigurationError(f"misfire must be 'skip', 'once' or 'all', not {misfire!r}.")
    if misfire_grace is not None and misfire != "skip":
        raise ConfigurationError(
            "misfire_grace says how late a slot may be for misfire='skip'; leave it out otherwise."
        )
    if overlap not in ("allow", "skip", "queue"):
        raise ConfigurationError(f"overlap must be 'allow', 'skip' or 'queue', not {overlap!r}.")
    if repeat is not None and not (
        isinstance(repeat, int) and not isinstance(repeat, bool) and 1 <= repeat <= MAX_COUNT
    ):
        raise ConfigurationError(f"repeat must be a whole number of at least 1, or None, not {shown(repeat)}.")
    if isinstance(timing, At) and (start or end or repeat or run_at_start):
        raise ConfigurationError("at comes once; leave out start, end, repeat and run_at_start.")
    start_ms = 0 if start is None else instant_ms(start, "start")
    end_ms = None if end is None else instant_ms(end, "end")
    if end_ms is not None and end_ms < start_ms:
        raise ConfigurationError(f"schedule {id!r} ends before it starts; swap start and end.")
    if isinstance(timing, Every):
        timing = replace(timing, anchor_ms=start_ms)
    grace = MISFIRE_GRACE_SECONDS if misfire_grace is None else seconds(misfire_grace, "misfire_grace")
    return Schedule(
        id=id,
        timing=timing,
        misfire=misfire,
        misfire_grace_ms=round(grace * 1000),
        overlap=overlap,
        jitter_ms=round(seconds(jitter, "jitter") * 1000),
        start_ms=start_ms,
        end_ms=end_ms,
        repeat=repeat or 0,
        run_at_start=bool(run_at_start),
    )


def _named(complaint: str, text: str) -> str:
    """Say which field is bad, by its name and place."""
    words = text.split()
    names = FIELDS[-len(words) :] if len(words) in (5, 6) else ()
    for place, name in enumerate(names, 1):
        if name in complaint.lower():
            return f"field {place}, the {name}, is {words[place - 1]!r}, which is none"
    return f"it has {len(words)} fields" if not names else complaint
