"""Measures every run, for whatever counts and times."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from aqueue import moments
from aqueue.errors import ConfigurationError, shown
from aqueue.middleware import Middleware

MeasuredOutcome: TypeAlias = Literal[
    "completed", "skipped", "retried", "failed", "cancelled", "released", "lease_lost", "limited", "expired", "crashed"
]


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job, once.

    Units: seconds; None where it did not run here.
    """

    queue: str
    task: str
    outcome: MeasuredOutcome
    waited: float | None
    ran: float | None


class Metrics(Middleware):
    """Calls `observe` with an Observation for all that becomes of jobs here: one per run, and what claims come across.

    In place, on the event loop, once per job: it must not wait for anything.
    """

    def __init__(self, observe: Callable[[Observation], object]) -> None:
        """Name the function. Errors: ConfigurationError if it cannot be called."""
        if not callable(observe) or inspect.iscoroutinefunction(observe):
            raise ConfigurationError(f"observe must be a plain function, not {shown(observe)}.")
        self._observe = observe

    def _ended(self, outcome: MeasuredOutcome, event: moments.Ending) -> None:
        self._observe(
            Observation(queue=event.queue, task=event.task, outcome=outcome, waited=event.waited, ran=event.ran)
        )

    def _found(self, outcome: MeasuredOutcome, event: moments.JobMoment) -> None:
        self._observe(Observation(queue=event.queue, task=event.task, outcome=outcome, waited=None, ran=None))

    async def on_completed(self, event: moments.Completed) -> None:
        self._ended("completed", event)

    async def on_skipped(self, event: moments.Skipped) -> None:
        self._ended("skipped", event)

    async def on_retry(self, event: moments.Retrying) -> None:
        self._ended("retried", event)

    async def on_failed(self, event: moments.Failed) -> None:
        self._ended("failed", event)

    async def on_cancelled(self, event: moments.Cancelled) -> None:
        self._ended("cancelled", event)

    async def on_released(self, event: moments.Released) -> None:
        self._ended("released", event)

    async def on_lease_lost(self, event: moments.LeaseLost) -> None:
        self._ended("lease_lost", event)

    async def on_limited(self, event: moments.Limited) -> None:
        self._found("limited", event)

    async def on_expired(self, event: moments.Expired) -> None:
        self._found("expired", event)

    async def on_crashed(self, event: moments.Crashed) -> None:
        self._found("crashed", event)
