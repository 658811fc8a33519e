"""prune: failed jobs past their lifetime are forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from aqueue.store.client import BATCH, PRUNE_INTERVAL_MS, Client
from transitions.store_image import BASE, Store, but, ended, failed, without

RECENT = {"pruned": "1", "ttl": {"pruned": PRUNE_INTERVAL_MS // 1000}}


@pytest.fixture
def cleared(raw: redis.Redis) -> Iterator[None]:
    """For tests that keep something for ever on purpose."""
    yield
    raw.flushall()


async def test_what_is_past_its_lifetime_goes_with_all_that_is_stored_of_it(client: Client, store: Store) -> None:
    """The list's entry has no TTL of its own; without prune it would point to nothing for ever."""
    before = store.seed(
        ended("old", "failed"), {"failed": {"old": -10}}, failed("new", ttl=100), {"failed": {"gone": -20}}
    )
    assert await client.prune() == 2
    assert store.dump() == but(
        without(before, "job:old", "payload:old"), RECENT, {"failed": {"old": None, "gone": None}}
    )


async def test_pruning_again_within_the_interval_does_nothing(client: Client, store: Store) -> None:
    """The whole fleet tries; once a minute is enough."""
    store.seed(failed("new", ttl=100))
    assert await client.prune() == 0
    store.seed({"failed": {"old": -10}})
    after = store.dump()
    assert await client.prune() == -1
    assert store.dump() == after


async def test_what_is_kept_for_ever_stays(client: Client, store: Store, cleared: None) -> None:
    """`failure_ttl=-1` is a promise."""
    before = store.seed(failed("a", ttl=None))
    assert await client.prune() == 0
    assert store.dump() == but(before, RECENT)


async def test_a_full_batch_is_followed_by_the_next_at_once(client: Client, store: Store, raw: redis.Redis) -> None:
    """A backlog of a minute's worth must not grow because each pass is bounded."""
    store.seed({"failed": {f"j{n}": -10 for n in range(BATCH + 2)}})
    assert await client.prune() == BATCH
    assert raw.zcard(BASE + "failed") == 2
    assert await client.prune() == 2
    assert await client.prune() == -1
