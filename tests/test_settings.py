"""Durations, instants and the record of a queue's settings."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from aqueue import ConfigurationError, Retry, Settings
from aqueue.retry import MAX_SECONDS
from aqueue.settings import FOREVER, instant, instant_ms, seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0), (5, 5), (0.25, 0.25), (timedelta(minutes=2, milliseconds=1), 120.001), ("90", 90), ("1.5", 1.5),
        ("250ms", 0.25), ("5s", 5), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("1d 12h", 129_600), ("2w", 1_209_600),
        (" 5 m ", 300), ("0.5h", 1800), (MAX_SECONDS, MAX_SECONDS),
    ],
)  # fmt: skip
def test_durations_are_understood_in_three_forms(value: Any, expected: float) -> None:
    """Numbers for code, timedelta for the careful, text for environment variables."""
    assert seconds(value, "delay") == expected


@pytest.mark.parametrize(
    "value",
    [
        -1, -0.001, timedelta(-1), "-5m", "", "m", "5x", "5m extra", "5 minutes", "1:30", float("nan"), float("inf"),
        "nan", "inf", "1e99", MAX_SECONDS + 1, True, None, [5], b"5", 5j, datetime.now(UTC),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: Any) -> None:
    """The message names the option and what was given."""
    with pytest.raises(ConfigurationError, match="delay"):
        seconds(value, "delay")


def test_for_ever_is_allowed_where_it_makes_sense() -> None:
    """A result may be kept for ever; a job cannot be delayed for ever."""
    assert seconds(-1, "result_ttl", forever=True) == seconds("-1", "result_ttl", forever=True) == FOREVER
    with pytest.raises(ConfigurationError, match="-1 for ever"):
        seconds(-2, "result_ttl", forever=True)
    with pytest.raises(ConfigurationError) as caught:
        seconds(-1, "delay")
    assert "for ever" not in str(caught.value)


def test_instants_are_milliseconds_of_any_zone() -> None:
    """One instant has one number."""
    noon = datetime(2026, 1, 1, 12, 0, 0, 1000, tzinfo=UTC)
    assert instant_ms(noon, "at") == instant_ms(noon.astimezone(timezone(timedelta(hours=9))), "at") == 1767268800001
    assert instant(1767268800001) == noon
    assert instant(0).tzinfo is UTC


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), date(2026, 1, 1), 1767268800, "2026-01-01T00:00:00Z", None])  # noqa: DTZ001
def test_what_is_no_instant_is_refused(value: Any) -> None:
    """Nobody can know which zone a naive datetime meant."""
    with pytest.raises(ConfigurationError, match="at must"):
        instant_ms(value, "at")


def test_the_defaults_are_those_of_the_documents() -> None:
    """People plan by them."""
    settings = Settings()
    assert (settings.timeout, settings.result_ttl, settings.failure_ttl) == (300, 3600, 604_800)
    assert (settings.lease, settings.beat, settings.crash_limit) == (15, 5, 3)
    assert (settings.failure_cap, settings.warn_bytes, settings.max_bytes) == (10_000, 65_536, 1_048_576)
    assert (settings.prefix, settings.strict, settings.retry) == ("aqueue", False, Retry())


def test_durations_are_settled_once() -> None:
    """Whatever form was given, the rest of the program sees float seconds."""
    settings = Settings(timeout="5m", lease=timedelta(seconds=3), result_ttl="-1", failure_ttl="1w")
    assert (settings.timeout, settings.lease, settings.result_ttl, settings.failure_ttl) == (300, 3, -1, 604_800)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeout": -1}, "timeout"),
        ({"lease": 0.5}, "lease must be at least 1"),
        ({"lease": "soon"}, "lease"),
        ({"result_ttl": -2}, "result_ttl"),
        ({"crash_limit": 0}, "crash_limit"),
        ({"crash_limit": 2.5}, "crash_limit"),
        ({"failure_cap": -1}, "failure_cap"),
        ({"failure_cap": True}, "failure_cap"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": "1M"}, "max_bytes"),
        ({"retry": 3}, "retry must be a Retry"),
        ({"unknown_task_window": -1}, "unknown_task_window"),
        ({"blocked_loop_cap": None}, "blocked_loop_cap"),
    ],
)
def test_senseless_settings_are_refused(options: dict[str, Any], word: str) -> None:
    """At the start of the program, and not when the first job fails."""
    with pytest.raises(ConfigurationError, match=word):
        Settings(**options)


def test_settings_cannot_change_under_a_running_queue() -> None:
    """They are shared with other threads."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().timeout = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Settings(5)  # type: ignore[call-arg]
