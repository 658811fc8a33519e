"""inspect: whole records and envelopes."""

from __future__ import annotations

import redis

from aqueue.job import JobId
from aqueue.store.client import Client
from transitions.store_image import BASE, Store, ended, queued

A, B = JobId("a"), JobId("b")


async def test_records_come_whole_and_in_order(client: Client, store: Store) -> None:
    """`job.info()` and the dashboard show what is stored, not what somebody thought of listing."""
    before = store.seed(queued("a", attempt=2), ended("b", "completed", result="42"))
    (of_b, no_envelope), (of_a, envelope) = await client.inspect([B, A])
    assert (of_b["state"], of_b["result"], no_envelope) == (b"completed", b"42", None)
    assert (of_a["state"], of_a["attempt"], envelope) == (b"queued", b"2", b"call a")
    assert int(of_a["enqueued_ms"]) == store.instant_ms(-60)
    assert store.dump() == before


async def test_a_missing_job_is_empty(client: Client, store: Store) -> None:
    """Reading must not create."""
    store.seed()
    assert await client.inspect([A]) == [({}, None)]
    assert store.dump() == {}


async def test_a_damaged_record_does_not_cost_the_others(client: Client, store: Store, raw: redis.Redis) -> None:
    """A page of jobs must be shown although one of them is strange."""
    store.seed(queued("b"))
    raw.set(BASE + "job:a", "no hash", ex=60)
    (damaged, _), (intact, envelope) = await client.inspect([A, B])
    assert damaged == {"state": b"damaged"}
    assert (intact["state"], envelope) == (b"queued", b"call b")
