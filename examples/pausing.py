"""A task is paused, and its jobs wait aside; two queues share a worker's starts by weight; one of them is capped."""

import asyncio
from collections import Counter

from aqueue import Queue, Worker

queue, high = Queue("default"), Queue("high")
started: list[str] = []
at_once = [0]


@queue.task
async def mail(n: int) -> None:
    started.append(f"mail {n}")


@queue.task
async def report() -> None:
    started.append("report")


@queue.task
async def usual() -> None:
    started.append("default")
    at_once.append(at_once[-1] + 1)
    await asyncio.sleep(0.001)
    at_once.append(at_once[-1] - 1)


@high.task
async def urgent() -> None:
    started.append("high")


async def main() -> None:
    async with queue, high:
        await mail.pause()  # for the whole fleet, from now on; or: aqueue pause default --task mail
        await queue.enqueue_many([*(mail.call(n) for n in (1, 2, 3)), report.call(), report.call()])
        await Worker(queue).run(burst=True)
        print("set aside:", (await queue.paused()).tasks)
        print("while mail is paused:", *started)
        await report.enqueue()
        await mail.resume()  # what was set aside starts before all that waits in the queue
        await Worker(queue, concurrency=1).run(burst=True)
        print("after the resume:", ", ".join(started[2:]))

        await queue.enqueue_many([usual.call() for _ in range(20)])
        await high.enqueue_many([urgent.call() for _ in range(20)])  # or: aqueue.worker pausing:high=2 pausing:queue=1
        await Worker(high, queue, weights={high: 2, queue: 1}, concurrency=1).run(burst=True)
        print("of the first 12 starts:", dict(Counter(started[6:18])))

        await queue.enqueue_many([usual.call() for _ in range(20)])  # or: aqueue.worker pausing:queue,max=2
        await Worker(high, queue, caps={queue: 2}, concurrency=10).run(burst=True)
        print("of default at once, with ten free slots:", max(at_once))


asyncio.run(main())
