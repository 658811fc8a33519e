"""A proxy between aqueue and its server that lies about chosen requests.

It follows both directions request by request and reply by reply, so a fault hits exactly one call, which is known by
its script's name. What has lost a byte is never in step again, as with TCP: a lost request or reply is followed by
nothing. Whoever is to be told apart gets a door of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from aqueue.store import scripts
from faults.latency import delayed
from faults.resp import Words, is_message, read_reply, read_request, request

DELAY_SECONDS: Final = 0.1
LATE_BY: Final = 3
"""A late request is executed after this many others."""


class Fault(Enum):
    """What becomes of one request."""

    LOST_REQUEST = "lost request"
    """It does not arrive, nor does anything after it; earlier replies do."""
    LOST_REPLY = "lost reply"
    """It is executed, as is all that follows; no reply arrives any more."""
    CUT_BEFORE = "cut before"
    """The connection ends instead."""
    CUT_AFTER = "cut after"
    """It is executed, and the connection ends instead of a reply."""
    GHOST = "ghost"
    """The caller's connection ends at once; the server executes it, and learns of the end only by answering."""
    DUPLICATE = "duplicate"
    """It is executed twice, and the second reply arrives."""
    LATE = "late"
    """The connection ends, and some requests later it is executed after all."""
    HALF_OPEN = "half-open"
    """The connection ends, and the next one through that door is accepted and never answered."""
    DELAY = "delay"
    """It takes a while."""


@dataclass(frozen=True)
class Refusal:
    """What the server is made to say instead of executing the request, such as `LOADING wait`."""

    line: str


@dataclass(frozen=True)
class Answer:
    """What the caller reads instead of the server's answer, byte by byte; the connection may end behind it."""

    raw: bytes
    last: bool = False


Lie: TypeAlias = Fault | Refusal | Answer


@dataclass(frozen=True)
class Request:
    """One command on its way."""

    door: str
    words: Words
    name: str
    """Of the script; else the command, with its first word for CLIENT."""
    number: int
    """Among all, from 1."""
    nth: int
    """Among those of its name, from 1."""


Decide: TypeAlias = Callable[[Request], Lie | None]


def honest(_: Request) -> None:
    """Let everything pass."""


def nth(name: str, n: int, lie: Lie) -> Decide:
    """Lie about the n-th call of this name."""
    return lambda request: lie if (request.name, request.nth) == (name, n) else None


def first_of_each(lie: Lie) -> Decide:
    """Lie about the first call of every name."""
    return lambda request: lie if request.nth == 1 else None


_SCRIPTS: Final = {scripts.load(name).sha.encode(): name for name in scripts.names()}


def name_of(words: Words) -> str:
    command = words[0].upper()
    if command == b"EVALSHA":
        return _SCRIPTS[words[1]]
    if command == b"EVAL":
        return _SCRIPTS[hashlib.sha1(words[1]).hexdigest().encode()]
    return b" ".join(words[:2] if command == b"CLIENT" else words[:1]).decode().upper()


class Door:
    """One address of the proxy, and what befalls everybody who comes this way."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.url = f"unix://{path}"
        self.passable = asyncio.Event()
        self.passable.set()
        self.bytes_per_second: float | None = None
        """Of each connection, each way."""
        self.latency_seconds = 0.0
        """How long everything is on its way, each way; it holds up nothing that comes after."""
        self.unanswered = 0
        """So many of the next connections are accepted and never answered."""
        self.wires: set[Wire] = set()
        self.listener: asyncio.Server | None = None

    def freeze(self) -> None:
        """Let nothing pass either way, as in a partition; what is sent meanwhile arrives after the thaw."""
        self.passable.clear()

    def thaw(self) -> None:
        self.passable.set()

    def cut(self) -> None:
        """End every connection through this door."""
        for wire in list(self.wires):
            wire.cut()


class Proxy:
    """Doors to one server, and the one decision about every request."""

    def __init__(self, target: Path, decide: Decide = honest) -> None:
        self.decide = decide
        self.requests: list[Request] = []
        """All that has come, with the name under which it can be lied about."""
        self.lies: list[tuple[Request, Lie]] = []
        self.target = target
        self._counts: Counter[str] = Counter()
        self._directory = tempfile.TemporaryDirectory(prefix="aqueue-proxy-")
        self._doors: list[Door] = []
        self._late: list[tuple[int, Words]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def door(self, name: str) -> Door:
        door = Door(name, Path(self._directory.name) / name)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(door, reader, writer)

        door.listener = await asyncio.start_unix_server(serve, str(door.path))
        self._doors.append(door)
        return door

    async def _serve(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(self, door, reader, writer)
        door.wires.add(wire)
        try:
            await wire.run()
        finally:
            door.wires.discard(wire)

    def judge(self, door: Door, words: Words) -> tuple[Request, Lie | None]:
        """Give a request its name and number, and say what is to become of it."""
        name = name_of(words)
        self._counts[name] += 1
        request = Request(door.name, words, name, len(self.requests) + 1, self._counts[name])
        self.requests.append(request)
        lie = self.decide(request)
        if lie is not None:
            self.lies.append((request, lie))
        self._bring_what_is_late()
        return request, lie

    def hold_back(self, words: Words) -> None:
        """Execute a request after some others, when nobody waits for it any more."""
        self._late.append((len(self.requests) + LATE_BY, words))

    def _bring_what_is_late(self) -> None:
        due = [words for when, words in self._late if when <= len(self.requests)]
        self._late = [(when, words) for when, words in self._late if when > len(self.requests)]
        for words in due:
            task = asyncio.get_running_loop().create_task(self._execute(words))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _execute(self, words: Words) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self.target))
        try:
            writer.write(request([b"HELLO", b"3"]) + request(words))
            for _ in range(2):
                await read_reply(reader)
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for door in self._doors:
            assert door.listener is not None
            door.listener.close()
            door.cut()
            await door.listener.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        while any(door.wires for door in self._doors) or self._tasks:
            await asyncio.sleep(0)
        self._directory.cleanup()


class _Fate(Enum):
    """What becomes of one reply."""

    DELIVER = "deliver"
    SWALLOW = "swallow"
    SILENCE = "silence"
    CUT = "cut"


_FATES: Final[dict[Fault | None, list[_Fate]]] = {
    None: [_Fate.DELIVER],
    Fault.DELAY: [_Fate.DELIVER],
    Fault.DUPLICATE: [_Fate.SWALLOW, _Fate.DELIVER],
    Fault.LOST_REPLY: [_Fate.SILENCE],
    Fault.CUT_AFTER: [_Fate.CUT],
    Fault.GHOST: [_Fate.CUT],
}
"""How the replies go to a request that is executed: once for each."""


class Wire:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._door = door
        self._reader = reader
        self._client = writer
        self._server: asyncio.StreamWriter | None = None
        self._due: deque[_Fate | bytes] = deque()
        """The replies that are still to come, in order; bytes are said by the proxy itself."""
        self._deaf = False
        self._mute = False

    async def run(self) -> None:
        if self._door.unanswered:
            self._door.unanswered -= 1
            with contextlib.suppress(OSError):
                while await self._reader.read(65_536):
                    pass
            self.cut()
            return
        try:
            replies, self._server = await asyncio.open_unix_connection(str(self._proxy.target), limit=2**24)
        except OSError:  # the server is away
            self.cut()
            return
        both = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies(replies))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    def cut(self) -> None:
        """End it both ways."""
        for writer in (self._client, self._server):
            if writer is not None:
                writer.transport.abort()

    async def _requests(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            async for words in delayed(lambda: read_request(self._reader), lambda: self._door.latency_seconds):
                await self._door.passable.wait()
                if not self._deaf:
                    request, lie = self._proxy.judge(self._door, words)
                    await self._treat(request, lie)

    async def _treat(self, asked: Request, lie: Lie | None) -> None:
        if isinstance(lie, Refusal):
            self._due.append(f"-{lie.line}\r\n".encode())
            await self._say_own()
        elif isinstance(lie, Answer):
            self._due.append(lie.raw)
            await self._say_own()
            if lie.last:
                self.cut()
        elif lie in _FATES:
            if lie is Fault.DELAY:
                await asyncio.sleep(DELAY_SECONDS)
            for fate in _FATES[lie]:
                await self._forward(asked, fate)
            if lie is Fault.GHOST:
                self._client.transport.abort()
                await asyncio.get_running_loop().create_future()  # until the reply ends it all
        elif lie is Fault.LOST_REQUEST:
            self._deaf = True
        else:
            if lie is Fault.LATE:
                self._proxy.hold_back(asked.words)
            self._door.unanswered += lie is Fault.HALF_OPEN
            self.cut()

    async def _forward(self, asked: Request, fate: _Fate) -> None:
        assert self._server is not None
        self._due.append(fate)
        await self._send(self._server, request(asked.words))

    async def _replies(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            async for reply in delayed(lambda: read_reply(reader), lambda: self._door.latency_seconds):
                await self._door.passable.wait()
                fate = _Fate.DELIVER if is_message(reply) else self._due.popleft()
                self._mute = self._mute or fate is _Fate.SILENCE
                if fate is _Fate.CUT:
                    return
                if fate is _Fate.DELIVER:
                    await self._say(reply)
                await self._say_own()

    async def _say_own(self) -> None:
        while self._due and isinstance(self._due[0], bytes):
            own = self._due.popleft()
            assert isinstance(own, bytes)
            await self._say(own)

    async def _say(self, reply: bytes) -> None:
        if self._mute:
            return
        await self._send(self._client, reply)

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        rate = self._door.bytes_per_second
        step = len(data) if rate is None else max(1, int(rate / 100))
        for first in range(0, len(data), step):
            writer.write(data[first : first + step])
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(step / rate)
