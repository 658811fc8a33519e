"""Hands the errors of jobs to a tracker of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from aqueue import moments
from aqueue.errors import JobFailed, RetryLater
from aqueue.middleware import Middleware
from aqueue.middlewares.callback import Callback

Reported: TypeAlias = moments.Retrying | moments.Failed | moments.Crashed


class ReportsEvent(Protocol):
    """A function of the error that also has a parameter `event`."""

    def __call__(self, error: BaseException, /, *, event: Any) -> object: ...


class ErrorReporter(Middleware):
    """Calls `report` with the exception of each failed run, as it was raised, with its traceback.

    `report` is async or plain (in a thread), such as `sentry_sdk.capture_exception`. If it has a parameter `event`, it
    gets that by its name: a Retrying if the job runs again, in `delay` seconds, or else a Failed; both with task,
    attempt and max_attempts. A job that was given up because its workers died is reported as a JobFailed, with a
    Crashed. A Discard is on purpose, and so is a RetryLater while there are attempts left: neither is reported.
    """

    def __init__(self, report: Callable[[BaseException], object] | ReportsEvent, *, only_final: bool = False) -> None:
        """Name the function; with `only_final`, runs that are repeated are not reported. Errors: ConfigurationError."""
        self._report = Callback(report, "report")
        self._takes_event = self._report.takes("event")
        self._only_final = only_final

    async def _tell(self, error: BaseException, event: Reported) -> None:
        await self._report.call(error, **({"event": event} if self._takes_event else {}))

    async def on_retry(self, event: moments.Retrying) -> None:
        if event.error is not None and not self._only_final and not isinstance(event.error, RetryLater):
            await self._tell(event.error, event)

    async def on_failed(self, event: moments.Failed) -> None:
        if event.error is not None:
            await self._tell(event.error, event)

    async def on_crashed(self, event: moments.Crashed) -> None:
        if event.failed:
            what = None if event.info is None else event.info.error
            reason = "its workers died again and again" if what is None else what.message
            await self._tell(JobFailed(event.job_id, "WorkerCrashed", reason), event)
