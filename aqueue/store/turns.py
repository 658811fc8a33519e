"""How a process hears that somebody who waits for a permit of a limiter has it.

One channel per process and queue, in each event loop that waits. Who is told asks again, and so does everybody after a
while: a message is no more than a hint.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

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
    async def waiting(self, holder: Holder) -> AsyncGenerator[asyncio.Event]:
        """Let a holder be told that it may have a permit: the event is set then, or when it might have missed that.

        It listens before anybody is asked, so that nothing can be told in between.
        Errors: StoreUnavailable, StoreError.
        """
        ear = self._here()
        event = ear.told[holder] = asyncio.Event()
        try:
            await self._listen(ear)
            yield event
        finally:
            del ear.told[holder]

    async def listen(self) -> None:
        """Listen anew if the connection on which this loop listens has been given back."""
        await self._listen(self._here())

    async def _listen(self, ear: _Ear) -> None:
        links = self._client.links
        async with ear.listening:
            if ear.listens_at is not links:
                await links.listen(self._client.keys.channel(ear.name), ear)
                ear.listens_at = links
