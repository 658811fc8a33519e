"""What becomes of jobs that fail: tried again, tried later, stopped in time, given up; then listed and run again."""

import asyncio

from aqueue import Context, Discard, Job, JobFailed, Queue, Retry, RetryLater, Worker

queue = Queue("retries")
prices: dict[str, int] = {}


@queue.task(retry=Retry(max_attempts=3, backoff=0.2))  # waits for up to 0.2 s, then for up to 0.4 s
async def unreliable(ctx: Context) -> str:
    if ctx.attempt < 3:
        raise ConnectionError("the other side hung up")
    return f"worked at attempt {ctx.attempt} of {ctx.max_attempts}"


@queue.task
async def rate_limited(ctx: Context) -> str:
    if ctx.attempt == 1:
        raise RetryLater(0.5, "429, Retry-After: 0.5")  # exactly then, whatever the back-off says
    return "worked half a second later"


@queue.task(timeout=0.3, retry=1)  # one attempt of 0.3 s at the most; by default it is four of 300 s
async def slow() -> None:
    await asyncio.sleep(60)


@queue.task
async def price(article: str) -> str:
    if article not in prices:
        raise Discard(f"no price for {article}")  # fails at once: trying again would not help
    return f"{article} costs {prices[article]}"


async def tell(job: Job[object]) -> None:
    try:
        print(f"{(await job.info()).task} completed: {await job.result()}")
    except JobFailed as failure:
        print(f"{(await job.info()).task} failed: {failure.exception_type}: {failure.reason}")


async def main() -> None:
    async with queue, Worker(queue):
        await queue.purge(failed=True)  # from an earlier run: failed jobs are kept for a week
        calls = unreliable.enqueue(), rate_limited.enqueue(), slow.enqueue(), price.enqueue("tea")
        for job in await asyncio.gather(*calls):
            await tell(job)
        prices["tea"] = 3  # one cause is mended
        for info in await queue.jobs("failed"):
            print(f"listed as failed: {info.task} {info.args}")
            if info.task == "price":
                await queue.rerun(info.id)  # with all its attempts anew
                await tell(price.job(info.id))


asyncio.run(main())
