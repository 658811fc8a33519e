"""As much of the wire protocol as a proxy must know: where a request ends, and where a reply does."""

from __future__ import annotations

import asyncio
from typing import Final

Words = list[bytes]

_LINES: Final = b"+-:_#,("
_BLOCKS: Final = b"$=!"
_LISTS: Final = b"*~>"
_MAPS: Final = b"%|"


async def read_request(reader: asyncio.StreamReader) -> Words:
    """Read one command. Errors: IncompleteReadError at the end of the stream."""
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


def request(words: Words) -> bytes:
    """Write one command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one whole reply or push, as it stands on the wire. Errors: as `read_request`."""
    parts, missing = list[bytes](), 1
    while missing:
        line = await reader.readuntil(b"\r\n")
        parts.append(line)
        missing -= 1
        kind, count = line[:1], line[1:-2]
        if kind in _BLOCKS and count != b"-1":
            parts.append(await reader.readexactly(int(count) + 2))
        elif kind in _LISTS and count != b"-1":
            missing += int(count)
        elif kind in _MAPS:
            missing += 2 * int(count)
        else:
            assert kind in _LINES or count == b"-1", f"no reply starts like this: {line!r}"
    return b"".join(parts)


def is_message(reply: bytes) -> bool:
    """Say whether the server said this unasked; a confirmed subscription is an answer."""
    return reply.startswith(b">") and b"subscribe\r\n" not in reply[:32]
