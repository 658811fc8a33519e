"""Starts what is scheduled, on every worker and led by none.

Each worker knows the schedules of its own code, and looks up those of users that will soon be due; it computes their
slots and tells the server when one has come; the script lets each slot start its job once. The server's clock decides;
this one only says how long to wait. Nobody polls: a change of a schedule is told to all workers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Final

import anyio
import msgspec

from aqueue.definition import AT_START, Definition, stored
from aqueue.errors import JobError, StoreError
from aqueue.queue import Queue
from aqueue.store.schedules import DESCRIBED, PAGE, Owner, Row, State, Tick
from aqueue.worker.ear import Bell
from aqueue.worker.lane import Lane

log = logging.getLogger("aqueue.worker")

LONGEST_WAIT_SECONDS: Final = 60.0
"""Then the server is asked for its clock again and for schedules of users, and told of those that it may have lost."""
HORIZON_MS: Final = 75_000
"""Schedules of users that are due within that are looked up; more than the longest wait, so that none is late."""
CROWDED_SECONDS: Final = 5.0
"""After so many schedules that they had to be listed in parts, between which some may have moved."""
RETRY_SECONDS: Final = 1.0
SPREAD_SECONDS: Final = 0.005
"""All workers know when a slot comes; the first of them starts it."""
AT_ONCE: Final = 20
"""Schedules that are dealt with side by side."""


class Entry:
    """One schedule, and how far this worker believes it to be."""

    def __init__(self, definition: Definition, owner: Owner, *, last_ms: int = 0, begins: bool = False) -> None:
        self.definition = definition
        self.declaration = definition.declaration(owner)
        self.begins = begins
        """A job is to start at once."""
        self.state: State = "known"
        self._last_ms = last_ms
        self._next_ms: int | None = None
        self.last_ms = last_ms

    @property
    def last_ms(self) -> int:
        """Up to when it is dealt with; 0 is unknown."""
        return self._last_ms

    @last_ms.setter
    def last_ms(self, value: int) -> None:
        self._last_ms = value
        self._next_ms = self.definition.schedule.next(value) if value else None

    @property
    def rests(self) -> bool:
        """It is left alone until a change is heard of, or the next look."""
        return self.state in ("paused", "taken")

    @property
    def next_ms(self) -> int | None:
        """The next slot that is to be started."""
        return None if self.rests else self._next_ms

    def due(self, now_ms: int) -> bool:
        return self.begins or (self.next_ms is not None and self.next_ms <= now_ms)


class Timetable:
    """The schedules of one queue on one worker."""

    def __init__(self, lane: Lane, queue: Queue) -> None:
        self._lane = lane
        self._queue = queue
        self._store = lane.client.schedules
        self._declared = [Entry(one, "code") for one in queue.schedules.declared.values()]
        self._made: dict[str, Entry] = {}
        """Those of users that will soon be due, by id."""
        self._refused: set[tuple[str, str]] = set()
        """Ids and definitions that cannot be read here."""
        self._watches = True
        """There are some at which to look again, even if nobody says so."""
        self._look_ms = 0
        """When the server is told of all schedules again, whether or not they are due."""
        self._server_ms = 0.0
        """The server's clock at the zero of the loop's."""

    async def run(self) -> None:
        """Start what is due, for ever."""
        async with anyio.create_task_group() as both:
            both.start_soon(Bell(self._lane).run)
            await self._keep()

    async def _keep(self) -> None:
        declared = False
        while True:
            try:
                if not declared:
                    await self._declare()
                    declared = True
                await self._hear()
                if self._lane.news.is_set() or self._now_ms() >= self._look_ms:
                    await self._look()
                await self._tick_all(entry for entry in self._entries() if entry.due(self._now_ms()))
            except StoreError as error:
                log.debug("queue %s: schedules are looked at again: %s", self._lane.name, error)
                await self._begin_again()
            except Exception:
                log.exception("the schedules of queue %s went wrong, please report this", self._lane.name)
                await self._begin_again()

    async def _begin_again(self) -> None:
        self._look_ms, self._watches = 0, True
        await asyncio.sleep(RETRY_SECONDS)

    def _entries(self) -> list[Entry]:
        return [*self._declared, *self._made.values()]

    async def _declare(self) -> None:
        """Make the schedules known, and those of them forgotten that the code of their task no longer has."""
        seconds, micros = await self._lane.client.plain("TIME")
        declared = int(seconds) * 1000 + int(micros) // 1000
        self._set_clock(declared)
        for entry in self._declared:
            entry.declaration = msgspec.structs.replace(entry.declaration, declared_ms=declared)
            entry.begins = entry.definition.schedule.run_at_start
            await self._tick(entry)
        gone = await self._store.withdraw(
            self._lane.worker, declared, list(self._queue.tasks), list(self._queue.schedules.declared)
        )
        if gone:
            log.info("queue %s: no longer scheduled: %s", self._lane.name, ", ".join(gone))

    def _set_clock(self, server_ms: int) -> None:
        self._server_ms = server_ms - asyncio.get_running_loop().time() * 1000

    def _now_ms(self) -> int:
        return int(self._server_ms + asyncio.get_running_loop().time() * 1000)

    # waiting

    async def _hear(self) -> None:
        """Return when something is due, or somebody has changed a schedule."""
        spread = random.uniform(0, SPREAD_SECONDS)  # noqa: S311  # spreads load, guards nothing
        wait = self._wait()
        try:
            async with asyncio.timeout(None if wait is None else wait + spread):
                await self._lane.news.wait()
            await asyncio.sleep(spread)
        except TimeoutError:
            pass

    def _wait(self) -> float | None:
        """Say for how many seconds nothing is due; None if nothing ever will be, as far as is known."""
        now, entries = self._now_ms(), self._entries()
        if any(entry.begins for entry in entries):
            return 0.0
        due = [slot for entry in entries if (slot := entry.next_ms) is not None]
        if entries or self._watches:
            due.append(min(self._look_ms, now + round(LONGEST_WAIT_SECONDS * 1000)))
        return max(0.001, (min(due) - now) / 1000) if due else None

    # looking

    async def _look(self) -> None:
        """Learn of schedules that users have made or changed; tell the server of those of the code."""
        self._lane.news.clear()
        waited = self._now_ms() >= self._look_ms
        rows, whole = await self._rows()
        made = [row for row in rows if (row.id, row.definition) not in self._refused]
        known = {row.id: self._made[row.id] for row in made if self._is_known(row)}
        self._made = known
        await self._load([row.id for row in made if row.id not in known])
        self._look_ms = self._now_ms() + round(1000 * (LONGEST_WAIT_SECONDS if whole else CROWDED_SECONDS))
        self._watches = bool(rows) or (not self._declared and bool((await self._store.page("user")).rows))
        rested = [entry for entry in self._declared if entry.rests]
        scores = {row.id: row.next_ms for row in made}
        wrong = [entry for name, entry in self._made.items() if entry.next_ms != scores.get(name)]
        await self._tick_all([*(self._declared if waited else rested), *wrong])

    async def _rows(self) -> tuple[list[Row], bool]:
        """List what is soon due, and say whether that is known to be all of it."""
        page = await self._store.page("user", within_ms=HORIZON_MS)
        rows, whole = list(page.rows), True
        while len(page.rows) == PAGE:
            page, whole = await self._store.page("user", len(rows), within_ms=HORIZON_MS), False  # some may have moved
            rows += page.rows
        return rows, whole

    def _is_known(self, row: Row) -> bool:
        return row.id in self._made and self._made[row.id].definition.digest == row.definition

    async def _load(self, ids: list[str]) -> None:
        for first in range(0, len(ids), DESCRIBED):
            _, found = await self._store.describe(ids[first : first + DESCRIBED])
            for one in found:
                if one.owner != "user" or one.paused or one.ended:
                    continue
                try:
                    entry = Entry(stored(one), "user", last_ms=one.slot_ms, begins=one.begins)
                    entry.definition.job_of(AT_START, self._queue.wire)
                except (StoreError, JobError) as error:
                    self._refused.add((one.id, one.definition))
                    log.error("queue %s: this worker leaves a schedule alone: %s", self._lane.name, error)  # noqa: TRY400  # the message says it all
                else:
                    self._made[one.id] = entry

    # starting

    async def _tick_all(self, entries: Iterable[Entry]) -> None:
        some = list(entries)
        for first in range(0, len(some), AT_ONCE):
            done = await asyncio.gather(*map(self._tick, some[first : first + AT_ONCE]), return_exceptions=True)
            for error in done:
                if error is not None:
                    raise error

    async def _tick(self, entry: Entry) -> None:
        schedule, wire, now = entry.definition.schedule, self._queue.wire, self._now_ms()
        due = schedule.slots(entry.last_ms, now) if entry.last_ms else []
        if entry.begins:
            due.append(AT_START)
        found = await self._store.tick(
            self._lane.worker,
            entry.declaration,
            [entry.definition.slot(slot, wire) for slot in due],
            after_ms=entry.last_ms,
            upto_ms=now if entry.last_ms else 0,
            next_ms=schedule.next(now),
        )
        self._set_clock(found.now_ms)
        if (herald := self._lane.executor.herald) is not None:
            herald.enqueued(entry.definition.task, found.stored)
        entry.begins = entry.begins and found.state == "behind"  # then nothing was started
        self._take_in(entry, found, now)

    def _take_in(self, entry: Entry, found: Tick, now_ms: int) -> None:
        schedule_id, before, entry.state = entry.definition.id, entry.state, found.state
        foreign = found.state in ("outdated", "taken")
        entry.last_ms = max(found.last_ms, now_ms) if foreign else found.last_ms
        match found.state:
            case "gone" | "ended":
                self._made.pop(schedule_id, None)
            case "outdated" if before != "outdated":
                log.warning(
                    "queue %s: a newer release has changed schedule %s; this worker leaves it alone while that one "
                    "lives",
                    self._lane.name, schedule_id,
                )  # fmt: skip
            case "taken" if before != "taken":
                log.error(
                    "queue %s: a schedule %s was made at run time, so that of the code is left alone; give one of them "
                    "another id",
                    self._lane.name, schedule_id,
                )  # fmt: skip
            case _:
                pass
