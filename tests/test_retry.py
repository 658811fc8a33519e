"""Whether and when the next attempt comes: no clock, no server."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import random
import re
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqueue import ConfigurationError, Retry
from aqueue.options import make_options, merged
from aqueue.retry import MAX_DELAYS, MAX_SECONDS, UNBOUNDED, narrowed
from aqueue.store import codec

spans = st.floats(0, MAX_SECONDS)


def _named(options: dict[str, Any]) -> str:
    """Name a case alike in every process: functions are told by their address."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(options))[:60]


retries = st.one_of(
    st.builds(
        Retry,
        max_attempts=st.none() | st.integers(1, UNBOUNDED),
        backoff=spans,
        cap=st.none() | spans,
        growth=st.sampled_from(["exponential", "linear", "constant"]),
        jitter=st.sampled_from(["full", "equal", "none"]),
    ),
    st.builds(
        Retry,
        max_attempts=st.none() | st.integers(1, UNBOUNDED),
        delays=st.lists(spans, min_size=1, max_size=MAX_DELAYS),
        jitter=st.sampled_from(["full", "equal", "none"]),
    ),
)
"""Every policy that may travel with a call."""


class Refused(Exception):
    def __init__(self, status: int = 500) -> None:
        self.status = status


def is_5xx(error: BaseException, attempt: int) -> bool:
    return isinstance(error, Refused) and error.status >= 500 and attempt < 3


def broken(error: BaseException, attempt: int) -> bool:
    raise KeyError(error, attempt)


# how often and when


def test_the_defaults_are_those_of_the_documents() -> None:
    """People plan by them."""
    retry = Retry()
    assert (retry.max_attempts, retry.backoff, retry.growth, retry.cap) == (4, 2, "exponential", 600)
    assert (retry.jitter, retry.delays, retry.retry_timeouts) == ("full", None, True)
    assert (retry.retry_on, retry.no_retry_on, retry.when) == (None, (), None)


CEILINGS: Final[list[tuple[dict[str, Any], list[float]]]] = [
    ({}, [2, 4, 8, 16, 32, 64]),
    ({"backoff": 2, "cap": 10}, [2, 4, 8, 10, 10, 10]),
    ({"backoff": 3, "growth": "exponential", "cap": 100}, [3, 6, 12, 24, 48, 96]),
    ({"backoff": 3, "growth": "linear", "cap": 14}, [3, 6, 9, 12, 14, 14]),
    ({"backoff": 3, "growth": "constant"}, [3, 3, 3, 3, 3, 3]),
    ({"backoff": 3, "growth": "constant", "cap": 1}, [1, 1, 1, 1, 1, 1]),
    ({"backoff": 900, "growth": "constant"}, [900] * 6),  # the usual cap is not meant against what was written
    ({"backoff": 900}, [900] * 6),
    ({"backoff": 0}, [0] * 6),
    ({"backoff": "1m", "cap": timedelta(minutes=3)}, [60, 120, 180, 180, 180, 180]),
    ({"delays": [5, 30, 120]}, [5, 30, 120, 120, 120, 120]),
    ({"delays": ("5s", timedelta(seconds=1), 0)}, [5, 1, 0, 0, 0, 0]),
    ({"delays": [900]}, [900] * 6),
]


@pytest.mark.parametrize(("options", "ceilings"), CEILINGS, ids=[str(options) for options, _ in CEILINGS])
def test_the_delays_of_every_mode(options: dict[str, Any], ceilings: list[float]) -> None:
    """Without jitter a delay is its ceiling; with jitter it fills what is below, or the upper half of that."""
    attempts = range(1, 7)
    assert [Retry(**options, jitter="none").delay_after(n) for n in attempts] == ceilings
    random.seed(5)
    for jitter, floor in (("full", 0.0), ("equal", 0.5)):
        retry = Retry(**options, jitter=jitter)  # type: ignore[arg-type]
        for n, ceiling in zip(attempts, ceilings, strict=True):
            drawn = [retry.delay_after(n) for _ in range(200)]
            assert floor * ceiling <= min(drawn) <= (floor + 0.05) * ceiling
            assert 0.95 * ceiling <= max(drawn) <= ceiling


def test_who_lists_delays_means_them() -> None:
    """Unless jitter is asked for; and each listed delay is one attempt."""
    assert Retry(delays=[5, 30, 120]) == Retry(delays=[5, 30, 120], jitter="none", max_attempts=4)
    assert Retry(delays=[5] * 9).max_attempts == 10
    assert Retry(delays=[5, 30], max_attempts=8).max_attempts == 8


def test_jitter_may_be_said_as_a_truth() -> None:
    """As it was, and as people guess."""
    assert (Retry(jitter=True).jitter, Retry(jitter=False).jitter) == ("full", "none")
    assert Retry(delays=[1], jitter=True).jitter == "full"


@given(retries, st.integers(1, 10**6) | st.integers(-5, UNBOUNDED * 2))
def test_no_attempt_gives_a_delay_that_is_none(retry: Retry, attempt: int) -> None:
    """Attempts come from a record, which may say anything."""
    delay = retry.delay_after(attempt)
    assert 0 <= delay <= retry.cap
    assert math.isfinite(delay)


@pytest.mark.parametrize("attempt", [0, -1, -5, 10**400])
@pytest.mark.parametrize("options", [{}, {"growth": "linear"}, {"growth": "constant"}, {"delays": [1, 600]}])
def test_an_attempt_that_cannot_be_gives_the_nearest_delay(options: dict[str, Any], attempt: int) -> None:
    """No record may end a worker, or make a job wait for less than nothing."""
    retry = Retry(**options, jitter="none")
    assert retry.delay_after(attempt) == retry.delay_after(1 if attempt < 1 else UNBOUNDED)


@given(retries)
def test_delays_never_shrink_while_they_grow(retry: Retry) -> None:
    """Of those that follow a formula, each ceiling is at least the one before."""
    if retry.delays is None:
        ceilings = [Retry(backoff=retry.backoff, growth=retry.growth, cap=retry.cap, jitter="none").delay_after(n)
                    for n in (1, 2, 3, 40, 62, 63, 64, 10**6)]  # fmt: skip
        assert ceilings == sorted(ceilings)


@pytest.mark.parametrize(
    ("limit", "ended"), [(1, [True, True, True]), (2, [False, True, True]), (3, [False, False, True])]
)
def test_attempts_are_counted_with_the_first(limit: int, ended: list[bool]) -> None:
    """`max_attempts=1` is "no retry"."""
    assert [Retry(max_attempts=limit).exhausted(attempt) for attempt in (1, 2, 3)] == ended


def test_no_bound_is_none() -> None:
    """And still a number to compare with, for the job that asks its context."""
    retry = Retry(max_attempts=None)
    assert not any(retry.exhausted(attempt) for attempt in (1, 10**6, UNBOUNDED, UNBOUNDED + 1))
    assert retry.max_attempts > 10**6


# after which failures


GROUP: Final = BaseExceptionGroup("several", [OSError(), BaseExceptionGroup("inner", [ConnectionError(), Refused()])])

JUDGED: Final[list[tuple[dict[str, Any], BaseException, int, bool]]] = [
    ({}, ValueError(), 1, True),
    ({}, SystemExit(), 1, True),
    ({"retry_on": OSError}, ConnectionError(), 1, True),
    ({"retry_on": [OSError, KeyError]}, KeyError(), 1, True),
    ({"retry_on": (OSError, KeyError)}, ValueError(), 1, False),
    ({"retry_on": Exception}, asyncio.CancelledError(), 1, False),
    ({"no_retry_on": OSError}, ConnectionError(), 1, False),
    ({"no_retry_on": OSError}, ValueError(), 1, True),
    ({"retry_on": OSError, "no_retry_on": FileNotFoundError}, FileNotFoundError(), 1, False),
    ({"retry_on": OSError, "no_retry_on": FileNotFoundError}, ConnectionError(), 1, True),
    ({"when": is_5xx}, Refused(503), 2, True),
    ({"when": is_5xx}, Refused(503), 3, False),
    ({"when": is_5xx}, Refused(404), 1, False),
    ({"when": is_5xx, "retry_on": Refused}, Refused(503), 1, True),
    ({"when": is_5xx, "no_retry_on": Refused}, Refused(503), 1, False),
    ({"when": broken, "retry_on": OSError}, ValueError(), 1, False),  # whom the classes refuse it is not asked about
    ({"when": lambda error, attempt: None}, ValueError(), 1, False),  # answers as Python takes them
    ({"when": lambda *given: len(given)}, ValueError(), 1, True),
    ({"retry_on": (OSError, Refused)}, GROUP, 1, True),
    ({"retry_on": OSError}, GROUP, 1, False),
    ({"retry_on": BaseExceptionGroup}, GROUP, 1, True),
    ({"retry_on": ExceptionGroup}, GROUP, 1, True),
    ({"no_retry_on": Refused}, GROUP, 1, False),
    ({"no_retry_on": KeyError}, GROUP, 1, True),
    ({"no_retry_on": ExceptionGroup}, GROUP, 1, False),
]


@pytest.mark.parametrize(("options", "error", "attempt", "again"), JUDGED)
def test_what_is_retried(options: dict[str, Any], error: BaseException, attempt: int, again: bool) -> None:  # noqa: FBT001
    """Subclasses count, exclusion wins, the predicate comes last; a group is judged by what is in it."""
    assert Retry(**options).allows(error, attempt) is again


def test_a_group_of_groups_is_no_trap() -> None:
    """Recursion would end where Python's does."""
    error: Any = OSError()
    for _ in range(5000):
        error = BaseExceptionGroup("deeper", [error])
    assert Retry(retry_on=OSError, no_retry_on=KeyError).allows(error, 1)


def test_an_answer_that_nobody_awaits_is_an_error() -> None:
    """A coroutine is true, whatever it would have answered."""

    async def late(error: BaseException, attempt: int) -> None: ...

    with pytest.raises(TypeError, match="plain function"):
        Retry(when=lambda error, attempt: late(error, attempt)).allows(ValueError(), 1)  # noqa: PLW0108  # hides it


# what is refused


def one_argument(error: BaseException) -> None: ...
async def coroutine(error: BaseException, attempt: int) -> None: ...


class Asynchronous:
    async def __call__(self, error: BaseException, attempt: int) -> None: ...


NAN, INF = math.nan, math.inf
SENSELESS: Final[list[tuple[dict[str, Any], str]]] = [
    ({"max_attempts": 0}, "max_attempts .* at least 1"),
    ({"max_attempts": -1}, "max_attempts .* None for no bound"),
    ({"max_attempts": 2.0}, "max_attempts"),
    ({"max_attempts": INF}, "max_attempts"),
    ({"max_attempts": "3"}, "max_attempts"),
    ({"max_attempts": True}, "max_attempts"),
    ({"max_attempts": UNBOUNDED + 1}, "max_attempts"),
    ({"backoff": -1}, "backoff"),
    ({"backoff": NAN}, "backoff"),
    ({"backoff": "soon"}, "backoff must read like"),
    ({"backoff": True}, "backoff"),
    ({"backoff": [1, 2]}, "backoff"),
    ({"cap": INF}, "cap"),
    ({"cap": MAX_SECONDS * 2}, "cap"),
    ({"growth": "fibonacci"}, "growth must be 'exponential', 'linear' or 'constant', not 'fibonacci'"),
    ({"growth": ""}, "growth"),
    ({"growth": True}, "growth"),
    ({"jitter": "some"}, "jitter must be 'full', 'equal' or 'none', not 'some'"),
    ({"jitter": 0.5}, "jitter"),
    ({"delays": []}, "delays is empty"),
    ({"delays": 5}, "delays must be a list"),
    ({"delays": "5m"}, "delays must be a list"),
    ({"delays": {5, 30}}, "delays must be a list"),
    ({"delays": [5, -1]}, "delay 2 of delays"),
    ({"delays": [NAN]}, "delay 1 of delays"),
    ({"delays": [1, INF]}, "delay 2 of delays"),
    ({"delays": [None]}, "delay 1 of delays"),
    ({"delays": [1] * (MAX_DELAYS + 1)}, "more than 100; the last one repeats"),
    ({"delays": [1], "backoff": 2}, "leave out backoff"),
    ({"delays": [1], "growth": "linear"}, "leave out backoff"),
    ({"delays": [1], "cap": 5}, "leave out backoff"),
    ({"retry_on": ()}, "retry_on is empty"),
    ({"retry_on": "OSError"}, "retry_on must be exception classes"),
    ({"retry_on": OSError()}, "retry_on must be exception classes"),
    ({"retry_on": (OSError, int)}, "retry_on must be exception classes, .* not <class 'int'>"),
    ({"no_retry_on": [None]}, "no_retry_on must be exception classes"),
    ({"retry_on": OSError, "no_retry_on": OSError}, "OSError is named by retry_on and excluded"),
    ({"retry_on": (KeyError, ConnectionError), "no_retry_on": OSError}, "ConnectionError is named by retry_on"),
    ({"when": True}, "when must be a function"),
    ({"when": ValueError}, "when must be a function"),
    ({"when": coroutine}, "when must be a plain function"),
    ({"when": Asynchronous()}, "when must be a plain function"),
    ({"when": one_argument}, "called with the error and the attempt"),
    ({"when": lambda: True}, "called with the error and the attempt"),
    ({"retry_timeouts": None}, "retry_timeouts must be True or False"),
    ({"retry_timeouts": 1}, "retry_timeouts must be True or False"),
]


@pytest.mark.parametrize(("options", "says"), SENSELESS, ids=[_named(options) for options, _ in SENSELESS])
def test_senseless_retries_are_refused(options: dict[str, Any], says: str) -> None:
    """Where they are written, in words that say what is wrong."""
    with pytest.raises(ConfigurationError, match=says):
        Retry(**options)


# as a value


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda retry: pickle.loads(pickle.dumps(retry))])  # our own
def test_a_policy_is_a_value(make: Any) -> None:
    """It is shared by tasks and settings, and may cross to another process."""
    retry = Retry(delays=[1, 2], retry_on=[OSError], when=is_5xx)
    assert make(retry) == retry
    assert hash(make(retry)) == hash(retry)


def test_a_number_changes_the_number_alone() -> None:
    """Whoever asks for two attempts has said nothing about delays and errors."""
    wide = Retry(delays=[5, 30], no_retry_on=KeyError)
    assert narrowed(2, wide) == Retry(max_attempts=2, delays=[5, 30], no_retry_on=KeyError)
    assert narrowed(None, wide) is wide
    assert narrowed(Retry(backoff=1), wide) == Retry(backoff=1)
    for own, kept in ((Retry(backoff=1), Retry(max_attempts=8, backoff=1)), (3, 8), (None, 8)):
        assert merged(make_options(retry=8), make_options(retry=own)).retry == kept
    assert merged(make_options(), make_options(retry=3, ttl=1)).retry == 3
    assert merged(make_options(retry=Retry(backoff=1)), make_options(retry=3)).retry == Retry(backoff=1)


# on the wire


def carried(retry: Retry | int, usual: Retry) -> Retry:
    headers = codec.Headers()
    headers.set_retry(retry)
    data = codec.encode_call("task", (), {}, headers)
    return codec.decode_envelope(data).headers.retry_over(usual)


def in_ms(retry: Retry) -> Retry:
    """Give what is left of a policy when its instants are whole milliseconds."""
    whole: dict[str, Any] = {"max_attempts": retry.max_attempts, "jitter": retry.jitter}
    if retry.delays is not None:
        return Retry(**whole, delays=[round(delay * 1000) / 1000 for delay in retry.delays])
    backoff, cap = round(retry.backoff * 1000) / 1000, round(retry.cap * 1000) / 1000
    return Retry(**whole, backoff=backoff, cap=cap, growth=retry.growth)


@given(retries)
def test_whatever_may_travel_arrives(retry: Retry) -> None:
    """In whole milliseconds; which failures are retried stays with the task."""
    retry.check_travels()
    usual = Retry(max_attempts=7, retry_on=OSError, no_retry_on=ConnectionError, when=is_5xx, retry_timeouts=False)
    arrived = carried(retry, usual)
    assert arrived == in_ms(retry).judging_as(usual)
    assert (arrived.retry_on, arrived.when, arrived.retry_timeouts) == ((OSError,), is_5xx, False)


@given(st.integers(1, UNBOUNDED))
def test_a_number_arrives_as_one(number: int) -> None:
    """The worker's policy is the one that it changes."""
    usual = Retry(max_attempts=7, delays=[1, 2], retry_on=OSError)
    assert carried(number, usual) == usual.with_attempts(number)


@pytest.mark.parametrize(
    "options", [{"retry_on": OSError}, {"no_retry_on": OSError}, {"when": is_5xx}, {"retry_timeouts": False}]
)
def test_code_does_not_travel(options: dict[str, Any]) -> None:
    """A name of a class or function in an envelope would be somebody's to choose."""
    with pytest.raises(ConfigurationError, match=r"@queue.task\(retry=Retry\(...\)\)"):
        Retry(**options).check_travels()


OLD: Final = b'[1,"task",[],{},{"max_attempts":3,"backoff_ms":1000,"cap_ms":5000,"jitter":false}]'
ODD: Final = [
    b'"growth":"fibonacci"', b'"spread":"some","jitter":true', b'"delays_ms":[5],"spread":"odd","jitter":true',
]  # fmt: skip


def test_headers_of_an_older_release_mean_what_they_meant() -> None:
    """Jobs may wait for months."""
    headers = codec.decode_envelope(OLD).headers
    assert headers.retry_over(Retry()) == Retry(max_attempts=3, backoff=1, cap=5, jitter="none")


@pytest.mark.parametrize("odd", ODD)
def test_a_policy_of_a_later_release_leaves_the_tasks(odd: bytes) -> None:
    """Half understood it would be neither."""
    usual = Retry(max_attempts=9)
    headers = codec.decode_envelope(
        OLD.replace(b'"jitter":false', odd if b"jitter" in odd else odd + b',"jitter":true')
    ).headers
    assert headers.retry_over(usual) is usual


@given(retries)
def test_an_older_reader_is_left_with_something_near(retry: Retry) -> None:
    """It skips what it does not know, and must find all that it knows within its bounds."""
    headers = codec.Headers()
    headers.set_retry(retry)
    assert headers.max_attempts is not None
    assert 1 <= headers.max_attempts <= UNBOUNDED
    assert headers.backoff_ms == round((retry.delays[0] if retry.delays else retry.backoff) * 1000)
    assert headers.cap_ms == round((max(retry.delays) if retry.delays else retry.cap) * 1000)
    assert headers.jitter is (retry.jitter != "none")
