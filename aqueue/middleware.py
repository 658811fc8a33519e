"""Code that runs around every enqueue and every run, like the layers of an onion.

A middleware may change what travels (headers), measure, or refuse by raising. It cannot lose a job: whatever it
raises while a job runs counts as that run's failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from aqueue.context import Context
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
    """Base of all middleware; override what you need and call `proceed` once."""

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        """Wrap the storing of one batch: a single enqueue is a batch of one."""
        return await proceed(calls)

    async def around_run(self, context: Context, proceed: Run) -> Any:  # noqa: ARG002  # for those who override it
        """Wrap one run of one job; what is returned is the job's result."""
        return await proceed()


def around_enqueue(layers: Sequence[Middleware], innermost: Store) -> Store:
    """Compose the layers, the first one outermost."""
    for layer in reversed(layers):
        innermost = partial(layer.around_enqueue, proceed=innermost)
    return innermost


def around_run(layers: Sequence[Middleware], context: Context, innermost: Run) -> Run:
    """Compose the layers, the first one outermost."""
    for layer in reversed(layers):
        innermost = partial(layer.around_run, context, innermost)
    return innermost
