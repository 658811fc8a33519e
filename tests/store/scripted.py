"""A server of a few lines that says what a test wants to hear."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

Command: TypeAlias = list[bytes]
Answer: TypeAlias = Callable[[Command], bytes | None]

OK = b"+OK\r\n"
HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


def echo(command: Command) -> bytes:
    """Answer with the last argument."""
    return bulk(command[-1])


class ScriptedServer:
    """Answers the greeting by itself and everything else by `answer`; None leaves a command without a reply."""

    def __init__(self, answer: Answer = echo) -> None:
        self.answer = answer
        self.heard: list[Command] = []
        self._directory = tempfile.TemporaryDirectory(prefix="aqueue-test-")
        self.path = Path(self._directory.name) / "s"
        self.url = f"unix://{self.path}"
        self._clients: list[asyncio.StreamWriter] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._server.close()
        await self.drop()
        await self._server.wait_closed()
        self._directory.cleanup()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        self.connections += 1
        try:
            while True:
                command = await _read(reader)
                reply = self._greeting(command)
                if reply is None:
                    self.heard.append(command)
                    reply = self.answer(command)
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    @staticmethod
    def _greeting(command: Sequence[bytes]) -> bytes | None:
        if command[0] == b"HELLO":
            return HELLO
        if command[:2] == [b"CLIENT", b"SETINFO"]:
            return OK
        return None

    async def say(self, data: bytes) -> None:
        """Send something unasked to everybody."""
        for writer in self._clients:
            writer.write(data)
            await writer.drain()

    async def drop(self) -> None:
        """Cut every connection."""
        clients, self._clients = self._clients, []
        for writer in clients:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Command:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    command = []
    for _ in range(count):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        command.append((await reader.readexactly(length + 2))[:-2])
    return command
