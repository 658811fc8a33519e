"""Fills free slots with jobs: turns on the queues, strictly in order or by weight, parked fetches while all are empty.

A parked fetch may catch a job at any moment, so parks exist only while a slot is free, and whatever they catch is
claimed, or handed back, by the turn that is parked along or follows at once. Nothing waits here by the clock but for
due jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aqueue.worker.lane import Lane
from aqueue.worker.shares import Shares

HALVED_SLOTS: Final = 32
"""With fewer, a second round trip costs more than it gains: 10 slots drain 1.2 times as fast with whole turns."""

LASTING_SHARES: Final = 4
SMALL_SHARES: Final = 12
LEAST_SHARE: Final = 4
"""At concurrency 100, jobs of 10 ms: 8,200/s with turns of 50, 8,900 with 12, 9,000 with 8, and no more with 5."""


class Fetcher:
    """The intake of one worker."""

    def __init__(self, slots: int, *, max_jobs: int | None = None, shares: Shares | None = None) -> None:
        self._slots = slots
        self._max_jobs = max_jobs
        self._shares = shares
        """Of weighted queues; without, the order is strict."""
        self._lanes: Sequence[Lane] = ()
        self._work = asyncio.Event()
        self.draining = False
        self.abandoned = False
        """What still runs is not waited for."""

    def wake(self) -> None:
        """Have another look: something ended, arrived, fell due or changed."""
        self._work.set()

    def drain(self) -> None:
        """Claim nothing more; go on settling until nothing runs."""
        self.draining = True
        self.wake()

    @property
    def free(self) -> int:
        """Slots that neither a run nor an unanswered turn takes."""
        return 0 if self.draining else max(0, self._room)

    @property
    def excess(self) -> int:
        """Jobs beyond the slots, brought by a turn that was answered when its slots had been given to others."""
        return max(0, -self._room)

    @property
    def _room(self) -> int:
        room, left = self._slots, self._max_jobs
        for lane in self._lanes:  # this is asked several times per turn
            reserved = lane.reserved
            room -= reserved + lane.active
            if left is not None:
                left -= reserved + lane.claimed
        return room if left is None else min(room, left)

    @property
    def _share(self) -> int:
        """What one turn asks for at most.

        Of many slots, one half runs while the other half is settled and fetched. Where many slots are kept by jobs that
        last, turns are small: of many slots that come free at once, the first are filled while the others are settled.
        """
        if self._slots < HALVED_SLOTS:
            return self._slots
        lasting = sum(lane.lasting for lane in self._lanes)
        small = lasting >= self._slots / LASTING_SHARES
        return max(LEAST_SHARE, self._slots // SMALL_SHARES) if small else self._slots // 2

    async def run(self, lanes: Sequence[Lane], *, burst: bool = False) -> None:
        """Fetch until told to drain, or with `burst` until nothing is queued; then settle what still runs."""
        self._lanes = lanes
        while True:
            self._work.clear()
            again = await self._round()
            if not self.draining and (self._has_claimed_all() or (burst and self._idle())):
                self.drain()
            if self.draining and self._settled():
                return
            if not again:
                await self._rest()

    async def _round(self) -> bool:
        """Take a turn on each queue that may need one; say whether more work is known to be there.

        In strict order the queues after one that has more only settle.
        """
        if len(self._lanes) == 1:
            return await self._turn_alone(self._lanes[0])
        again, looked = False, set[Lane]()
        # Where weights count, those that may well be empty come first: what is not for them is for the others.
        weighted = self._shares is not None
        for lane in sorted(self._lanes, key=lambda lane: lane.has_more) if weighted else self._lanes:
            if lane.turn_parked:
                if lane.has_more or lane.due or self.draining:
                    await lane.unpark()
                continue
            free = 0 if again else min(self.free, self._share, lane.room)
            if self._shares is not None:
                free = min(free, self._portion(lane, looked, self._shares))
            if lane.recovering or not self._needs_turn(lane, free):
                continue
            if await lane.take_turn_beside_others(free) is not None:
                again = again or (lane.has_more and not (weighted or lane.full))
            looked.add(lane)
        await self._park_or_unpark()
        again = again or (weighted and any(lane.wants for lane in self._lanes))
        return (again and self.free > 0) or self._has_outcomes()

    async def _turn_alone(self, lane: Lane) -> bool:
        """As `_round`, for a worker of one queue, which most are."""
        again = False
        if lane.turn_parked:
            if lane.has_more or lane.due or self.draining:
                await lane.unpark()
        else:
            free = min(self.free, self._share, lane.room)
            if not lane.recovering and self._needs_turn(lane, free) and await lane.take_turn(free) is not None:
                again = lane.has_more and not lane.full
        await self._park_or_unpark()
        return (again and self.free > 0) or self._has_outcomes()

    def _portion(self, lane: Lane, looked: set[Lane], shares: Shares) -> int:
        """Give the free slots that are for one of several weighted queues, as those stand now."""
        rooms = [
            one.room if one.wants or (one.askable and one.may_have_more and one not in looked) else 0
            for one in self._lanes
        ]
        return shares.portions(self.free, [one.claimed for one in self._lanes], rooms)[self._lanes.index(lane)]

    def _has_outcomes(self) -> bool:
        """Say whether a turn would store something: what ended while a lane recovered has woken this agent in vain."""
        return any(lane.outbox and not (lane.recovering or lane.turn_parked) for lane in self._lanes)

    @staticmethod
    def _needs_turn(lane: Lane, free: int) -> bool:
        if lane.outbox or lane.turn_open:
            return True
        return lane.has_caught if free == 0 else lane.may_have_more

    async def _park_or_unpark(self) -> None:
        """Park everywhere while every queue is empty and a slot is free; nowhere while none is."""
        if self.free == 0:
            for lane in self._lanes:
                if not lane.turn_parked:  # which has slots of its own
                    await lane.unpark()
            return
        for lane in self._lanes:
            if lane.full:  # whoever waits here would keep from other workers what it catches
                await lane.unpark()
        if not any((lane.has_more and not lane.full) or lane.outbox for lane in self._lanes if not lane.recovering):
            each = min(self.free // len(self._lanes), self._share)
            for lane in self._lanes:
                if not (lane.recovering or lane.paused or lane.full):
                    lane.park(min(each, lane.room))

    def _has_claimed_all(self) -> bool:
        return self._max_jobs is not None and sum(lane.claimed for lane in self._lanes) >= self._max_jobs

    def _idle(self) -> bool:
        return not any(
            lane.active or lane.outbox or lane.has_more or lane.recovering or (lane.turn_open and not lane.turn_parked)
            for lane in self._lanes
        )

    def _settled(self) -> bool:
        """Say whether this agent's work is done; what a server that is away keeps open is left to the farewell."""
        if self.abandoned:
            return True
        unsettled = any((lane.outbox or lane.turn_open) and not lane.recovering for lane in self._lanes)
        return not unsettled and not any(lane.active for lane in self._lanes)

    async def _rest(self) -> None:
        """Wait for work, at most until the next job is due or a paused queue is looked at again."""
        deadline = None
        free = self.free > 0
        lanes = [lane for lane in self._lanes if lane.turn_parked or (free and not (lane.recovering or lane.full))]
        deadline = min((lane.due_at for lane in lanes if lane.due_at is not None), default=None)
        if deadline is None:
            await self._work.wait()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._work.wait()
        except TimeoutError:
            pass
