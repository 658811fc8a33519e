"""What enqueue stores, refuses and answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, cast

import pytest
import redis
from servers import Server

from aqueue import (
    BadArguments,
    ConfigurationError,
    Context,
    Depends,
    JobNotFound,
    JobState,
    NotSerializable,
    Queue,
    Retry,
    Settings,
    Worker,
    enqueue,
)

JUST_NOW = timedelta(seconds=10)


def record(raw: redis.Redis, job_id: str, queue: str = "q") -> dict[str, str]:
    return {str(name): str(value) for name, value in raw.hgetall(f"aqueue:{{{queue}}}:job:{job_id}").items()}


async def test_a_new_job_is_queued_with_its_arguments(queue: Queue) -> None:
    """What a caller passed is what a worker will find, and an operator will see."""

    @queue.task
    async def greet(name: str, *, times: int = 1) -> str:
        return name * times

    job = await greet.enqueue("ada", times=2)
    info = await job.info()

    assert job.created
    assert (info.state, info.task, info.args, info.kwargs) == (JobState.QUEUED, "greet", ["ada"], {"times": 2})
    assert (info.attempt, info.crashes, info.due_at, info.started_at, info.ended_at) == (0, 0, None, None, None)
    assert abs(info.enqueued_at - datetime.now(UTC)) < JUST_NOW


async def test_a_delayed_job_is_scheduled_for_later(queue: Queue) -> None:
    """A delay is a due time by the server's clock, and no worker may take the job before it."""

    @queue.task
    async def later() -> None: ...

    seconds = await later.options(delay=60).enqueue()
    text = await later.options(delay="1h30m").enqueue()
    delta = await later.options(delay=timedelta(days=2)).enqueue()

    for job, wanted in ((seconds, timedelta(minutes=1)), (text, timedelta(hours=1.5)), (delta, timedelta(days=2))):
        info = await job.info()
        assert info.state is JobState.SCHEDULED
        assert info.due_at is not None
        assert info.due_at - info.enqueued_at == wanted


async def test_a_job_may_be_due_at_an_instant_of_any_zone(queue: Queue) -> None:
    """Nine o'clock in Tokyo is one instant, wherever worker and server are."""
    zone = datetime(2100, 1, 1, 9, tzinfo=UTC).astimezone().tzinfo
    instant = datetime(2100, 1, 1, 9, tzinfo=zone)

    @queue.task
    async def later() -> None: ...

    info = await (await later.options(at=instant).enqueue()).info()

    assert info.state is JobState.SCHEDULED
    assert info.due_at == instant


async def test_an_instant_that_has_passed_means_now(queue: Queue) -> None:
    """Somebody who computes due times may be a moment late."""

    @queue.task
    async def now() -> None: ...

    for passed in (datetime.now(UTC) - timedelta(seconds=1), datetime(1960, 1, 1, tzinfo=UTC)):
        assert await (await now.options(at=passed).enqueue()).status() is JobState.QUEUED


async def test_a_waiting_ttl_is_stored_with_the_job(queue: Queue, raw: redis.Redis) -> None:
    """It counts from the moment the job is due, or a long delay would eat it."""

    @queue.task
    async def soon() -> None: ...

    job = await soon.options(delay=100, ttl=30).enqueue()
    stored = record(raw, job.id)

    assert int(stored["expires_ms"]) - int(stored["due_ms"]) == 30_000


async def test_timeout_and_retry_of_one_call_reach_the_run(queue: Queue) -> None:
    """Options of a call win over those of its task."""

    @queue.task(retry=Retry(max_attempts=9), timeout=50)
    async def look(context: Context) -> list[float]:
        return [context.attempt, context.max_attempts]

    jobs = [
        await look.enqueue(),
        await look.options(retry=2, timeout=60).enqueue(),
        await look.options(retry=Retry(max_attempts=3, jitter=False)).enqueue(),
    ]
    await Worker(queue).run(burst=True)

    assert [await job.result() for job in jobs] == [[1, 9], [1, 2], [1, 3]]


async def test_lifetimes_decide_how_long_an_end_is_kept(queue: Queue, raw: redis.Redis) -> None:
    """0 keeps nothing, -1 keeps it for ever, and everything else is seconds."""

    @queue.task
    async def work() -> str:
        return "done"

    none = await work.options(result_ttl=0).enqueue()
    short = await work.options(result_ttl=100).enqueue()
    default = await work.enqueue()
    ever = await work.options(result_ttl=-1).enqueue()
    await Worker(queue).run(burst=True)

    assert [await job.result() for job in (short, default, ever)] == ["done"] * 3
    with pytest.raises(JobNotFound, match="result_ttl"):
        await none.result(timeout=10)
    assert await none.status() is JobState.COMPLETED
    ttls = [raw.ttl(f"aqueue:{{q}}:job:{job.id}") for job in (none, short, default, ever)]
    assert 0 < ttls[0] <= 10
    assert 95 <= ttls[1] <= 100
    assert 3590 <= ttls[2] <= 3600
    assert ttls[3] == -1
    raw.delete(f"aqueue:{{q}}:job:{ever.id}")


async def test_failure_lifetimes_hold_for_failed_jobs_only(queue: Queue, raw: redis.Redis) -> None:
    """A failure is looked at days later, by somebody who was not waiting for it."""

    @queue.task(retry=1, failure_ttl=500, result_ttl=7)
    async def fail() -> None:
        raise ValueError

    task = await fail.enqueue()
    call = await fail.options(failure_ttl=90).enqueue()
    forgotten = await fail.options(failure_ttl=0).enqueue()
    await Worker(queue).run(burst=True)

    assert 495 <= raw.ttl(f"aqueue:{{q}}:job:{task.id}") <= 500
    assert 85 <= raw.ttl(f"aqueue:{{q}}:payload:{call.id}") <= 90
    assert 0 < raw.ttl(f"aqueue:{{q}}:job:{forgotten.id}") <= 10
    assert raw.exists(f"aqueue:{{q}}:payload:{forgotten.id}") == 0
    assert {info.id for info in await queue.jobs("failed")} == {task.id, call.id}


async def test_a_call_may_go_to_another_queue(queue: Queue, server: Server) -> None:
    """The same code may run urgently for one customer and lazily for the rest."""
    async with Queue("other", url=server.url) as other:

        @queue.task
        async def work() -> None: ...

        job = await work.options(queue=other).enqueue()

        assert job.queue == "other"
        assert (await other.stats()).queued == 1
        assert (await queue.stats()).queued == 0


async def test_options_make_copies_and_later_ones_win(queue: Queue, raw: redis.Redis) -> None:
    """A task is shared by the whole program; one caller's options must not reach another."""

    @queue.task
    async def work() -> None: ...

    slow = work.options(delay=60, ttl=5)
    slower = slow.options(at=datetime(2100, 1, 1, tzinfo=UTC))

    assert await (await work.enqueue()).status() is JobState.QUEUED
    assert (await (await slower.enqueue()).info()).due_at == datetime(2100, 1, 1, tzinfo=UTC)
    stored = record(raw, (await slow.enqueue()).id)
    assert int(stored["expires_ms"]) - int(stored["enqueued_ms"]) == 65_000


async def test_many_jobs_are_stored_in_order(queue: Queue) -> None:
    """A batch is no reason to lose first in, first out; 1,201 jobs take three scripts."""

    @queue.task
    async def note(n: int) -> int:
        return n

    jobs = await queue.enqueue_many(note.call(n) for n in range(1201))

    assert len({job.id for job in jobs}) == 1201
    assert all(job.created for job in jobs)
    assert (await queue.stats()).queued == 1201
    listed = await queue.jobs("queued", offset=0, limit=1201)
    assert [info.id for info in listed] == [job.id for job in jobs]


async def test_many_jobs_say_one_by_one_whether_they_are_new(queue: Queue) -> None:
    """Who imports a file twice wants to know what was there already."""

    @queue.task
    async def fetch(n: int) -> int:
        return n

    first = await fetch.options(key="b").enqueue(0)
    jobs = await queue.enqueue_many(fetch.options(key=key).call(i) for i, key in enumerate("abcb"))

    assert [job.created for job in jobs] == [True, False, True, False]
    assert jobs[1] == jobs[3] == first
    assert (await queue.stats()).queued == 3


async def test_a_key_twice_in_one_batch_is_one_job(queue: Queue) -> None:
    """Within a batch the same promise holds as between two calls."""

    @queue.task
    async def fetch(n: int) -> int:
        return n

    one, two = await queue.enqueue_many(fetch.options(key="a").call(n) for n in (1, 2))

    assert (one.created, two.created) == (True, False)
    assert one == two


async def test_nothing_is_stored_when_one_of_many_is_bad(queue: Queue, raw: redis.Redis) -> None:
    """Half an import is worse than none: it cannot be run again."""

    @queue.task
    async def take(value: object) -> None: ...

    before = raw.keys()
    good = [take.call(n) for n in range(700)]
    with pytest.raises(NotSerializable, match="argument 1 of take"):
        await queue.enqueue_many([*good, take.call(object()), *good])
    with pytest.raises(BadArguments):
        await queue.enqueue_many(take.call(*(1,) * n) for n in (1, 1, 2, 1))
    with pytest.raises(ConfigurationError, match=r"task\.call"):
        await queue.enqueue_many([*good, cast("Any", take)])
    with pytest.raises(NotSerializable, match="allowed"):
        await queue.enqueue_many([*good, take.call("x" * 2_000_000)])

    assert raw.keys() == before


async def test_no_jobs_at_all_are_no_error(queue: Queue) -> None:
    """Batches come from loops, and some loops find nothing to do."""
    assert await queue.enqueue_many([]) == []


async def test_a_task_can_be_enqueued_by_name_alone(server: Server) -> None:
    """A producer need not have the worker's code, nor its dependencies."""
    async with Queue("q", url=server.url) as producer, Queue("q", url=server.url) as consumer:

        @consumer.task
        async def join(words: list[str], *, by: str) -> str:
            return by.join(words)

        plain = await producer.enqueue("join", ["a", "b"], by="-")
        optioned = await producer.remote("join").options(delay=3600, key="k").enqueue(["c"], by="+")
        await Worker(consumer).run(burst=True)

        assert await plain.result() == "a-b"
        assert await optioned.status() is JobState.SCHEDULED
        assert not (await producer.remote("join").options(key="k").enqueue(["c"], by="+")).created


async def test_a_known_name_is_checked_against_its_signature(queue: Queue) -> None:
    """Where the code is at hand, the name is no way around it."""

    @queue.task
    async def square(n: int) -> int:
        return n * n

    with pytest.raises(BadArguments, match="square"):
        await queue.enqueue("square", 1, 2)


async def test_enqueue_as_a_function_and_as_a_method_are_the_same(queue: Queue, server: Server) -> None:
    """`enqueue(task)` goes to the task's queue, `queue.enqueue(task)` to that queue."""

    @queue.task
    async def work(n: int) -> int:
        return n

    async with Queue("other", url=server.url) as other:
        ambient = await enqueue(work, 1)
        method = await queue.enqueue(work, 2)
        elsewhere = await other.enqueue(work, 3)
        await Worker(queue).run(burst=True)

        assert (await ambient.result(), await method.result()) == (1, 2)
        assert elsewhere.queue == "other"


async def test_what_is_no_task_cannot_be_enqueued(queue: Queue) -> None:
    """The commonest slip: the decorator was forgotten."""

    async def plain() -> None: ...

    with pytest.raises(ConfigurationError, match=r"@queue\.task"):
        await enqueue(plain)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"@queue\.task"):
        await queue.enqueue(plain)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match=r"task\.call"):
        await queue.enqueue_many([plain])  # type: ignore[arg-type]
    assert (await queue.stats()).queued == 0


async def test_an_option_and_an_argument_may_have_the_same_name(queue: Queue) -> None:
    """Options are no keywords of enqueue, so `delay` may mean what the task says."""

    @queue.task
    async def wait(delay: int, key: str, timeout: float) -> str:
        return f"{delay} {key} {timeout}"

    job = await wait.options(timeout=9).enqueue(delay=1, key="k", timeout=2.5)
    await Worker(queue).run(burst=True)

    assert await job.result() == "1 k 2.5"


def get_number() -> int:
    return 7


async def test_a_task_is_still_a_function(queue: Queue) -> None:
    """Tests of a task need neither Redis nor a worker; neither do callers that want it done now."""

    @queue.task
    async def double(n: int) -> int:
        """Double it."""
        return 2 * n

    @queue.task
    def triple(n: int) -> int:
        return 3 * n

    @queue.task
    async def who(context: Context, suffix: str) -> str:
        return f"{context.task} {context.attempt} {context.job} {suffix}"

    @queue.task
    async def add(n: int, m: int = Depends(get_number)) -> int:
        return n + m

    assert await double(4) == 8
    assert await triple(n=4) == 12
    assert await who("end") == "who 1 None end"
    assert await add(1) == 8
    assert await add(1, m=100) == 101
    assert double.__doc__ == "Double it."
    assert (await queue.stats()).queued == 0


async def test_a_call_in_place_raises_what_the_function_raises(queue: Queue) -> None:
    """A direct call has no worker that would turn its errors into a record."""

    @queue.task
    def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await fail()


async def test_arguments_arrive_as_the_annotations_say(queue: Queue) -> None:
    """JSON knows six types; tasks should not have to parse the rest themselves."""

    @queue.task
    async def types(
        when: datetime, span: Annotated[timedelta, "kept"], *rest: frozenset[int], **more: bytes
    ) -> list[str]:
        return [type(value).__name__ for value in (when, span, *rest, *more.values())]

    job = await types.enqueue(
        datetime(2026, 1, 1, tzinfo=UTC), timedelta(1), frozenset({1}), frozenset({2}), a=b"\x00\xff"
    )
    await Worker(queue).run(burst=True)

    assert await job.result() == ["datetime", "timedelta", "frozenset", "frozenset", "bytes"]


async def test_arguments_annotated_as_objects_arrive_as_plain_data(queue: Queue) -> None:
    """`dict[str, object]` is what a strict type checker asks for where JSON is meant."""

    @queue.task(retry=1)
    async def take(data: dict[str, object], rest: list[object]) -> int:
        return len(data) + len(rest)

    job = await take.enqueue({"a": 1, "b": [2]}, [3, "4", None])
    await Worker(queue).run(burst=True)

    assert await job.result() == 5


async def test_settings_of_the_queue_are_the_widest_defaults(server: Server, raw: redis.Redis) -> None:
    """One place decides for all tasks that say nothing themselves."""
    settings = Settings(retry=Retry(max_attempts=6), result_ttl="90s", prefix="mine")
    async with Queue("q", url=server.url, settings=settings) as queue:

        @queue.task
        async def look(context: Context) -> int:
            return context.max_attempts

        job = await look.enqueue()
        await Worker(queue).run(burst=True)

        assert await job.result() == 6
        assert 85 <= raw.ttl(f"mine:{{q}}:job:{job.id}") <= 90
        assert raw.keys("aqueue:*") == []
