"""What users write, and what a type checker must say of it. Checked by test_typing.py; never run.

A line that is to be refused ends in `# refused`; `reveal_type` lines name the type that is to be inferred.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from typing import reveal_type

from aqueue import Context, Depends, Job, Middleware, Queue, Retry, Settings, Task, Worker, enqueue, moments
from aqueue.middlewares import Correlation, ErrorReporter, Metrics, Observation, OnExhausted

queue = Queue("default")


class Pool: ...


def get_pool() -> Pool:
    return Pool()


@queue.task
async def title(url: str, *, upper: bool = False) -> str:
    return url.upper() if upper else url


@queue.task(retry=Retry(max_attempts=2), timeout="5m")
async def length(context: Context, text: str) -> int:
    return len(text) + context.attempt


@queue.task
def plain(number: int) -> float:
    return number / 2


@queue.task
async def anything(ctx: Context, value: object) -> bytes:
    return ctx.task.encode()


@queue.task
async def something(value: object, more: int = 1) -> bytes:
    return bytes(more)


@queue.task
async def stored(user_id: int, db: Pool = Depends(get_pool)) -> None: ...


async def use() -> None:
    reveal_type(await title.enqueue("https://example.org"))  # Job[str]
    reveal_type(await title.enqueue("https://example.org", upper=True))  # Job[str]
    await title.enqueue(5)  # refused
    await title.enqueue()  # refused
    await title.enqueue("a", "b")  # refused
    await title.enqueue("a", lower=True)  # refused

    reveal_type(await length.enqueue("text"))  # Job[int]
    await length.enqueue(5)  # refused
    await length.enqueue(Context(task="t"), "text")  # refused

    reveal_type(await plain.enqueue(4))  # Job[float]
    await plain.enqueue("4")  # refused

    reveal_type(await anything.enqueue([1]))  # Job[bytes]
    reveal_type(await something.enqueue([1], 2))  # Job[bytes]
    await something.enqueue([1], "2")  # refused

    reveal_type(await stored.enqueue(7))  # Job[None]
    await stored.enqueue("7")  # refused

    reveal_type(await title.options(delay=60, key="k").enqueue("a"))  # Job[str]
    await title.options(delay=timedelta(seconds=1)).enqueue(1)  # refused
    title.options(dellay=60)  # refused

    reveal_type(await enqueue(title, "a"))  # Job[str]
    await enqueue(title, 1)  # refused
    reveal_type(await queue.enqueue(length, "a"))  # Job[int]
    await queue.enqueue(length, 1)  # refused
    reveal_type(await queue.enqueue("title", "a"))  # Job[Any]

    reveal_type(await queue.enqueue_many(title.call(url) for url in ["a"]))  # list[Job[str]]
    title.call(1)  # refused
    await queue.enqueue_many([title.call("a"), plain.call(1)])

    job: Job[str] = await title.enqueue("a")
    reveal_type(await job.result(timeout=10))  # str
    reveal_type(await title("a"))  # str
    await title(1)  # refused


async def other_ways() -> None:
    reveal_type(title.job("id"))  # Job[str]
    reveal_type(queue.job("id"))  # Job[Any]
    reveal_type(await plain(3))  # float
    reveal_type(await stored(7, db=Pool()))  # None
    reveal_type(await title.options(retry=2, result_ttl=-1, queue=Queue("other")).enqueue("a"))  # Job[str]
    await plain.options(timeout="1m").enqueue()  # refused
    await enqueue(title)  # refused
    await enqueue(length, 5)  # refused
    await queue.enqueue(title, "a", uper=True)  # refused
    await queue.enqueue_many(title.call(n) for n in (1, 2))  # refused
    await queue.enqueue_many([title])  # refused
    title.options(delay=[1])  # refused
    queue.task(timeout=[5])  # refused
    queue.task(delay=5)  # refused
    Worker("queue")  # refused
    Depends(3)  # refused


def policies() -> None:
    Retry(max_attempts=None, backoff="5s", growth="linear", cap=timedelta(minutes=5), jitter="equal")
    Retry(delays=[5, "30s", timedelta(minutes=2)], retry_on=OSError, no_retry_on=(FileNotFoundError, PermissionError))
    Retry(when=lambda error, attempt: isinstance(error, OSError) and attempt < 3, jitter=False)
    Retry(growth="fibonacci")  # refused
    Retry(jitter="some")  # refused
    Retry(delays=[None])  # refused
    Retry(retry_on="OSError")  # refused
    Retry(no_retry_on=[int])  # refused
    Retry(when=lambda error: True)  # refused
    Retry(4)  # refused


def settings() -> None:
    given = Settings(timeout="5m", lease=timedelta(seconds=30), result_ttl=-1)
    reveal_type(given.lease)  # float
    Settings(timeout=None)  # refused
    Settings(timeuot=5)  # refused
    Settings(5)  # refused
    given.timeout = 5  # refused


def handles_are_covariant(job: Job[bool]) -> Job[int]:
    return job


def tasks_are_values(task: Task[[int], float]) -> None:
    tasks_are_values(plain)
    tasks_are_values(stored)  # refused


class Layer(Middleware):
    async def on_completed(self, event: moments.Completed) -> None:
        reveal_type(event.ran)  # float
        reveal_type(event.job_id)  # JobId
        print(event.delay)  # refused
        event.task = "other"  # refused

    async def on_failed(self, event: moments.Failed) -> None:
        reveal_type(event.error)  # BaseException | None

    async def on_retry(self, event: moments.Failed) -> None: ...  # refused

    def on_started(self, event: moments.Started) -> None: ...  # refused


def takes_error(error: BaseException) -> str | None: ...


def takes_event(error: BaseException, event: moments.Unsuccessful) -> None: ...


async def takes_exhausted(event: moments.Exhausted) -> None: ...


def observe(seen: Observation) -> None: ...


def layers(request_id: ContextVar[str], maybe: ContextVar[int | None]) -> None:
    Queue("q", middleware=[Layer(), Correlation(request_id), Correlation(maybe)])
    Worker(queue, middleware=[ErrorReporter(takes_error), ErrorReporter(takes_event), OnExhausted(takes_exhausted)])
    Worker(queue, middleware=[Metrics(observe)])
    Queue("q", middleware=[Layer])  # refused
    Worker(queue, middleware=["layer"])  # refused
    ErrorReporter(takes_exhausted)  # refused
    OnExhausted(takes_error)  # refused
    Metrics(takes_exhausted)  # refused
