"""How the peers' files turn a job of the benchmark into a call of theirs. Standard library only."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import Any, Final

MANY_CONNECTIONS: Final = 1_000
"""More than any concurrency that is measured; redis-py 8 refuses the 101st connection of a pool otherwise."""
READ_SECONDS: Final = 60
"""redis-py 8 takes a silent connection for dead after 5 s otherwise, which ends the blocking pops of idle workers."""
RESULT_SECONDS: Final = 3_600
"""How long results are kept where a peer lets one choose: longer than any measurement."""


def positional(number: int, payload: str | None) -> tuple[Any, ...]:
    return (number,) if payload is None else (number, payload)


def named(number: int, payload: str | None) -> dict[str, Any]:
    return {"number": number} if payload is None else {"number": number, "payload": payload}


def patient(url: str) -> str:
    """Let a blocking pop wait; the query of the address is redis-py's own way to say so."""
    return f"{url}?socket_timeout={READ_SECONDS}"


def pooled(url: str) -> str:
    """Let a pool grow with the concurrency, besides."""
    return f"{patient(url)}&max_connections={MANY_CONNECTIONS}"


async def terminated() -> None:
    """Return when SIGTERM arrives, for workers whose signals are the caller's business."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()


def wait_for_sigterm() -> None:
    """Sleep in the main thread until SIGTERM arrives, for workers that run in threads of their own."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: asked.set())
    with contextlib.suppress(KeyboardInterrupt):
        asked.wait()
