"""How these tests wait: for facts, never for time."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aqueue import Job, JobState

DEADLINE_SECONDS = 30.0
"""Ends a test that has failed; a fact that holds is seen within milliseconds."""


async def until(fact: Callable[[], Awaitable[object] | object], what: str = "the fact") -> None:
    """Return once `fact` is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        held = fact()
        if await held if inspect.isawaitable(held) else held:
            return
        assert time.monotonic() < deadline, f"never came true: {what}"
        await asyncio.sleep(0.005)


async def until_state(job: Job[Any], *states: JobState | str) -> None:
    """Return once the job is in one of these states."""

    async def there() -> bool:
        return await job.status() in states

    await until(there, f"{job} is {' or '.join(states)}")
    if "running" in states:
        await _begun(job)


async def _begun(job: Job[Any]) -> None:
    """Return once the job's code waits for something; the record says "running" from the claim on.

    A worker of this process names the task after the job. One of another process cannot be seen, so this looks only
    for a moment, unless there is one here whose server may not have told it yet.
    """
    for look in range(400):
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == job.id]
        if any(getattr(task.get_coro(), "cr_await", None) is not None for task in tasks):
            return
        if look >= 20 and not (_a_worker_is_here() and await job.status() == "running"):
            return
        await asyncio.sleep(0.005)


def _a_worker_is_here() -> bool:
    return any(thread.name == "aqueue heartbeat" for thread in threading.enumerate())


async def until_ended(*jobs: Job[Any]) -> None:
    """Return once none of these jobs can run any more."""
    for job in jobs:

        async def ended(job: Job[Any] = job) -> bool:
            return (await job.status()).ended

        await until(ended, f"{job} has ended")
