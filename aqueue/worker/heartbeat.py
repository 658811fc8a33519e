"""Keeps the leases alive from a thread of its own, and compares what the worker runs with what it holds.

The thread has its own event loop and connection, so a job that blocks the worker's loop costs no lease. That trust
has an end: a loop that has not turned for the cap is taken for hung, and its jobs go to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from aqueue.errors import StoreError
from aqueue.store.records import Beat
from aqueue.worker.lane import Lane

log = logging.getLogger("aqueue.worker")


class Heartbeat:
    """The thread that renews the leases of one worker."""

    def __init__(
        self, lanes: Sequence[Lane], take: Callable[[Lane, Beat], None], *, every: float, blocked_cap: float
    ) -> None:
        self._lanes = lanes
        self._take = take
        self._every = every
        self._blocked_cap = blocked_cap
        self._home = asyncio.get_running_loop()
        self._home_thread = threading.get_ident()
        self._asked_at: float | None = None
        """Since when the worker's loop is asked for a sign of life, unless it has given one."""
        self._warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name="aqueue heartbeat", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; renewals stop with it."""
        self._stop.set()
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended already
                self._loop.call_soon_threadsafe(self._wake.set)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        try:
            asyncio.run(self._beat())
        except Exception:
            log.exception("the heartbeat has died, leases will end; please report this")

    async def _beat(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        try:
            await asyncio.gather(*(self._keep(lane, self._wake) for lane in self._lanes))
        finally:
            for lane in self._lanes:
                await lane.client.close()

    async def _keep(self, lane: Lane, wake: asyncio.Event) -> None:
        """Renew one lease until told to stop; a server that does not answer costs no other queue its own."""
        while not self._stop.is_set():
            if self._may_extend():
                await self._extend(lane)
            try:
                async with asyncio.timeout(self._every * random.uniform(0.9, 1.0)):  # noqa: S311  # spreads load
                    await wake.wait()
            except TimeoutError:
                continue

    async def _extend(self, lane: Lane) -> None:
        answered = lane.answered  # before `running`: whatever these turns brought is in there, or settled
        running = list(lane.running)
        try:
            beat = await lane.client.extend(lane.worker, answered, running, lane.info)
        except StoreError as error:
            lane.outage.lost(error)
            return
        except Exception:
            log.exception("queue %s: a heartbeat went wrong, please report this", lane.name)
            return
        self._tell_home(lambda: self._take(lane, beat))

    def _tell_home(self, what: Callable[[], None]) -> None:
        try:
            self._home.call_soon_threadsafe(what)
        except RuntimeError:  # the worker's loop is closed: there is nobody left to keep leases for
            self._stop.set()

    def _may_extend(self) -> bool:
        """Say whether the worker's loop has turned lately enough to be trusted with its leases."""
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
            self._tell_home(self._loop_turned)
            return True
        blocked_for = now - self._asked_at
        if blocked_for > 2 * self._every and not self._warned:
            self._warned = True
            self._warn(blocked_for)
        return blocked_for <= self._blocked_cap

    def _loop_turned(self) -> None:
        self._asked_at = None
        self._warned = False

    def _warn(self, blocked_for: float) -> None:
        task = asyncio.current_task(self._home)
        culprits = (run for lane in self._lanes for run in list(lane.running.values()) if run.task is task)
        run = next(culprits, None)
        frame = sys._current_frames().get(self._home_thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the documented way to see another thread
        log.warning(
            "the event loop has been blocked for %.0f s%s; write the task as a plain def, or use asyncio.to_thread\n%s",
            blocked_for,
            f" by {run.name} (job {run.lease.id})" if run is not None else "",
            "".join(traceback.format_stack(frame, limit=8)).rstrip(),
        )
