"""A worker process that kills itself at a chosen point: before or after a chosen call to the server.

`FAULT_CRASH` names the point, as in `after settle_and_claim 2`. `FAULT_CALLS` is a file into which every point that is
passed is written, from which a test learns which there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from aqueue import Context, Middleware, Settings, Worker
from aqueue.middleware import Run
from aqueue.store.link import Link
from aqueue.worker import maintenance
from faults.application import queue
from faults.proxy import name_of

CRASH = os.environ.get("FAULT_CRASH", "")
CALLS = os.environ.get("FAULT_CALLS", os.devnull)
RUNS = int(os.environ.get("FAULT_RUNS", "1"))
KINDS = {
    "schedules",
    "describe",
    "tick",
    "settle_and_claim",
    "BLMOVE",
    "BLMOVE+settle_and_claim",
    "extend",
    "reclaim",
    "prune",
}
"""The worker leaves when so many runs have ended and it has made calls of all these kinds, or has had its time."""
PATIENCE_SECONDS = 30.0

_call = Link.call
_call_in_a_row = Link.call_in_a_row
_counts: Counter[str] = Counter()


def point(when: str, name: str, n: int) -> None:
    here = f"{when} {name} {n}"
    handle = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{here}\n".encode())
    os.close(handle)
    if here == CRASH:
        os.kill(os.getpid(), signal.SIGKILL)


async def watched(name: str, reply: Awaitable[Any]) -> Any:
    _counts[name] += 1
    n = _counts[name]
    point("before", name, n)
    told = await reply
    point("after", name, n)
    return told


def named(command: tuple[Any, ...]) -> str:
    return name_of([word if isinstance(word, bytes) else str(word).encode() for word in command])


async def call(self: Link, *command: Any, **options: Any) -> Any:
    return await watched(named(command), _call(self, *command, **options))


async def call_in_a_row(self: Link, *commands: tuple[Any, ...], **options: Any) -> Any:
    return await watched("+".join(map(named, commands)), _call_in_a_row(self, *commands, **options))


class Count(Middleware):
    """Counts the runs that have ended."""

    def __init__(self) -> None:
        self.ended = 0

    async def around_run(self, context: Context, proceed: Run) -> Any:
        try:
            return await proceed()
        finally:
            self.ended += 1


async def main() -> None:
    runs = Count()
    worker = Worker(queue, concurrency=2, middleware=[runs])

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while runs.ended < RUNS or not _counts.keys() >= KINDS:
                    await asyncio.sleep(0.01)
        worker.stop()

    await asyncio.gather(worker.run(), leave())
    await queue.close()


if __name__ == "__main__":
    Link.call = call  # type: ignore[method-assign]
    Link.call_in_a_row = call_in_a_row  # type: ignore[method-assign]
    Settings.beat = property(lambda _: 0.05)  # type: ignore[assignment,method-assign]
    maintenance.PRUNE_SECONDS = 0.2  # type: ignore[misc]
    asyncio.run(main())
