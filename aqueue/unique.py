"""Which calls are the same work, and what becomes of a call while another holds its key.

Whoever enqueues always gets a job back; `.created` says whether it is a new one. Nothing here knows Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from aqueue.errors import ConfigurationError, shown
from aqueue.settings import Duration, seconds


@dataclass(frozen=True, slots=True, init=False)
class Unique:
    """One job at a time for each value of the arguments `by`; of all arguments if none is named.

    `until` says how long a job holds the key: until it has "finished", retries included, or until it has "started", so
    that a change that comes while it runs is not missed. `on_conflict` says what becomes of a call meanwhile: the
    waiting job is to "keep" its arguments, or to "replace" them, and its time, by the call's; a running one keeps them.
    """

    by: tuple[str, ...]
    until: Literal["finished", "started"]
    on_conflict: Literal["keep", "replace"]

    def __init__(
        self,
        *by: str,
        until: Literal["finished", "started"] = "finished",
        on_conflict: Literal["keep", "replace"] = "keep",
    ) -> None:
        if until not in ("finished", "started"):
            raise ConfigurationError(
                f"until must be 'finished' or 'started', not {shown(until)}; for a time use Throttle."
            )
        if on_conflict not in ("keep", "replace"):
            raise ConfigurationError(f"on_conflict must be 'keep' or 'replace', not {shown(on_conflict)}.")
        for name, value in (("by", checked_names(by)), ("until", until), ("on_conflict", on_conflict)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True, init=False)
class Debounce:
    """Start once no further call has come for `wait` seconds, with the last call's arguments.

    At most `max_wait` seconds after the first call, however many follow. A call that comes while it runs begins anew.
    Units:  seconds, a timedelta or text such as "5s".
    """

    by: tuple[str, ...]
    wait: float
    max_wait: float | None

    def __init__(self, wait: Duration, *by: str, max_wait: Duration | None = None) -> None:
        longest = None if max_wait is None else seconds(max_wait, "max_wait")
        span = _positive(wait, "wait")
        if longest is not None and longest < span:
            raise ConfigurationError(f"max_wait must be at least wait, not {longest:g} s for a wait of {span:g} s.")
        for name, value in (("by", checked_names(by)), ("wait", span), ("max_wait", longest)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True, init=False)
class Throttle:
    """Run the first call and drop the others for `every` seconds; they get the first one's job.

    Units:  seconds, a timedelta or text such as "5s".
    """

    by: tuple[str, ...]
    every: float

    def __init__(self, every: Duration, *by: str) -> None:
        for name, value in (("by", checked_names(by)), ("every", _positive(every, "every"))):
            object.__setattr__(self, name, value)


Uniqueness: TypeAlias = Unique | Debounce | Throttle


def checked_unique(value: object, name: str) -> Uniqueness:
    """Refuse what is none. Errors: ConfigurationError."""
    if not isinstance(value, Uniqueness):
        raise ConfigurationError(
            f"{name} must be Unique(), Debounce(seconds) or Throttle(seconds), not {shown(value)}."
        )
    return value


def checked_names(by: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what cannot name arguments. Errors: ConfigurationError."""
    for name in by:
        if not isinstance(name, str) or not name.isidentifier():
            raise ConfigurationError(f"What is unique is named by the names of arguments; {shown(name)} is none.")
    return by


def _positive(value: Duration, name: str) -> float:
    span = seconds(value, name)
    if span < 0.001:  # noqa: PLR2004  # the wire's unit
        raise ConfigurationError(f"{name} must be at least a millisecond, not {shown(value)}.")
    return span
