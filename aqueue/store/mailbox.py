"""Where a process is told that a job has ended, or that one is to stop.

One subscription per server and event loop, however many channels and listeners. It restores itself; whoever
listens is told when it was away, since what was said in between is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError, ResponseError

from aqueue.store.link import Subscription

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

log = logging.getLogger("aqueue.store")

MAX_PAUSE_SECONDS: Final = 2.0
"""Between two attempts to connect; who waits re-checks on its own timer anyway."""


class Listener:
    """What one channel's messages are handed to."""

    def heard(self, message: str) -> None:
        """Take one message."""

    def restored(self) -> None:
        """Take note that messages may have been missed."""

    def moved(self) -> None:
        """Take note that this server no longer speaks on the channel; another does, at which to listen anew."""


class Mailbox:
    """The channels of one process at one server."""

    def __init__(self, connect: Callable[[], Awaitable[AbstractConnection]]) -> None:
        self._connect = connect
        self._listeners: dict[str, list[Listener]] = {}
        self._subscription: Subscription | None = None
        self._changing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    async def listen(self, channel: str, listener: Listener) -> None:
        """Return once messages on `channel` reach `listener`. Errors: those of redis-py, and OSError."""
        async with self._changing:
            listeners = self._listeners.setdefault(channel, [])
            if listener not in listeners:
                listeners.append(listener)
            try:
                if self._subscription is not None:
                    await self._subscription.subscribe(channel)
            except ResponseError:
                self._let_go(channel, listener)
                raise
            except (RedisError, OSError):  # it has just died, and the keeper does not know yet
                await self._drop()
            if self._subscription is None:
                refused = await self._open()
                self._tell_restored(but=listener)
                if channel in refused:
                    raise refused[channel]
            if self._keeper is None:
                self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="aqueue mailbox")

    async def forget(self, channel: str, listener: Listener) -> None:
        """Hand messages on `channel` to this listener no more."""
        async with self._changing:
            if self._let_go(channel, listener) and self._subscription is not None:
                with contextlib.suppress(RedisError, OSError):  # without a connection there is no subscription
                    await self._subscription.unsubscribe(channel)

    def _let_go(self, channel: str, listener: Listener) -> bool:
        """Say whether that was the last who listened on the channel."""
        listeners = self._listeners.get(channel, [])
        if listener in listeners:
            listeners.remove(listener)
        return not listeners and self._listeners.pop(channel, None) is not None

    def _heard(self, channel: str, message: str) -> None:
        for listener in list(self._listeners.get(channel, ())):
            listener.heard(message)

    def _tell_restored(self, but: Listener | None = None) -> None:
        """Tell all who listened already that they may have missed something."""
        for listener in [one for listeners in self._listeners.values() for one in listeners]:
            if listener is not but:
                listener.restored()

    async def _open(self) -> dict[str, ResponseError]:
        """Subscribe to all channels; give those that this server refuses, and let go of them."""
        subscription = Subscription(await self._connect(), self._heard, self._ended)
        refused: dict[str, ResponseError] = {}
        try:
            for channel in list(self._listeners):
                try:
                    await subscription.subscribe(channel)
                except ResponseError as refusal:
                    refused[channel] = refusal
        except BaseException:
            await subscription.close()
            raise
        self._subscription = subscription
        for channel in refused:
            self._ended(channel)
        return refused

    def _ended(self, channel: str) -> None:
        for listener in self._listeners.pop(channel, ()):
            listener.moved()

    async def _drop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    async def _keep(self) -> None:
        pause = 0.05
        while True:
            if self._subscription is not None:
                await self._subscription.ended()
                pause = 0.05
            try:
                async with self._changing:
                    if self._subscription is not None and not self._subscription.alive:
                        await self._drop()
                    if self._subscription is None:
                        await self._open()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("no subscription yet: %s", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load, guards nothing
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
                continue
            self._tell_restored()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._drop()
