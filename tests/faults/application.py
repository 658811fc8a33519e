"""The application that the fault tests run in worker processes.

Each run is written to a file outside of the system under test: one line when it starts, one when it ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from aqueue import Concurrency, Context, Queue, Retry, Settings

RECORD = os.environ.get("FAULT_RECORD", os.devnull)
LEASE = float(os.environ.get("FAULT_LEASE", "15"))
BLOCKED_CAP = float(os.environ.get("FAULT_BLOCKED_CAP", "300"))
PERMIT_LEASE = float(os.environ.get("FAULT_PERMIT_LEASE", "1"))
KEEP = float(os.environ.get("FAULT_KEEP", "3600"))
CRASH_LIMIT = int(os.environ.get("FAULT_CRASH_LIMIT", "3"))

queue = Queue(
    os.environ.get("FAULT_QUEUE", "faults"),
    settings=Settings(
        lease=LEASE, blocked_loop_cap=BLOCKED_CAP, crash_limit=CRASH_LIMIT, result_ttl=KEEP, failure_ttl=KEEP
    ),
)


def record(what: str, context: Context) -> None:
    assert context.job is not None
    line = f"{what} {context.job.id} {os.getpid()} {time.time():.3f} {context.attempt} {context.crashes}\n"
    handle = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())  # one write of a short line is atomic with O_APPEND
    finally:
        os.close(handle)


@queue.task
async def brief(context: Context, seconds: float) -> str:
    record("start", context)
    await asyncio.sleep(seconds)
    record("end", context)
    return "done"


@queue.task
async def relay(context: Context, delay: float, ttl: float) -> str:
    """Be a producer: enqueue another job, and give its id."""
    record("start", context)
    job = await queue.remote("brief").options(delay=delay, ttl=ttl).enqueue(0)
    record("end", context)
    return str(job.id)


@queue.task
async def of_a_key(context: Context, key: int, seconds: float) -> str:
    record("start", context)
    await asyncio.sleep(seconds)
    record("end", context)
    return "done"


@queue.task
async def with_permit(context: Context, limit: int, seconds: float) -> str:
    """Be one of so many at once, in a part of the job."""
    async with queue.limiter(Concurrency(limit, name="permits"), wait=60, lease=PERMIT_LEASE):
        record("start", context)
        await asyncio.sleep(seconds)
        record("end", context)
    return "done"


@queue.task
async def gated(context: Context, path: str) -> str:
    record("start", context)
    while not Path(path).exists():  # another process opens the gate
        await asyncio.sleep(0.01)
    record("end", context)
    return "done"


@queue.task
async def blocking(context: Context, seconds: float) -> str:
    record("start", context)
    time.sleep(seconds)
    record("end", context)
    return "done"


@queue.task
def threaded(context: Context, seconds: float) -> str:
    record("start", context)
    time.sleep(seconds)
    record("end", context)
    return "done"


@queue.task(retry=Retry(max_attempts=3, backoff=0.01))
async def second_time(context: Context) -> str:
    record("start", context)
    if context.attempt == 1:
        raise ValueError("the first time it fails")
    record("end", context)
    return "done"


@queue.task
async def endless_at_first(context: Context) -> str:
    """Wait for ever, unless a worker has died of this job before."""
    record("start", context)
    try:
        while context.crashes == 0:
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        record("cancelled", context)
        raise
    record("end", context)
    return "done"


@queue.task
async def blocking_at_first(context: Context, path: str) -> str:
    """Let nothing else turn until another process opens the gate, unless a worker was given up for this job before."""
    record("start", context)
    while context.crashes == 0 and not Path(path).exists():
        time.sleep(0.01)
    record("end", context)
    return "done"


@queue.task
async def poison(context: Context) -> None:
    record("start", context)
    os.kill(os.getpid(), 9)
