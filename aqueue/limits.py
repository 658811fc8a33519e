"""Limits on how many jobs run, in the whole fleet: at once, or within a span of time.

A job that a limit holds back waits in Redis, oldest first; it takes no worker's slot, and starts the moment it may.
GCRA after Brandur Leach's redis-cell; the sliding window keeps the instants of the last starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from aqueue.errors import ConfigurationError, shown
from aqueue.settings import Duration, seconds

MAX_WINDOW: Final = 10_000
"""A sliding window remembers so many starts at the most; beyond, a rate says nearly the same with one number."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` jobs run at once: those of a task, of one value of its argument `key`, or that share a `name`."""

    limit: int
    key: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check(self.limit, self.key, self.name)

    @property
    def word(self) -> str:
        """The wire's form but for the digest; see lua/include/limiting.lua."""
        return f"c.%s.{self.limit}"


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` jobs start `per` so many seconds, evenly spread; after a rest up to `burst` at once.

    Units: `per` in seconds, a timedelta or text such as "1m".
    """

    limit: int
    per: Duration = 1.0
    burst: int = 1
    key: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check(self.limit, self.key, self.name)
        _check_count(self.burst, "burst")
        object.__setattr__(self, "per", _span(self.per))
        if not self._interval_us >= 1:
            raise ConfigurationError(f"A rate of {self.limit} per {self.per:g} s is more than a million per second.")

    @property
    def _interval_us(self) -> int:
        return round(seconds(self.per, "per") / self.limit * 1_000_000)

    @property
    def word(self) -> str:
        """As in Concurrency."""
        return f"g.%s.{self._interval_us}.{self.burst}"


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` jobs start within any span of `per` seconds.

    Units: as Rate.
    """

    limit: int
    per: Duration = 1.0
    key: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check(self.limit, self.key, self.name)
        if self.limit > MAX_WINDOW:
            raise ConfigurationError(f"A window counts up to {MAX_WINDOW} starts, not {self.limit}; use a Rate.")
        object.__setattr__(self, "per", _span(self.per))

    @property
    def word(self) -> str:
        """As in Concurrency."""
        return f"w.%s.{self.limit}.{round(seconds(self.per, 'per') * 1000)}"


Limit: TypeAlias = Concurrency | Rate | Window


def checked_limits(value: Limit | Sequence[Limit], name: str) -> tuple[Limit, ...]:
    """Turn one limit or several into several, the narrowest first. Errors: ConfigurationError."""
    limits = (value,) if isinstance(value, Limit) else tuple(value) if isinstance(value, list | tuple) else None
    if limits is None or not all(isinstance(limit, Limit) for limit in limits):
        raise ConfigurationError(f"{name} must be Concurrency, Rate or Window, or a list of them, not {shown(value)}.")
    return tuple(sorted(limits, key=lambda limit: (limit.key is None, limit.name is not None)))


def _check(limit: object, key: object, name: object) -> None:
    _check_count(limit, "limit")
    for what, text in (("key", key), ("name", name)):
        if text is not None and (not isinstance(text, str) or not text or not text.isprintable()):
            raise ConfigurationError(f"the {what} of a limit must be printable text, not {shown(text)}.")


def _check_count(value: object, name: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a whole number of at least 1, not {shown(value)}.")


def _span(per: Duration) -> float:
    span = seconds(per, "per")
    if span < 0.001:  # noqa: PLR2004  # the wire's unit
        raise ConfigurationError(f"per must be at least a millisecond, not {shown(per)}.")
    return span
