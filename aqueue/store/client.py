"""One method per transition: the only way in which queues and workers speak to Redis.

Every method calls one script, whose header says what it touches. All of them may be sent twice, so a call whose
reply was lost is simply sent again. Nothing here knows user code.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

import msgspec

from aqueue.errors import ConfigurationError
from aqueue.job import Cancellation, JobId, JobState, LeaseToken, QueueName, WorkerId
from aqueue.settings import Settings, ttl_ms
from aqueue.store import layout
from aqueue.store.coalescing import Coalescer
from aqueue.store.connection import Links, Server
from aqueue.store.durability import Durability
from aqueue.store.failures import Again, FailureStore, Rerun
from aqueue.store.keys import Keys, is_name
from aqueue.store.link import Link
from aqueue.store.part import Caller
from aqueue.store.pausing import Pauses
from aqueue.store.records import (
    Beat,
    Ended,
    Gone,
    NewJob,
    QueueStats,
    ServerFacts,
    Settle,
    Turn,
)
from aqueue.store.repairs import Repairs
from aqueue.store.schedules import ScheduleStore
from aqueue.store.scripts import Arg, load
from aqueue.store.wire import Wire

T = TypeVar("T")

Deletion: TypeAlias = Literal["deleted", "running", "missing"]

BATCH: Final = 500
"""Items in one script call; a script of this size runs for about a millisecond."""

PRUNE_INTERVAL_MS: Final = 60_000
"""Failed records outlive their lifetime by at most this long."""


class Client(Caller):
    """The store of one queue."""

    def __init__(self, server: Server, queue: QueueName, settings: Settings, wire: Wire | None = None) -> None:
        self.keys = Keys(settings.prefix, queue)
        self.settings = settings
        self.wire = wire or Wire(queue)
        self._server = server
        self._registered = False
        self._turns: tuple[WorkerId, Sequence[str], Sequence[Arg]] | None = None
        """The keys, and the arguments that stay, of the last worker's turns; mostly there is one worker."""
        self._coalescers: WeakKeyDictionary[asyncio.AbstractEventLoop, Coalescer] = WeakKeyDictionary()

    @cached_property
    def schedules(self) -> ScheduleStore:
        """What the server knows of schedules."""
        return ScheduleStore(self)

    @cached_property
    def pauses(self) -> Pauses:
        """What may not start."""
        return Pauses(self)

    @cached_property
    def failures(self) -> FailureStore:
        """Failed jobs, to be looked through and dealt with."""
        return FailureStore(self)

    @cached_property
    def repairs(self) -> Repairs:
        """What a doctor may do."""
        return Repairs(self)

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
        named, argv, each, items = self.enqueue_arguments(jobs)
        return await self._run("enqueue", layout.as_many_ids(len(jobs)), named, argv, each=each, items=items)

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
        word = await self._run("cancel", layout.one_of("missing", *Cancellation), *self._wherever_it_waits(job_id))
        return None if word == "missing" else Cancellation(word)

    async def expire(self, job_id: JobId) -> bool:
        """End a job whose ttl has passed before a start; return whether it has expired, now or before."""
        return bool(await self._run("expire", layout.integer, *self._wherever_it_waits(job_id)))

    def _wherever_it_waits(self, job_id: JobId) -> tuple[list[str], list[Arg]]:
        keys = self.keys
        places = [keys.queued, keys.scheduled, keys.ranked, keys.held_back]
        named = [*places, keys.job(job_id), keys.payload(job_id), keys.stats]
        return named, [keys.base, job_id, ttl_ms(self.settings.result_ttl)]

    async def ended(self, job_ids: Sequence[JobId], channel: str) -> list[Ended]:
        """Read how jobs ended, and ask that the end of the others be told on `channel`. Source: lua/await.lua."""
        each = [self.keys.job(job_id) for job_id in job_ids]
        read = layout.each(layout.ended, len(job_ids))
        return await self._run("await", read, [], [channel], each=each, items=job_ids)

    async def rerun(self, job_id: JobId, call: str | None = None) -> Rerun:
        """Queue an ended job again, with fresh counters; once for each `call`, which is made up unless given."""
        (word,) = await self.failures.rerun([Again(job_id)], call or uuid.uuid4().hex)
        return word

    async def delete(self, job_id: JobId) -> Deletion:
        """Remove a job that is not running, with all that is stored of it."""
        keys = self.keys
        word = await self._run(
            "delete",
            layout.one_of(*get_args(Deletion)),
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
        return cast("Deletion", word)

    async def purge(self) -> tuple[int, bool]:
        """Delete up to a batch of waiting jobs; return how many, and whether some remain."""
        keys = self.keys
        count, remain = await self._run(
            "purge",
            layout.each(layout.integer, 2),
            [*keys.places, keys.shelves, keys.scheduled],
            [keys.base, BATCH],
        )
        return count, bool(remain)

    # workers

    async def settle_and_claim(self, worker: WorkerId, turn: int, settles: Sequence[Settle], free: int) -> Turn:
        """Store how runs have ended, then lease up to `free` waiting jobs.

        Shape:  0..free leases: inbox first, then oldest first; the ids whose lease was lost.
        Units:  stored instants are server milliseconds.
        Errors: StoreUnavailable, after which the same turn must be sent again: it is then answered as the first.
        Source: lua/settle_and_claim.lua; settling and claiming in one call after BullMQ, in batches after River.
        """
        fields = [field for settle in settles for field in layout.settle_fields(settle, self.wire.encode_error)]
        read = partial(layout.turn, token=LeaseToken(f"{worker}/{turn}"))
        return await self._run("settle_and_claim", read, *self._turn_arguments(worker, turn, free), items=fields)

    def _turn_arguments(self, worker: WorkerId, turn: int, free: int) -> tuple[Sequence[str], list[Arg]]:
        keys, settings = self.keys, self.settings
        if self._turns is None or self._turns[0] != worker:
            self._turns = worker, (
                *keys.places, keys.timers, keys.scheduled, keys.inbox(worker), keys.held(worker), keys.worker(worker),
                keys.workers, keys.failed, keys.paused, keys.shelves, keys.stats,
            ), (
                round(settings.lease * 1000), settings.crash_limit, ttl_ms(settings.result_ttl), settings.failure_cap,
            )  # fmt: skip
        _, named, constants = self._turns
        return named, [keys.base, worker, turn, free, *constants]

    async def extend(self, worker: WorkerId, turn: int, running: Sequence[JobId], info: str) -> Beat:
        """Renew the worker's lease and compare what it runs with what it holds.

        `turn` is the last turn whose answer has been taken in: what was claimed up to then and is not running was
        lost on the way, and goes back to the queue. Source: lua/extend.lua.
        """
        keys = self.keys
        return await self._run(
            "extend",
            layout.beat,
            [
                *keys.places, keys.timers, keys.scheduled, keys.inbox(worker),
                keys.held(worker),
                keys.worker(worker), keys.workers, keys.changed, keys.stats,
            ],
            [keys.base, worker, turn, round(self.settings.lease * 1000), info, ttl_ms(self.settings.result_ttl)],
            items=running,
        )  # fmt: skip

    async def retire(self, worker: WorkerId) -> list[JobId]:
        """Take the worker out of the fleet; what it still holds goes back to the front, uncounted."""
        keys = self.keys
        return await self._run(
            "retire",
            layout.ids,
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

    async def promote(self) -> int:
        """Queue up to a batch of due jobs; return how many."""
        keys = self.keys
        named = [keys.queued, keys.ranked, keys.held_back, keys.timers, keys.scheduled]
        return await self._run("promote", layout.integer, named, [keys.base, BATCH])

    async def reclaim(self) -> tuple[list[Gone], bool]:
        """Take back what dead workers held; return who they were, and whether some remain."""
        keys, settings = self.keys, self.settings
        gone, remain = await self._run(
            "reclaim",
            layout.reclaimed,
            [*keys.places, keys.workers, keys.failed, keys.stats],
            [
                keys.base, BATCH, settings.crash_limit, ttl_ms(settings.result_ttl), ttl_ms(settings.failure_ttl),
                settings.failure_cap,
            ],
        )  # fmt: skip
        return [msgspec.structs.replace(one, silent_for=one.silent_for + settings.lease) for one in gone], remain

    async def prune(self) -> int:
        """Forget up to a batch of failed jobs past their lifetime; -1 when another worker did so lately."""
        keys = self.keys
        return await self._run(
            "prune", layout.integer, [keys.failed, keys.pruned], [keys.base, BATCH, PRUNE_INTERVAL_MS]
        )

    async def id_of(self, link: Link) -> int:
        """Ask under which number the server knows a connection. Errors: those of redis-py, StoreError."""
        return layout.understood("CLIENT ID", layout.integer, await link.call("CLIENT", "ID"))

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
        read = partial(layout.turn, token=LeaseToken(f"{worker}/{turn}"))
        return layout.understood("a parked turn", read, reply)

    def _blmove(self, worker: WorkerId, seconds: float) -> tuple[Arg, ...]:
        return "BLMOVE", self.keys.queued, self.keys.inbox(worker), "RIGHT", "LEFT", f"{seconds:.3f}"

    # reading

    async def stats(self) -> QueueStats:
        """Count what the queue holds."""
        keys = self.keys
        return await self._run(
            "stats",
            layout.queue_stats(keys.queue),
            [
                *keys.places,
                keys.scheduled,
                keys.failed,
                keys.workers,
                keys.paused,
                keys.shelves,
                keys.stats,
            ],
            [keys.base],
        )

    async def list_ids(self, state: JobState, offset: int, limit: int) -> list[JobId]:
        """Give a page of ids of scheduled, queued, running or failed jobs."""
        keys = self.keys
        return await self._run(
            "list",
            layout.ids,
            [*keys.places, keys.shelves, keys.scheduled, keys.failed, keys.workers],
            [keys.base, state.value, offset, limit],
        )

    async def inspect(self, job_ids: Sequence[JobId]) -> list[tuple[Mapping[str, bytes], bytes | None]]:
        """Read whole records and envelopes; a missing job has an empty record."""
        each = [key for job_id in job_ids for key in (self.keys.job(job_id), self.keys.payload(job_id))]
        read = layout.each(layout.inspected, len(job_ids))
        return list[tuple[Mapping[str, bytes], bytes | None]](
            await self._run("inspect", read, [], each=each, items=job_ids)
        )

    # the server

    async def queue_names(self) -> list[QueueName]:
        """List the queues that were ever used at this server under this prefix."""
        names = layout.understood("SMEMBERS", layout.names, await self.plain("SMEMBERS", self.keys.registry))
        return sorted(QueueName(name) for name in names if is_name(name))

    async def facts(self) -> ServerFacts:
        """Ask the server what it is and whether it may lose jobs."""
        return layout.understood("INFO", layout.server_facts, await self.plain("INFO"))

    async def plain(self, command: str, *args: Arg) -> Any:
        """Send one idempotent command that is no transition. Errors: StoreUnavailable, StoreError."""
        return await self.links.send(
            args[0] if args and isinstance(args[0], str) else self.keys.queued, (command, *args)
        )


PARK_MARGIN_SECONDS: Final = 3.0
"""A server that lets a parked fetch wait longer than asked, and this, is taken for lost."""
