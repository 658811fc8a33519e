"""What callers can get wrong: the right class, a message that says what to do, and nothing half-written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
import redis.asyncio
from servers import Server, binaries

from aqueue import (
    BadArguments,
    ConfigurationError,
    Context,
    Depends,
    JobFailed,
    JobNotFound,
    NotSerializable,
    Queue,
    Settings,
    Task,
    Worker,
)


@pytest.fixture
def engine() -> str:
    """Refusals come before the server; one will do."""
    return next(iter(binaries()))


@pytest.fixture
def task(queue: Queue) -> Task[[object], None]:
    @queue.task
    async def work(value: object) -> None: ...

    return work


@pytest.fixture(autouse=True)
def nothing_half_written(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever is refused leaves the store as it was."""
    if "raw" not in request.fixturenames:
        yield
        return
    raw = request.getfixturevalue("raw")
    before = sorted(raw.keys())
    yield
    assert sorted(raw.keys()) == before


SENSELESS_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001  # that is the slip
    ({"at": "tomorrow"}, "must be a datetime"),
    ({"at": 1_900_000_000}, "must be a datetime"),
    ({"delay": -1}, "delay must be between 0"),
    ({"delay": timedelta(seconds=-1)}, "delay must be between 0"),
    ({"delay": "-5m"}, "delay"),
    ({"delay": "soon"}, "delay must read like .*'5m'"),
    ({"delay": "5 parsecs"}, "'5m'"),
    ({"delay": ""}, "'5m'"),
    ({"delay": float("nan")}, "delay must be between 0"),
    ({"delay": float("inf")}, "delay must be between 0"),
    ({"delay": 1e12}, "delay must be between 0"),
    ({"delay": True}, "delay must be seconds"),
    ({"delay": [1]}, "delay must be seconds"),
    ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, "only one of them"),
    ({"ttl": -1}, "ttl must be between 0"),
    ({"timeout": -1}, "timeout must be between 0"),
    ({"timeout": True}, "timeout must be seconds"),
    ({"result_ttl": -2}, "-1 for ever"),
    ({"failure_ttl": -0.5}, "-1 for ever"),
    ({"retry": 0}, "max_attempts .* at least 1"),
    ({"retry": -1}, "at least 1"),
    ({"retry": "often"}, "max_attempts"),
    ({"retry": True}, "max_attempts"),
    ({"key": ""}, "key must be text"),
    ({"key": 5}, "key must be text"),
    ({"key": "\udcff"}, "key"),
    ({"queue": "other"}, "Queue"),
]


@pytest.mark.parametrize(("options", "says"), SENSELESS_OPTIONS, ids=[str(options) for options, _ in SENSELESS_OPTIONS])
async def test_senseless_options_are_refused_at_the_call(
    task: Task[[object], None], raw: redis.Redis, options: dict[str, Any], says: str
) -> None:
    """Not in the worker, hours later, where nobody knows who asked for it."""
    with pytest.raises(ConfigurationError, match=says):
        await task.options(**options).enqueue(1)


NAMES = ["", "a b", "a{b", "a}b", "a\n", "a\nb", "a\0b", "\udcff", "x" * 201, "a\u200bb", None, 7]


@pytest.mark.parametrize("name", NAMES)
async def test_names_that_would_break_keys_are_refused(queue: Queue, raw: redis.Redis, name: Any) -> None:
    """A brace moves a key to another slot of a cluster; a control character cannot be typed by whoever looks for it."""

    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match="queue name"):
        Queue(name)
    with pytest.raises(ConfigurationError, match="prefix"):
        Queue("q", url="redis://localhost", settings=Settings(prefix=name)).unchecked_store()
    if name:
        with pytest.raises(ConfigurationError, match="task name"):
            queue.task(name=name)(work)
    with pytest.raises(ConfigurationError, match="task name"):
        await queue.enqueue(queue.remote(name))
    with pytest.raises(ConfigurationError):
        await queue.enqueue(name)
    with pytest.raises(ConfigurationError, match="job id"):
        queue.job(name)


@pytest.mark.parametrize("job_id", ["\udcff", "a b", "", None, 7])
async def test_ids_that_cannot_be_are_refused_everywhere(queue: Queue, raw: redis.Redis, job_id: Any) -> None:
    """They come from command lines and URLs; the shared connection must survive them."""
    for method in (queue.rerun, queue.delete, queue.cancel, queue.job_info, queue.job_status):
        with pytest.raises((ConfigurationError, JobNotFound)):
            await method(job_id)
    assert (await queue.stats()).queued == 0


RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)


@pytest.mark.parametrize(
    "value",
    [object(), {"a": object()}, {1, print}, lambda: None, 1j, "\udcff", RECURSIVE, {(1, 2): 3}, float("nan"), open],
    ids=["object", "nested", "set", "lambda", "complex", "surrogate", "recursive", "keys", "nan", "builtin"],
)
async def test_arguments_that_cannot_travel_are_named(
    queue: Queue, task: Task[..., None], raw: redis.Redis, value: Any
) -> None:
    """Ten arguments, one of them bad: the message has to say which. NaN would arrive as null."""

    @queue.task
    async def many(a: int, b: int = 0, *, c: object = None) -> None: ...

    with pytest.raises(NotSerializable, match="argument 1 of work"):
        await task.enqueue(value)
    with pytest.raises(NotSerializable, match="c of many"):
        await many.enqueue(1, c=value)
    with pytest.raises(NotSerializable, match="argument 2 of elsewhere"):
        await queue.enqueue("elsewhere", 1, value)
    with pytest.raises(NotSerializable, match="c of many"):
        await queue.enqueue_many([many.call(1), many.call(2, c=value)])


@dataclass
class Reading:
    values: list[float]


@pytest.mark.parametrize("value", [Reading([1.0, float("nan")]), {"a": (Reading([float("inf")]),)}])
async def test_a_float_that_json_cannot_hold_is_found_inside_records_too(queue: Queue, value: Any) -> None:
    """It would arrive, or come back, as null."""

    @queue.task
    async def take(value: Any) -> Any:
        return value

    @queue.task
    async def give() -> Any:
        return value

    with pytest.raises(NotSerializable, match="argument 1 of take has a float"):
        await take.enqueue(value)
    async with Worker(queue):
        with pytest.raises(JobFailed, match="the result has a float"):
            await (await give.enqueue()).result(timeout=10)


async def test_an_argument_name_that_cannot_travel_is_named(queue: Queue) -> None:
    """Keyword arguments may be anything that some other system called them."""

    @queue.task
    async def take(**values: int) -> None: ...

    with pytest.raises(NotSerializable, match="the argument name"):
        await take.enqueue(**{"\udcff": 1})


async def test_oversized_arguments_are_named(queue: Queue, server: Server, raw: redis.Redis) -> None:
    """Redis is no file store, and one such job costs everybody."""

    async def many(a: str, *, b: str) -> None: ...

    with pytest.raises(NotSerializable, match="b alone takes 1100002") as caught:
        await queue.task(many).enqueue("x", b="y" * 1_100_000)
    assert "1048576 allowed" in str(caught.value)
    assert "pass where it is" in str(caught.value)
    async with Queue("small", url=server.url, settings=Settings(max_bytes=1_000)) as small:
        task = small.task(many)
        with pytest.raises(NotSerializable, match="argument 1 alone takes 2002"):
            await task.enqueue("x" * 2_000, b="y")
        with pytest.raises(NotSerializable, match="b alone takes 2002"):
            await small.enqueue_many([task.call("x", b="y"), task.call("x", b="y" * 2_000)])


async def test_large_arguments_are_warned_about(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """Most who pass 100 KiB did not mean to."""

    @queue.task
    async def take(data: str) -> None: ...

    with caplog.at_level(logging.WARNING, "aqueue"):
        await take.enqueue("x" * 60_000)
        assert not caplog.records
        await take.enqueue("x" * 70_000)
    assert "take" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        lambda task: task.enqueue(),
        lambda task: task.enqueue(1, 2),
        lambda task: task.enqueue(1, 2, 3),
        lambda task: task.enqueue(1, other=2),
        lambda task: task.enqueue(1, value=2),
        lambda task: task.queue.enqueue("work"),
        lambda task: task.queue.enqueue_many([task.call(1), task.call()]),
    ],
)
async def test_a_wrong_number_of_arguments_is_refused_at_the_call(
    task: Task[..., None], raw: redis.Redis, call: Callable[[Any], Any]
) -> None:
    """The signature is known here, so nobody has to wait for a worker to find out."""
    with pytest.raises(BadArguments, match=r"work\(value.* cannot be called like this"):
        await call(task)


async def test_injected_parameters_cannot_be_passed_to_enqueue(queue: Queue, raw: redis.Redis) -> None:
    """What the worker provides would be overwritten by what was meant for a test."""

    @queue.task
    async def work(context: Context, given: int = Depends(int)) -> None: ...

    with pytest.raises(BadArguments, match="given"):
        await work.enqueue(given=3)


@pytest.mark.parametrize(
    "url", ["http://u:secret@host", "host:6379", "", "redis:/host", "redis", "postgres://user:secret@host/db"]
)
def test_an_unknown_scheme_is_refused_where_it_is_written(url: str) -> None:
    """The traceback then points at the line with the slip; the message says what would do, and no secret."""
    with pytest.raises(ConfigurationError, match="redis://host:6379/0") as caught:
        Queue("q", url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://host:port", "redis://host:99999", "redis+sentinel://host", "redis+cluster://h:x"]
)
async def test_an_address_that_cannot_be_read_says_so(url: str) -> None:
    """Not "cannot be reached": no server will ever come up there."""
    with pytest.raises(ConfigurationError):
        await Queue("q", url=url).stats()


async def test_an_address_is_given_once() -> None:
    """Two answers to one question: which one did they mean?"""
    client = redis.asyncio.Redis()
    with pytest.raises(ConfigurationError, match="only one"):
        Queue("q", url="redis://localhost", client=client)
    await client.aclose()


async def test_two_functions_cannot_have_one_name(queue: Queue) -> None:
    """The second would silently take the first one's jobs; a module that is imported twice is no second function."""

    @queue.task(name="work")
    async def one() -> None: ...

    async def two() -> None: ...

    with pytest.raises(ConfigurationError, match="already has a task 'work'"):
        queue.task(name="work")(two)
    assert queue.tasks["work"] is one
    assert queue.task(name="work")(one.function).name == "work"


async def test_states_that_are_not_listed_say_so(queue: Queue) -> None:
    """Completed jobs are found by id; a list of them would grow without end."""
    for state in ("completed", "cancelled", "expired", "nonsense"):
        with pytest.raises(ConfigurationError, match="not listed"):
            await queue.jobs(state)


async def test_jobs_that_cannot_be_run_again_or_deleted_say_so(queue: Queue) -> None:
    """Each refusal names the state that is in the way."""

    @queue.task
    async def work() -> None: ...

    done, waiting = await work.enqueue(), await work.options(delay=600).enqueue()
    await Worker(queue).run(burst=True)
    with pytest.raises(ConfigurationError, match="completed"):
        await queue.rerun(done.id)
    with pytest.raises(ConfigurationError, match="not ended"):
        await queue.rerun(waiting.id)
    for method in (queue.rerun, queue.delete):
        with pytest.raises(JobNotFound):
            await method("nobody")
