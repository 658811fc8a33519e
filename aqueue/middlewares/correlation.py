"""Follows one request through all the jobs that it leads to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from aqueue.context import Context, current_context
from aqueue.errors import ConfigurationError, shown
from aqueue.job import Job
from aqueue.middleware import Middleware, Outgoing, Run, Store

correlation_id: Final[ContextVar[str | None]] = ContextVar("aqueue_correlation_id", default=None)
"""The id of what is going on here, unless a variable of your own is named."""


class Correlation(Middleware):
    """Sends an id along with each job, in its headers, and sets it while the job runs.

    Whatever is enqueued in a web request that has set `variable`, or in a job, or in an `on_...` of a job, inherits its
    id. A batch, or a job of a schedule, that has none begins a new one.
    """

    def __init__(
        self,
        variable: ContextVar[Any] = correlation_id,
        *,
        header: str = "correlation_id",
        make: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Name the variable, and the header under which its value travels. Errors: ConfigurationError."""
        if not isinstance(variable, ContextVar):
            raise ConfigurationError(f"Correlation takes a ContextVar, not {shown(variable)}.")
        if not isinstance(header, str) or not header:
            raise ConfigurationError(f"header must be text of at least one character, not {shown(header)}.")
        self._variable = variable
        self._header = header
        self._make = make

    async def around_enqueue(self, calls: Sequence[Outgoing], proceed: Store) -> list[Job[Any]]:
        current = self._current()
        for call in calls:
            call.headers.setdefault(self._header, current)
        return await proceed(calls)

    def _current(self) -> str:
        value = self._variable.get(None)
        if value is None and (context := current_context.get()) is not None:  # told of a moment of that job
            value = context.headers.get(self._header)
        return self._make() if value is None else str(value)

    async def around_run(self, context: Context, proceed: Run) -> Any:
        token = self._variable.set(context.headers.get(self._header) or self._make())
        try:
            return await proceed()
        finally:
            self._variable.reset(token)
