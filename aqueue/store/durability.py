"""Enqueues that are confirmed: written to the disk, or known to a replica, before the caller goes on.

Confirmations are asked for on a connection apart, since they stop it until they are there. One confirmation serves a
whole batch: whoever comes meanwhile leaves together with all others once the batch before is through.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from aqueue.errors import ConfigurationError, DurabilityError
from aqueue.job import JobId
from aqueue.store import layout
from aqueue.store.records import NewJob
from aqueue.store.scripts import Arg, load

if TYPE_CHECKING:
    from aqueue.store.client import Client

CONFIRM_SECONDS: Final = 5.0
"""A disk that is flushed every second answers within one or two; a replica within milliseconds."""
BATCH_JOBS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
"""One confirmation costs up to a second, so a batch is larger than one that only saves round trips."""

COUNTER: Final = "confirmed"
"""Raised with each batch. On newer servers a confirmation covers what this very connection has written; an enqueue that
is sent again, or finds its key taken, writes nothing, and would be confirmed although the first is not safe yet."""


class Stored(NamedTuple):
    """The id that stands for a job, and why its durability was not confirmed, if so."""

    stands: JobId
    complaint: str | None


Send: TypeAlias = Callable[[Sequence[NewJob]], Awaitable[list[Stored]]]


class Durability:
    """The confirmed enqueues of one queue."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._groups: WeakKeyDictionary[asyncio.AbstractEventLoop, GroupCommit] = WeakKeyDictionary()

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[JobId]:
        """Store up to 500 jobs in one step, and return once they are as safe as each of them asks.

        Errors: as Client.enqueue; DurabilityError for jobs that are stored and not confirmed.
        """
        if len(jobs) > BATCH_JOBS:
            raise ConfigurationError(f"{len(jobs)} jobs are too many for one call; send at most {BATCH_JOBS} at once.")
        stored = await self._send(jobs) if len(jobs) > 1 else [await self._group().enqueue(jobs[0])]
        unconfirmed = [one for one in stored if one.complaint is not None]
        if unconfirmed:
            raise DurabilityError([one.stands for one in unconfirmed], str(unconfirmed[0].complaint))
        return [one.stands for one in stored]

    def _group(self) -> GroupCommit:
        return self._groups.setdefault(asyncio.get_running_loop(), GroupCommit(self._send))

    async def _send(self, jobs: Sequence[NewJob]) -> list[Stored]:
        client, keys = self._client, self._client.keys
        await client.register()
        script = load("enqueue")
        arguments = script.arguments(*client.enqueue_arguments(jobs))
        kinds = sorted({job.durable for job in jobs} - {"memory"})
        reply, _, *answers = await client.links.run_in_a_row(
            keys.queued,
            ("EVAL", script.text, *arguments),
            ("HINCRBY", keys.stats, COUNTER, len(jobs)),
            *(_question(kind) for kind in kinds),
            patience=len(kinds) * CONFIRM_SECONDS,
        )
        ids = layout.understood("enqueue", layout.as_many_ids(len(jobs)), reply)
        complaints = {kind: _complaint(kind, answer) for kind, answer in zip(kinds, answers, strict=True)}
        return [Stored(stands, complaints.get(job.durable)) for job, stands in zip(jobs, ids, strict=True)]


class GroupCommit:
    """Single enqueues of one event loop: one batch is on its way, the rest gathers and leaves together after it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[tuple[NewJob, asyncio.Future[Stored]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def enqueue(self, job: NewJob) -> Stored:
        """Store one job. Errors: as `send`, an error of its own for each caller."""
        stored: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, stored))
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._keep_sending(), name="aqueue durable enqueue")
        return await stored

    async def _keep_sending(self) -> None:
        batch: list[tuple[NewJob, asyncio.Future[Stored]]] = []
        try:
            while self._waiting:
                batch = self._next()
                await self._deliver(batch)
        finally:
            self._sending = None
            for _, stored in (*batch, *self._waiting):  # nobody is left there, unless the loop is being closed
                stored.cancel()

    def _next(self) -> list[tuple[NewJob, asyncio.Future[Stored]]]:
        size = count = 0
        for job, _ in self._waiting[:BATCH_JOBS]:
            size += len(job.envelope)
            if count and size > BATCH_BYTES:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _deliver(self, batch: list[tuple[NewJob, asyncio.Future[Stored]]]) -> None:
        try:
            answers = await self._send([job for job, _ in batch])
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the callers
            for _, stored in batch:
                if not stored.done():
                    own = copy.copy(error)
                    own.__cause__ = error.__cause__
                    stored.set_exception(own)
        else:
            for (_, stored), answer in zip(batch, answers, strict=True):
                if not stored.done():
                    stored.set_result(answer)


def _question(kind: str) -> tuple[Arg, ...]:
    wait_ms = round(CONFIRM_SECONDS * 1000)
    return ("WAITAOF", 1, 0, wait_ms) if kind == "disk" else ("WAIT", 1, wait_ms)


def _complaint(kind: str, answer: Any) -> str | None:
    """Say why a confirmation was not given."""
    if isinstance(answer, ResponseError):
        return _refusal(str(answer))
    if kind == "disk":
        late = f"the server did not write them to its disk within {CONFIRM_SECONDS:g} s; look at its disk"
        return None if int(answer[0]) >= 1 else late
    late = f"no replica had them within {CONFIRM_SECONDS:g} s; look at the replicas and their links"
    return None if int(answer) >= 1 else late


def _refusal(text: str) -> str:
    if "appendonly is disabled" in text:
        return "the server keeps no append-only file; set appendonly yes"
    if "unknown command" in text:
        return "the server has no WAITAOF; upgrade it to Redis 7.2 or Valkey 7.2"
    if "permission" in text:
        return f"this user may not ask for it ({text}); see `aqueue acl producer --durable`"
    return f"the server refused to say ({text})"
