"""Whether a job that failed is tried again, and when. Nothing here waits, and nothing knows Redis."""

from __future__ import annotations

import copy
import enum
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias

from aqueue.errors import ConfigurationError, shown

if TYPE_CHECKING:
    from aqueue.settings import Duration

Growth: TypeAlias = Literal["exponential", "linear", "constant"]
Jitter: TypeAlias = Literal["full", "equal", "none"]
ErrorTypes: TypeAlias = type[BaseException] | Sequence[type[BaseException]]
Predicate: TypeAlias = Callable[[BaseException, int], object]

MAX_SECONDS: Final = 100 * 365 * 86_400.0
"""A century: anything longer is a slip of the unit, and would leave the exact integers of Lua."""
UNBOUNDED: Final = 1_000_000_000
"""Attempts that nobody lives to see: once a second for thirty years."""
MAX_DOUBLINGS: Final = 62
"""2**62 seconds is past any cap; more would only overflow the float."""
MAX_DELAYS: Final = 100
"""They travel with a call; who needs more means a formula."""
USUAL_ATTEMPTS: Final = 4
USUAL_BACKOFF_SECONDS: Final = 2.0
USUAL_CAP_SECONDS: Final = 600.0


class _Unset(enum.Enum):
    UNSET = enum.auto()


_UNSET: Final = _Unset.UNSET
"""Where None means something: no bound."""


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often, how long after a failure and after which failures a job runs again.

    The delay after attempt n has a ceiling: `backoff * 2**(n - 1)` if it grows "exponential", `backoff * n` if
    "linear", `backoff` if "constant", and at most `cap`. With "full" jitter it is drawn evenly from 0 to there, so
    that jobs that failed together do not come back together; with "equal" jitter from half of it; with "none" it is
    the ceiling. Or `delays` lists the ceilings: the last repeats, and unless said otherwise there is no jitter, and
    one attempt more than delays.

    An exception is retried if it is a `retry_on` (by default all are), is no `no_retry_on`, and `when(error, attempt)`
    says so. An exception group is a `retry_on` if all in it are, and a `no_retry_on` if any in it is. A run that
    exceeds its timeout is none of their business: `retry_timeouts` decides.
    Should `when` itself raise, that is noted in the job's error, and the job is retried.

    Units:  `backoff`, `cap` and `delays` in seconds, a timedelta or text such as "5m"; `max_attempts` counts the first
            run, None is without bound.
    Errors: ConfigurationError.
    Source: full and equal jitter after Marc Brooker's "Exponential Backoff And Jitter"; `when` after Dramatiq's
            `retry_when`, the classes after Celery's `autoretry_for` and `dont_autoretry_for`.
    """

    max_attempts: int
    backoff: float
    growth: Growth
    cap: float
    jitter: Jitter
    delays: tuple[float, ...] | None
    retry_on: tuple[type[BaseException], ...] | None
    no_retry_on: tuple[type[BaseException], ...]
    when: Predicate | None
    retry_timeouts: bool

    def __init__(
        self,
        *,
        max_attempts: int | _Unset | None = _UNSET,
        backoff: Duration | None = None,
        growth: Growth | None = None,
        cap: Duration | None = None,
        jitter: Jitter | bool | None = None,
        delays: Sequence[Duration] | None = None,
        retry_on: ErrorTypes | None = None,
        no_retry_on: ErrorTypes | None = None,
        when: Predicate | None = None,
        retry_timeouts: bool = True,
    ) -> None:
        if delays is None:
            waits = None
            first = _seconds(USUAL_BACKOFF_SECONDS if backoff is None else backoff, "backoff")
            most = max(USUAL_CAP_SECONDS, first) if cap is None else _seconds(cap, "cap")
        else:
            if not (backoff is growth is cap is None):
                raise ConfigurationError("delays lists every delay; leave out backoff, growth and cap, or delays.")
            waits = _checked_delays(delays)
            first, most = waits[0], max(waits)
        if max_attempts is _UNSET:
            max_attempts = USUAL_ATTEMPTS if waits is None else len(waits) + 1
        self._set("max_attempts", _checked_attempts(max_attempts))
        self._set("backoff", first)
        self._set(
            "growth",
            _word("exponential" if growth is None else growth, "growth", ("exponential", "linear", "constant")),
        )
        self._set("cap", most)
        self._set("jitter", _checked_jitter(jitter, "full" if waits is None else "none"))
        self._set("delays", waits)
        self._set("retry_on", None if retry_on is None else _checked_types(retry_on, "retry_on"))
        self._set("no_retry_on", () if no_retry_on is None else _checked_types(no_retry_on, "no_retry_on"))
        self._set("when", _checked_predicate(when))
        if not isinstance(retry_timeouts, bool):
            raise ConfigurationError(f"retry_timeouts must be True or False, not {shown(retry_timeouts)}.")
        self._set("retry_timeouts", retry_timeouts)
        self._check_overlap()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_overlap(self) -> None:
        for one in self.retry_on or ():
            if issubclass(one, self.no_retry_on):
                raise ConfigurationError(
                    f"{one.__qualname__} is named by retry_on and excluded by no_retry_on; take it out of one."
                )

    # how often and when

    def delay_after(self, attempt: int) -> float:
        """Return how long to wait after the `attempt`-th run failed, in seconds."""
        ceiling = self._ceiling(min(max(attempt, 1), UNBOUNDED))
        if self.jitter == "none":
            return ceiling
        return random.uniform(0 if self.jitter == "full" else ceiling / 2, ceiling)  # noqa: S311  # spreads load, guards nothing

    def _ceiling(self, attempt: int) -> float:
        if self.delays is not None:
            return self.delays[min(attempt, len(self.delays)) - 1]
        match self.growth:
            case "exponential":
                factor = 2.0 ** min(attempt - 1, MAX_DOUBLINGS)
            case "linear":
                factor = float(attempt)
            case "constant":
                factor = 1.0
        return min(self.cap, self.backoff * factor)

    def exhausted(self, attempt: int) -> bool:
        """Say whether no further run may follow the `attempt`-th."""
        return attempt >= self.max_attempts != UNBOUNDED

    # after which failures

    def allows(self, error: BaseException, attempt: int) -> bool:
        """Say whether another attempt may follow what the `attempt`-th has raised.

        Errors: whatever `when` raises; TypeError if it answers something to be awaited.
        """
        if any(isinstance(one, self.no_retry_on) for one in _within(error)):
            return False
        if self.retry_on is not None and not _is_all(error, self.retry_on):
            return False
        if self.when is None:
            return True
        answer = self.when(error, attempt)
        if inspect.iscoroutine(answer):
            answer.close()
        if inspect.isawaitable(answer):
            raise TypeError("when must be a plain function, for nobody awaits what it answers")
        return bool(answer)

    def check_travels(self) -> None:
        """Refuse what only code can hold. Errors: ConfigurationError."""
        if self.retry_on is not None or self.no_retry_on or self.when is not None or not self.retry_timeouts:
            raise ConfigurationError(
                "retry_on, no_retry_on, when and retry_timeouts are code of the task, not data of one call; write them "
                "in @queue.task(retry=Retry(...)), they hold for this call too."
            )

    # one policy over another

    def with_attempts(self, max_attempts: int) -> Self:
        """Give the same policy with another number of attempts."""
        return self._changed(max_attempts=max_attempts)

    def judging_as(self, other: Retry) -> Self:
        """Give the same delays and attempts, after those failures that `other` retries."""
        return self._changed(
            retry_on=other.retry_on, no_retry_on=other.no_retry_on, when=other.when, retry_timeouts=other.retry_timeouts
        )

    def _changed(self, **fields: object) -> Self:
        twin = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(twin, name, value)
        return twin


def narrowed(own: Retry | int | None, wider: Retry) -> Retry:
    """Give the policy of a narrower scope; a number changes only that of the wider one's attempts."""
    if own is None:
        return wider
    return own if isinstance(own, Retry) else wider.with_attempts(own)


def _within(error: BaseException) -> Iterator[BaseException]:
    """Give the error, and all that are in it if it is a group. Without recursion: groups may be nested anyhow."""
    left = [error]
    while left:
        one = left.pop()
        yield one
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions


def _is_all(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    """Say whether the error is one of these, or is a group of nothing else."""
    return isinstance(error, types) or all(isinstance(one, types) for one in leaves(error))


def leaves(error: BaseException) -> list[BaseException]:
    """Give what an exception group is made of; of any other error, itself."""
    return [one for one in _within(error) if not isinstance(one, BaseExceptionGroup)]


def _seconds(value: Duration, name: str) -> float:
    from aqueue.settings import seconds  # noqa: PLC0415  # which needs Retry

    return seconds(value, name)


def _checked_attempts(value: object) -> int:
    if value is None:
        return UNBOUNDED
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= UNBOUNDED:
        raise ConfigurationError(
            f"max_attempts counts the first run, so it must be a whole number of at least 1 and at most {UNBOUNDED}, "
            f"or None for no bound, not {shown(value)}."
        )
    return value


def _checked_delays(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"delays must be a list of durations such as [5, 30, '2m'], not {shown(value)}.")
    if not value:
        raise ConfigurationError("delays is empty; leave it out, or write max_attempts=1 for no retry.")
    if len(value) > MAX_DELAYS:
        raise ConfigurationError(f"delays has {len(value)} entries, more than {MAX_DELAYS}; the last one repeats.")
    return tuple(_seconds(delay, f"delay {number} of delays") for number, delay in enumerate(value, 1))


def _checked_jitter(value: object, usual: Jitter) -> str:
    if value is None:
        return usual
    if isinstance(value, bool):
        return "full" if value else "none"
    return _word(value, "jitter", ("full", "equal", "none"))


def _word(value: object, name: str, words: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in words:
        *others, last = map(repr, words)
        raise ConfigurationError(f"{name} must be {', '.join(others)} or {last}, not {shown(value)}.")
    return value


def _checked_types(value: object, name: str) -> tuple[type[BaseException], ...]:
    types: tuple[Any, ...] = tuple(value) if isinstance(value, list | tuple) else (value,)
    for one in types:
        if not isinstance(one, type) or not issubclass(one, BaseException):
            raise ConfigurationError(
                f"{name} must be exception classes, such as (ConnectionError, TimeoutError), not {shown(one)}."
            )
    if not types and name == "retry_on":
        raise ConfigurationError("retry_on is empty; leave it out, or write max_attempts=1 for no retry.")
    return types


def _checked_predicate(value: object) -> object:
    if value is None:
        return None
    if not callable(value) or isinstance(value, type):
        raise ConfigurationError(f"when must be a function of the error and the attempt, not {shown(value)}.")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004  # an object may be called as a coroutine
        raise ConfigurationError(f"when must be a plain function, not a coroutine function like {shown(value)}.")
    try:
        inspect.signature(value).bind(None, 1)
    except TypeError as error:
        raise ConfigurationError(
            f"when is called with the error and the attempt, and {shown(value)} does not take them: {error}."
        ) from None
    except ValueError:  # some builtins do not tell what they take
        pass
    return value
