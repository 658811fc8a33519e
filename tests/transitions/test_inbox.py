"""settle_and_claim and park: what a parked fetch has caught."""

from __future__ import annotations

import asyncio

import pytest
import redis
from redis.exceptions import NoScriptError

from aqueue.store.client import Client
from aqueue.store.scripts import load
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


async def knows_the_script(client: Client) -> None:
    """As after a worker's first turn, which parks nothing."""
    await client.plain("SCRIPT", "LOAD", load("settle_and_claim").text)


async def test_a_turn_that_is_parked_along_leases_what_the_fetch_catches(client: Client, store: Store) -> None:
    """An idle worker starts a job without another round trip, and holds it as after any turn."""
    before = store.seed(queued("a"), queued("b"), worker("me"))
    await knows_the_script(client)
    link = await client.links.dedicated(client.keys.queued)
    try:
        turn = await client.park_with_turn(link, ME, 1, 2, 1)
        assert claimed(turn) == [("a", "me/2")]
        leased = {"job:a": STARTED, "queued": ["b"], "held:me": {"a": "me/2"}}
        assert store.dump() == but(before, TURN_TAKEN, leased)
    finally:
        await link.close()


async def test_a_parked_turn_is_taken_when_the_fetch_is_told_to_end(client: Client, store: Store) -> None:
    """The worker needs its turn for something else: it looks at the queue, and is answered."""
    before = store.seed(worker("me"))
    await knows_the_script(client)
    link = await client.links.dedicated(client.keys.queued)
    try:
        link_id = await link.call("CLIENT", "ID")
        parked = asyncio.create_task(client.park_with_turn(link, ME, 600, 2, 1))
        while not await client.plain("CLIENT", "UNBLOCK", link_id):
            await asyncio.sleep(0)
        assert (await parked).leases == []
        assert store.dump() == but(before, TURN_TAKEN)
    finally:
        await link.close()


async def test_a_parked_turn_whose_answer_was_lost_is_answered_again(client: Client, store: Store) -> None:
    """On another connection, with the same number: neither a second lease nor a job that nobody runs."""
    store.seed(queued("a"), queued("b"), worker("me"))
    await knows_the_script(client)
    link = await client.links.dedicated(client.keys.queued)
    try:
        lost = await client.park_with_turn(link, ME, 1, 2, 1)
        after = store.dump()
        assert claimed(await take_turn(client, free=1)) == claimed(lost)
        assert store.dump() == after
    finally:
        await link.close()


async def test_a_parked_turn_at_a_server_that_forgot_the_script_is_refused_and_open(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """What the fetch caught waits in the inbox for the turn that is sent again."""
    store.seed(queued("a"), worker("me"))
    raw.script_flush()
    link = await client.links.dedicated(client.keys.queued)
    try:
        with pytest.raises(NoScriptError):
            await client.park_with_turn(link, ME, 1, 2, 1)
        assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]
    finally:
        await link.close()
