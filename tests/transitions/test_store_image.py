"""The yardstick itself."""

from __future__ import annotations

import redis

from transitions.store_image import (
    BASE,
    PAUSED,
    Store,
    but,
    caught,
    ended,
    failed,
    queued,
    running,
    scheduled,
    suspect,
    without,
    worker,
)


def test_a_seeded_store_reads_back_as_it_was_described(store: Store) -> None:
    """If writing and reading disagreed, every comparison of this directory would lie."""
    image = store.seed(
        queued("a", unique="key", expires_ms=30),
        queued("b"),
        suspect("c"),
        scheduled("d", due=50),
        running("e", "me/1"),
        caught("f", "me"),
        ended("g", "completed", result="1"),
        failed("h"),
        worker("me"),
        PAUSED,
        {"stats": {"completed": 3}, "queues": ["q"]},
    )
    assert store.dump() == image


def test_an_instant_that_is_not_the_expected_one_shows_up(store: Store, raw: redis.Redis) -> None:
    """A due time that is three seconds off must not pass for a whole step of ten."""
    store.seed(scheduled("a", due=50))
    raw.zincrby(BASE + "scheduled", 3000, "a")
    assert store.dump()["scheduled"] == {"a": "53000 ms"}


def test_changes_name_only_what_changes() -> None:
    """The expectation of a transition must stay readable, and must not forget what it does not mention."""
    image = {"job:a": {"state": "queued", "due_ms": 0}, "queued": ["a"], "ttl": {"job:a": 10}}
    assert but(image, {"job:a": {"state": "running", "due_ms": None}, "queued": []}) == {
        "job:a": {"state": "running"},
        "ttl": {"job:a": 10},
    }
    assert without(image, "job:a") == {"queued": ["a"]}
