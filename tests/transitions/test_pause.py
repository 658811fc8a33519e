"""pause and resume: whether jobs of the queue may start."""

from __future__ import annotations

import asyncio

import redis

from aqueue.job import WorkerId
from aqueue.store.client import Client
from transitions.conftest import Listening
from transitions.store_image import PAUSED, Store, but, queued, without, worker


async def test_pausing_leaves_a_mark_and_says_that_it_is_a_change(client: Client, store: Store) -> None:
    """Every claim looks for the mark."""
    before = store.seed(queued("a"), worker("me"))
    assert await client.pauses.pause() is True
    assert store.dump() == but(before, {"paused": 0, "queues": ["q"]})


async def test_pausing_twice_keeps_the_first_instant(client: Client, store: Store) -> None:
    """The mark says since when."""
    before = store.seed(PAUSED, {"queues": ["q"]})
    assert await client.pauses.pause() is False
    assert store.dump() == before


async def test_resuming_removes_the_mark_and_wakes_every_worker(
    client: Client, store: Store, listening: Listening
) -> None:
    """Workers look at a paused queue every two seconds only; a resume is to be felt at once."""
    before = store.seed(PAUSED, queued("a"), worker("me"), worker("other"))
    with listening("me") as heard, listening("other") as other_heard:
        assert await client.pauses.resume() is True
        assert heard() == other_heard() == ["resume"]
    assert store.dump() == without(before, "paused")


async def test_resuming_twice_changes_nothing(client: Client, store: Store) -> None:
    """The second answer says that there was nothing to resume."""
    before = store.seed(queued("a"), worker("me"))
    assert await client.pauses.resume() is False
    assert store.dump() == before


async def test_a_pause_for_a_time_ends_by_itself_and_the_last_word_counts(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """Sent twice it is the same; one without an end makes it endless, and the instant of the first stays."""
    before = store.seed(queued("a"), worker("me"))
    key = client.keys.paused
    assert await client.pauses.pause(60_000) is True
    since, left = raw.get(key), raw.pttl(key)
    assert 0 < left <= 60_000
    assert await client.pauses.pause(60_000) is False
    assert await client.pauses.pause() is False
    assert (raw.get(key), raw.pttl(key)) == (since, -1)
    assert await client.pauses.pause(1) is False
    while raw.exists(key):
        await asyncio.sleep(0.001)
    assert store.dump() == but(before, {"queues": ["q"]})


async def test_a_claim_of_a_paused_queue_says_when_the_pause_ends(client: Client, store: Store) -> None:
    """So that the worker is there in time; one that has no end is looked at now and then."""
    store.seed(queued("a"), worker("me"))
    await client.pauses.pause(60_000)
    turn = await client.settle_and_claim(WorkerId("me"), 8, [], 5)
    assert turn.state == "PAUSED"
    assert turn.next_due is not None
    assert 0 < turn.next_due <= 60
    await client.pauses.pause()
    assert (await client.settle_and_claim(WorkerId("me"), 9, [], 5)).next_due is None
