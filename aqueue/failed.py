"""What failed on a queue: looked through, run again, deleted; all of it, or what somebody chooses.

Long work goes in small steps, each a script call over a bounded number of jobs, from what failed first to what had
failed when it began. It may be interrupted anywhere and be begun again: no job is lost, and none is queued twice.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypedDict, Unpack

import msgspec

from aqueue.amending import Changes, amended
from aqueue.errors import AqueueError, ConfigurationError, JobNotFound, PayloadRefused, shown
from aqueue.job import JobId, JobInfo, JobState
from aqueue.settings import Duration, instant_ms, seconds
from aqueue.store.client import BATCH, Client
from aqueue.store.failures import CHANGED_AT_ONCE, LOOKED_AT_ONCE, Again, FailedEntry, FailedLook, Order, Place
from aqueue.store.inspection import damaged, job_info
from aqueue.store.keys import checked_name
from aqueue.store.sealing import is_sealed, outside
from aqueue.store.wire import Wire

if TYPE_CHECKING:
    from aqueue.queue import Queue

Age: TypeAlias = Duration | datetime
Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many failed jobs have been looked at, and how many there are."""
Change: TypeAlias = Callable[[Client, Sequence[FailedEntry]], Awaitable[set[JobId]]]
"""Does something to jobs, and says to which of them."""

HEAD_BYTES: Final = 1024
"""Of an envelope; the task's name, of up to 200 characters, stands at its beginning."""
_STATES: Final = frozenset(state.encode() for state in JobState)
_PLACE: Final = re.compile(r"(inf|\d{1,17}):(.+)", re.DOTALL)
_TASK: Final = re.compile(rb'\s*\[\s*\d+\s*,\s*("(?:[^"\\]|\\.)*")')


class FailedFilter(TypedDict, total=False):
    """Which failed jobs are meant; all that is given must hold.

    `error` is the name of an exception, whole (`httpx.ReadTimeout`) or its last part (`ReadTimeout`), or its class.
    Units: `older_than` and `newer_than` say since when it has failed: seconds, a timedelta or "2h" ago by the server's
    clock, or an aware datetime.
    """

    task: str | None
    error: str | type[BaseException] | None
    older_than: Age | None
    newer_than: Age | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPage:
    """Some failed jobs, latest first; `next` is where the next page begins, None where this is the last."""

    jobs: list[JobInfo]
    next: str | None


class FailedJobs:
    """The failed jobs of one queue, as `queue.failed`."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def list(self, *, limit: int = 50, after: str | None = None, **chosen: Unpack[FailedFilter]) -> FailedPage:
        """Give up to `limit` failed jobs that match, latest first, going on where a page before has ended.

        Pages neither repeat nor skip a job, whatever fails or leaves in between; a page may be shorter than `limit`
        although more follow. Jobs stand in the order in which their records go: that is the order in which they
        failed, unless their failure_ttl differs.
        Errors: ConfigurationError for a filter, limit or page that is none; PayloadRefused if errors are encrypted and
                the key is not here.
        """
        if not isinstance(limit, int) or not 1 <= limit <= BATCH:
            raise ConfigurationError(f"limit must be a whole number from 1 to {BATCH}, not {shown(limit)}.")
        walk = _Walk(self._queue.wire, _Filter.of(chosen))
        place = None if after is None else _place_of(after)
        store = await self._queue.store()
        found: list[FailedEntry] = []
        async with aclosing(walk.pages(store, place, limit)) as pages:
            async for page in pages:
                found += page
                if len(found) > limit:
                    break
        ended = {entry.id: entry.ended for entry in found[:limit]}
        read = zip(ended, await store.inspect(list(ended)), strict=True) if ended else ()
        jobs = [job_info(self._queue.wire, job_id, *seen) for job_id, seen in read if _is_still(ended[job_id], seen[0])]
        return FailedPage(jobs=jobs, next=_text_of(found[limit - 1].place) if len(found) > limit else None)

    async def count(self, **chosen: Unpack[FailedFilter]) -> int:
        """Count the failed jobs that match. Errors: as list."""
        walk = _Walk(self._queue.wire, _Filter.of(chosen))
        store, total = await self._queue.store(), 0
        async with aclosing(walk.pages(store)) as pages:
            async for page in pages:
                total += len(page)
        return total

    async def rerun(
        self,
        job_id: str,
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        delay: Duration = 0,
    ) -> None:
        """Queue one failed job again under its id, with fresh counters; with other arguments, if they are given.

        `args` takes the place of what was passed by position, `kwargs` of what was passed by name; what is not given
        stays. Arguments are checked against the task, where its code is here.
        Units:  `delay` in seconds, a timedelta or "5m".
        Errors: JobNotFound; ConfigurationError if it has not failed; BadArguments, NotSerializable; PayloadRefused
                for a sealed job whose key is not here. With any of them nothing has changed.
        """
        checked, delay_ms = JobId(checked_name(job_id, "job id")), _delay_ms(delay)
        _check_arguments(args, kwargs)
        store = await self._queue.store()
        ((record, payload),) = await store.inspect([checked])
        if not record:
            raise JobNotFound(checked)
        if record.get("state", b"") not in _STATES:
            raise damaged(self._queue.name, checked)
        if (state := record.get("state", b"").decode("utf-8", "replace")) != JobState.FAILED:
            raise ConfigurationError(f"Job {checked} has not failed, it is {state}; leave it, or see queue.rerun.")
        again = Again(checked, record.get("ended_ms", b"0").decode("utf-8", "replace"))
        if payload is not None and (args is not None or kwargs is not None):
            limits = record.get("limits", b"").decode("utf-8", "replace")
            changed = amended(self._queue, checked, payload, limits, Changes(args, kwargs))
            again = msgspec.structs.replace(again, envelope=changed.envelope, limits=changed.limits)
        (word,) = await store.failures.rerun([again], uuid.uuid4().hex, delay_ms)
        match word:
            case "queued" | "scheduled":
                return
            case "missing":
                raise JobNotFound(checked)
            case "gone":
                raise ConfigurationError(f"The arguments of job {checked} are gone; enqueue it anew.")
            case _:
                raise ConfigurationError(
                    f"Job {checked} has changed meanwhile, perhaps somebody else has queued it again; look at it again."
                )

    async def rerun_all(
        self, *, delay: Duration = 0, progress: Progress | None = None, **chosen: Unpack[FailedFilter]
    ) -> int:
        """Queue all failed jobs that match again, those that failed first first; return how many.

        What fails while this goes on stays failed. Units: as rerun. Errors: as list.
        """
        delay_ms, call = _delay_ms(delay), uuid.uuid4().hex

        async def change(store: Client, some: Sequence[FailedEntry]) -> set[JobId]:
            words = await store.failures.rerun([Again(one.id, one.ended) for one in some], call, delay_ms)
            granted = ("queued", "scheduled")
            return {one.id for one, word in zip(some, words, strict=True) if word in granted}

        walk = _Walk(self._queue.wire, _Filter.of(chosen), "oldest")
        return await self._change(walk, change, progress)

    async def purge(self, *, progress: Progress | None = None, **chosen: Unpack[FailedFilter]) -> int:
        """Delete all failed jobs that match, with all that is stored of them; return how many.

        What fails while this goes on stays. Errors: as list.
        """

        async def change(store: Client, some: Sequence[FailedEntry]) -> set[JobId]:
            words = await store.failures.purge(some)
            return {one.id for one, word in zip(some, words, strict=True) if word == "deleted" and one.ended}

        walk = _Walk(self._queue.wire, _Filter.of(chosen), "oldest", ghosts=True)
        return await self._change(walk, change, progress)

    async def _change(self, walk: _Walk, change: Change, progress: Progress | None) -> int:
        store, done = await self._queue.store(), set[JobId]()
        async with aclosing(walk.pages(store)) as pages:
            async for page in pages:
                for first in range(0, len(page), CHANGED_AT_ONCE):
                    done |= await change(store, page[first : first + CHANGED_AT_ONCE])
                if progress is not None:
                    progress(min(walk.looked, walk.listed), walk.listed)
        return len(done)


@dataclass(frozen=True, slots=True)
class _Since:
    """A moment, given as such or by how long ago it was. Units: ms, Unix time or a span."""

    ms: int
    ago: bool

    @classmethod
    def of(cls, given: Age | None, name: str) -> _Since | None:
        """Read a moment. Errors: ConfigurationError for a naive one, and for what is none."""
        if given is None:
            return None
        if isinstance(given, datetime):
            return cls(instant_ms(given, name), ago=False)
        return cls(round(seconds(given, name) * 1000), ago=True)

    def at_ms(self, now_ms: int) -> int:
        return now_ms - self.ms if self.ago else self.ms


@dataclass(frozen=True, slots=True)
class _Filter:
    """The same as FailedFilter, checked."""

    task: str | None
    error: str | None
    older: _Since | None
    newer: _Since | None

    @classmethod
    def of(cls, chosen: FailedFilter) -> _Filter:
        """Check what was asked for. Errors: ConfigurationError; TypeError for a name that is none."""
        known = FailedFilter.__annotations__
        for name in chosen:
            if name not in known:
                raise TypeError(f"there is no filter {shown(name)}; the filters are {', '.join(sorted(known))}")
        task, error = chosen.get("task"), chosen.get("error")
        return cls(
            task=None if task is None else checked_name(task, "task"),
            error=None if error is None else _error_name(error),
            older=_Since.of(chosen.get("older_than"), "older_than"),
            newer=_Since.of(chosen.get("newer_than"), "newer_than"),
        )

    def span(self, now_ms: int) -> tuple[float, float]:
        """Give the first and the last instant that match. Errors: ConfigurationError if there is none between them."""
        first = -math.inf if self.newer is None else self.newer.at_ms(now_ms)
        last = math.inf if self.older is None else self.older.at_ms(now_ms)
        if first > last:
            raise ConfigurationError(
                "No job can have failed both before and after that; newer_than must reach further back than older_than."
            )
        return first, last


_ALL: Final = _Filter(None, None, None, None)


class _Walk:
    """One way through the failed jobs; ages are those of the moment when it began."""

    def __init__(self, wire: Wire, chosen: _Filter, order: Order = "latest", *, ghosts: bool = False) -> None:
        self._wire = wire
        self._filter = chosen
        self._order: Order = order
        self._ghosts = ghosts and chosen == _ALL
        """Entries without a job are given, too."""
        self._span: tuple[float, float] | None = None
        self._end: tuple[float, bytes] | None = None
        self.looked = 0
        self.listed = 0

    async def pages(
        self, store: Client, after: Place | None = None, wanted: int = LOOKED_AT_ONCE
    ) -> AsyncGenerator[list[FailedEntry]]:
        """Give those that match, of as many at a time as one call has looked at.

        From the oldest on it ends with what had failed when it began.
        """
        head = 0 if self._filter.task is None else HEAD_BYTES
        size = min(LOOKED_AT_ONCE, wanted + 1) if self._filter == _ALL else LOOKED_AT_ONCE
        if self._order == "oldest":
            latest = await store.failures.look(None, "latest", 1)
            self._begin(latest)
            if not latest.entries:
                return
            self._end = latest.entries[0].place.rank
        while True:
            seen = await store.failures.look(after, self._order, size, head)
            if self._span is None:
                self._begin(seen)
            entries = [entry for entry in seen.entries if self._end is None or entry.place.rank <= self._end]
            self.looked += len(entries)
            yield [entry for entry in entries if self._matches(entry)]
            if len(entries) < size:
                return
            after = entries[-1].place

    def _begin(self, seen: FailedLook) -> None:
        first, last = self._filter.span(seen.now_ms)
        self._span = first, last if self._order == "latest" else min(last, seen.now_ms)
        self.listed = seen.listed

    def _matches(self, entry: FailedEntry) -> bool:
        if not entry.ended:
            return self._ghosts
        first, last = self._span or (0, 0)
        if not first <= entry.ended_ms <= last:
            return False
        if self._filter.task is not None and _task_of(entry.head) != self._filter.task:
            return False
        return self._filter.error is None or self._has_error(entry, self._filter.error)

    def _has_error(self, entry: FailedEntry, wanted: str) -> bool:
        error = self._wire.decode_error(entry.id, entry.told).type
        if is_sealed(entry.told) and error == PayloadRefused.__name__:
            raise PayloadRefused(
                entry.id,
                f"The error of job {entry.id} is encrypted and cannot be opened here; choose by task or age, or bring "
                "the key with AQUEUE_ENCRYPTION_KEYS or Settings(seal=...).",
            )
        return wanted in (error, error.rpartition(".")[2])


def _task_of(head: bytes) -> str:
    """Read the task's name out of the start of an envelope; empty where there is none."""
    if is_sealed(head):
        return outside(head).task
    found = _TASK.match(head)
    try:
        return "" if found is None else str(msgspec.json.decode(found[1]))
    except msgspec.MsgspecError:
        return ""


def _error_name(error: str | type[BaseException]) -> str:
    if isinstance(error, type) and issubclass(error, BaseException):
        if issubclass(error, AqueueError):
            return error.__name__
        return error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"
    if not isinstance(error, str) or not error or error != error.strip():
        raise ConfigurationError(f"error must be an exception or its name, such as 'ValueError', not {shown(error)}.")
    return error


def _delay_ms(delay: Duration) -> int:
    return round(seconds(delay, "delay") * 1000)


def _place_of(text: str) -> Place:
    found = _PLACE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f"after must be the `next` of another page, not {shown(text)}.")
    return Place(found[1].encode(), found[2].encode("utf-8", "surrogateescape"))


def _text_of(place: Place) -> str:
    return f"{place.goes.decode()}:{place.member.decode('utf-8', 'surrogateescape')}"


def _is_still(ended: str, record: Mapping[str, bytes]) -> bool:
    """Say whether a job is the one that was looked at a moment ago."""
    return record.get("state") == JobState.FAILED.encode() and record.get("ended_ms", b"0") == ended.encode()


def _check_arguments(args: object, kwargs: object) -> None:
    if args is not None and not isinstance(args, list | tuple):
        raise ConfigurationError(f"args must be a list or tuple of arguments, not {shown(args)}.")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise ConfigurationError(f"kwargs must map names to arguments, not be {shown(kwargs)}.")
