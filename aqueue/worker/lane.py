"""One queue as one worker sees it: its turns, its parked fetch and the jobs it has running.

A turn is sent until it is answered, with the same number and the same content: only then is it known what was
settled and what was claimed. Until then the slots it asked for stay taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import RedisError, ResponseError

from aqueue.errors import StoreError
from aqueue.job import JobId, WorkerId
from aqueue.store.client import PARK_MARGIN_SECONDS, Client
from aqueue.store.link import Link
from aqueue.store.records import Beat, Lease, Outcome, Settle, Turn
from aqueue.worker.executor import Executor
from aqueue.worker.journal import Journal, Outage
from aqueue.worker.run import Reason, Run

log = logging.getLogger("aqueue.worker")

PARK_SECONDS: Final = 2.0
"""How long a parked fetch waits at the server. Bounds what a connection that died unnoticed can catch."""
PAUSED_LOOK_SECONDS: Final = 2.0
"""A resume is told at once; this is the net beneath it."""
PARK_DOUBT_SECONDS: Final = PARK_SECONDS + PARK_MARGIN_SECONDS
"""A parked fetch whose connection broke may catch a job until then, which only reclaim would find."""
PARK_FAILED_SECONDS: Final = 0.5
"""Without a parked fetch the queue is looked at this often."""
UNPARK_PAUSE_SECONDS: Final = 0.005
UNPARK_SECONDS: Final = 1.0
"""A parked fetch that was told to end has ended by then, or its connection is in trouble."""
SETTLES_PER_TURN: Final = 500
RECOVERY_PAUSE_SECONDS: Final = 0.1
MAX_RECOVERY_PAUSE_SECONDS: Final = 5.0


class Lane:
    """A queue, the store to it, and what this worker does there."""

    def __init__(
        self,
        client: Client,
        executor: Executor,
        worker: WorkerId,
        *,
        journal: Journal,
        start: Callable[[Lane, Sequence[Run]], None],
        wake: Callable[[], None],
    ) -> None:
        self.name = client.keys.queue
        self.client = client
        self.executor = executor
        self.worker = worker
        self.running: dict[JobId, Run] = {}
        """Until their settle is known to be stored; read by the heartbeat's thread."""
        self.answered = 0
        """The last turn whose answer was taken in; read by the heartbeat's thread, before `running`."""
        self.active = 0
        """Runs that go on, each of which takes a slot."""
        self.outage = Outage(client.links.route.label)
        self.outbox: list[Settle] = []
        self.has_more = True
        self.has_caught = False
        """A parked fetch may have left something in the inbox."""
        self.paused = False
        self.due_at: float | None = None
        self._journal = journal
        self._start = start
        self._wake = wake
        self._sent: tuple[list[Settle], int] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._park: asyncio.Task[None] | None = None
        self._park_link: Link | None = None
        self._park_id: int | None = None
        self._parking = False
        self._park_lost_at: float | None = None
        """When the connection of a parked fetch broke; the server may not know, and go on serving it."""

    # turns

    @property
    def reserved(self) -> int:
        """Slots that a turn without an answer may have filled."""
        return 0 if self._sent is None else self._sent[1]

    @property
    def turn_open(self) -> bool:
        return self._sent is not None

    @property
    def recovering(self) -> bool:
        return self._recovery is not None and not self._recovery.done()

    @property
    def parked(self) -> bool:
        return self._park is not None and not self._park.done()

    def _begin(self, lease: Lease) -> Run:
        run = self.running[lease.id] = Run(lease)
        self.active += 1
        return run

    def settle(self, run: Run, outcome: Outcome) -> None:
        """Note how a run ended; the next turn stores it."""
        run.ended = True
        self.active -= 1
        self.outbox.append(Settle(run.lease.id, run.lease.token, outcome))
        self._wake()

    def stop_runs(self, job_ids: Sequence[JobId], reason: Reason) -> None:
        """Tell these jobs to end, as far as they run here."""
        for job_id in job_ids:
            run = self.running.get(job_id)
            if run is not None:
                run.stop(reason)

    def look_again(self) -> None:
        """Take a turn, whatever the last one said."""
        self.has_more = True
        self._wake()

    async def take_turn(self, free: int) -> Turn | None:
        """Settle what has ended and claim up to `free` jobs; None while the server is away.

        Then the lane recovers by itself, and wakes the fetcher when it has.
        """
        if self._sent is None:
            batch, self.outbox = self.outbox[:SETTLES_PER_TURN], self.outbox[SETTLES_PER_TURN:]
            self._sent = batch, free
        batch, asked = self._sent
        # From here on: what a parked fetch catches while this turn is on its way may have come too late for it.
        self.has_more = self.has_caught = False
        try:
            turn = await self.client.settle_and_claim(self.worker, self.answered + 1, batch, asked)
        except StoreError as error:
            self.outage.lost(error)
            self._recovery = asyncio.get_running_loop().create_task(
                self._recover(), name=f"aqueue recovery {self.name}"
            )
            return None
        self.outage.back()
        self._sent = None
        self._note(turn, batch, asked)
        runs = [self._begin(lease) for lease in turn.leases]
        self.answered += 1  # last: all that the answer brought is in `running`, so the heartbeat may compare
        self._start(self, runs)
        return turn

    def _note(self, turn: Turn, batch: list[Settle], asked: int) -> None:
        for settle in batch:
            run = self.running.get(settle.id)
            if run is None or run.lease.token != settle.token:  # lost, and claimed again since
                continue
            del self.running[settle.id]
            if settle.id in turn.refused:
                self._journal.refused(self.name, run)
        self.has_more = self.has_more or turn.state == "MORE" or len(turn.leases) == asked
        self.paused = turn.state == "PAUSED"
        next_due = PAUSED_LOOK_SECONDS if self.paused else turn.next_due
        self.due_at = None if next_due is None else asyncio.get_running_loop().time() + next_due

    async def _recover(self) -> None:
        """Wait until the server answers at all; the fetcher then sends the open turn again."""
        pause = RECOVERY_PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load, guards nothing
            try:
                await self.client.plain("PING")
                break
            except StoreError as error:
                log.debug("queue %s: still away: %s", self.name, error)
                pause = min(pause * 2, MAX_RECOVERY_PAUSE_SECONDS)
        self.has_more = True
        self._wake()

    # parking

    def park(self) -> None:
        """Wait at the server for the next job; wakes the fetcher when the inbox has something."""
        if not self.parked:
            self._parking = True
            self._park = asyncio.get_running_loop().create_task(self._wait_parked(), name=f"aqueue park {self.name}")

    async def _wait_parked(self) -> None:
        try:
            link = await self._open_park_link()
            while self._parking:
                # Over before the lease is: what a stopped worker catches after its reclaim nobody would find.
                if await self.client.park(link, self.worker, min(PARK_SECONDS, self.client.settings.lease / 2)):
                    break
            else:
                return
        except (RedisError, OSError) as error:
            log.debug("queue %s: parked fetch ended: %s", self.name, error)
            if not isinstance(error, ResponseError):
                self._park_lost_at = asyncio.get_running_loop().time()
            await self._drop_park_link()
            await asyncio.sleep(PARK_FAILED_SECONDS)
        finally:
            self._parking = False
        self.has_more = self.has_caught = True
        self._wake()

    async def _open_park_link(self) -> Link:
        if self._park_link is None or not self._park_link.alive:
            self._park_link = await self.client.links.dedicated(self.client.keys.queued)
            self._park_id = int(await self._park_link.call("CLIENT", "ID"))
        return self._park_link

    async def _drop_park_link(self) -> None:
        link, self._park_link, self._park_id = self._park_link, None, None
        if link is not None:
            await link.close()

    async def unpark(self) -> None:
        """End the parked fetch without cancelling it: what it may have caught lies in the inbox, to be handed back."""
        if not self.parked:
            return
        self._parking = False
        self.has_more = True
        try:
            while self.parked and self._park_id is not None:
                if await self.client.plain("CLIENT", "UNBLOCK", self._park_id):
                    break
                await asyncio.sleep(UNPARK_PAUSE_SECONDS)  # its BLMOVE is still on the way, or its reply is
        except StoreError as error:
            log.debug("queue %s: the parked fetch ends by its own time-out: %s", self.name, error)

    # control

    def take_beat(self, beat: Beat) -> None:
        """Take in what the heartbeat has learned."""
        if beat.next_due is not None:
            due_at = asyncio.get_running_loop().time() + beat.next_due
            if self.due_at is None or due_at < self.due_at:
                self.due_at = due_at
                self._wake()
        if beat.caught:  # by a parked fetch whose answer may never come
            self.has_caught = True
            self.look_again()
        if beat.returned:
            log.warning(
                "queue %s: %d jobs whose claim got lost on the way were handed back", self.name, len(beat.returned)
            )

    async def close(self) -> bool:
        """End what goes on in the background; say whether the server is known to have ended every parked fetch."""
        ended = True
        if self._park is not None:
            _, still_parked = await asyncio.wait([self._park], timeout=UNPARK_SECONDS)
            ended = not still_parked
        for task in (self._recovery, self._park):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._drop_park_link()
        lost_at = self._park_lost_at
        return ended and (lost_at is None or lost_at + PARK_DOUBT_SECONDS < asyncio.get_running_loop().time())
