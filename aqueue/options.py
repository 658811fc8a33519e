"""What one call, or every call of one task, wants other than the queue's settings.

People write options as keywords; here they are checked once, their units settled, and the narrower scope put before
the wider: call, then task, then queue. Nothing here knows Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypedDict, Unpack

from aqueue.errors import ConfigurationError, shown
from aqueue.limits import Limit, checked_limits
from aqueue.retry import Retry, narrowed
from aqueue.settings import Durable, Duration, instant_ms, seconds
from aqueue.unique import Uniqueness, checked_unique

HIGHEST_PRIORITY: Final = 9
USUAL_PRIORITY: Final = 5


class TaskOptions(TypedDict, total=False):
    """What `@queue.task(...)` takes; None leaves a choice to the queue's settings.

    Units: durations in seconds, a timedelta or text such as "5m"; -1 keeps a result or a failed job for ever.
    """

    ttl: Duration | None
    timeout: Duration | None
    retry: Retry | int | None
    result_ttl: Duration | None
    failure_ttl: Duration | None
    durable: Durable | None
    priority: int | None
    unique: Uniqueness | None
    limit: Limit | Sequence[Limit] | None


class CallOptions(TaskOptions, total=False):
    """What `task.options(...)` takes: a task's options, and what only one call can want.

    Units: as TaskOptions; `at` is an aware datetime.
    """

    delay: Duration | None
    at: datetime | None
    key: str | None
    front: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The same, checked. None leaves a choice to the next wider scope.

    Units: seconds; `at_ms` is Unix time.
    """

    delay: float | None = None
    at_ms: int | None = None
    key: str | None = None
    ttl: float | None = None
    timeout: float | None = None
    retry: Retry | int | None = None
    """A number is one of attempts, and leaves the rest to the next wider scope."""
    result_ttl: float | None = None
    failure_ttl: float | None = None
    durable: Durable | None = None
    priority: int | None = None
    unique: Uniqueness | None = None
    limit: tuple[Limit, ...] | None = None
    front: bool | None = None


_OF_ONE_CALL: Final = CallOptions.__annotations__.keys() - TaskOptions.__annotations__
NO_OPTIONS: Final = Options()


def make_options(**given: Unpack[CallOptions]) -> Options:
    """Check options of a call and settle their units. Errors: ConfigurationError; TypeError for a name that is none."""
    checked = _checked(given)
    if isinstance(checked.retry, Retry):
        checked.retry.check_travels()
    return checked


def _checked(given: Mapping[str, Any]) -> Options:
    if given.get("delay") is not None and given.get("at") is not None:
        raise ConfigurationError("delay and at both say when to start; give only one of them.")
    checked: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _CHECKS:
            raise TypeError(f"there is no option {shown(name)}; the options are {', '.join(sorted(_CHECKS))}")
        if value is not None:
            checked["at_ms" if name == "at" else name] = _CHECKS[name](value, name)
    return Options(**checked)


def make_task_options(**given: Unpack[TaskOptions]) -> Options:
    """Check what holds for every call of a task. Errors: as make_options, and for what only one call can want."""
    for name in given.keys() & _OF_ONE_CALL:
        raise ConfigurationError(
            f"{name} is for one call, not for a task; write task.options({name}=...).enqueue(...)."
        )
    return _checked(given)


def merged(first: Options, second: Options) -> Options:
    """Take each option from the first that has it; delay and at replace each other."""
    if second == NO_OPTIONS:
        return first
    when_given = first.delay is not None or first.at_ms is not None
    chosen = {
        name: getattr(first, name) if getattr(first, name) is not None else getattr(second, name)
        for name in Options.__dataclass_fields__
        if name not in ("delay", "at_ms", "retry")
    }
    when = first if when_given else second
    retry = narrowed(first.retry, second.retry) if isinstance(second.retry, Retry) else first.retry or second.retry
    return Options(delay=when.delay, at_ms=when.at_ms, retry=retry, **chosen)


def _lifetime(value: Duration, name: str) -> float:
    return seconds(value, name, forever=True)


def _key(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{name} must be text of at least one character, not {shown(value)}.")
    if not value.isprintable():
        raise ConfigurationError(f"{name} must be printable text, not {shown(value)}.")
    return value


def _durable(value: object, name: str) -> object:
    if value not in ("memory", "disk", "replica"):
        raise ConfigurationError(f"{name} must be 'memory', 'disk' or 'replica', not {shown(value)}.")
    return value


def _priority(value: object, name: str) -> object:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HIGHEST_PRIORITY:
        raise ConfigurationError(
            f"{name} must be a whole number from 0 (last) to {HIGHEST_PRIORITY} (first), not {shown(value)}; "
            f"jobs without one have {USUAL_PRIORITY}."
        )
    return value


def _front(value: object, name: str) -> object:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {shown(value)}.")
    return value


def _retry(value: Retry | int, name: str) -> Retry | int:  # noqa: ARG001  # Retry names what is wrong with it
    if not isinstance(value, Retry):
        Retry(max_attempts=value)
    return value


_CHECKS: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "delay": seconds,
    "at": instant_ms,
    "key": _key,
    "ttl": seconds,
    "timeout": seconds,
    "retry": _retry,
    "result_ttl": _lifetime,
    "failure_ttl": _lifetime,
    "durable": _durable,
    "priority": _priority,
    "unique": checked_unique,
    "limit": checked_limits,
    "front": _front,
}
