"""Schedules that users of an application make while it runs: stored in Redis, and started by any worker.

Prints:

    report:acme: every 0.2 s, of the user
    report 1 of 3 for acme
    report 2 of 3 for acme
    report 3 of 3 for acme
    a reminder, not before its time: True
    report:acme has ended after 3 jobs
    report:tokyo comes at 08:00 JST
"""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from aqueue import Context, Queue, Worker

queue = Queue("run-time-schedules")
reports: list[str] = []
all_reported, reminded = asyncio.Event(), asyncio.Event()


@queue.task
async def report(customer: str) -> None:
    reports.append(customer)
    print(f"report {len(reports)} of 3 for {customer}")
    if len(reports) == 3:
        all_reported.set()


@queue.task
async def remind(ctx: Context) -> None:
    print("a reminder, not before its time:", ctx.slot is not None and datetime.now(UTC) >= ctx.slot)
    reminded.set()


async def main() -> None:
    async with queue, Worker(queue), Worker(queue):
        made = await queue.schedule(report.call("acme"), id="report:acme", every=0.2, repeat=3)
        print(f"{made.id}: {made.times}, of the {made.owner}")
        await all_reported.wait()

        await queue.schedule(remind.call(), id="reminder", at=datetime.now(UTC) + timedelta(seconds=0.3))
        await reminded.wait()

        over = await queue.schedules.get("report:acme")  # no longer listed, and known for a day
        print(f"{over.id} has {over.state} after {over.jobs} jobs")
        await queue.schedules.delete(over.id)  # else the same again, tomorrow's run of this file, would still be over

        await queue.schedule(report.call("tokyo"), id="report:tokyo", cron="0 8 * * 1-5", tz="Europe/Paris")
        moved = await queue.schedules.edit("report:tokyo", tz="Asia/Tokyo")
        print(moved.id, "comes at", moved.next[0].astimezone(ZoneInfo("Asia/Tokyo")).strftime("%H:%M %Z"))
        await queue.schedules.delete("report:tokyo")


asyncio.run(main())
