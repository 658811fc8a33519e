"""Who starts first, which calls are the same work, and how many run at once, for all workers together."""

import asyncio

from aqueue import Concurrency, Debounce, Queue, Rate, Throttle, Unique, Worker

queue = Queue("order")
running: list[str] = []


@queue.task
async def say(words: str) -> None:
    print(words)


@queue.task(limit=Concurrency(2, key="customer"))
async def export(customer: str) -> int:
    running.append(customer)
    at_once = len(running)
    await asyncio.sleep(0.02)
    running.remove(customer)
    return at_once


@queue.task(limit=Rate(20, per="1s", burst=2))
async def call_api() -> None: ...


@queue.task(unique=Debounce(0.2, "document"))
async def index(document: str, version: int) -> str:
    return f"{document} in version {version}"


@queue.task(unique=Throttle("10m"))
async def alarm() -> None: ...


async def main() -> None:
    async with queue:
        for words, priority in (("last", 0), ("in the middle", 5), ("first", 9)):
            await say.options(priority=priority).enqueue(words)
        bill = say.options(unique=Unique())
        bills = [await bill.enqueue("one bill") for _ in range(3)]
        print(f"{len({job.id for job in bills})} bill for {len(bills)} calls")
        alarms = [await alarm.enqueue() for _ in range(5)]
        print(f"{sum(job.created for job in alarms)} alarm for {len(alarms)} calls")
        versions = [await index.enqueue("readme", version) for version in (1, 2, 3)]
        async with Worker(queue, concurrency=10):
            exports = await queue.enqueue_many(export.call("acme") for _ in range(10))
            print("at most", max([await job.result() for job in exports]), "exports at once on ten free slots")
            print("indexed", await versions[0].result())
            calls = await queue.enqueue_many(call_api.call() for _ in range(6))
            await asyncio.gather(*(job.result() for job in calls))
            starts = sorted([info.started_at for job in calls if (info := await job.info()).started_at])
            print(f"6 calls in {(starts[-1] - starts[0]).total_seconds():.1f} s")
        await queue.delete(alarms[0].id)  # so that the next run may ring again


asyncio.run(main())
