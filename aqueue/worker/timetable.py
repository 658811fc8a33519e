"""Starts what is scheduled, on every worker and led by none.

Each worker knows the schedules of its own code, computes their slots and tells the server when one has come; the script
lets each slot start its job once. The server's clock decides; this one only says how long to wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from typing import Final

import msgspec

from aqueue.errors import StoreError
from aqueue.job import JobId
from aqueue.queue import Queue
from aqueue.schedule import Schedule
from aqueue.store.schedules import Declaration, Slot
from aqueue.submission import new_job, outgoing
from aqueue.worker.lane import Lane

log = logging.getLogger("aqueue.worker")

LONGEST_WAIT_SECONDS: Final = 60.0
"""Then the server is asked for its clock again, and told of schedules that it may have lost."""
RETRY_SECONDS: Final = 1.0
AT_START: Final = -1
"""A slot that comes once, when the schedule is new."""
SPREAD_SECONDS: Final = 0.005
"""All workers know when a slot comes; the first of them starts it."""


class Entry:
    """One schedule, and how far this worker believes it to be."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.last_ms = 0
        self.outdated = False
        self.declaration = Declaration(
            id=schedule.id,
            task=schedule.call.task.name,
            definition=str(schedule),
            overlap=schedule.overlap,
        )

    def next_ms(self) -> int | None:
        return self.schedule.next(self.last_ms)


class Timetable:
    """The schedules of one queue on one worker."""

    def __init__(self, lane: Lane, queue: Queue) -> None:
        self._lane = lane
        self._queue = queue
        self._store = lane.client.schedules
        self._entries = [Entry(schedule) for schedule in queue.schedules.values()]
        self._look_ms = 0
        """When the server is told of all schedules again, whether or not they are due."""
        self._server_ms = 0.0
        """The server's clock at the zero of the loop's."""

    async def run(self) -> None:
        """Start what is due, for ever."""
        declared = False
        while self._entries or not declared:
            try:
                if declared:
                    await asyncio.sleep(self._wait())
                    await self._start_due()
                else:
                    await self._declare()
                    declared = True
            except StoreError as error:
                log.debug("queue %s: schedules are looked at again: %s", self._lane.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                log.exception("the schedules of queue %s went wrong, please report this", self._lane.name)
                await asyncio.sleep(RETRY_SECONDS)

    async def _declare(self) -> None:
        """Make the schedules known, and those of them forgotten that the code of their task no longer has."""
        seconds, micros = await self._lane.client.plain("TIME")
        declared = int(seconds) * 1000 + int(micros) // 1000
        self._set_clock(declared)
        for entry in self._entries:
            entry.declaration = msgspec.structs.replace(entry.declaration, declared_ms=declared)
            await self._tick(entry, at_start=True)
        names = [schedule.id for schedule in self._queue.schedules.values()]
        gone = await self._store.withdraw(self._lane.worker, declared, list(self._queue.tasks), names)
        if gone:
            log.info("queue %s: no longer scheduled: %s", self._lane.name, ", ".join(gone))

    def _set_clock(self, server_ms: int) -> None:
        self._server_ms = server_ms - asyncio.get_running_loop().time() * 1000

    def _now_ms(self) -> int:
        return int(self._server_ms + asyncio.get_running_loop().time() * 1000)

    def _wait(self) -> float:
        """Say for how many seconds nothing is due."""
        due = [slot for entry in self._entries if (slot := entry.next_ms()) is not None]
        wait = (min(due, default=self._now_ms() + 1e9) - self._now_ms()) / 1000
        return min(max(0.001, wait), LONGEST_WAIT_SECONDS) + random.uniform(0, SPREAD_SECONDS)  # noqa: S311  # spreads load

    async def _start_due(self) -> None:
        now = self._now_ms()
        due = [entry for entry in self._entries if (slot := entry.next_ms()) is not None and slot <= now]
        if now >= self._look_ms:
            due, self._look_ms = self._entries, now + round(LONGEST_WAIT_SECONDS * 1000)
        for entry in due:
            await self._tick(entry)

    async def _tick(self, entry: Entry, *, at_start: bool = False) -> None:
        schedule, now = entry.schedule, self._now_ms()
        slots = [self._slot(schedule, slot) for slot in schedule.slots(entry.last_ms, now)] if entry.last_ms else []
        if at_start and schedule.run_at_start:
            slots.append(self._slot(schedule, AT_START))
        found = await self._store.tick(
            self._lane.worker,
            entry.declaration,
            slots,
            after_ms=entry.last_ms,
            upto_ms=now if entry.last_ms else 0,
            next_ms=schedule.next(now),
        )
        self._set_clock(found.now_ms)
        if found.state == "outdated" and not entry.outdated:
            log.warning(
                "queue %s: a newer release has changed schedule %s; this worker leaves it alone while that one lives",
                self._lane.name, schedule.id,
            )  # fmt: skip
        entry.outdated = found.state == "outdated"
        entry.last_ms = max(found.last_ms, now) if entry.outdated else found.last_ms

    def _slot(self, schedule: Schedule, at_ms: int) -> Slot:
        call = schedule.call
        job_id = None if at_ms == AT_START else JobId(f"{schedule.id}.{at_ms}")
        job = new_job(call, outgoing(call), self._queue.settings, self._queue.wire, job_id)
        if schedule.jitter_ms:
            digest = hashlib.sha256(job.id.encode()).digest()
            job = msgspec.structs.replace(job, delay_ms=int.from_bytes(digest[:6]) % (schedule.jitter_ms + 1))
        return Slot(at_ms, job)
