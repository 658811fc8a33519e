"""Code that runs around every enqueue and every run, like the layers of an onion, and is told of all that happens.

A middleware may change what travels (headers), measure, or refuse by raising. It cannot lose a job: whatever it raises
while a job runs counts as that run's failure, and what it raises when it is told something is logged, no more.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from aqueue import moments
from aqueue.context import Context
from aqueue.errors import ConfigurationError, shown
from aqueue.job import Job


class Outgoing(msgspec.Struct):
    """One call that is about to be stored. Headers may be added; they reach the job as `ctx.headers`."""

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    headers: dict[str, str] = {}


Store: TypeAlias = Callable[[Sequence[Outgoing]], Awaitable[list[Job[Any]]]]
Run: TypeAlias = Callable[[], Awaitable[Any]]


class Middleware:
    """Base of all middleware; override what you need, each method as `async def`. What is not overridden costs nothing.

    `around_...` wrap, and call `proceed` once. `on_...` are told of a moment, beside the jobs and after the fact: they
    delay no job and no outcome, and what they raise is logged. `on_exhausted` alone comes first, see there. A run that
    was started ends in exactly one of completed, skipped, retry, failed, cancelled, released, limited and lease lost.
    The first layer is the outermost: it is told first of what begins, and last of what has ended.
    """

    moment_timeout: ClassVar[float] = 10.0
    """Seconds that one `on_...` may take; it is then cancelled, and that is logged."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse what would silently never be called. Errors: ConfigurationError."""
        super().__init_subclass__(**more)
        for name, value in vars(cls).items():
            if name.startswith(("on_", "around_")):
                _check_method(cls.__name__, name, value)

    # around

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        """Wrap the storing of one batch: a single enqueue is a batch of one."""
        return await proceed(calls)

    async def around_run(self, context: Context, proceed: Run) -> Any:  # noqa: ARG002  # for those who override it
        """Wrap one run of one job; what is returned is the job's result."""
        return await proceed()

    # a producer's moment, for the layers of the queue

    async def on_enqueued(self, event: moments.Enqueued) -> None:
        """A batch is stored; the caller's `enqueue` returns when all layers have been told.

        Of the jobs that a schedule makes, the layers of that worker are told which has made them.
        """

    # the moments of a run

    async def on_started(self, event: moments.Started) -> None:
        """A job's code is about to start; it does not wait for this. Use `around_run` for what must come before it."""

    async def on_completed(self, event: moments.Completed) -> None:
        """A result is stored."""

    async def on_skipped(self, event: moments.Skipped) -> None:
        """A job ended undone: it raised Discard, or a layer's `around_run` never called `proceed`."""

    async def on_retry(self, event: moments.Retrying) -> None:
        """A run failed and is to be repeated."""

    async def on_exhausted(self, event: moments.Exhausted) -> None:
        """The last attempt has failed. Told before the failure is stored, which waits for this: at least once.

        A worker that dies in between repeats the run, and tells again; so let it be idempotent, by `event.job_id`.
        """

    async def on_failed(self, event: moments.Failed) -> None:
        """A job has failed for good, after its last attempt or at once."""

    async def on_cancelled(self, event: moments.Cancelled) -> None:
        """A run ended because the job was cancelled; one that had not started is no worker's business."""

    async def on_released(self, event: moments.Released) -> None:
        """A job went back, uncounted: this worker stops or does not know its task, or the job asked for it."""

    async def on_lease_lost(self, event: moments.LeaseLost) -> None:
        """A run's outcome was refused, since another worker owns the job now."""

    async def on_limited(self, event: moments.Limited) -> None:
        """A job was held back by a limit, when it was claimed or while it ran."""

    # what a worker learns of jobs that it does not run

    async def on_expired(self, event: moments.Expired) -> None:
        """A claim of this worker met a job whose `ttl` has passed."""

    async def on_crashed(self, event: moments.Crashed) -> None:
        """This worker has taken a job back from one that died."""

    # workers and processes

    async def on_worker_start(self, event: moments.WorkerMoment) -> None:
        """A worker is about to claim its first job, and waits for this."""

    async def on_worker_stop(self, event: moments.WorkerMoment) -> None:
        """A worker has stored its last outcome."""

    async def on_process_start(self, event: moments.ProcessMoment) -> None:
        """A process of `python -m aqueue.worker` has started, each of its `--processes`, and waits for this."""

    async def on_process_stop(self, event: moments.ProcessMoment) -> None:
        """Such a process ends."""


METHODS: Final = tuple(name for name in vars(Middleware) if name.startswith(("on_", "around_")))
MOMENTS: Final = tuple(name for name in METHODS if name.startswith("on_"))
BEGINNINGS: Final = frozenset({"on_started", "on_worker_start", "on_process_start"})
"""Told from the outermost layer to the innermost; the others the other way round."""


def overrides(layer: Middleware, method: str) -> bool:
    """Say whether a layer has a method of its own."""
    return getattr(getattr(layer, method), "__func__", None) is not getattr(Middleware, method)


def checked_layers(given: object, whose: str) -> list[Middleware]:
    """Give the layers of a queue or worker as a list. Errors: ConfigurationError for what is no Middleware instance."""
    if isinstance(given, Middleware) or not isinstance(given, list | tuple):
        raise ConfigurationError(f"{whose}(middleware=...) takes a list of layers, not {shown(given)}.")
    for layer in given:
        if isinstance(layer, type) and issubclass(layer, Middleware):
            raise ConfigurationError(
                f"{whose}(middleware=...) takes instances; write {layer.__name__}(), not {layer.__name__}."
            )
        if not isinstance(layer, Middleware):
            raise ConfigurationError(f"{shown(layer)} is no middleware; derive its class from aqueue.Middleware.")
    return list(given)


def around_enqueue(layers: Sequence[Middleware], innermost: Store) -> Store:
    """Compose the layers, the first one outermost."""
    for layer in reversed(layers):
        if overrides(layer, "around_enqueue"):
            innermost = partial(layer.around_enqueue, proceed=innermost)
    return innermost


def around_run(layers: Sequence[Middleware], context: Context, innermost: Run) -> Run:
    """Compose the layers, the first one outermost."""
    for layer in reversed(layers):
        innermost = partial(layer.around_run, context, innermost)
    return innermost


def _check_method(owner: str, name: str, value: object) -> None:
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.75)
        if near:
            raise ConfigurationError(f"{owner}.{name} would never be called; write {near[0]}, or give it another name.")
    elif inspect.isfunction(value) and not (inspect.iscoroutinefunction(value) or hasattr(value, "__wrapped__")):
        raise ConfigurationError(f"{owner}.{name} must be async; write `async def {name}`.")
