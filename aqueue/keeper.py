"""Keeps the permits that a process holds, from a thread of its own, as the heartbeat of a worker keeps its jobs.

The thread has its own event loop and connection, so that blocking code costs no permit. That trust has an end: a loop
that has not turned for the cap is taken for hung. The thread lives while permits are held, and a little longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import ReferenceType, ref

from aqueue.errors import StoreError
from aqueue.store.client import BATCH, Client
from aqueue.store.permits import Holder, Permits, Turnstile

log = logging.getLogger("aqueue")

LINGER_SECONDS: Final = 5.0
"""Limiters are mostly passed again and again; a thread for each time would cost more than the permit."""
RENEWALS: Final = 3
"""In one lease, so that two may fail."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Held:
    """One permit of this process; `due` is when it is to be renewed, by the monotonic clock."""

    at: Turnstile
    holder: Holder
    name: str
    home: asyncio.AbstractEventLoop
    lost: bool = False
    due: float = field(init=False)

    def __post_init__(self) -> None:
        self.due = time.monotonic() + self.every

    @property
    def every(self) -> float:
        return self.at.lease_ms / 1000 / RENEWALS


class Keeper:
    """The thread that renews the permits of one queue's limiters."""

    def __init__(self, client: Client, permits: Permits) -> None:
        self._client = client
        self._permits = permits
        self._lock = threading.Lock()
        self._held: dict[Holder, ReferenceType[Held]] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._sleeps_until = math.inf
        self._closing = False
        self._asked_at: dict[asyncio.AbstractEventLoop, float] = {}
        """Since when loops with permits are asked for a sign of life, unless they have given one."""

    def keep(self, held: Held) -> None:
        """Renew a permit from now on, for as long as somebody refers to it."""
        with self._lock:
            self._held[held.holder] = ref(held)
            if self._thread is None or not self._thread.is_alive():  # after a fork it is not
                self._loop, self._closing = None, False
                self._thread = threading.Thread(target=self._main, name="aqueue permits", daemon=True)
                self._thread.start()
            elif held.due < self._sleeps_until:
                self._tell_to_look()

    def forget(self, holder: Holder) -> None:
        with self._lock:
            self._held.pop(holder, None)

    async def close(self) -> None:
        """End the thread, unless permits are held."""
        with self._lock:
            thread = self._thread
            if thread is None or any(one() is not None for one in self._held.values()):
                return
            self._closing = True
            self._tell_to_look()
        await asyncio.to_thread(thread.join)

    def _tell_to_look(self) -> None:
        if self._loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _main(self) -> None:
        try:
            asyncio.run(self._keep_all())
        except Exception:
            log.exception("the permits of limiters are no longer renewed; please report this")

    async def _keep_all(self) -> None:
        wake, idle_until = asyncio.Event(), time.monotonic() + LINGER_SECONDS
        with self._lock:
            self._loop, self._wake = asyncio.get_running_loop(), wake
        try:
            while (pause := self._pause(idle_until)) is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await wake.wait()
                wake.clear()
                if self._held:
                    idle_until = time.monotonic() + LINGER_SECONDS
                await self._renew(self._due())
        finally:
            await self._client.close()

    def _pause(self, idle_until: float) -> float | None:
        """Say for how long there is nothing to do; None once there is no reason to stay."""
        now = time.monotonic()
        with self._lock:
            alive = [held for one in self._held.values() if (held := one()) is not None]
            if not alive and (self._closing or now >= idle_until):
                self._held.clear()
                self._thread = None
                return None
            self._sleeps_until = min([held.due for held in alive], default=idle_until)
            return max(0.0, self._sleeps_until - now)

    def _due(self) -> list[Held]:
        now = time.monotonic()
        with self._lock:
            for holder in [holder for holder, one in self._held.items() if one() is None]:
                del self._held[holder]  # nobody can give it back any more: it ends with its lease
            alive = [held for one in self._held.values() if (held := one()) is not None]
        trusted = {home for home in {held.home for held in alive} if self._turns(home)}
        due = [held for held in alive if held.due <= now]
        for held in due:
            held.due = now + held.every
        return [held for held in due if held.home in trusted]

    def _turns(self, home: asyncio.AbstractEventLoop) -> bool:
        """Say whether a loop has turned lately enough to be trusted with its permits."""
        now = time.monotonic()
        asked_at = self._asked_at.setdefault(home, now)
        if asked_at == now:
            try:
                home.call_soon_threadsafe(self._asked_at.pop, home, None)
            except RuntimeError:  # it is closed: there is nobody left to keep permits for
                del self._asked_at[home]
                return False
        return now - asked_at <= self._client.settings.blocked_loop_cap

    async def _renew(self, due: Sequence[Held]) -> None:
        for first in range(0, len(due), BATCH):
            batch = due[first : first + BATCH]
            try:
                kept = await self._permits.renew([(held.at, held.holder) for held in batch])
            except StoreError as error:
                log.debug("permits are renewed again later: %s", error)
                continue
            for held, lasts in zip(batch, kept, strict=True):
                if not lasts:
                    self._lose(held)

    def _lose(self, held: Held) -> None:
        with self._lock:
            still_held = self._held.pop(held.holder, None) is not None  # else it was given back meanwhile
        if still_held:
            held.lost = True
            log.warning(
                "a permit of limiter %s was lost, and may be held by somebody else now; look for a blocked event loop, "
                "a long pause of this process or of the server, or give a longer lease", held.name,
            )  # fmt: skip
