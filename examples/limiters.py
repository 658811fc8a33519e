"""Limits around a part of a job, and outside of jobs, for all processes together.

$ python examples/limiters.py
4 reports, at most 2 at once at the printer
6 calls in 0.4 s
ann is to try again within a minute
4 pushes done, 3 turned away at first, 0 attempts counted
"""

import asyncio

from aqueue import Concurrency, Queue, Rate, RateLimited, Window, Worker

queue = Queue("limiters")
printer = queue.limiter(Concurrency(2, name="printer"), wait="30s")  # stands in line, for so long at most
partner = queue.limiter(Rate(10, per="1s", burst=2, name="partner"), wait=True)  # waits as long as it takes
crm = queue.limiter(Rate(10, name="crm"))  # does not wait: raises RateLimited
printing: list[int] = []


@queue.task
async def report(number: int) -> int:
    async with printer:
        printing.append(number)
        await asyncio.sleep(0.02)
        printing.remove(number)
        return len(printing) + 1


@queue.task(retry=1)
async def push() -> None:
    async with crm:  # without room the job comes back at the very instant when there is some
        pass


async def call() -> float:
    async with partner:  # no job, and no worker is needed
        return asyncio.get_running_loop().time()


async def main() -> None:
    async with queue, Worker(queue, concurrency=10):
        reports = await queue.enqueue_many(report.call(n) for n in range(4))
        print("4 reports, at most", max([await job.result() for job in reports]), "at once at the printer")
        began = asyncio.get_running_loop().time()
        print(f"6 calls in {max(await asyncio.gather(*(call() for _ in range(6)))) - began:.1f} s")
        try:
            for _ in range(4):
                await queue.limiter(Window(3, per="1m", name="logins of ann")).acquire()
        except RateLimited as error:
            print(f"ann is to try again {'within a minute' if error.retry_after <= 60 else 'later'}")
        pushes = await queue.enqueue_many(push.call() for _ in range(4))
        await asyncio.gather(*(job.result() for job in pushes))
        infos = [await job.info() for job in pushes]
        away = sum(info.limited > 0 for info in infos)
        print(f"4 pushes done, {away} turned away at first, {sum(info.attempt for info in infos)} attempts counted")


asyncio.run(main())
