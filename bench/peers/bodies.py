"""What the jobs do: the same for every peer, in a blocking and in an async form.

Each body first notes its number in the trace; from the trace the harness counts, verifies and times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from bench.peers.base import trace

IO_SECONDS: Final = 0.010
"""What an I/O job waits for."""


def noop(number: int) -> int:
    trace().note(number)
    return number


def io(number: int) -> int:
    trace().note(number)
    time.sleep(IO_SECONDS)
    return number


def echo(number: int, payload: str) -> int:
    trace().note(number)
    return len(payload)


async def noop_async(number: int) -> int:
    trace().note(number)
    return number


async def io_async(number: int) -> int:
    trace().note(number)
    await asyncio.sleep(IO_SECONDS)
    return number


async def echo_async(number: int, payload: str) -> int:
    trace().note(number)
    return len(payload)


BLOCKING: Final[dict[str, Callable[..., Any]]] = {"noop": noop, "io": io, "echo": echo}
"""Task name -> function, for peers that run threads or processes."""
ASYNC: Final[dict[str, Callable[..., Awaitable[Any]]]] = {"noop": noop_async, "io": io_async, "echo": echo_async}
"""Task name -> coroutine function, for peers that run coroutines."""
