"""Layers around jobs: an id through a whole request, errors reported, runs measured, an order undone, one of your own.

It prints:
    [r-1] charging 7
    TimeoutError('the attempt took longer than its timeout of 0.1 s') at attempt 1 of 2: Retrying
    [r-1] charging 7
    alarm: charge failed for good
    TimeoutError('the attempt took longer than its timeout of 0.1 s') at attempt 2 of 2: Failed
    [r-1] the order is cancelled: TimeoutError
    charge retried, charge failed, cancel_order completed
"""

import asyncio
from contextvars import ContextVar

from aqueue import Middleware, Queue, Retry, Worker, moments
from aqueue.middlewares import Correlation, ErrorReporter, Metrics, Observation, OnExhausted

request_id: ContextVar[str] = ContextVar("request_id")  # as a web framework sets it
seen: list[Observation] = []


async def report(error: BaseException, event: moments.Unsuccessful) -> None:  # or sentry_sdk.capture_exception as it is
    print(f"{error!r} at attempt {event.attempt} of {event.max_attempts}: {type(event).__name__}")


async def undo(event: moments.Exhausted) -> None:  # told at least once: the key makes one job of it
    await cancel_order.options(key=event.job_id).enqueue(event.job_error.type)


class Alarm(Middleware):  # override what you need; the rest costs nothing
    async def on_failed(self, event: moments.Failed) -> None:
        print(f"alarm: {event.task} failed for good")


layers = Correlation(request_id), ErrorReporter(report), OnExhausted(undo, tasks=["charge"]), Metrics(seen.append)
queue = Queue("middleware", middleware=[*layers, Alarm()])


@queue.task(retry=Retry(max_attempts=2, backoff=0), timeout=0.1)
async def charge(order: int) -> None:
    print(f"[{request_id.get()}] charging {order}")
    await asyncio.sleep(60)  # the bank does not answer


@queue.task
async def cancel_order(why: str) -> None:
    print(f"[{request_id.get()}] the order is cancelled: {why}")


async def main() -> None:
    request_id.set("r-1")
    async with queue:
        await charge.enqueue(7)
        await Worker(queue).run(burst=True)
        print(", ".join(f"{run.task} {run.outcome}" for run in seen))


asyncio.run(main())
