"""pause and resume: whether jobs of the queue may start."""

from __future__ import annotations

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
