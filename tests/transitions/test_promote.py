"""promote: scheduled jobs that are due become queued."""

from __future__ import annotations

import redis

from aqueue.store.client import BATCH, Client
from transitions.store_image import BASE, Store, but, queued, scheduled


async def test_due_jobs_are_queued_in_the_order_of_their_due_times(client: Client, store: Store) -> None:
    """Of two late jobs the one that is later must not overtake the other."""
    before = store.seed(
        queued("x"), scheduled("late", due=-10), scheduled("early", due=-20), scheduled("future", due=60)
    )
    assert await client.promote() == 2
    assert store.dump() == but(
        before,
        {
            "job:late": {"state": "queued"},
            "job:early": {"state": "queued"},
            "scheduled": {"late": None, "early": None},
            "queued": ["x", "early", "late"],
        },
    )


async def test_a_job_is_due_at_its_due_time_not_after_it(client: Client, store: Store) -> None:
    """A worker wakes at exactly the due time, and must not find that it is a millisecond early."""
    before = store.seed(scheduled("a", due=0))
    assert await client.promote() == 1
    assert store.dump() == but(before, {"job:a": {"state": "queued"}, "scheduled": None, "queued": ["a"]})


async def test_promoting_twice_promotes_once(client: Client, store: Store) -> None:
    """Every worker of the fleet does this at about the same time."""
    store.seed(scheduled("a", due=-10))
    await client.promote()
    after = store.dump()
    assert await client.promote() == 0
    assert store.dump() == after


async def test_nothing_is_promoted_early(client: Client, store: Store) -> None:
    """A delay is a promise."""
    before = store.seed(scheduled("a", due=60))
    assert await client.promote() == 0
    assert store.dump() == before


async def test_one_call_promotes_a_bounded_number_earliest_first(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """After an outage thousands of jobs may be due; the server must not stop for them."""
    store.seed(*(scheduled(f"j{n}", due=-10_000 + 10 * n) for n in range(BATCH + 2)))
    assert await client.promote() == BATCH
    assert raw.zrange(BASE + "scheduled", 0, -1) == [f"j{BATCH}", f"j{BATCH + 1}"]
    assert await client.promote() == 2
