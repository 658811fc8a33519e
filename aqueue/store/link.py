"""One connection that many callers share.

Commands leave in the order of the calls: at once while nobody waits for a reply, else those of one turn of the event
loop in one write. Replies are matched in the same order. There is no pool, and nothing is ever sent again: when the
connection breaks or a reply is late, every caller that waits is told so, and decides for itself. This module knows
bytes and no queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aqueue.store.scripts import Arg

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_pack = cast("Callable[[tuple[Arg, ...]], bytes]", hiredis.pack_command)
"""hiredis declares a tuple of one element."""

GARBLED: Final = (TypeError, ValueError, AttributeError, LookupError, RecursionError)
"""What the parsers of redis-py raise for bytes that are a reply by their form only, beside its own errors."""

REPLY_SECONDS: Final = 5.0
"""A server that has answered nothing for so long is taken for lost; scripts take about a millisecond."""
UNREAD_SECONDS: Final = 0.1
"""A look at the clock that comes later than this was kept by a blocked loop, and finds replies that nobody has read."""


AT_ONCE_BYTES: Final = 64 * 1024
"""Larger commands may have to wait for the socket, where a caller that is cancelled would take the connection along."""


class Link:
    """A connection whose replies are handed to whoever asked."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float, float]] = deque()
        """The futures of replies, each with its deadline and for how long the server may be silent before it."""
        self._answered_at = float("-inf")
        self._spared_since: float | None = None
        """The last answer at the time when a late look was put off, which is done once."""
        self._outbox: list[bytes] = []
        self._outgoing = asyncio.Event()
        self._broken: Exception | None = None
        self._late: asyncio.TimerHandle | None = None
        # The link owns these two; close() ends them, and so does the end of the connection.
        self._reader = self._loop.create_task(self._read(), name="aqueue link reader")
        self._writer = self._loop.create_task(self._write(), name="aqueue link writer")

    @property
    def alive(self) -> bool:
        return self._broken is None

    async def call(self, *command: Arg, timeout: float = REPLY_SECONDS) -> Any:
        """Send one command and return its reply.

        Units:  `timeout` in seconds.
        Errors: ResponseError as the server sent it; ConnectionError or TimeoutError when nobody can know
                whether the command was executed.
        """
        packed = _pack(command)  # first: what cannot be packed must not wait for a reply
        reply: asyncio.Future[Any] = self._loop.create_future()
        await self._leave(packed, (reply,), timeout)
        return await reply

    async def call_in_a_row(self, *commands: tuple[Arg, ...], timeout: float, first_decides: bool = False) -> list[Any]:
        """Send commands in one write, each executed once the one before has ended; return replies and refusals.

        With `first_decides` a refusal of the first ends the connection, since nobody wants to wait for the others.
        Units:  `timeout` in seconds, for all of them.
        Errors: as `call`; refusals that are not of the first, or without `first_decides`, are returned.
        """
        packed = b"".join([_pack(command) for command in commands])
        replies = [self._loop.create_future() for _ in commands]
        await self._leave(packed, replies, timeout)
        if first_decides:
            await self._unless_refused(*replies)
        answers = await asyncio.gather(*replies, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, ResponseError):
                raise answer
        return answers

    async def _unless_refused(self, first: asyncio.Future[Any], *others: asyncio.Future[Any]) -> None:
        try:
            await asyncio.shield(first)
        except ResponseError:
            self._break(RedisConnectionError("what was to be waited for was refused"))
            await asyncio.gather(*others, return_exceptions=True)
            raise

    async def _leave(self, packed: bytes, replies: Sequence[asyncio.Future[Any]], timeout: float) -> None:
        if self._broken is not None:
            raise RedisConnectionError("the connection is closed") from self._broken
        deadline = self._loop.time() + timeout
        at_once = not self._waiting and len(packed) <= AT_ONCE_BYTES
        silence = min(timeout, REPLY_SECONDS)
        self._waiting.extend([(reply, deadline, silence) for reply in replies])
        if self._late is None or deadline < self._late.when():
            self._watch(deadline)
        if at_once:
            try:
                await self._send([packed])
            except BaseException:  # cancelled while the socket was full, which ends the connection
                for reply in replies:
                    reply.cancel()
                raise
        else:
            self._outbox.append(packed)
            self._outgoing.set()

    async def _send(self, batch: list[bytes]) -> None:
        try:
            await self._connection.send_packed_command(batch, check_health=False)
        except (RedisError, OSError) as error:
            self._break(error)

    async def _write(self) -> None:
        try:
            while self._broken is None:
                await self._outgoing.wait()
                self._outgoing.clear()
                batch, self._outbox = self._outbox, []
                await self._send(batch)
        finally:
            await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(disable_decoding=True)
                except ResponseError as refusal:
                    reply = refusal
                self._answer(reply)
        except (RedisError, OSError) as error:
            self._break(error)
        except GARBLED as error:
            self._break(RedisConnectionError(f"what the server said is no reply: {error}"))
        finally:
            self._break(RedisConnectionError("the connection was closed"))
            await self._connection.disconnect(nowait=True)

    def _answer(self, reply: Any) -> None:
        if not self._waiting:
            raise RedisConnectionError("the server sent a reply that nobody asked for")
        future, _, _ = self._waiting.popleft()
        self._answered_at = self._loop.time()
        if future.done():  # its caller was cancelled
            return
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _watch(self, deadline: float) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self._loop.call_at(deadline, self._check_late)

    def _check_late(self) -> None:
        """Give up if a reply is overdue and none has come of late: who waits behind others waits for theirs, too."""
        late, self._late = self._late, None
        if late is None or not self._waiting:
            return
        now, answered = self._loop.time(), self._answered_at
        deadline = min(max(deadline, answered + silence) for _, deadline, silence in self._waiting)
        if deadline > now:
            self._watch(deadline)
        elif now > late.when() + UNREAD_SECONDS and self._spared_since != answered:
            self._spared_since = answered
            self._watch(now + UNREAD_SECONDS)
        else:
            self._break(RedisTimeoutError("the server did not answer in time"))

    def _break(self, error: Exception) -> None:
        if self._broken is not None:
            return
        self._broken = error
        if self._late is not None:
            self._late.cancel()
        for task in {self._reader, self._writer} - {asyncio.current_task(self._loop)}:
            task.cancel()
        while self._waiting:
            future, _, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)

    async def close(self) -> None:
        """End the connection; callers that still wait get a ConnectionError."""
        self._break(RedisConnectionError("the connection was closed"))
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)
        await self._connection.disconnect(nowait=True)  # a task that is cancelled before its first step runs no finally


class Subscription:
    """A connection on which one process is spoken to."""

    def __init__(
        self, connection: AbstractConnection, heard: Callable[[str, str], None], ended: Callable[[str], None]
    ) -> None:
        """`heard` is told channel and message; `ended` of a channel that the server no longer speaks on."""
        self._connection = connection
        self._heard = heard
        self._ended = ended
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._asked: deque[str] = deque()
        """Channels whose subscription has not been answered yet, in order."""
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="aqueue subscription")

    async def subscribe(self, channel: str) -> None:
        """Return once the server has confirmed that messages on this channel will arrive.

        Errors: ResponseError if it refuses this channel, others if the connection has ended.
        """
        confirmed = self._confirmed.setdefault(channel, asyncio.get_running_loop().create_future())
        self._asked.append(channel)
        await self._send("SSUBSCRIBE", channel)
        async with asyncio.timeout(REPLY_SECONDS):
            await asyncio.shield(confirmed)

    async def unsubscribe(self, channel: str) -> None:
        """Hear no more of a channel."""
        self._confirmed.pop(channel, None)
        await self._send("SUNSUBSCRIBE", channel)

    async def _send(self, *command: str) -> None:
        await self._connection.send_packed_command([_pack(command)], check_health=False)

    async def _read(self) -> None:
        error: Exception = RedisConnectionError("the subscription was closed")
        try:
            while True:
                try:
                    push = await self._connection.read_response(disable_decoding=True, push_request=True)
                except ResponseError as refusal:
                    self._refused(refusal)
                    continue
                self._take(push)
        except (RedisError, OSError) as problem:
            error = problem
        except GARBLED as problem:
            error = RedisConnectionError(f"what the server said is no message: {problem}")
        finally:
            for future in self._confirmed.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # seen: whoever waits gets it, nobody else need be warned
            await self._connection.disconnect(nowait=True)

    def _take(self, push: Any) -> None:
        """Take one message. Errors: ConnectionError for what is none, since nobody knows what will follow."""
        match push:
            case [b"smessage", bytes() as channel, bytes() as data]:
                self._heard(channel.decode("utf-8", "replace"), data.decode("utf-8", "surrogateescape"))
            case [b"ssubscribe", bytes() as channel, _]:
                self._answered(channel.decode("utf-8", "replace"))
            case [b"sunsubscribe", channel, _]:
                name = channel.decode("utf-8", "replace") if channel else ""
                if self._confirmed.pop(name, None):
                    self._ended(name)  # unasked: its slot has moved to another server
            case _:
                raise RedisConnectionError("the server sent what is no message")

    def _answered(self, channel: str) -> None:
        if channel in self._asked:
            self._asked.remove(channel)
        if (known := self._confirmed.get(channel)) and not known.done():
            known.set_result(None)

    def _refused(self, refusal: ResponseError) -> None:
        """Tell whoever asked first; a refusal of anything else ends the connection."""
        if not self._asked:
            raise refusal
        known = self._confirmed.pop(self._asked.popleft(), None)
        if known is not None and not known.done():
            known.set_exception(refusal)

    @property
    def alive(self) -> bool:
        return not self._reader.done()

    async def ended(self) -> None:
        """Return when the connection is gone."""
        await asyncio.wait([self._reader])

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._connection.disconnect(nowait=True)  # as in Link.close
