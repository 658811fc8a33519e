"""Does something about a job whose attempts are used up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from aqueue.errors import ConfigurationError, shown
from aqueue.middleware import Middleware
from aqueue.middlewares.callback import Callback
from aqueue.moments import Exhausted


class OnExhausted(Middleware):
    """Calls a function, async or plain (in a thread), when the last attempt of a job has failed: send an alarm, undo.

    At least once: it is called before the failure is stored, so if the worker dies in between, the run is repeated, and
    so is the call. Make it idempotent by `event.job_id`, such as by the `key` of what it enqueues. What it raises is
    logged; the job fails all the same.
    """

    def __init__(
        self,
        callback: Callable[[Exhausted], Awaitable[object]] | Callable[[Exhausted], object],
        *,
        tasks: Collection[str] | None = None,
    ) -> None:
        """Name the function, and the tasks for which it is called if not for all. Errors: ConfigurationError."""
        if isinstance(tasks, str):
            raise ConfigurationError(f"tasks must be several names, not one text; write [{shown(tasks)}].")
        self._callback = Callback(callback, "callback")
        self._tasks = None if tasks is None else frozenset(tasks)

    async def on_exhausted(self, event: Exhausted) -> None:
        if self._tasks is None or event.task in self._tasks:
            await self._callback.call(event)
