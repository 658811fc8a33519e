"""Failed jobs of all queues of one server, as an operator asks about them. Nothing here knows a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from aqueue.failed import FailedFilter
from aqueue.ops.reports import JobRow, Jobs, QueuePurged, QueueRetried, QueuesPurged, QueuesRetried
from aqueue.ops.site import Site
from aqueue.store.client import BATCH

Watch: TypeAlias = Callable[[str, int, int], None]
"""Is told of a queue how many of its failed jobs have been looked at, and how many there are."""


async def list_failed(site: Site, names: Sequence[str], limit: int, after: str | None, chosen: FailedFilter) -> Jobs:
    """Give up to `limit` failed jobs of each queue, latest first. Errors: NotFound, and as FailedJobs.list."""
    rows: list[JobRow] = []
    more: dict[str, str] = {}
    for queue in site.chosen(names):
        place, left = after, limit
        while left > 0:
            page = await queue.failed.list(limit=min(left, BATCH), after=place, **chosen)
            rows += [JobRow.of(info) for info in page.jobs]
            place, left = page.next, left - len(page.jobs)
            if place is None:
                break
        if place is not None:
            more[queue.name] = place
    return Jobs(now=await site.now(), jobs=rows, more=bool(more), next=more)


async def retry_failed(
    site: Site, names: Sequence[str], delay: float, watch: Watch, chosen: FailedFilter
) -> QueuesRetried:
    """Queue failed jobs again, those that failed first first. Errors: NotFound, and as FailedJobs.list."""
    rows = []
    for queue in site.chosen(names):
        found = await queue.failed.count(**chosen)
        retried = await queue.failed.rerun_all(delay=delay, progress=_of(watch, queue.name), **chosen)
        rows.append(QueueRetried(queue=queue.name, retried=retried, skipped=max(0, found - retried)))
    return QueuesRetried(queues=rows, delay_s=delay)


async def purge_failed(
    site: Site, names: Sequence[str], watch: Watch, chosen: FailedFilter, *, really: bool
) -> QueuesPurged:
    """Delete failed jobs; unless `really`, only count them. Errors: NotFound, and as FailedJobs.list."""
    rows = []
    for queue in site.chosen(names):
        found = await queue.failed.count(**chosen)
        deleted = await queue.failed.purge(progress=_of(watch, queue.name), **chosen) if really else 0
        rows.append(QueuePurged(queue=queue.name, what="failed", found=found, deleted=deleted))
    return QueuesPurged(queues=rows)


def _of(watch: Watch, name: str) -> Callable[[int, int], None]:
    return lambda looked, listed: watch(name, looked, listed)
