"""One queue as one worker sees it: its turns, its parked fetch and the jobs it has running.

A turn is sent until it is answered, with the same number and the same content: only then is it known what was
settled and what was claimed. Until then the slots it asked for stay taken; unless its server does not answer for long,
while other queues, on other servers, have work for them. What such a turn brings beyond the free slots goes back.

A lane on which nothing runs parks with its next turn: the turn travels behind the parked fetch and is taken by the
server the moment a job comes, so that an idle worker starts it without another round trip. Where jobs run, a turn
is needed whenever one ends, so the fetch is parked alone and what it catches is claimed by the turn after it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from aqueue.errors import StoreError
from aqueue.job import JobId, WorkerId
from aqueue.store.client import Client
from aqueue.store.link import Link
from aqueue.store.records import Beat, Lease, Outcome, Released, Settle, Turn
from aqueue.worker.executor import Executor
from aqueue.worker.journal import Journal, Outage
from aqueue.worker.parking import Parking
from aqueue.worker.run import Reason, Run

log = logging.getLogger("aqueue.worker")

PAUSED_LOOK_SECONDS: Final = 2.0
"""A resume is told at once; this is the net beneath it."""
LASTING_MEMORY: Final = 0.98
"""From turn to turn; so many jobs that end at once do not make the next turns large, and stay together for ever."""
DUE_SOON_SECONDS: Final = 0.02
"""A turn that is needed so soon is not worth parking."""
SETTLES_PER_TURN: Final = 500
LATE_SECONDS: Final = 0.25
"""A turn that is not answered by then goes on by itself: other queues may be on servers that are in no trouble."""
DOUBT_SECONDS: Final = 1.0
"""Slots that a turn has asked for are kept no longer for its answer, where other queues could use them."""
RECOVERY_PAUSE_SECONDS: Final = 0.1
MAX_RECOVERY_PAUSE_SECONDS: Final = 2.0
"""With its jitter of one half, jobs run again at most three seconds after the server does, however long it was away."""


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
        cap: int | None = None,
        info: str = "",
    ) -> None:
        self.name = client.keys.queue
        self.client = client
        self.executor = executor
        self.worker = worker
        self.info = info
        """What the worker says of itself on this queue."""
        self._cap = cap
        self.running: dict[JobId, Run] = {}
        """Until their settle is known to be stored; read by the heartbeat's thread."""
        self.answered = 0
        """The last turn whose answer was taken in; read by the heartbeat's thread, before `running`."""
        self.active = 0
        """Runs that go on, each of which takes a slot."""
        self.lasting = 0.0
        """Of these, the ones that go on while turns are answered: at the most, of late."""
        self.claimed = 0
        """Jobs so far."""
        self.outage = Outage(client.links.route.label)
        self.outbox: list[Settle] = []
        self.has_more = True
        self.has_caught = False
        """A parked fetch may have left something in the inbox."""
        self.paused = False
        self.due_at: float | None = None
        self.news = asyncio.Event()
        """Somebody has changed a schedule; read by the timetable."""
        self._change = ""
        self._journal = journal
        self._start = start
        self._wake = wake
        self._sent: tuple[list[Settle], int] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._pause = RECOVERY_PAUSE_SECONDS
        """Before the server is asked again; it grows until a turn is answered, for a live server may refuse turns."""
        self._late: asyncio.Task[Turn | None] | None = None
        self._in_doubt = False
        """The open turn may not be answered for long."""
        self._parking = Parking(client)
        self._to_park = False
        self.turn_parked = False
        """The open turn waits behind the parked fetch; it will be answered when that ends."""

    # turns

    @property
    def reserved(self) -> int:
        """Slots that are kept for what a turn without an answer may have claimed."""
        return 0 if self._sent is None or self._in_doubt else self._sent[1]

    @property
    def room(self) -> int:
        """How many more jobs of this queue may run here at once."""
        return sys.maxsize if self._cap is None else max(0, self._cap - self.active - self.reserved)

    @property
    def full(self) -> bool:
        """At its cap: it must neither claim nor wait for a job. A turn that waits along has its slots already."""
        return self._cap is not None and self.room == 0 and not self.turn_parked

    @property
    def askable(self) -> bool:
        return not (self.recovering or self.turn_parked)

    @property
    def may_have_more(self) -> bool:
        """It is not known that no job could start now."""
        return self.has_more or self.due or not (self.watched or self.paused)

    @property
    def wants(self) -> bool:
        """It has jobs that could start here now."""
        return self.has_more and self.askable and self.room > 0

    @property
    def turn_open(self) -> bool:
        return self._sent is not None

    @property
    def recovering(self) -> bool:
        """The server is away, or late with its answer; the fetcher is woken when that is over."""
        return any(task is not None and not task.done() for task in (self._recovery, self._late))

    @property
    def watched(self) -> bool:
        """What comes is noticed: by a parked fetch, or by one that is to be parked now."""
        return self._parking.wanted or self._to_park

    @property
    def due(self) -> bool:
        """A delayed job has come due since the last turn, or the paused queue is to be looked at."""
        return self.due_at is not None and self.due_at <= asyncio.get_running_loop().time()

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

    def hand_back(self, run: Run) -> None:
        """Give back a job for which there is no slot, uncounted."""
        self.claimed -= 1
        self.settle(run, Released())

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

    async def take_turn_beside_others(self, free: int) -> Turn | None:
        """As `take_turn`, but return None, too, if the answer is late, so that other queues need not wait for it."""
        self._late = asyncio.get_running_loop().create_task(self.take_turn(free), name=f"aqueue turn {self.name}")
        await asyncio.wait([self._late], timeout=LATE_SECONDS)
        if self._late.done():
            return self._late.result()
        doubt = asyncio.get_running_loop().call_later(DOUBT_SECONDS - LATE_SECONDS, self._doubt)
        self._late.add_done_callback(lambda _: doubt.cancel())
        self._late.add_done_callback(lambda _: self._wake())
        return None

    def _doubt(self) -> None:
        self._in_doubt = True
        self._wake()

    async def take_turn(self, free: int) -> Turn | None:
        """Settle what has ended and claim up to `free` jobs; None while the server is away.

        Then the lane recovers by itself, and wakes the fetcher when it has.
        """
        if self._sent is None:
            batch, self.outbox = self.outbox[:SETTLES_PER_TURN], self.outbox[SETTLES_PER_TURN:]
            self._sent = batch, free
        batch, asked = self._sent
        self._to_park = False
        # From here on: what a parked fetch catches while this turn is on its way may have come too late for it.
        self.has_more = self.has_caught = False
        if not self.active and self._parking.wanted:  # the lane comes to rest, and is to be parked with a turn
            self._parking.tell_to_end()
        try:
            turn = await self.client.settle_and_claim(self.worker, self.answered + 1, batch, asked)
        except StoreError as error:
            self.outage.lost(error)
            self._in_doubt = True
            self._recovery = asyncio.get_running_loop().create_task(
                self._recover(), name=f"aqueue recovery {self.name}"
            )
            return None
        self._back()
        self._take_in(turn)
        return turn

    def _back(self) -> None:
        """A turn was answered."""
        self.outage.back()
        self._pause = RECOVERY_PAUSE_SECONDS

    def _take_in(self, turn: Turn) -> None:
        """Take in the answer to the open turn."""
        batch, asked = self._sent or ([], 0)
        self._in_doubt = False
        self._sent, self.lasting = None, max(self.active, LASTING_MEMORY * self.lasting)
        self._note(turn, batch, asked)
        self.claimed += len(turn.leases)
        runs = [self._begin(lease) for lease in turn.leases]
        self.answered += 1  # last: all that the answer brought is in `running`, so the heartbeat may compare
        self._start(self, runs)

    def _note(self, turn: Turn, batch: list[Settle], asked: int) -> None:
        herald = self.executor.herald
        for settle in batch:
            run = self.running.get(settle.id)
            if run is None or run.lease.token != settle.token:  # lost, and claimed again since
                continue
            del self.running[settle.id]
            refused = settle.id in turn.refused
            if refused:
                self._journal.refused(self.name, run)
            if herald is not None:
                herald.settled(run, settle.outcome, refused=refused)
        if herald is not None and (turn.expired or turn.held_back):
            herald.passed_by(turn)
        self.has_more = self.has_more or turn.state == "MORE" or len(turn.leases) == asked
        self.paused = turn.state == "PAUSED"
        next_due = turn.next_due
        if self.paused:  # until a pause for a time ends, or for good
            next_due = PAUSED_LOOK_SECONDS if next_due is None else min(next_due, PAUSED_LOOK_SECONDS)
        self.due_at = None if next_due is None else asyncio.get_running_loop().time() + next_due

    async def _recover(self) -> None:
        """Wait until the server answers at all; the fetcher then sends the open turn again."""
        while True:
            pause, self._pause = self._pause, min(self._pause * 2, MAX_RECOVERY_PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load, guards nothing
            try:
                await self.client.plain("PING")
                break
            except StoreError as error:
                log.debug("queue %s: still away: %s", self.name, error)
        self.has_more = True
        self._wake()

    # parking

    def park(self, free: int) -> None:
        """Wait at the server for the next job; wakes the fetcher when something came.

        On a lane at rest the next turn waits along, for up to `free` jobs; 0 is never. Not where a job will soon come
        due, since the turn is needed then.
        """
        self._to_park = self._parking.taken and not self._parking.wanted
        if self._parking.taken:
            return
        at_rest = not (self.active or self.outbox or self.turn_open)
        soon = asyncio.get_running_loop().time() + DUE_SOON_SECONDS
        fetch = self._fetch
        if free > 0 and at_rest and (self.due_at is None or self.due_at > soon):
            self._sent, self.turn_parked = ([], free), True
            self.has_more = self.has_caught = False
            fetch = partial(self._fetch_with_turn, free)
        self._parking.start(fetch, failed=self._park_failed, ended=self._park_ended)

    async def _fetch(self, link: Link) -> None:
        while self._parking.wanted:
            if await self.client.park(link, self.worker, self._parking.seconds):
                self.has_more = self.has_caught = True
                return

    async def _fetch_with_turn(self, free: int, link: Link) -> None:
        if not self._parking.wanted:
            self._sent = None  # it never left
            return
        seconds = self._parking.seconds
        turn = await self.client.park_with_turn(link, self.worker, seconds, self.answered + 1, free)
        self.turn_parked = False
        self._back()
        self._take_in(turn)
        self._to_park = True

    def _park_failed(self) -> None:
        self.turn_parked = False
        self.has_more = self.has_caught = True
        self._wake()

    def _park_ended(self) -> None:
        self.turn_parked = False
        self._wake()

    async def unpark(self) -> None:
        """End the parked fetch; what it may have caught lies in the inbox, to be handed back.

        A turn that was parked with it is then taken, and answered.
        """
        self._to_park = False
        if self._parking.wanted:
            # What comes while nothing is parked must be looked for; a turn that was parked does so by itself.
            self.has_more = self.has_more or not self.turn_parked
            await asyncio.wait([self._parking.tell_to_end()], timeout=LATE_SECONDS)

    async def unparked(self) -> None:
        """End the parked fetch and return when it has ended, with the turn that was parked with it, or is late."""
        await self.unpark()
        await self._parking.ended()
        if self._late is not None:
            await asyncio.wait([self._late])

    # control

    def take_beat(self, beat: Beat) -> None:
        """Take in what the heartbeat has learned."""
        if beat.next_due is not None:
            due_at = asyncio.get_running_loop().time() + beat.next_due
            if self.due_at is None or due_at < self.due_at:
                self.due_at = due_at
                self._wake()
        self.take_change(beat.change)
        if beat.caught:  # by a parked fetch whose answer may never come
            self.has_caught = True
            self.look_again()
        if beat.returned:
            log.warning(
                "queue %s: %d jobs whose claim got lost on the way were handed back", self.name, len(beat.returned)
            )

    def take_change(self, change: str) -> None:
        """Note that a schedule was changed, once for each change however often it is told."""
        if change and change != self._change:
            self._change = change
            self.news.set()

    async def close(self) -> bool:
        """End what goes on in the background; say whether the server is known to have ended every parked fetch."""
        for task in (self._late, self._recovery):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        return await self._parking.close()
