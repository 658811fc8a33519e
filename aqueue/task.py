"""A task is a function that can run elsewhere, with what its author wants to happen around each run.

Options are never passed among the function's own arguments: `task.options(delay=60).enqueue(...)` returns a copy,
so the two cannot collide. Nothing here knows Redis.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

import msgspec

from aqueue.context import Context, Dependency, call_in_place, hints_of, injected_parameters
from aqueue.errors import BadArguments, ConfigurationError, shown
from aqueue.options import CallOptions, Options, make_options, merged
from aqueue.store.codec import ArgumentsDecoder, result_decoder

if TYPE_CHECKING:
    from aqueue.job import Job
    from aqueue.queue import Queue

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class TakesCtx(Protocol[P, R_co]):
    """A function whose first parameter is `ctx: Context`, which is no part of a call.

    By its name too: `Concatenate` would also take any function whose first parameter accepts any object.
    """

    def __call__(self, ctx: Context, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class TakesContext(Protocol[P, R_co]):
    """The same, with the parameter's name written out."""

    def __call__(self, context: Context, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class Call(msgspec.Struct, Generic[R_co], frozen=True):
    """A task with its arguments, not yet enqueued; what `enqueue_many` takes."""

    task: Task[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[P, R]):
    """One registered function."""

    function: Callable[..., Awaitable[R] | R]
    name: str
    queue: Queue
    defaults: Options = field(default_factory=Options)
    """The author's options for every call."""
    overrides: Options = field(default_factory=Options)
    """This copy's options for its calls."""
    signature: inspect.Signature = field(init=False)
    """What a caller passes: without injected parameters."""
    injected: dict[str, Dependency | None] = field(init=False)
    """Injected parameters by name; None stands for the Context."""
    positional: tuple[str, ...] = field(init=False)
    """Every parameter that can be passed by position, injected ones included."""
    arguments: ArgumentsDecoder = field(init=False)
    decode_result: Callable[[bytes], R] = field(init=False)
    is_async: bool = field(init=False)
    options_of_calls: Options = field(init=False)
    """What holds for every call of this copy."""
    __doc__: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        hints = hints_of(self.function)
        whole = inspect.signature(self.function)
        injected = injected_parameters(whole, hints)
        kept = [p for p in whole.parameters.values() if p.name not in injected]

        def fix(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        fix("signature", whole.replace(parameters=kept))
        fix("injected", injected)
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        fix("positional", tuple(p.name for p in whole.parameters.values() if p.kind in by_position))
        fix("arguments", ArgumentsDecoder(self.name, self.signature, hints))
        fix("decode_result", result_decoder(hints.get("return", Any)))
        fix("is_async", inspect.iscoroutinefunction(self.function))
        fix("__doc__", self.function.__doc__)
        fix("options_of_calls", merged(self.overrides, self.defaults))
        check_names(self)

    def __repr__(self) -> str:
        return f"<Task {self.name} of queue {self.queue.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Run the function here and now, without any queue; a plain `def` runs in a thread."""
        return cast("Awaitable[R]", call_in_place(self, args, kwargs))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Bind arguments for `enqueue_many`. Errors: BadArguments if they do not fit the signature."""
        try:
            self.arguments.check(args, kwargs)
        except TypeError as error:
            raise BadArguments(f"{self.name}{self.signature} cannot be called like this: {error}.") from None
        return Call(self, args, kwargs)

    def job(self, job_id: str) -> Job[R]:
        """Give the handle of a job of this task that was enqueued earlier, or elsewhere."""
        return self.queue.handle(job_id, self.decode_result)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store one call and return its handle.

        Errors: BadArguments, NotSerializable, StoreFull, StoreUnavailable, DurabilityError.
        """
        return await self.queue.submit(self.call(*args, **kwargs))

    async def pause(self) -> bool:
        """Let no further job of this task start, on any worker; return whether that is a change."""
        return await self.queue.pause(self.name)

    async def resume(self) -> bool:
        """Let jobs of this task start again, those that were set aside first; return whether that is a change."""
        return await self.queue.resume(self.name)

    def options(self, *, queue: Queue | None = None, **given: Unpack[CallOptions]) -> Task[P, R]:
        """Return a copy whose calls are stored with these options.

        `key` makes enqueue idempotent: while an unfinished job of this task has the same key, its handle comes back
        with `created=False`. `ttl` is how long after it is due the job may wait for its start. `durable` makes enqueue
        return only once the job is on the server's "disk" or at a "replica"; "memory" is the default.
        Units:  seconds, a timedelta or text such as "5m"; `at` is an aware datetime; -1 keeps a result for ever.
        Errors: ConfigurationError.
        """
        if queue is not None and not hasattr(queue, "submit"):
            raise ConfigurationError(f"queue must be a Queue, not {shown(queue)}.")
        overrides = merged(make_options(**given), self.overrides)
        twin = copy.copy(self)  # what was found out about the function holds for it too
        for name, value in (("overrides", overrides), ("queue", queue or self.queue)):
            object.__setattr__(twin, name, value)
        object.__setattr__(twin, "options_of_calls", merged(overrides, self.defaults))
        check_names(twin)
        return twin


def check_names(task: Task[..., Any]) -> None:
    """Refuse what a task's options name and is none of its arguments. Errors: ConfigurationError."""
    options, parameters = task.options_of_calls, task.signature.parameters
    names = [*(options.unique.by if options.unique else ()), *(one.key for one in options.limit or () if one.key)]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in names:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise ConfigurationError(f"{shown(name)} is no argument of {task.name}; its arguments are: {known}.")


class TaskDecorator:
    """What `@queue.task(...)` with options returns."""

    def __init__(self, queue: Queue, name: str | None, defaults: Options) -> None:
        self._queue = queue
        self._name = name
        self._defaults = defaults

    @overload
    def __call__(self, function: TakesCtx[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: TakesContext[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: TakesCtx[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: TakesContext[P, R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return self._queue.register(function, self._name, self._defaults)
