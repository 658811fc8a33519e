"""Limits and lifetimes of a queue, as one frozen record with the units settled once.

Nothing here knows Redis. Durations are accepted as float seconds, `timedelta` or text such as "5m" and are
float seconds from then on; `FOREVER` (-1) means without end where a lifetime may be endless.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from aqueue.errors import ConfigurationError, shown
from aqueue.keyring import Encryption, Signing
from aqueue.retry import MAX_SECONDS, Retry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aqueue.limits import Limit

Duration: TypeAlias = float | timedelta | str
Durable: TypeAlias = Literal["memory", "disk", "replica"]
Serializer: TypeAlias = Literal["json", "pickle"]

FOREVER: Final = -1.0
DEFAULT_PREFIX: Final = "aqueue"
PREFIX_VARIABLE: Final = "AQUEUE_PREFIX"
LARGEST_BYTES: Final = 512 * 1024 * 1024
"""What a server takes as one value, unless its proto-max-bulk-len says otherwise."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_COUNT: Final = 2**53
"""Beyond it the numbers of Lua are no longer exact."""

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


def seconds(value: Duration, name: str, *, forever: bool = False) -> float:
    """Turn a duration in any accepted form into float seconds.

    Errors: ConfigurationError for a negative, endless or unreadable value; -1 passes only with `forever`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta | str):
        raise ConfigurationError(f"{name} must be seconds, a timedelta or text such as '5m', not {shown(value)}.")
    number = _parse(value, name) if isinstance(value, str) else _plain(value)
    if forever and number == FOREVER:
        return FOREVER
    if not 0 <= number <= MAX_SECONDS:  # also refuses nan
        raise ConfigurationError(
            f"{name} must be between 0 and {MAX_SECONDS:.0f} seconds"
            f"{', or -1 for ever' if forever else ''}; {shown(value)} is not."
        )
    return number


def _plain(value: float | timedelta) -> float:
    try:
        return value.total_seconds() if isinstance(value, timedelta) else float(value)
    except OverflowError:
        return math.inf


def _parse(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ConfigurationError(f"{name} must read like '90', '5m' or '1h30m', not {shown(text)}.")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def instant_ms(value: datetime, name: str) -> int:
    """Turn an aware datetime into Unix milliseconds.

    Errors: ConfigurationError for a naive one, since nobody can know which zone it meant.
    """
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{name} must be a datetime, not {shown(value)}.")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ConfigurationError(f"{name} must carry a time zone; write datetime(..., tzinfo=UTC) for {shown(value)}.")
    return (value - EPOCH) // timedelta(milliseconds=1)  # exact, up to the last instant that a datetime can hold


def instant(ms: int) -> datetime:
    """Turn Unix milliseconds of the server into an aware UTC datetime."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT


def ttl_ms(lifetime: float) -> int:
    """Turn a lifetime into the wire's form: milliseconds, or -1 for ever."""
    return -1 if lifetime == FOREVER else round(lifetime * 1000)


class _Seconds:
    """A field that takes a duration in any form and gives float seconds."""

    def __init__(self, default: float, *, forever: bool = False) -> None:
        self._default = default
        self._forever = forever

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: object | None, owner: type) -> float:
        return self._default if record is None else vars(record)[self._name]

    def __set__(self, record: object, value: Duration) -> None:
        vars(record)[self._name] = seconds(value, self._name, forever=self._forever)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one queue treats its jobs; every option has the default that the README states.

    Units: durations are given as seconds, timedelta or "5m", and read as seconds; sizes in bytes.
    """

    timeout: _Seconds = _Seconds(300.0)
    """One attempt may take this long; 0 means without limit."""
    retry: Retry = field(default_factory=Retry)
    result_ttl: _Seconds = _Seconds(3_600.0, forever=True)
    """How long a result is kept; 0 keeps none, -1 keeps it for ever."""
    failure_ttl: _Seconds = _Seconds(7 * 86_400.0, forever=True)
    failure_cap: int = 10_000
    """At most this many failed jobs are kept per queue."""
    lease: _Seconds = _Seconds(15.0)
    """A worker that was silent for this long is taken for dead."""
    crash_limit: int = 3
    unknown_task_window: _Seconds = _Seconds(600.0)
    """For how long a job whose task, or whose envelope's version, no worker knows is handed back before it fails."""
    blocked_loop_cap: _Seconds = _Seconds(300.0)
    """For how long leases are renewed although the event loop does not turn."""
    warn_bytes: int = 64 * 1024
    max_bytes: int = 1024 * 1024
    prefix: str = field(default_factory=lambda: os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX)
    """What the names of all keys begin with; an application that trusts no other has one of its own."""
    seal: Signing | Encryption | None = None
    """How payloads are protected; None leaves it to AQUEUE_SIGNING_KEYS or AQUEUE_ENCRYPTION_KEYS, if one is set."""
    serializer: Serializer = "json"
    """`pickle` takes nearly any value, and only where payloads are sealed: reading one runs what it says."""
    limit: Limit | Sequence[Limit] | None = None
    """For all jobs of the queue together."""
    priority_aging: _Seconds = _Seconds(0.0)
    """A waiting job gains a level of priority each time so many seconds have passed; 0 is strict order."""
    strict: bool = False
    """Refuse a server that evicts keys (UnsafeServer) instead of warning about it."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.type == "int" and not _is_count(value):
                raise ConfigurationError(
                    f"{option.name} must be a whole number of at least 1 and at most 2**53, not {shown(value)}."
                )
        if self.limit is not None:
            from aqueue.limits import checked_limits  # noqa: PLC0415  # which needs the durations of this module

            object.__setattr__(self, "limit", checked_limits(self.limit, "limit"))
        if self.max_bytes > LARGEST_BYTES:
            raise ConfigurationError(f"max_bytes must be at most {LARGEST_BYTES}, for a server takes no more at once.")
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry must be a Retry, not {shown(self.retry)}; write Retry(max_attempts=...).")
        if self.seal is not None and not isinstance(self.seal, Signing | Encryption):
            raise ConfigurationError("seal must be Signing(...) or Encryption(...).")  # what it is may be a key
        if self.serializer not in ("json", "pickle"):
            raise ConfigurationError(f"serializer must be 'json' or 'pickle', not {shown(self.serializer)}.")
        if self.lease < MIN_LEASE_SECONDS:
            raise ConfigurationError(f"lease must be at least {MIN_LEASE_SECONDS:g} s, not {self.lease:g} s.")

    @property
    def beat(self) -> float:
        """Leases are renewed at a third of their length, so that two renewals may fail."""
        return self.lease / 3


MIN_LEASE_SECONDS: Final = 1.0
"""Below this, an ordinary pause of the process or the network would count as a crash."""
