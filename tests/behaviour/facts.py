"""How these tests wait: for facts, never for time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aqueue import Job, JobState

DEADLINE_SECONDS = 10.0
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


async def until_ended(*jobs: Job[Any]) -> None:
    """Return once none of these jobs can run any more."""
    for job in jobs:

        async def ended(job: Job[Any] = job) -> bool:
            return (await job.status()).ended

        await until(ended, f"{job} has ended")
