"""Schedules that users of an application make while it runs: stored in Redis, and started by any worker.

Prints:

    report:acme: every 0.2 s, of the user
    acme's report for 1 of 3 slots
    acme's report for 2 of 3 slots
    acme's report for 3 of 3 slots
    reminder comes at its time: True
    report:acme is ended after 3 jobs
    tokyo next: 08:00 JST
"""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from aqueue import Context, Queue, Worker

queue = Queue("run-time-schedules")
reports = 0


@queue.task
async def report(customer: str) -> None:
    global reports  # noqa: PLW0603  # an example has no database
    reports += 1
    print(f"{customer}'s report for {reports} of 3 slots")


@queue.task
async def remind(ctx: Context) -> bool:
    return ctx.slot is not None and datetime.now(UTC) >= ctx.slot


async def main() -> None:
    async with queue, Worker(queue), Worker(queue):
        made = await queue.schedule(report.call("acme"), id="report:acme", every=0.2, repeat=3)
        print(f"{made.id}: {made.times}, of the {made.owner}")
        while (await queue.schedules.get("report:acme")).state != "ended" or reports < 3:
            await asyncio.sleep(0.05)

        once = await queue.schedule(remind.call(), id="reminder", at=datetime.now(UTC) + timedelta(seconds=0.3))
        while (reminded := await queue.schedules.get("reminder")).last_job is None:
            await asyncio.sleep(0.05)
        print("reminder comes at its time:", await remind.job(reminded.last_job).result(timeout=5))
        assert reminded.last_slot == once.next[0]

        ended = await queue.schedules.get("report:acme")
        print(f"{ended.id} is {ended.state} after {ended.jobs} jobs")

        await queue.schedule(report.call("tokyo"), id="report:tokyo", cron="0 8 * * 1-5", tz="Europe/Paris")
        moved = await queue.schedules.edit("report:tokyo", tz="Asia/Tokyo")
        print("tokyo next:", moved.next[0].astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M %Z"))
        await queue.schedules.delete("report:tokyo")


asyncio.run(main())
