"""Tells layers of a moment, one after the other; none can raise past this, nor take longer than it may."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from aqueue.job import Job
from aqueue.middleware import BEGINNINGS, MOMENTS, Middleware, overrides
from aqueue.moments import Enqueued, Event

Hook: TypeAlias = Callable[[Any], Awaitable[object]]

log = logging.getLogger("aqueue.middleware")

COMPLAINT_SECONDS: Final = 60.0
"""A hook that always raises is told of once in that time, with how often it has."""


class Complaints:
    """What is logged of layers that go wrong: the same at most once in a while."""

    def __init__(self) -> None:
        self._silent_until: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def complain(self, where: str, what: str, error: BaseException | None = None) -> None:
        """Log what went wrong where, with how often it did so unsaid."""
        now = time.monotonic()
        if now < self._silent_until.get(where, 0.0):
            self._unsaid[where] = self._unsaid.get(where, 0) + 1
            return
        self._silent_until[where] = now + COMPLAINT_SECONDS
        unsaid = self._unsaid.pop(where, 0)
        more = f" (and {unsaid} times since this was last said)" if unsaid else ""
        log.error("middleware %s %s; no job is touched by that%s", where, what, more, exc_info=error)


class Audience:
    """Of each moment, the layers that want to be told, in the order in which they are."""

    def __init__(self, layers: Sequence[Middleware], moments: Iterable[str] = MOMENTS) -> None:
        self._hooks: Mapping[str, list[tuple[Middleware, Hook]]] = {
            moment: hooks for moment in moments if (hooks := _hooks(layers, moment))
        }
        self._complaints = Complaints()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def hears(self, *moments: str) -> bool:
        """Say whether any layer wants to be told of any of these."""
        return any(moment in self._hooks for moment in moments)

    def patience(self, moment: str) -> float:
        """Say for how many seconds telling may go on at the most."""
        return sum(layer.moment_timeout for layer, _ in self._hooks.get(moment, ()))

    async def tell(self, moment: str, event: Event) -> None:
        """Tell one layer after the other. Raises nothing but the cancellation of the task that tells."""
        for layer, hook in self._hooks.get(moment, ()):
            timer = asyncio.timeout(layer.moment_timeout)
            try:
                async with timer:
                    await hook(event)
            except GeneratorExit:  # the loop has gone, and nobody tells any more
                raise
            except BaseException as error:  # the boundary of user code: nothing may pass it
                if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                    raise
                if isinstance(error, TimeoutError) and timer.expired():
                    self.complain(layer, moment, f"took longer than {layer.moment_timeout:g} s")
                else:
                    self.complain(layer, moment, f"raised {type(error).__name__}", error)

    def complain(self, layer: Middleware, moment: str, what: str, error: BaseException | None = None) -> None:
        self._complaints.complain(f"{type(layer).__name__}.{moment}", what, error)


def _hooks(layers: Sequence[Middleware], moment: str) -> list[tuple[Middleware, Hook]]:
    ordered = layers if moment in BEGINNINGS else list(reversed(layers))
    return [(layer, getattr(layer, moment)) for layer in ordered if overrides(layer, moment)]


def _is_cancelled() -> bool:
    """Say whether a CancelledError is meant for the task that tells, and was not made up by a hook."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Producers:
    """The layers of one queue, as its producers see them; a layer that is added later counts from then on."""

    def __init__(self, layers: list[Middleware]) -> None:
        self._layers = layers
        self._seen: list[Middleware] = []
        self._audience = Audience(())
        self._wraps = False

    @property
    def listen(self) -> bool:
        """Some layer has to do with enqueueing."""
        if self._layers != self._seen:
            self._seen = list(self._layers)
            self._audience = Audience(self._seen, ["on_enqueued"])
            self._wraps = any(overrides(layer, "around_enqueue") for layer in self._seen)
        return self._wraps or bool(self._audience)

    async def told(self, queue: str, tasks: Iterable[str], jobs: Sequence[Job[Any]]) -> None:
        """Tell of a batch that was stored."""
        if self.listen and self._audience:
            await self._audience.tell("on_enqueued", Enqueued(queue=queue, tasks=tuple(tasks), jobs=tuple(jobs)))
