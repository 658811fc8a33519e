"""A deploy in the midst of work: a worker process gets SIGTERM, and what it cannot finish runs in the next one."""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from pathlib import Path

from aqueue import Queue

queue = Queue("graceful")
log = logging.getLogger("deploy")


@queue.task
async def work(seconds: float) -> str:
    """Start over after an interruption: what a job does must be harmless when it is done twice."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:  # the grace is over
        log.info("cleaning up")
        raise
    return f"{seconds} s of work done by process {os.getpid()}"


async def start_worker(*options: str) -> Process:
    """Run `python -m aqueue.worker graceful:queue`, where graceful is this file."""
    command = [sys.executable, "-m", "aqueue.worker", "graceful:queue", *options]
    return await create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})


async def main() -> None:
    async with queue:
        jobs = await queue.enqueue_many(work.call(seconds) for seconds in (0.2, 0.4, 2.5))
        old = await start_worker("--grace", "1s")
        print("before SIGTERM:", await jobs[0].result())
        old.terminate()
        print("within the grace of a second:", await jobs[1].result())
        print("the old worker exits with", await old.wait())
        info = await jobs[2].info()
        print(f"the third job is {info.state}, with {info.attempt} attempts and {info.crashes} crashes counted")
        new = await start_worker("--burst")  # works until nothing is queued
        print("after the deploy:", await jobs[2].result())
        print("the new worker exits with", await new.wait())


if __name__ == "__main__":
    asyncio.run(main())
