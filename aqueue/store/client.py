"""One method per transition: the only way in which queues and workers speak to Redis.

Every method calls one script, whose header says what it touches. All of them may be sent twice, so a call whose
reply was lost is simply sent again. Nothing here knows user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, cast
from weakref import WeakKeyDictionary

from aqueue.errors import ConfigurationError, StoreFull
from aqueue.job import Cancellation, JobId, JobState, LeaseToken, QueueName, WorkerId
from aqueue.settings import FOREVER, Settings
from aqueue.store import layout
from aqueue.store.coalescing import Coalescer
from aqueue.store.connection import Links, Server
from aqueue.store.durability import Durability
from aqueue.store.keys import Keys
from aqueue.store.link import Link
from aqueue.store.records import (
    Beat,
    Ended,
    Fault,
    Gone,
    NewJob,
    QueueStats,
    ServerFacts,
    Settle,
    Symptom,
    Turn,
    WorkerStats,
)
from aqueue.store.schedules import ScheduleStore
from aqueue.store.scripts import Arg, load

Rerun: TypeAlias = Literal["queued", "unfinished", "gone", "missing"]
Deletion: TypeAlias = Literal["deleted", "running", "missing"]

BATCH: Final = 500
"""Items in one script call; a script of this size runs for about a millisecond."""

PRUNE_INTERVAL_MS: Final = 60_000
"""Failed records outlive their lifetime by at most this long."""


def ttl_ms(seconds: float) -> int:
    """Turn a lifetime into the wire's form: milliseconds, or -1 for ever."""
    return -1 if seconds == FOREVER else round(seconds * 1000)


class Client:
    """The store of one queue."""

    def __init__(self, server: Server, queue: QueueName, settings: Settings) -> None:
        self.keys = Keys(settings.prefix, queue)
        self.settings = settings
        self._server = server
        self._registered = False
        self._coalescers: WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer] = WeakKeyDictionary()

    @cached_property
    def schedules(self) -> ScheduleStore:
        """What the server knows of schedules."""
        return ScheduleStore(self)

    @cached_property
    def durability(self) -> Durability:
        """The way of jobs that are to be confirmed."""
        return Durability(self)

    @property
    def links(self) -> Links:
        """The connections of the running event loop."""
        return self._server.links(self)

    async def close(self) -> None:
        """Give back the running loop's connections; the next call opens new ones."""
        await self._server.release(self)

    async def _run(
        self,
        name: str,
        keys: Sequence[str],
        argv: Sequence[Arg] = (),
        each: Iterable[str] = (),
        items: Iterable[Arg] = (),
    ) -> Any:
        script = load(name)
        return await self.links.run(self.keys.queued, script, script.arguments(keys, argv, each, items))

    # producers

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[JobId]:
        """Store up to 500 jobs in one step.

        Shape:  for each job the id that stands for it: its own, or that of the unfinished job with its key.
        Errors: StoreFull with nothing stored; StoreUnavailable when nobody can know, where the same ids may be
                sent again.
        Source: lua/enqueue.lua; ids made by the client, so that sending twice stores once.
        """
        if len(jobs) > BATCH:
            raise ConfigurationError(f"{len(jobs)} jobs are too many for one call; send at most {BATCH} at once.")
        if not self._registered:
            await self.register()
        return layout.ids(await self._run("enqueue", *self.enqueue_arguments(jobs)))

    def enqueue_arguments(self, jobs: Sequence[NewJob]) -> tuple[list[str], list[Arg], list[str], list[Arg]]:
        """Give keys and arguments of the script that stores jobs, for those who send it in company, too."""
        keys, each, items = self.keys, list[str](), list[Arg]()
        for job in jobs:
            each.append(keys.job(job.id))
            items += job.id, job.envelope, layout.wishes(job)
        return [keys.queued, keys.ranked, keys.scheduled], [keys.base], each, items

    async def enqueue_one(self, job: NewJob) -> JobId:
        """Store one job together with those that this turn of the event loop brings; else as `enqueue`."""
        loop = asyncio.get_running_loop()
        coalescer = self._coalescers.get(loop)
        if coalescer is None:
            coalescer = self._coalescers[loop] = Coalescer(self.enqueue)
        return await coalescer.enqueue(job)

    async def register(self) -> None:
        """Put the queue's name where tools find it; outside the queue's slot, so apart and idempotent."""
        if not self._registered:
            await self.plain("SADD", self.keys.registry, self.keys.queue)
            self._registered = True

    async def cancel(self, job_id: JobId) -> Cancellation | None:
        """End a waiting job, or tell the worker that runs it; None where no such job exists."""
        keys = self.keys
        reply = await self._run(
            "cancel",
            [
                keys.queued,
                keys.scheduled,
                keys.ranked,
                keys.held_back,
                keys.job(job_id),
                keys.payload(job_id),
                keys.stats,
            ],
            [keys.base, job_id, ttl_ms(self.settings.result_ttl)],
        )
        return None if reply == b"missing" else Cancellation(reply.decode())

    async def ended(self, job_ids: Sequence[JobId], channel: str) -> list[Ended]:
        """Read how jobs ended, and ask that the end of the others be told on `channel`. Source: lua/await.lua."""
        each = [self.keys.job(job_id) for job_id in job_ids]
        reply = await self._run("await", [], [channel], each, job_ids)
        return [layout.ended(*answer) for answer in reply]

    async def rerun(self, job_id: JobId, call: str | None = None) -> Rerun:
        """Queue an ended job again, with fresh counters; once for each `call`, which is made up unless given."""
        keys = self.keys
        reply = await self._run(
            "rerun",
            [keys.queued, keys.ranked, keys.failed, keys.job(job_id), keys.payload(job_id), keys.stats],
            [job_id, call or uuid.uuid4().hex],
        )
        return cast("Rerun", reply.decode())

    async def delete(self, job_id: JobId) -> Deletion:
        """Remove a job that is not running, with all that is stored of it."""
        keys = self.keys
        reply = await self._run(
            "delete",
            [
                keys.queued,
                keys.scheduled,
                keys.ranked,
                keys.held_back,
                keys.failed,
                keys.job(job_id),
                keys.payload(job_id),
            ],
            [keys.base, job_id],
        )
        return cast("Deletion", reply.decode())

    async def purge(self, what: Literal["waiting", "failed"]) -> tuple[int, bool]:
        """Delete up to a batch of jobs; return how many, and whether some remain."""
        keys = self.keys
        count, remain = await self._run(
            "purge",
            [keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.scheduled, keys.failed],
            [keys.base, what, BATCH],
        )
        return count, bool(remain)

    async def pause(self) -> bool:
        """Let no further job start; return whether that is a change."""
        with contextlib.suppress(StoreFull):  # a full server must still be pausable
            await self.register()
        return bool(await self._run("pause", [self.keys.paused]))

    async def resume(self) -> bool:
        """Let jobs start again; return whether that is a change."""
        return bool(await self._run("resume", [self.keys.paused, self.keys.workers], [self.keys.base]))

    # workers

    async def settle_and_claim(self, worker: WorkerId, turn: int, settles: Sequence[Settle], free: int) -> Turn:
        """Store how runs have ended, then lease up to `free` waiting jobs.

        Shape:  0..free leases: inbox first, then oldest first; the ids whose lease was lost.
        Units:  stored instants are server milliseconds.
        Errors: StoreUnavailable, after which the same turn must be sent again: it is then answered as the first.
        Source: lua/settle_and_claim.lua; settling and claiming in one call after BullMQ, in batches after River.
        """
        reply = await self._run("settle_and_claim", *self._turn_arguments(worker, turn, free), items=[
            field for settle in settles for field in layout.settle_fields(settle)
        ])  # fmt: skip
        return layout.turn(reply, LeaseToken(f"{worker}/{turn}"))

    def _turn_arguments(self, worker: WorkerId, turn: int, free: int) -> tuple[list[str], list[Arg]]:
        keys, settings = self.keys, self.settings
        return [
            keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.timers, keys.scheduled, keys.inbox(worker),
            keys.held(worker), keys.worker(worker), keys.workers, keys.failed, keys.paused, keys.stats,
        ], [
            keys.base, worker, turn, free, round(settings.lease * 1000), settings.crash_limit,
            ttl_ms(settings.result_ttl), settings.failure_cap,
        ]  # fmt: skip

    async def extend(self, worker: WorkerId, turn: int, running: Sequence[JobId], info: str) -> Beat:
        """Renew the worker's lease and compare what it runs with what it holds.

        `turn` is the last turn whose answer has been taken in: what was claimed up to then and is not running was
        lost on the way, and goes back to the queue. Source: lua/extend.lua.
        """
        keys = self.keys
        lost, cancelled, returned, next_reclaim, next_due, caught = await self._run(
            "extend",
            [
                keys.queued,
                keys.suspects,
                keys.ranked,
                keys.held_back,
                keys.timers,
                keys.scheduled,
                keys.inbox(worker),
                keys.held(worker),
                keys.worker(worker),
                keys.workers,
                keys.stats,
            ],
            [keys.base, worker, turn, round(self.settings.lease * 1000), info, ttl_ms(self.settings.result_ttl)],
            items=running,
        )
        return Beat(
            layout.ids(lost),
            layout.ids(cancelled),
            layout.ids(returned),
            layout.seconds(next_reclaim),
            layout.seconds(next_due),
            caught,
        )

    async def retire(self, worker: WorkerId) -> list[JobId]:
        """Take the worker out of the fleet; what it still holds goes back to the front, uncounted."""
        keys = self.keys
        return layout.ids(
            await self._run(
                "retire",
                [
                    keys.queued,
                    keys.ranked,
                    keys.held_back,
                    keys.inbox(worker),
                    keys.held(worker),
                    keys.worker(worker),
                    keys.workers,
                    keys.stats,
                ],
                [keys.base, worker, ttl_ms(self.settings.result_ttl)],
            )
        )

    async def promote(self) -> int:
        """Queue up to a batch of due jobs; return how many."""
        keys = self.keys
        named = [keys.queued, keys.ranked, keys.held_back, keys.timers, keys.scheduled]
        return int(await self._run("promote", named, [keys.base, BATCH]))

    async def reclaim(self) -> tuple[list[Gone], bool]:
        """Take back what dead workers held; return who they were, and whether some remain."""
        keys, settings = self.keys, self.settings
        gone, remain = await self._run(
            "reclaim",
            [keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.workers, keys.failed, keys.stats],
            [
                keys.base, BATCH, settings.crash_limit, ttl_ms(settings.result_ttl), ttl_ms(settings.failure_ttl),
                settings.failure_cap,
            ],
        )  # fmt: skip
        return [
            Gone(
                WorkerId(name.decode()),
                info.decode(),
                layout.ids(requeued),
                layout.ids(failed),
                late_ms / 1000 + settings.lease,
            )
            for name, info, requeued, failed, late_ms in gone
        ], bool(remain)

    async def prune(self) -> int:
        """Forget up to a batch of failed jobs past their lifetime; -1 when another worker did so lately."""
        keys = self.keys
        return int(await self._run("prune", [keys.failed, keys.pruned], [keys.base, BATCH, PRUNE_INTERVAL_MS]))

    async def park(self, link: Link, worker: WorkerId, seconds: float) -> bool:
        """Wait until something appears in the queued list, and take it into the worker's inbox.

        Never sent again: what it caught lies in the inbox, whether or not the reply arrives.
        Units:  `seconds` of waiting at the server.
        Errors: those of redis-py.
        """
        blmove = self._blmove(worker, seconds)
        return await link.call(*blmove, timeout=seconds + PARK_MARGIN_SECONDS) is not None

    async def park_with_turn(self, link: Link, worker: WorkerId, seconds: float, turn: int, free: int) -> Turn:
        """Wait as `park` does, and take a turn with nothing to settle right behind it, without a round trip in between.

        Errors: those of redis-py; the turn may or may not have been taken, and must be sent again until it is answered.
        """
        script = load("settle_and_claim")
        arguments = script.arguments(*self._turn_arguments(worker, turn, free))
        _, reply = await link.call_in_a_row(
            self._blmove(worker, seconds),
            ("EVALSHA", script.sha, *arguments),
            timeout=seconds + PARK_MARGIN_SECONDS,
        )
        if isinstance(reply, Exception):
            raise reply
        return layout.turn(reply, LeaseToken(f"{worker}/{turn}"))

    def _blmove(self, worker: WorkerId, seconds: float) -> tuple[Arg, ...]:
        return "BLMOVE", self.keys.queued, self.keys.inbox(worker), "RIGHT", "LEFT", f"{seconds:.3f}"

    # reading

    async def stats(self) -> QueueStats:
        """Count what the queue holds."""
        keys = self.keys
        (queued, scheduled, running, failed, held_back), paused, oldest, counters, workers = await self._run(
            "stats",
            [
                keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.scheduled, keys.failed, keys.workers,
                keys.paused, keys.stats,
            ],
            [keys.base],
        )  # fmt: skip
        return QueueStats(
            name=keys.queue,
            queued=queued,
            scheduled=scheduled,
            running=running,
            failed=failed,
            held_back=held_back,
            paused=bool(paused),
            oldest=layout.seconds(oldest),
            counters={name: int(value) for name, value in layout.pairs(counters).items()},
            workers=[
                WorkerStats(WorkerId(name.decode()), info.decode(), count, left_ms / 1000)
                for name, info, count, left_ms in workers
            ],
        )

    async def list_ids(self, state: JobState, offset: int, limit: int) -> list[JobId]:
        """Give a page of ids of scheduled, queued, running or failed jobs."""
        keys = self.keys
        return layout.ids(
            await self._run(
                "list",
                [keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.scheduled, keys.failed, keys.workers],
                [keys.base, state.value, offset, limit],
            )
        )

    async def inspect(self, job_ids: Sequence[JobId]) -> list[tuple[Mapping[str, bytes], bytes | None]]:
        """Read whole records and envelopes; a missing job has an empty record."""
        each = [key for job_id in job_ids for key in (self.keys.job(job_id), self.keys.payload(job_id))]
        reply = await self._run("inspect", [], [], each, job_ids)
        return [(layout.pairs(record), envelope) for record, envelope in reply]

    # repairing

    async def examine(self, job_ids: Sequence[JobId], look: int) -> list[Symptom]:
        """Tell what is wrong with each job, which for most is nothing; see `Fault` and lua/include/diagnosis.lua.

        `look` is how far into the lists a queued job is looked for; with 0 every queued one counts as found nowhere.
        """
        keys = self.keys
        reply = await self._run(
            "examine",
            [keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.scheduled, keys.failed, keys.workers],
            [keys.base, look],
            [key for job_id in job_ids for key in (keys.job(job_id), keys.payload(job_id))],
            job_ids,
        )
        return [layout.symptom(*answer) for answer in reply]

    async def mend(self, found: Sequence[tuple[JobId, Fault]], look: int) -> list[JobId]:
        """Put jobs where they belong that still have the fault that was found; return which those were."""
        keys, settings = self.keys, self.settings
        return layout.ids(
            await self._run(
                "mend",
                [
                    keys.queued, keys.suspects, keys.ranked, keys.held_back, keys.scheduled, keys.failed, keys.workers,
                    keys.stats,
                ],
                [
                    keys.base, look, round(settings.lease * 1000), ttl_ms(settings.result_ttl),
                    ttl_ms(settings.failure_ttl), settings.failure_cap,
                ],
                [key for job_id, _ in found for key in (keys.job(job_id), keys.payload(job_id))],
                [word for job_id, fault in found for word in (job_id, fault.value)],
            )
        )  # fmt: skip

    async def readmit(self, workers: Sequence[WorkerId]) -> list[WorkerId]:
        """Give forgotten workers one more lease, so that what they hold is reclaimed; return which those were."""
        keys = self.keys
        each = [key for name in workers for key in (keys.worker(name), keys.inbox(name), keys.held(name))]
        reply = await self._run("readmit", [keys.workers], [round(self.settings.lease * 1000)], each, workers)
        return [WorkerId(name.decode()) for name in reply]

    async def queue_names(self) -> list[QueueName]:
        """List the queues that were ever used at this server under this prefix."""
        return sorted(QueueName(name.decode()) for name in await self.plain("SMEMBERS", self.keys.registry))

    async def facts(self) -> ServerFacts:
        """Ask the server what it is and whether it may lose jobs."""
        text = await self.plain("INFO")
        info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        valkey = info.get("valkey_version")
        version = valkey or info.get("redis_version", "0")
        return ServerFacts(
            "valkey" if valkey else "redis",
            tuple(int(part) for part in version.split(".") if part.isdigit()),
            info.get("maxmemory_policy", "unknown"),
            info.get("aof_enabled") == "1",
            info.get("used_memory_human", "?"),
        )

    async def plain(self, command: str, *args: Arg) -> Any:
        """Send one idempotent command that is no transition. Errors: StoreUnavailable, StoreError."""
        return await self.links.send(
            args[0] if args and isinstance(args[0], str) else self.keys.queued, (command, *args)
        )


PARK_MARGIN_SECONDS: Final = 3.0
"""A server that lets a parked fetch wait longer than asked, and this, is taken for lost."""
