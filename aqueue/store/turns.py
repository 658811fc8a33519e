"""How a process hears that somebody who waits for a permit of a limiter has it.

One channel per process and queue, in each event loop that waits. Who is told asks again, and so does everybody after a
while: a message is no more than a hint.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from aqueue.errors import StoreUnavailable
from aqueue.store.mailbox import Listener
from aqueue.store.permits import Holder

if TYPE_CHECKING:
    from aqueue.store.client import Client
    from aqueue.store.connection import Links


class _Ear(Listener):
    """What one event loop hears."""

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self.told: dict[Holder, asyncio.Event] = {}
        self.listens_at: Links | None = None
        self.listening = asyncio.Lock()
        self.closed = False
        self.all_left = asyncio.Event()

    def heard(self, message: str) -> None:
        verb, _, holder = message.partition(" ")
        if verb == "permitted" and holder in self.told:
            self.told[Holder(holder)].set()

    def restored(self) -> None:
        for event in self.told.values():
            event.set()

    def moved(self) -> None:
        self.listens_at = None
        self.restored()


class Turn:
    """What one holder waits for."""

    def __init__(self, event: asyncio.Event, listen: Callable[[], Awaitable[None]]) -> None:
        self._event = event
        self._listen = listen

    def begin(self) -> None:
        """Let only what is told from now on count; to be called before asking."""
        self._event.clear()

    async def comes(self, seconds: float) -> None:
        """Return once the holder is told something, or might have missed it, or after so many seconds.

        Errors: StoreUnavailable, also if the queue is closed meanwhile; StoreError.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        await self._listen()


class Turns:
    """Everybody of this process who waits for a permit of one queue's limiters."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ears: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ear] = WeakKeyDictionary()
        self._numbers = itertools.count()

    def _here(self) -> _Ear:
        loop = asyncio.get_running_loop()
        ear = self._ears.get(loop)
        if ear is None:
            ear = self._ears[loop] = _Ear()
        return ear

    def new_holder(self) -> Holder:
        """Make an id that nobody has had; those of one loop are in order."""
        return Holder(f"{self._here().name}/{next(self._numbers):012}")

    @asynccontextmanager
    async def waiting(self, holder: Holder) -> AsyncGenerator[Turn]:
        """Let a holder be told that it may have a permit.

        It listens before anybody is asked, so that nothing can be told in between. Errors: as Turn.comes.
        """
        ear = self._here()
        ear.told[holder] = asyncio.Event()
        try:
            await self._listen(ear)
            yield Turn(ear.told[holder], lambda: self._listen(ear))
        finally:
            del ear.told[holder]
            if not ear.told:
                ear.all_left.set()

    async def _listen(self, ear: _Ear) -> None:
        if ear.closed:
            raise StoreUnavailable("The queue was closed while a permit was waited for; keep it open until then.")
        links = self._client.links
        async with ear.listening:
            if ear.listens_at is not links:
                await links.listen(self._client.keys.channel(ear.name), ear)
                ear.listens_at = links

    async def close(self) -> None:
        """End the wait of everybody who waits in this loop, with StoreUnavailable."""
        ear = self._ears.pop(asyncio.get_running_loop(), None)
        if ear is not None and ear.told:
            ear.closed = True
            ear.all_left.clear()
            ear.restored()
            await ear.all_left.wait()
