"""How long what is kept: results and failures for a time, for ever or not at all; and a job that is too old to start.

for an hour, as nothing else is said: pong
for a minute: pong
for ever: pong
not at all: JobNotFound
failures that are kept: 1 of 2
too old to start: JobExpired
"""

import asyncio
import logging
from typing import Any

from aqueue import AqueueError, Job, Queue, Settings, Worker

queue = Queue("lifetimes", settings=Settings(result_ttl=3600, failure_ttl=7 * 86_400))


@queue.task
async def ping() -> str:
    return "pong"


@queue.task(retry=1)
async def fragile() -> None:
    raise OSError("broken")


async def told(job: Job[Any]) -> str:
    try:
        return str(await job.result(timeout=5))
    except AqueueError as error:
        return type(error).__name__


async def main() -> None:
    async with queue:
        hour, minute = await ping.enqueue(), await ping.options(result_ttl="1m").enqueue()
        for_ever, not_at_all = [await ping.options(result_ttl=ttl).enqueue() for ttl in (-1, 0)]
        await fragile.enqueue()
        await fragile.options(failure_ttl=0).enqueue()
        old = await ping.options(ttl=0.05).enqueue()
        await asyncio.sleep(0.1)
        await Worker(queue).run(burst=True)

        print("for an hour, as nothing else is said:", await told(hour))
        print("for a minute:", await told(minute))
        print("for ever:", await told(for_ever))
        print("not at all:", await told(not_at_all))
        print("failures that are kept:", await queue.failed.count(), "of 2")
        print("too old to start:", await told(old))
        await queue.delete(for_ever.id)
        await queue.failed.purge()


logging.getLogger("aqueue.worker").setLevel(logging.CRITICAL)
asyncio.run(main())
