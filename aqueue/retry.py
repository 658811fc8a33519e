"""When a job that raised is tried again. Pure arithmetic: nothing here waits, and nothing knows Redis."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from aqueue.errors import ConfigurationError, shown

MAX_SECONDS: Final = 100 * 365 * 86_400.0
"""A century: anything longer is a slip of the unit, and would leave the exact integers of Lua."""
MAX_ATTEMPTS: Final = 1_000_000_000
"""Once a second for thirty years."""
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
        whole = isinstance(self.max_attempts, int) and not isinstance(self.max_attempts, bool)
        if not whole or not 1 <= self.max_attempts <= MAX_ATTEMPTS:
            raise ConfigurationError(
                f"max_attempts counts the first run, so it must be a whole number of at least 1 and at most "
                f"{MAX_ATTEMPTS}, not {shown(self.max_attempts)}."
            )
        for name in ("backoff", "cap"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SECONDS:
                raise ConfigurationError(
                    f"{name} must be a number of seconds from 0 to {MAX_SECONDS:.0f}, not {shown(value)}."
                )

    def delay_after(self, attempt: int) -> float:
        """Return how long to wait after the `attempt`-th run failed, in seconds."""
        ceiling = min(self.cap, self.backoff * 2.0 ** min(attempt - 1, MAX_DOUBLINGS))
        return random.uniform(0, ceiling) if self.jitter else ceiling  # noqa: S311  # spreads load, guards nothing

    def exhausted(self, attempt: int) -> bool:
        """Say whether no further run may follow the `attempt`-th."""
        return attempt >= self.max_attempts
