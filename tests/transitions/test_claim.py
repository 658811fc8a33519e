"""settle_and_claim: queued jobs become running."""

from __future__ import annotations

import pytest
import redis

from aqueue.job import JobId, WorkerId
from aqueue.store.client import BATCH, Client
from aqueue.store.records import Lease, NewJob
from transitions.store_image import BASE, TICKET, Store, but, ended, queued, scheduled, worker
from transitions.turns import TURN_TAKEN, claimed, take_turn

DISCARDS = 500
"""Entries without a job that one call discards, besides one for each free slot."""


async def test_a_claim_leases_the_oldest_job(client: Client, store: Store) -> None:
    """First in, first out; the job, its holder and the deadline change in one step."""
    before = store.seed(queued("a"), queued("b"), worker("me"))
    turn = await take_turn(client, free=1)
    (lease,) = turn.leases
    assert isinstance(lease, Lease)
    assert (lease.id, lease.token, lease.attempt, lease.crashes, lease.unknown_for_ms) == ("a", "me/2", 0, 0, -1)
    assert (lease.envelope, lease.enqueued_ms) == (b"call a", store.instant_ms(-60))
    assert store.about(lease.waited_ms, 60)
    assert (turn.refused, turn.next_due, turn.state) == (frozenset(), None, "OK")
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": {"state": "running", "token": "me/2", "started_ms": 0}, "queued": ["b"], "held:me": {"a": "me/2"}},
    )


async def test_a_claim_sent_twice_is_answered_again_and_claims_nothing_more(client: Client, store: Store) -> None:
    """A lost reply must cost neither the claimed jobs nor further slots."""
    store.seed(queued("a", attempt=1, crashes=1, unknown_ms=-30), queued("b"), worker("me"))
    first = await take_turn(client, free=1)
    after = store.dump()
    again = await take_turn(client, free=1)
    assert claimed(again) == claimed(first) == [("a", "me/2")]
    (lease,) = again.leases
    assert (lease.attempt, lease.crashes, lease.enqueued_ms, lease.envelope) == (1, 1, store.instant_ms(-60), b"call a")
    assert store.about(lease.unknown_for_ms, 30)
    assert store.dump() == after


async def test_a_claim_fills_the_free_slots_in_order(client: Client, store: Store) -> None:
    """One round trip serves many slots, and none too many."""
    before = store.seed(queued("a"), queued("b"), queued("c"), worker("me"))
    turn = await take_turn(client, free=2)
    assert claimed(turn) == [("a", "me/2"), ("b", "me/2")]
    started = {"state": "running", "token": "me/2", "started_ms": 0}
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": started, "job:b": started, "queued": ["c"], "held:me": {"a": "me/2", "b": "me/2"}},
    )


async def test_without_a_free_slot_nothing_is_claimed(client: Client, store: Store) -> None:
    """A turn that only settles must not overfill the worker."""
    before = store.seed(queued("a"), worker("me"))
    assert claimed(await take_turn(client, free=0)) == []
    assert store.dump() == but(before, TURN_TAKEN)


async def test_a_lease_tells_the_counters_of_the_job(client: Client, store: Store) -> None:
    """The worker decides on retries by `attempt`, and on unknown tasks by how long they have been unknown."""
    store.seed(queued("a", attempt=2, crashes=1, due_ms=-20, unknown_ms=-30), worker("me"))
    ((lease),) = (await take_turn(client, free=1)).leases
    assert (lease.attempt, lease.crashes) == (2, 1)
    assert store.about(lease.unknown_for_ms, 30)
    assert store.about(lease.waited_ms, 20), "waiting begins when the job is due, not when it was enqueued"


async def test_the_first_turn_of_a_worker_makes_it_known(client: Client, store: Store) -> None:
    """Without a deadline nobody would reclaim what it holds."""
    before = store.seed(queued("a"))
    await take_turn(client, free=1, number=1)
    assert store.dump() == but(
        before,
        {
            "job:a": {"state": "running", "token": "me/1", "started_ms": 0},
            "queued": [],
            "held:me": {"a": "me/1"},
            "workers": {"me": 20},
            "worker:me": {"turn": 1, "refused": ""},
        },
    )


async def test_two_workers_never_get_the_same_job(client: Client, store: Store) -> None:
    """No double run without a crash or a lost lease."""
    store.seed(queued("a"), queued("b"), worker("me"), worker("other"))
    mine = await take_turn(client, free=2)
    theirs = await take_turn(client, free=2, worker=WorkerId("other"))
    assert (claimed(mine), claimed(theirs)) == ([("a", "me/2"), ("b", "me/2")], [])


async def test_tickets_are_discarded(client: Client, store: Store) -> None:
    """A ticket only wakes; handed out as a job it would be a job that does not exist."""
    before = store.seed(TICKET, queued("a"), worker("me"))
    assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": {"state": "running", "token": "me/2", "started_ms": 0}, "queued": [], "held:me": {"a": "me/2"}},
    )


async def test_ids_of_jobs_that_are_not_queued_are_discarded(client: Client, store: Store) -> None:
    """Cancel leaves ids in the list; a cancelled, missing or postponed job must not run because of them."""
    before = store.seed(
        ended("a", "cancelled"), {"queued": ["a", "missing", "b"]}, scheduled("b", due=60), worker("me")
    )
    turn = await take_turn(client, free=1)
    assert claimed(turn) == []
    assert turn.next_due is not None
    assert 50 < turn.next_due <= 60
    assert store.dump() == but(before, TURN_TAKEN, {"queued": []})


async def test_a_job_that_is_in_the_list_twice_runs_once(client: Client, store: Store) -> None:
    """A cancelled job that is run again is in the list twice."""
    before = store.seed(queued("a"), {"queued": ["a"]}, worker("me"))
    assert claimed(await take_turn(client, free=2)) == [("a", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": {"state": "running", "token": "me/2", "started_ms": 0}, "queued": [], "held:me": {"a": "me/2"}},
    )


async def test_due_jobs_are_promoted_by_the_claim_itself(client: Client, store: Store) -> None:
    """A due job must not wait for the next maintenance while a slot is free; earlier due goes first."""
    before = store.seed(scheduled("late", due=-10), scheduled("early", due=-20), scheduled("x", due=60), worker("me"))
    turn = await take_turn(client, free=1)
    assert claimed(turn) == [("early", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:early": {"state": "running", "token": "me/2", "started_ms": 0},
            "job:late": {"state": "queued"},
            "queued": ["late"],
            "scheduled": {"early": None, "late": None},
            "held:me": {"early": "me/2"},
        },
    )


async def test_the_next_due_time_is_told(client: Client, store: Store) -> None:
    """A parked worker ends its wait for exactly this instant."""
    store.seed(scheduled("a", due=90), scheduled("b", due=60), worker("me"))
    turn = await take_turn(client, free=1)
    assert turn.next_due is not None
    assert 55 < turn.next_due <= 60


async def test_many_dead_entries_are_discarded_in_several_calls(client: Client, store: Store, raw: redis.Redis) -> None:
    """One call must stay short whatever the list holds, and say that there is more."""
    store.seed({"queued": [f"gone{n}" for n in range(DISCARDS + 3)]}, queued("a"), worker("me"))
    first = await take_turn(client, free=1)
    assert (claimed(first), first.state) == ([], "MORE")
    left = raw.llen(BASE + "queued")
    assert left == 3
    second = await take_turn(client, free=1, number=3)
    assert (claimed(second), second.state) == ([("a", "me/3")], "OK")


async def test_a_job_without_an_envelope_is_leased_all_the_same(client: Client, store: Store, raw: redis.Redis) -> None:
    """Damage must end in one failed job that says so, not in an id that is lost or a worker that dies."""
    store.seed(queued("a"), queued("b"), worker("me"))
    raw.delete(BASE + "payload:a")
    turn = await take_turn(client, free=2)
    assert [(lease.id, lease.envelope) for lease in turn.leases] == [("a", b""), ("b", b"call b")]


async def test_claims_take_each_others_place_in_any_number(client: Client, store: Store) -> None:
    """A hundred slots are filled by one call."""
    store.seed(*(queued(f"j{n}") for n in range(120)), worker("me"))
    turn = await take_turn(client, free=100)
    assert [lease.id for lease in turn.leases] == [f"j{n}" for n in range(100)]
    assert [lease.envelope for lease in turn.leases] == [f"call j{n}".encode() for n in range(100)]


async def test_no_number_of_free_slots_loses_a_job(client: Client, store: Store, raw: redis.Redis) -> None:
    """Lua passes on some thousands of values at the most; what was taken from the list by then must not be gone."""
    count = 4_200
    for first in range(0, count, BATCH):
        ids = [JobId(f"j{n}") for n in range(first, min(first + BATCH, count))]
        await client.enqueue([NewJob(id=job_id, envelope=b"x") for job_id in ids])
    await take_turn(client, free=5_000)
    assert raw.hlen(BASE + "held:me") + raw.llen(BASE + "queued") == count


@pytest.mark.parametrize("state", ["running", "cancelled", "completed", "nonsense"])
async def test_a_short_record_of_another_state_is_not_taken_for_a_fresh_job(
    client: Client, store: Store, raw: redis.Redis, state: str
) -> None:
    """Fresh jobs are told by their two fields; the state is one of them and must be looked at."""
    store.seed(queued("a"), queued("b"), worker("me"), {"job:a": {"state": state, "enqueued_ms": 0}})
    assert claimed(await take_turn(client, free=5)) == [("b", "me/2")]
    assert store.dump()["job:a"]["state"] == state
    raw.delete(f"{BASE}job:a", f"{BASE}payload:a")
