"""All queues of one server, as an operator asks about them. Nothing here knows a terminal."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import msgspec

from aqueue.errors import AqueueError
from aqueue.job import JobId, JobState
from aqueue.ops.reports import (
    JobDone,
    JobRow,
    Jobs,
    JobsDone,
    OneJob,
    QueuePaused,
    QueuePurged,
    QueueRow,
    QueuesPaused,
    QueuesPurged,
    ScheduleRow,
    Schedules,
    Stats,
    WorkerRow,
)
from aqueue.queue import Queue
from aqueue.settings import Settings
from aqueue.store.client import BATCH, Client
from aqueue.store.codec import WorkerInfo
from aqueue.store.failures import Again
from aqueue.store.misfits import misfits
from aqueue.store.records import QueueStats, WorkerStats

LISTED: Final = (JobState.RUNNING, JobState.QUEUED, JobState.SCHEDULED, JobState.FAILED)
"""The states whose jobs can be listed, the most pressing first."""
NAMES_SHOWN: Final = 20
"""Queue names in an error message; whoever has more knows what they are called."""


class NotFound(AqueueError):
    """What was asked for is not at this server."""


class Site:
    """The queues of one server."""

    def __init__(self, address: str, store: Client, queues: dict[str, Queue]) -> None:
        self.address = address
        self._store = store
        self._queues = queues

    @property
    def known(self) -> str:
        """The names of all queues, as a message shows them."""
        names = list(self._queues)
        more = len(names) - NAMES_SHOWN
        return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def chosen(self, names: Sequence[str]) -> list[Queue]:
        """Give the queues of these names, or all. Errors: NotFound."""
        for name in names:
            if name not in self._queues:
                has = f"it has {self.known}" if self._queues else "no queue was ever used there"
                raise NotFound(f"There is no queue {name!r} at {self.address}; {has}.")
        return [self._queues[name] for name in dict.fromkeys(names or self._queues)]

    async def now(self) -> datetime:
        """Ask what time it is at the server."""
        seconds, micros = await self._store.plain("TIME")
        return datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, UTC)

    # reading

    async def stats(self, names: Sequence[str]) -> Stats:
        """Count what the queues hold, and who serves them."""
        found = [await queue.stats() for queue in self.chosen(names)]
        return Stats(url=self.address, queues=[_queue_row(one) for one in found], workers=worker_rows(found))

    async def readable_stats(self) -> list[QueueStats]:
        """Count what every queue holds, as the store tells it; but for those that have keys of the wrong type."""
        stores = [queue.unchecked_store() for queue in self._queues.values()]
        return [await store.stats() for store in stores if not await misfits(store)]

    async def one_store_per_node(self) -> list[Client]:
        """Give one store for every server that has a queue, or for the one server where there is no queue yet."""
        stores = [queue.unchecked_store() for queue in self._queues.values()] or [self._store]
        return list({await store.links.route.node(store.keys.queued): store for store in reversed(stores)}.values())

    async def jobs(self, names: Sequence[str], state: str | None, limit: int, offset: int) -> Jobs:
        """Give up to `limit` jobs of each queue and state, from `offset` on in each. Errors: ConfigurationError."""
        rows: list[JobRow] = []
        more = False
        for queue in self.chosen(names):
            for one in LISTED if state is None else (state,):
                page = await _page(queue, one, limit + 1, offset)
                rows += page[:limit]
                more = more or len(page) > limit
        return Jobs(now=await self.now(), jobs=rows, more=more, next={})

    async def schedules(self, names: Sequence[str]) -> Schedules:
        """List what repeats, the next to come first."""
        rows = [ScheduleRow.of(info) for queue in self.chosen(names) for info in await queue.schedules.list()]
        latest = datetime.max.replace(tzinfo=UTC)
        return Schedules(now=await self.now(), schedules=sorted(rows, key=lambda row: row.next_at or latest))

    async def job(self, job_id: str) -> OneJob:
        """Read one job. Errors: NotFound; StoreError for a damaged record."""
        queue = (await self._locate([job_id]))[job_id]
        if queue is None:
            raise NotFound(self.missing(job_id))
        info = await queue.job_info(JobId(job_id))
        runs_on = None
        if info.state is JobState.RUNNING:
            workers = worker_rows([await queue.stats()])
            runs_on = next((f"{one.host}:{one.pid}" for one in workers if one.worker == info.worker), None)
        return OneJob(now=await self.now(), job=JobRow.of(info), runs_on=runs_on)

    def missing(self, job_id: str) -> str:
        """Say that nobody has a job, and why that may be."""
        where = f"on any queue at {self.address} ({self.known})" if self._queues else f"at {self.address}"
        return (
            f"There is no job {job_id} {where}: its result_ttl or failure_ttl has passed, it was deleted, "
            "or the id is cut short (log lines show only its end; `aqueue jobs` and --log-format json all of it)."
        )

    async def _locate(self, job_ids: Sequence[str]) -> dict[str, Queue | None]:
        """Find the queue of each job: an id does not say it, so every queue is asked once per batch."""
        found: dict[str, Queue | None] = dict.fromkeys(job_ids)
        for queue in self._queues.values():
            store = await queue.store()
            for batch in _batches([JobId(job_id) for job_id, seen in found.items() if seen is None]):
                for job_id, (record, _) in zip(batch, await store.inspect(batch), strict=True):
                    if record:
                        found[job_id] = queue
        return found

    # changing jobs

    async def retry(self, job_ids: Sequence[str], delay: float = 0) -> JobsDone:
        """Queue ended jobs again, with fresh counters, after so many seconds."""
        call, delay_ms = uuid.uuid4().hex, round(delay * 1000)

        async def again(store: Client, job_id: JobId) -> str:
            return (await store.failures.rerun([Again(job_id)], call, delay_ms))[0]

        return await self._each(job_ids, again)

    async def cancel(self, job_ids: Sequence[str]) -> JobsDone:
        """Cancel jobs wherever they are."""
        return await self._each(job_ids, lambda store, job_id: store.cancel(job_id))

    async def delete(self, job_ids: Sequence[str]) -> JobsDone:
        """Remove jobs that do not run."""
        return await self._each(job_ids, lambda store, job_id: store.delete(job_id))

    async def _each(self, job_ids: Sequence[str], do: Callable[[Client, JobId], Awaitable[str | None]]) -> JobsDone:
        done = []
        for job_id, queue in (await self._locate(job_ids)).items():
            word = None if queue is None else await do(await queue.store(), JobId(job_id))
            name = None if queue is None else queue.name
            done.append(JobDone(id=job_id, queue=name, done="missing" if word is None else str(word)))
        return JobsDone(jobs=done)

    # changing queues

    async def pause(self, names: Sequence[str], task: str | None = None, duration: str | None = None) -> QueuesPaused:
        """Let no further job start, for a time if one is given, or none of one task."""
        return QueuesPaused(
            queues=[
                QueuePaused(queue=one.name, task=task, paused=True, changed=await one.pause(task, duration=duration))
                for one in self.chosen(names)
            ]
        )

    async def resume(self, names: Sequence[str], task: str | None = None) -> QueuesPaused:
        """Let jobs start again, or those of one task."""
        return QueuesPaused(
            queues=[
                QueuePaused(queue=one.name, task=task, paused=False, changed=await one.resume(task))
                for one in self.chosen(names)
            ]
        )

    async def purge(self, names: Sequence[str], *, really: bool) -> QueuesPurged:
        """Delete all waiting jobs; unless `really`, only count them."""
        rows = []
        for queue in self.chosen(names):
            stats = await queue.stats()
            found = stats.queued + stats.scheduled
            deleted = await queue.purge() if really else 0
            rows.append(QueuePurged(queue=queue.name, what="waiting", found=found, deleted=deleted))
        return QueuesPurged(queues=rows)


@asynccontextmanager
async def open_site(url: str | None, *, prefix: str | None = None, unchecked: bool = False) -> AsyncGenerator[Site]:
    """Connect to where Redis is, and learn which queues were ever used there under a prefix.

    `unchecked` takes also a server that is not fit for jobs, for whoever wants to say so.
    Errors: StoreError, ConfigurationError.
    """
    settings = Settings() if prefix is None else Settings(prefix=prefix)
    probe = Queue("probe", url=url, settings=settings)  # never registered: it only asks
    queues: dict[str, Queue] = {}
    try:
        store = probe.unchecked_store() if unchecked else await probe.store()
        queues = {name: Queue(name, url=url, settings=settings) for name in await store.queue_names()}
        yield Site(probe.address, store, queues)
    finally:
        for queue in (*queues.values(), probe):
            await queue.close()


async def _page(queue: Queue, state: str, limit: int, offset: int) -> list[JobRow]:
    """Give up to `limit` jobs of a queue in one state, read in bounded steps.

    Ids of cancelled jobs stay in the queued list until a claim discards them, so that only a walk from its start
    can count what is really queued there.
    """
    start, skip = (0, offset) if state == JobState.QUEUED else (offset, 0)
    step = min(BATCH, limit)
    total: int = getattr(await queue.stats(), state, 0)
    rows: list[JobRow] = []
    while True:
        rows += [JobRow.of(info) for info in await queue.jobs(state, offset=start, limit=step)]
        start += step
        if start >= total or len(rows) >= skip + limit:
            return rows[skip : skip + limit]


def _batches(ids: Sequence[JobId]) -> list[Sequence[JobId]]:
    return [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]


def _queue_row(stats: QueueStats) -> QueueRow:
    return QueueRow(
        queue=stats.name,
        queued=stats.queued,
        held_back=stats.held_back,
        shelved=stats.shelved,
        scheduled=stats.scheduled,
        running=stats.running,
        failed=stats.failed,
        paused=stats.paused,
        paused_tasks={one.task: one.jobs for one in stats.shelves if one.paused_for is not None},
        oldest_s=stats.oldest,
        workers=sum(worker.lease_left > 0 for worker in stats.workers),
        counters=stats.counters,
    )


def worker_rows(found: Sequence[QueueStats]) -> list[WorkerRow]:
    """Merge what the queues say of each worker: a worker has one name on all of its queues."""
    seen: dict[str, list[tuple[str, WorkerStats]]] = {}
    for stats in found:
        for worker in stats.workers:
            seen.setdefault(worker.id, []).append((stats.name, worker))
    return sorted((_worker_row(one) for one in seen.values()), key=lambda row: (row.host, row.pid, row.worker))


def _worker_row(seen: list[tuple[str, WorkerStats]]) -> WorkerRow:
    first, said = seen[0][1], [_said(worker) for _, worker in seen]
    info = said[0]
    return WorkerRow(
        worker=first.id,
        host=info.host,
        pid=info.pid,
        version=info.version,
        queues=[name for name, _ in seen],
        running=sum(worker.running for _, worker in seen),
        concurrency=info.concurrency,
        lease_s=min(worker.lease_left for _, worker in seen),
        weights={name: one.weight for (name, _), one in zip(seen, said, strict=True) if one.weight is not None},
        caps={name: one.cap for (name, _), one in zip(seen, said, strict=True) if one.cap is not None},
    )


def _said(worker: WorkerStats) -> WorkerInfo:
    try:
        return msgspec.json.decode(worker.info, type=WorkerInfo)
    except msgspec.MsgspecError:  # between its first claim and its first beat a worker has said nothing
        return WorkerInfo("?", 0, 0, "?")
