"""Where a worker hears of cancels, pauses, resumes and changed schedules at once; the heartbeat is the net beneath.

A pause is only told to people: claims keep it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import anyio

from aqueue.errors import StoreError
from aqueue.job import JobId
from aqueue.store.mailbox import Listener
from aqueue.worker.lane import Lane
from aqueue.worker.run import NAME_LIMIT, Reason

log = logging.getLogger("aqueue.worker")

PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 5.0


class Ear(Listener):
    """Listens on one queue's channel of one worker incarnation."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._channel = self._choose(lane)
        self._moved = asyncio.Event()

    def _choose(self, lane: Lane) -> str:
        return lane.client.keys.channel(lane.worker)

    def heard(self, message: str) -> None:
        verb, _, rest = message.partition(" ")
        what = f"task {rest[:NAME_LIMIT]}" if rest else "all tasks"
        if verb == "cancel":
            self._lane.stop_runs([JobId(rest)], Reason.CANCELLED)
        elif verb == "resume":
            log.info("queue %s: %s resumed", self._lane.name, what)
            self._lane.look_again()
        elif verb == "pause":
            log.info("queue %s: %s paused, what runs goes on", self._lane.name, what)

    def restored(self) -> None:
        """A resume may have been missed; a missed cancel is in the heartbeat's next answer."""
        self._lane.look_again()

    def moved(self) -> None:
        self._moved.set()

    async def run(self) -> None:
        """Listen until cancelled."""
        client = self._lane.client
        channel = self._channel
        pause = PAUSE_SECONDS
        while True:
            self._moved.clear()
            try:
                mailbox = await client.links.listen(channel, self)
            except StoreError as error:
                log.debug("queue %s: not listening yet: %s", self._lane.name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
                continue
            self.restored()  # nobody heard what was said before
            try:
                await self._moved.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    await mailbox.forget(channel, self)


class Bell(Ear):
    """Listens on the channel on which all workers of a queue are told that a schedule was changed."""

    def _choose(self, lane: Lane) -> str:
        return lane.client.keys.bell

    def heard(self, message: str) -> None:
        self._lane.take_change(message)

    def restored(self) -> None:
        self._lane.news.set()
