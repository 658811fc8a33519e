"""Which failures are worth another attempt, and when it comes; prints

charge: 402: attempt 1, not_retried
charge: 503: attempt 3, exhausted
charge: 503: attempt 1, exhausted
transfer: the attempt took longer than its timeout of 0.1 s: attempt 1, not_retried
report: ready after 4 looks, in attempt 1
"""

import asyncio
from itertools import count

from aqueue import Context, Job, JobFailed, Queue, Retry, RetryLater, Worker

queue = Queue("retry_rules")
looks = count(1)


class Refused(Exception):
    """Holds the status of an answer."""


def is_passing(error: BaseException, _: int) -> bool:
    return not isinstance(error, Refused) or error.args[0] >= 500


@queue.task(retry=Retry(delays=[0.1, 0.3], when=is_passing, no_retry_on=ValueError))  # three attempts
async def charge(status: int) -> None:
    raise Refused(status)


@queue.task(timeout=0.1, retry=Retry(backoff="30s", growth="linear", jitter="equal", retry_timeouts=False))
async def transfer() -> None:
    await asyncio.sleep(60)  # who knows how far it came: rather ask than pay twice


@queue.task(retry=Retry(max_attempts=None, cap="5m"))  # should it fail, it is tried for ever
async def report(ctx: Context) -> str:
    if (look := next(looks)) < 4:
        raise RetryLater(0.1, "not ready yet", count=False)  # looking is no failure
    return f"ready after {look} looks, in attempt {ctx.attempt}"


async def tell(job: Job[object]) -> None:
    try:
        print(f"{(await job.info()).task}: {await job.result()}")
    except JobFailed as error:
        info = await job.info()
        print(f"{info.task}: {error.reason}: attempt {info.attempt}, {info.failure}")


async def main() -> None:
    async with queue, Worker(queue):
        calls = charge.call(402), charge.call(503), charge.options(retry=1).call(503)  # the last is not to be retried
        for job in [*await queue.enqueue_many(calls), await transfer.enqueue(), await report.enqueue()]:
            await tell(job)


asyncio.run(main())
