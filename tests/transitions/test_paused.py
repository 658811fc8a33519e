"""settle_and_claim while the queue is paused."""

from __future__ import annotations

from aqueue.store.client import Client
from aqueue.store.records import Completed
from transitions.store_image import PAUSED, Store, but, caught, queued, running, scheduled, suspect, worker
from transitions.turns import TURN_TAKEN, claimed, settle, take_turn


async def test_a_paused_queue_starts_nothing_and_hands_the_inbox_back(client: Client, store: Store) -> None:
    """What a parked fetch caught just before the pause must wait at the front, visible to everybody, in its order."""
    before = store.seed(PAUSED, queued("c"), caught("a", "me"), caught("b", "me"), suspect("s"), worker("me"))
    turn = await take_turn(client, free=5)
    assert (claimed(turn), turn.state) == ([], "PAUSED")
    assert store.dump() == but(before, TURN_TAKEN, {"queued": ["a", "b", "c"], "inbox:me": []})


async def test_a_paused_queue_still_settles(client: Client, store: Store) -> None:
    """A pause lets running jobs end; their results must be stored."""
    before = store.seed(PAUSED, running("a", "me/1"), worker("me"))
    turn = await take_turn(client, settle("a", Completed(b"1", 60_000, "t")), free=5)
    assert turn.state == "PAUSED"
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "completed", "ended_ms": 0, "result": "1", "task": "t"},
            "payload:a": None,
            "ttl": {"job:a": 60},
            "held:me": None,
            "stats": {"completed": 1},
        },
    )


async def test_a_paused_queue_still_promotes(client: Client, store: Store) -> None:
    """Due jobs take their places in the order in which they fell due, also during a pause."""
    before = store.seed(PAUSED, scheduled("a", due=-10), worker("me"))
    await take_turn(client, free=5)
    assert store.dump() == but(before, TURN_TAKEN, {"job:a": {"state": "queued"}, "queued": ["a"], "scheduled": None})


async def test_a_paused_turn_sent_twice_changes_nothing(client: Client, store: Store) -> None:
    """A repeated turn must not touch the list again."""
    store.seed(PAUSED, queued("b"), caught("a", "me"), worker("me"))
    await take_turn(client, free=5)
    after = store.dump()
    assert claimed(await take_turn(client, free=5)) == []
    assert store.dump() == after
