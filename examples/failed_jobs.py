"""After an outage: look what has failed and why, run some of it again, one with other arguments, and delete the rest.

4 failed, 2 of them because of the outage
Atlantis: retried, __main__.Unreachable: no answer
Atlantis: failed, ValueError: Atlantis is nowhere
queued again: 2
Paris is at 48.9, 2.4
Lima is at -12.0, -77.0
instead of Atlantis: Thera is at 36.4, 25.4
deleted: 1
"""

import asyncio
import logging

from aqueue import Context, Queue, Retry, Worker

PLACES = {"Paris": "48.9, 2.4", "Lima": "-12.0, -77.0", "Thera": "36.4, 25.4"}
queue = Queue("failed_jobs")
outage = asyncio.Event()


class Unreachable(OSError):
    """The service does not answer."""


@queue.task(retry=Retry(max_attempts=2, backoff=0))
async def locate(ctx: Context, place: str) -> str:
    if outage.is_set() and (place in PLACES or ctx.attempt == 1):
        raise Unreachable("no answer")
    if place not in PLACES:
        raise ValueError(f"{place} is nowhere")
    return f"{place} is at {PLACES[place]}"


async def main() -> None:
    async with queue:
        outage.set()
        paris, atlantis, lima, _ = [await locate.enqueue(place) for place in ("Paris", "Atlantis", "Lima", "El Dorado")]
        await Worker(queue).run(burst=True)
        of_outage = await queue.failed.count(error=Unreachable, newer_than="1h")
        print(f"{await queue.failed.count()} failed, {of_outage} of them because of the outage")
        page = await queue.failed.list(task="locate", error="ValueError")
        for run in next(info.history for info in page.jobs if info.id == atlantis.id):
            why = f"{run.error.type}: {run.error.message}" if run.error else "no error"
            print(f"Atlantis: {run.outcome}, {why}")

        outage.clear()
        print("queued again:", await queue.failed.rerun_all(error="Unreachable"))
        await queue.failed.rerun(atlantis.id, args=["Thera"])
        async with Worker(queue):
            print(await paris.result(timeout=10))
            print(await lima.result(timeout=10))
            print("instead of Atlantis:", await atlantis.result(timeout=10))
        print("deleted:", await queue.failed.purge())


logging.getLogger("aqueue.worker").setLevel(logging.CRITICAL)  # the tracebacks; what failed is told below
asyncio.run(main())
