"""The options of one call as they travel with it.

Old workers read what new producers write, and the other way round: fields are added, never changed, and whatever an
older reader skips leaves it with something near.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from aqueue.errors import ConfigurationError
from aqueue.retry import MAX_DELAYS, MAX_SECONDS, UNBOUNDED, Retry

Span = Annotated[int, msgspec.Meta(ge=0, le=round(MAX_SECONDS * 1000))]
"""Milliseconds that make sense; anything else was not written by aqueue."""
Spans = Annotated[list[Span], msgspec.Meta(min_length=1, max_length=MAX_DELAYS)]


class OptionsOfCall(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=False):
    """What a call wants other than its task.

    Units: milliseconds.
    """

    timeout_ms: Span | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=UNBOUNDED)] | None = None
    """Without the rest it is the one thing that is different."""
    backoff_ms: Span | None = None
    cap_ms: Span | None = None
    jitter: bool | None = None
    spread: str | None = None
    """Which jitter it is, unless it is full."""
    growth: str | None = None
    """If it is not exponential."""
    delays_ms: Spans | None = None

    def set_retry(self, retry: Retry | int) -> None:
        if isinstance(retry, int):
            self.max_attempts = retry
            return
        self.max_attempts = retry.max_attempts
        self.backoff_ms = round(retry.backoff * 1000)
        self.cap_ms = round(retry.cap * 1000)
        self.jitter = retry.jitter != "none"
        if retry.jitter == "equal":
            self.spread = retry.jitter
        if retry.growth != "exponential":
            self.growth = retry.growth
        if retry.delays is not None:
            self.delays_ms = [round(delay * 1000) for delay in retry.delays]

    def retry_over(self, usual: Retry) -> Retry:
        """Give the policy of this call, whose task has another. What cannot be understood is the task's."""
        if self.max_attempts is None:
            return usual
        if self.backoff_ms is None and self.cap_ms is None and self.jitter is None:
            return usual.with_attempts(self.max_attempts)
        if self.backoff_ms is None or self.cap_ms is None or self.jitter is None:
            return usual
        try:
            return self._own(self.max_attempts).judging_as(usual)
        except ConfigurationError:  # of a later release, or damaged
            return usual

    def _own(self, max_attempts: int) -> Retry:
        jitter: Any = (self.spread or "full") if self.jitter else "none"
        if self.delays_ms is not None:
            return Retry(max_attempts=max_attempts, jitter=jitter, delays=[delay / 1000 for delay in self.delays_ms])
        growth: Any = self.growth
        return Retry(
            max_attempts=max_attempts, jitter=jitter, growth=growth,
            backoff=(self.backoff_ms or 0) / 1000, cap=(self.cap_ms or 0) / 1000,
        )  # fmt: skip
