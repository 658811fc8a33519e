"""settle_and_claim and park: what a parked fetch has caught."""

from __future__ import annotations

from aqueue.store.client import Client
from transitions.store_image import TICKET, Store, but, caught, ended, queued, suspect, worker
from transitions.turns import ME, TURN_TAKEN, claimed, take_turn

STARTED = {"state": "running", "token": "me/2", "started_ms": 0}


async def test_the_inbox_is_claimed_first(client: Client, store: Store) -> None:
    """Nobody else can reach the inbox, so whatever is in it waits until its worker takes it."""
    before = store.seed(queued("c"), suspect("s"), caught("a", "me"), caught("b", "me"), worker("me"))
    assert claimed(await take_turn(client, free=2)) == [("a", "me/2"), ("b", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": STARTED, "job:b": STARTED, "inbox:me": [], "held:me": {"a": "me/2", "b": "me/2"}},
    )


async def test_what_does_not_fit_goes_back_to_the_front(client: Client, store: Store) -> None:
    """A full worker must not sit on a job that an idle one could run."""
    before = store.seed(queued("c"), caught("a", "me"), caught("b", "me"), worker("me"))
    assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]
    assert store.dump() == but(
        before, TURN_TAKEN, {"job:a": STARTED, "inbox:me": [], "queued": ["b", "c"], "held:me": {"a": "me/2"}}
    )


async def test_a_turn_without_free_slots_hands_everything_back(client: Client, store: Store) -> None:
    """A catch that comes after the last slot was taken belongs to somebody else."""
    before = store.seed(queued("c"), caught("a", "me"), caught("b", "me"), worker("me"))
    await take_turn(client, free=0)
    assert store.dump() == but(before, TURN_TAKEN, {"inbox:me": [], "queued": ["a", "b", "c"]})


async def test_a_caught_ticket_or_dead_entry_is_discarded(client: Client, store: Store) -> None:
    """A ticket has done its work once somebody is awake."""
    before = store.seed(ended("x", "cancelled"), {"inbox:me": ["wake", "x"]}, queued("a"), worker("me"))
    assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]
    assert store.dump() == but(
        before, TURN_TAKEN, {"job:a": STARTED, "inbox:me": [], "queued": [], "held:me": {"a": "me/2"}}
    )


async def test_a_claimed_inbox_is_not_claimed_again(client: Client, store: Store) -> None:
    """A repeated turn answers with the same leases although the inbox is empty by then."""
    store.seed(caught("a", "me"), worker("me"))
    first = await take_turn(client, free=1)
    after = store.dump()
    assert claimed(await take_turn(client, free=1)) == claimed(first) == [("a", "me/2")]
    assert store.dump() == after


async def test_parking_moves_the_oldest_entry_into_the_inbox(client: Client, store: Store) -> None:
    """From here on the id belongs to an incarnation with a lease, whether or not the reply arrives."""
    before = store.seed(queued("a"), queued("b"), worker("me"))
    link = await client.links.dedicated(client.keys.queued)
    try:
        assert await client.park(link, ME, 1)
        assert store.dump() == but(before, {"queued": ["b"], "inbox:me": ["a"]})
    finally:
        await link.close()


async def test_parking_on_an_empty_queue_ends_without_a_catch(client: Client, store: Store) -> None:
    """The wait has an end at the server, so that a vanished client catches nothing for long."""
    before = store.seed(worker("me"))
    link = await client.links.dedicated(client.keys.queued)
    try:
        assert not await client.park(link, ME, 0.001)
        assert store.dump() == before
    finally:
        await link.close()


async def test_a_parked_fetch_catches_a_ticket(client: Client, store: Store) -> None:
    """One blocking command serves every structure because tickets come through the same list."""
    before = store.seed(TICKET, worker("me"))
    link = await client.links.dedicated(client.keys.queued)
    try:
        assert await client.park(link, ME, 1)
        assert store.dump() == but(before, {"queued": [], "inbox:me": ["wake"]})
    finally:
        await link.close()
