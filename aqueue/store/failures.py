"""The failed jobs of one queue at the server: looking through them, and doing something to those that were chosen.

Which are chosen is decided by the caller, who alone can read encrypted errors. So a script is told when each job
failed, and leaves those alone that have moved on since they were looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast, get_args

import msgspec

from aqueue.job import JobId
from aqueue.store import layout
from aqueue.store.part import Part
from aqueue.store.scripts import Arg

Rerun: TypeAlias = Literal["queued", "scheduled", "unfinished", "gone", "missing", "changed", "damaged"]
Purge: TypeAlias = Literal["deleted", "changed"]
Order: TypeAlias = Literal["latest", "oldest"]

LOOKED_AT_ONCE: Final = 200
CHANGED_AT_ONCE: Final = 100
"""Jobs that one script call looks at, or changes, for about a millisecond."""
MOST_DIGITS: Final = 15
"""Of an instant; beyond it nothing was written by us."""


class Place(NamedTuple):
    """Where an entry stands among the failed: by the instant at which its record goes, then by its id."""

    goes: bytes
    """Milliseconds as the server writes them, `inf` for never."""
    member: bytes

    @property
    def rank(self) -> tuple[float, bytes]:
        return float(self.goes), self.member


class FailedEntry(msgspec.Struct, frozen=True, gc=False):
    """One failed job, as far as people choose by it."""

    place: Place
    ended: str
    """When it failed, as its record says it; empty where no failed job stands behind the entry."""
    told: bytes
    """Its last error in short, as errors are written on this queue."""
    head: bytes
    """The start of its envelope, where the task's name stands."""

    @property
    def id(self) -> JobId:
        return JobId(self.place.member.decode("utf-8", "replace"))

    @property
    def ended_ms(self) -> int:
        """When it failed in Unix ms, 0 where nobody can tell."""
        digits = self.ended.isascii() and self.ended.isdigit() and len(self.ended) <= MOST_DIGITS
        return int(self.ended) if digits else 0


class FailedLook(msgspec.Struct, frozen=True, gc=False):
    """Some of the failed jobs, at one moment by the server's clock; `listed` is how many there are."""

    now_ms: int
    listed: int
    entries: list[FailedEntry]


class Again(msgspec.Struct, frozen=True, gc=False):
    """A job that is to run again; only if it is still the one that failed then, if that is said."""

    id: JobId
    ended: str = ""
    envelope: bytes = b""
    """In the place of its own, unless empty."""
    limits: str | None = None
    """The gates of the new arguments; None leaves its own."""


class FailureStore(Part):
    """The transitions of failed jobs."""

    async def look(self, after: Place | None, order: Order, count: int, head: int = 0) -> FailedLook:
        """Look at up to `count` failed jobs from a place on, and at `head` bytes of each envelope.

        Source: lua/list_failed.lua; a place instead of an offset, so that pages neither repeat nor skip.
        """
        keys, (goes, member) = self.keys, after or (b"", b"")
        return await self._run("list_failed", _look, [keys.failed], [keys.base, goes, member, order, count, head])

    async def rerun(self, jobs: Sequence[Again], call: str, delay_ms: int = 0) -> list[Rerun]:
        """Run ended jobs again, each once for one `call`, whoever sends it how often. Source: lua/rerun.lua."""
        keys, items = self.keys, list[Arg]()
        for job in jobs:
            items += job.id, job.ended, job.envelope, "-" if job.limits is None else job.limits
        words = await self._run(
            "rerun",
            layout.each(layout.one_of(*get_args(Rerun)), len(jobs)),
            [keys.queued, keys.ranked, keys.scheduled, keys.failed, keys.stats],
            [call, delay_ms],
            each=self._records([job.id for job in jobs]),
            items=items,
        )
        return cast("list[Rerun]", words)

    async def purge(self, entries: Sequence[FailedEntry]) -> list[Purge]:
        """Delete failed jobs that are still as they were looked at. Source: lua/purge_failed.lua."""
        words = await self._run(
            "purge_failed",
            layout.each(layout.one_of(*get_args(Purge)), len(entries)),
            [self.keys.failed],
            each=self._records([entry.id for entry in entries]),
            items=[part for entry in entries for part in (entry.place.member, entry.ended)],
        )
        return cast("list[Purge]", words)

    def _records(self, job_ids: Sequence[JobId]) -> list[str]:
        keys = self.keys
        return [key for job_id in job_ids for key in (keys.job(job_id), keys.payload(job_id))]


def _look(reply: Any) -> FailedLook:
    now, listed, entries = reply
    return FailedLook(layout.integer(now), layout.integer(listed), [_entry(*one) for one in entries])


def _entry(member: Any, goes: Any, ended: Any, told: Any, head: Any) -> FailedEntry:
    place = Place(layout.content(goes) or b"", layout.content(member) or b"")
    if place.rank[0] != place.rank[0]:
        raise ValueError("a number was expected")
    return FailedEntry(place, layout.text(ended), layout.content(told) or b"", layout.content(head) or b"")
