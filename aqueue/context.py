"""What a running job may know and use: its Context, the current job, and injected dependencies.

A parameter annotated with `Context`, or whose default is `Depends(...)`, is filled in by the worker and is no
part of what a caller passes. Nothing here knows Redis.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast, get_type_hints

import anyio.to_thread
import msgspec

from aqueue.errors import ConfigurationError, shown
from aqueue.job import Job
from aqueue.job_ids import slot_of

if TYPE_CHECKING:
    from aqueue.task import Task

T = TypeVar("T")


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The run that is going on.

    Outside of a worker, in a task that is called like a plain function, `job` is None and `attempt` is 1.
    """

    task: str
    job: Job[Any] | None = None
    attempt: int = 1
    """Counts from 1; runs that were interrupted by a crash or a shutdown do not count."""
    max_attempts: int = 1
    """A billion where there is no bound."""
    crashes: int = 0
    state: Any = None
    """What the worker's lifespan yielded."""
    headers: Mapping[str, str] = {}
    """What middleware sent along with the job."""

    @property
    def slot(self) -> datetime | None:
        """The instant of its schedule that this job stands for, which may be earlier than now; None for other jobs."""
        return None if self.job is None else slot_of(self.job.id)


current_context: Final[ContextVar[Context | None]] = ContextVar("aqueue_context", default=None)


def current_job() -> Job[Any] | None:
    """Return the handle of the job that runs here, or None outside of one. Follows contextvars into threads."""
    context = current_context.get()
    return None if context is None else context.job


class Dependency:
    """A provider, as the default value of the parameter that it provides."""

    __slots__ = ("provider",)

    def __init__(self, provider: Callable[..., Any]) -> None:
        self.provider = provider


def Depends(provider: Callable[..., Any]) -> Any:  # noqa: N802  # reads like a type, as in FastAPI
    """Default value of a parameter that is to be provided: `db: Pool = Depends(get_pool)`.

    The provider is a plain or async function, or a generator of either kind whose rest runs when the job is over.
    It may itself take a `Context` and further `Depends`. Each provider is called once per job. Typed as Any, so
    that the parameter may have the type of what is provided.
    Errors: ConfigurationError if it cannot be called.
    """
    if not callable(provider):
        raise ConfigurationError(f"Depends takes a function that provides a value, not {shown(provider)}.")
    return Dependency(provider)


def injected_parameters(signature: inspect.Signature, hints: Mapping[str, Any]) -> dict[str, Dependency | None]:
    """Find the parameters that are provided; None stands for the Context."""
    found: dict[str, Dependency | None] = {}
    for name, parameter in signature.parameters.items():
        if hints.get(name) is Context:
            found[name] = None
        elif isinstance(parameter.default, Dependency):
            found[name] = parameter.default
    return found


class Injection:
    """The provided values of one run; leaving it closes them in reverse order."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._values: dict[Callable[..., Any], Any] = {}
        self._opening: list[Callable[..., Any]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened. A provider may see the job's exception, and not swallow it."""
        await self._stack.__aexit__(kind, error, trace)

    async def fill(self, injected: Mapping[str, Dependency | None]) -> dict[str, Any]:
        """Provide a value for every injected parameter."""
        return {
            name: self._context if dependency is None else await self._provide(dependency.provider)
            for name, dependency in injected.items()
        }

    async def _provide(self, provider: Callable[..., Any]) -> Any:
        if provider in self._values:
            return self._values[provider]
        if provider in self._opening:
            chain = " -> ".join(getattr(p, "__name__", repr(p)) for p in [*self._opening, provider])
            raise ConfigurationError(f"Depends goes in a circle ({chain}); break it.")
        self._opening.append(provider)
        try:
            wanted = await self.fill(injected_parameters(inspect.signature(provider), hints_of(_called(provider))))
            value = self._values[provider] = await self._open(provider, wanted)
        finally:
            self._opening.pop()
        return value

    async def _open(self, provider: Callable[..., Any], wanted: dict[str, Any]) -> Any:
        if inspect.isasyncgenfunction(provider):
            manager = asynccontextmanager(cast("Callable[..., AsyncGenerator[Any]]", provider))
            return await self._stack.enter_async_context(manager(**wanted))
        if inspect.isgeneratorfunction(provider):
            return self._stack.enter_context(contextmanager(cast("Callable[..., Generator[Any]]", provider))(**wanted))
        value = provider(**wanted)
        return await value if inspect.isawaitable(value) else value


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolve annotations; one that cannot be resolved at run time is taken for Any, alone."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001, S110  # an annotation may be any expression; one by one, below, says which
        pass
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        if not isinstance(annotation, str):
            hints[name] = annotation
            continue
        try:
            hints[name] = eval(annotation, getattr(function, "__globals__", {}))  # noqa: S307  # the author's own source
        except Exception:  # noqa: BLE001  # as above
            hints[name] = Any
    return hints


def _called(provider: Callable[..., Any]) -> Callable[..., Any]:
    """Find the function whose annotations describe a call: that of a class, or of an object that can be called."""
    if inspect.isclass(provider):
        return provider.__init__
    return provider if inspect.isroutine(provider) else type(provider).__call__


async def invoke(
    function: Callable[..., Awaitable[T] | T], args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_async: bool
) -> T:
    """Call a task's function: on the loop if it is async, else in a thread, with the contextvars of here."""
    if is_async:
        return await cast("Awaitable[T]", function(*args, **kwargs))
    return cast("T", await anyio.to_thread.run_sync(lambda: function(*args, **kwargs)))


def place(
    positional: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any], provided: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put provided values where the function's own parameters are, among what the caller passed."""
    if not provided:
        return args, dict(kwargs)
    left, placed, given = dict(provided), list[Any](), iter(args)
    for name in positional:
        if name in left:
            placed.append(left.pop(name))
            continue
        try:
            placed.append(next(given))
        except StopIteration:  # the rest comes by keyword
            break
    return (*placed, *given), {**kwargs, **left}


async def call_in_place(task: Task[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """Run a task like a plain function; whatever the caller passes wins over what would be injected."""
    context = current_context.get() or Context(task=task.name)
    given = {name: kwargs.pop(name) for name in task.injected if name in kwargs}
    async with Injection(context) as injection:
        wanted = {name: dependency for name, dependency in task.injected.items() if name not in given}
        args, kwargs = place(task.positional, args, kwargs, {**await injection.fill(wanted), **given})
        return await invoke(task.function, args, kwargs, is_async=task.is_async)
