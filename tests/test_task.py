"""A task as an object: its signature, its options and its copies. No Redis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from aqueue import BadArguments, ConfigurationError, Context, Depends, Queue
from aqueue.options import Options, make_options, merged
from aqueue.task import Call

if TYPE_CHECKING:
    from somewhere_else import Unknown  # type: ignore[import-not-found]

INSTANT = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def queue() -> Queue:
    return Queue("q")


def provide() -> int:
    return 1


def test_bare_and_with_options_the_decorator_gives_a_task(queue: Queue) -> None:
    """Both forms are what people type."""

    @queue.task
    async def bare(n: int) -> int:
        """Say it."""
        return n

    @queue.task(name="other", retry=2, timeout="1m")
    async def configured(n: int) -> int:
        return n

    assert (bare.name, bare.queue, bare.__doc__) == ("bare", queue, "Say it.")
    assert (configured.name, configured.defaults) == ("other", make_options(retry=2, timeout=60))
    assert queue.tasks == {"bare": bare, "other": configured}
    assert repr(bare) == "<Task bare of queue q>"


def test_injected_parameters_vanish_from_the_signature(queue: Queue) -> None:
    """Wherever they stand."""

    @queue.task
    def work(
        a: int, ctx: Context, b: str = "", *rest: int, given: int = Depends(provide), c: bool, **more: int
    ) -> None: ...

    assert list(work.signature.parameters) == ["a", "b", "rest", "c", "more"]
    assert set(work.injected) == {"ctx", "given"}
    assert work.injected["ctx"] is None
    assert not work.is_async


def test_an_annotation_that_exists_only_for_type_checkers_hurts_nobody_else(queue: Queue) -> None:
    """Imports under TYPE_CHECKING are common; the context must still be found."""

    @queue.task
    async def work(ctx: Context, what: Unknown, n: int) -> Unknown:
        return what

    untyped: Any = work
    assert list(work.signature.parameters) == ["what", "n"]
    with pytest.raises(BadArguments):
        untyped.call(1)


def test_a_call_is_checked_when_it_is_bound(queue: Queue) -> None:
    """The traceback then points at the caller."""

    @queue.task
    async def work(n: int, *, flag: bool = False) -> int:
        return n

    call = work.call(1, flag=True)
    assert isinstance(call, Call)
    assert (call.task, call.args, call.kwargs) == (work, (1,), {"flag": True})
    bind: Any = work.call
    for args, kwargs in (((), {}), ((1, 2), {}), ((1,), {"other": 1})):
        with pytest.raises(BadArguments, match=r"work\(n: .*cannot be called like this"):
            bind(*args, **kwargs)


def test_options_are_settled_once() -> None:
    """Whatever form was given, the rest sees seconds and milliseconds."""
    assert make_options(delay="1m", ttl=5, timeout=0, retry=3, result_ttl=-1, failure_ttl="1h", key="k") == Options(
        delay=60, ttl=5, timeout=0, retry=3, result_ttl=-1, failure_ttl=3600, key="k"
    )
    assert make_options(at=INSTANT).at_ms == 1_893_456_000_000
    assert make_options() == Options()


def test_the_narrower_option_wins() -> None:
    """Call, then task, then queue; a new due time replaces the old one in either form."""
    wide = make_options(delay=1, ttl=2, timeout=3)
    assert merged(make_options(ttl=5), wide) == make_options(delay=1, ttl=5, timeout=3)
    assert merged(make_options(at=INSTANT), wide) == make_options(at=INSTANT, ttl=2, timeout=3)
    assert merged(make_options(timeout=0), wide).timeout == 0
    assert merged(make_options(delay=0), make_options(at=INSTANT)) == make_options(delay=0)


def test_options_leave_the_task_alone(queue: Queue) -> None:
    """It is shared by the whole program."""

    @queue.task(ttl=9)
    async def work(n: int) -> int:
        return n

    other = Queue("other")
    copy = work.options(delay=5).options(key="k", queue=other)
    assert (copy.overrides, copy.defaults, copy.queue) == (make_options(delay=5, key="k"), make_options(ttl=9), other)
    assert (work.overrides, work.queue) == (Options(), queue)
    assert queue.tasks["work"] is work


def test_a_definition_may_be_run_twice_and_not_be_two(queue: Queue) -> None:
    """Modules are reloaded, or imported as __main__ and by name."""

    def define(result: int) -> Any:
        def work() -> int:
            return result

        return work

    queue.task(define(1))
    second = queue.task(define(2))
    assert queue.tasks["work"] is second

    def work() -> None: ...

    with pytest.raises(ConfigurationError, match="already has a task 'work'"):
        queue.task(work)
    assert queue.tasks["work"] is second


def test_what_has_no_name_needs_one(queue: Queue) -> None:
    """A partial is callable, and cannot be found again by name."""
    partial = functools.partial(round, ndigits=2)
    with pytest.raises(ConfigurationError, match="task name"):
        queue.task(partial)
    assert queue.task(name="rounded")(partial).name == "rounded"


def test_remote_tasks_take_whatever_is_passed(queue: Queue) -> None:
    """Their signature is known elsewhere; a name that is known here is the task itself."""
    remote = queue.remote("elsewhere")
    assert remote.call(1, "a", b=2).args == (1, "a")
    assert "elsewhere" not in queue.tasks

    @queue.task
    async def here() -> None: ...

    assert queue.remote("here") is here


@pytest.mark.parametrize("options", [{"delay": 1}, {"key": "k"}, {"at": INSTANT}, {"queue": None}, {"concurrency": 1}])
def test_options_of_one_call_are_none_of_the_task(queue: Queue, options: dict[str, Any]) -> None:
    """Every job of a task with the same key, or the same instant, cannot be meant."""
    with pytest.raises((TypeError, ConfigurationError)):
        queue.task(**options)(provide)


def test_a_provider_must_be_callable() -> None:
    """`Depends(get_pool())` is the commonest slip."""
    with pytest.raises(ConfigurationError, match="function"):
        Depends(provide())  # type: ignore[arg-type]


def test_the_signature_of_a_decorated_function_is_the_inner_one(queue: Queue) -> None:
    """functools.wraps is how people decorate."""

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    @queue.task
    @logged
    async def work(n: int, ctx: Context) -> int:
        return n

    assert list(work.signature.parameters) == ["n"]
    assert set(work.injected) == {"ctx"}
    assert work.is_async
