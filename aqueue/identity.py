"""Which work a call is: the keys by which calls are held to be the same, or counted together, made of arguments."""

from __future__ import annotations

from typing import Any

from aqueue.errors import BadArguments, ConfigurationError, shown
from aqueue.limits import Concurrency, Limit
from aqueue.middleware import Outgoing
from aqueue.options import Options
from aqueue.settings import Settings
from aqueue.store import codec
from aqueue.store.keys import gate_digest, unique_digest
from aqueue.store.records import Unique as Claim
from aqueue.task import Call
from aqueue.unique import Debounce, Throttle, Unique


def delay_of(options: Options) -> float | None:
    """Say how long a call is to wait. Errors: ConfigurationError if a Debounce and a delay contradict each other."""
    if not isinstance(options.unique, Debounce):
        return options.delay
    if options.delay is not None or options.at_ms is not None:
        raise ConfigurationError("Debounce says when a job starts; leave out delay and at.")
    return options.unique.wait


def unique_claim(call: Call[Any], sent: Outgoing) -> Claim:
    """Give the key that a call claims. Errors: ConfigurationError for a name that is no argument of the call."""
    options = call.task.options_of_calls
    policy = options.unique or Unique()
    key = options.key if options.key is not None else f"\0{_values(call, sent, policy.by)}"
    digest = unique_digest(sent.task, key)
    match policy:
        case Unique(until=until, on_conflict=conflict):
            return Claim(digest, until, replace=conflict == "replace")
        case Debounce(max_wait=longest):
            return Claim(digest, "started", replace=True, max_wait_ms=0 if longest is None else round(longest * 1000))
        case Throttle(every=every):
            return Claim(digest, "window", window_ms=round(every * 1000))


def gate_words(call: Call[Any], sent: Outgoing, settings: Settings) -> str:
    """Write the gates that a call's job passes before each run, the narrowest first. Errors: as unique_claim."""
    of_task = call.task.options_of_calls.limit or ()
    of_queue = settings.limit if isinstance(settings.limit, tuple) else ()
    words = [_word(limit, limit.name or sent.task, call, sent) for limit in of_task]
    words += [_word(limit, limit.name or "", call, sent) for limit in of_queue]
    return ",".join(words)


def _word(limit: Limit, name: str, call: Call[Any], sent: Outgoing) -> str:
    return gate_word(limit, name, "" if limit.key is None else _values(call, sent, (limit.key,)))


def gate_word(limit: Limit, name: str, value: str = "") -> str:
    """Write one gate, for one value of the argument that it goes by."""
    kind = "c" if isinstance(limit, Concurrency) else limit.word
    return limit.word % gate_digest(kind, name, value)


def _values(call: Call[Any], sent: Outgoing, names: tuple[str, ...]) -> str:
    """Write the values of some arguments, or of all, so that equal calls are written alike."""
    try:
        bound = call.task.signature.bind(*sent.args, **sent.kwargs)
    except TypeError as error:
        raise BadArguments(f"{sent.task}{call.task.signature} cannot be called like this: {error}.") from None
    bound.apply_defaults()
    given = dict(bound.arguments)
    for parameter in call.task.signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name)
    for name in names:
        if name not in given:
            raise ConfigurationError(f"{shown(name)} is no argument of this call of {sent.task}; pass it by its name.")
    return codec.canonical({name: given[name] for name in names} if names else given)
