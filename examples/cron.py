"""What repeats: started by the workers themselves, each slot once, however many of them there are."""

import asyncio

from aqueue import Context, Queue, Worker

queue = Queue("cron")
seen: list[str] = []
done = asyncio.Event()


@queue.every(0.2)
async def poll(ctx: Context) -> None:
    seen.append(f"poll {ctx.slot}")


@queue.cron("* * * * * *", kwargs={"greeting": "a second has passed"})  # six fields: with seconds
async def strike(greeting: str) -> None:
    seen.append(greeting)
    if seen.count(greeting) == 2:
        done.set()


@queue.cron("0 3 * * *", tz="Europe/Paris", run_at_start=True)  # at three at night, and when it is new
@queue.task(timeout="10m")
async def clean_up() -> None:
    seen.append("clean")


async def main() -> None:
    async with queue, Worker(queue), Worker(queue), Worker(queue):  # three workers, and everything once
        await done.wait()
        entries = await queue.schedules.list()
        print("scheduled:", ", ".join(sorted(entry.id for entry in entries)))
        polls = [words for words in seen if words.startswith("poll")]
        print("polled", "several times, each slot once" if 1 < len(polls) == len(set(polls)) else polls)
        print(next(words for words in seen if words.startswith("a second")))


asyncio.run(main())
