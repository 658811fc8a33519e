"""When a job that raised is tried again. Pure arithmetic: nothing here waits, and nothing knows Redis."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from aqueue.errors import ConfigurationError

MAX_DOUBLINGS: Final = 62
"""2**62 seconds is past any cap; more would only overflow the float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how long after a failure a job runs again.

    The delay before attempt n + 1 is drawn evenly from 0 to `backoff * 2**(n - 1)`, at most `cap`
    (full jitter), so that jobs that failed together do not come back together.

    Units: `backoff` and `cap` in seconds; `max_attempts` counts the first run.
    """

    max_attempts: int = 4
    backoff: float = 2.0
    cap: float = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or isinstance(self.max_attempts, bool) or self.max_attempts < 1:
            raise ConfigurationError(
                f"max_attempts counts the first run, so it must be a whole number of at least 1, "
                f"not {self.max_attempts!r}."
            )
        for name in ("backoff", "cap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigurationError(f"{name} must be a number of seconds of at least 0, not {value!r}.")

    def delay_after(self, attempt: int) -> float:
        """Return how long to wait after the `attempt`-th run failed, in seconds."""
        ceiling = min(self.cap, self.backoff * 2.0 ** min(attempt - 1, MAX_DOUBLINGS))
        return random.uniform(0, ceiling) if self.jitter else ceiling  # noqa: S311  # spreads load, guards nothing

    def exhausted(self, attempt: int) -> bool:
        """Say whether no further run may follow the `attempt`-th."""
        return attempt >= self.max_attempts
