"""When the next attempt comes: pure arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqueue import ConfigurationError, Retry


def test_the_defaults_are_those_of_the_documents() -> None:
    """People plan by them."""
    retry = Retry()
    assert (retry.max_attempts, retry.backoff, retry.cap, retry.jitter) == (4, 2, 600, True)


def test_without_jitter_the_delay_doubles_up_to_the_cap() -> None:
    """The number of the failed attempt is the exponent, from 0."""
    retry = Retry(backoff=2, cap=10, jitter=False)
    assert [retry.delay_after(attempt) for attempt in range(1, 6)] == [2, 4, 8, 10, 10]


@given(st.integers(1, 10**6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_with_jitter_the_delay_is_anywhere_below(attempt: int, backoff: float, cap: float) -> None:
    """Full jitter: jobs that failed together do not come back together. No attempt overflows."""
    whole = Retry(backoff=backoff, cap=cap, jitter=False).delay_after(attempt)
    assert 0 <= Retry(backoff=backoff, cap=cap).delay_after(attempt) <= whole <= cap


def test_jitter_spreads() -> None:
    """A constant below the ceiling would pass the test above."""
    delays = {Retry(backoff=100).delay_after(3) for _ in range(50)}
    assert len(delays) > 40
    assert max(delays) > 200 > min(delays)


@pytest.mark.parametrize(
    ("limit", "ended"), [(1, [True, True, True]), (2, [False, True, True]), (3, [False, False, True])]
)
def test_attempts_are_counted_with_the_first(limit: int, ended: list[bool]) -> None:
    """`max_attempts=1` is "no retry"."""
    assert [Retry(max_attempts=limit).exhausted(attempt) for attempt in (1, 2, 3)] == ended


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 2.0}, "max_attempts"),
        ({"max_attempts": "3"}, "max_attempts"),
        ({"max_attempts": True}, "max_attempts"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": float("nan")}, "backoff"),
        ({"backoff": "2s"}, "backoff"),
        ({"backoff": True}, "backoff"),
        ({"cap": float("inf")}, "cap"),
        ({"cap": None}, "cap"),
    ],
)
def test_senseless_retries_are_refused(options: dict[str, Any], word: str) -> None:
    """Where they are written."""
    with pytest.raises(ConfigurationError, match=word):
        Retry(**options)
