"""settle_and_claim with a stale token, and turns that are sent again."""

from __future__ import annotations

import pytest

from aqueue.job import WorkerId
from aqueue.store.client import Client
from aqueue.store.records import Cancelled, Completed, Failed, Outcome, Released, Retried
from transitions.store_image import Store, but, ended, queued, running, worker
from transitions.turns import BOOM, TURN_TAKEN, claimed, settle, take_turn

DONE = Completed(b"1", 60_000, "t")
OUTCOMES = {
    "completed": DONE,
    "retried": Retried(BOOM, 60, 4),
    "failed": Failed(BOOM, 60_000),
    "cancelled": Cancelled(60_000),
    "released": Released(),
    "asked to run later": Released(60, error=BOOM),
}
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)


@every_outcome
async def test_a_stale_token_is_refused_and_nothing_is_written(outcome: Outcome, client: Client, store: Store) -> None:
    """The job runs elsewhere by now; a late worker must not end it under the other's hands."""
    before = store.seed(running("a", "other/7"), worker("other"), worker("me"))
    turn = await take_turn(client, settle("a", outcome))
    assert turn.refused == {"a"}
    assert store.dump() == but(before, TURN_TAKEN, {"worker:me": {"refused": "a"}})


@every_outcome
async def test_an_older_token_of_the_same_worker_is_refused(outcome: Outcome, client: Client, store: Store) -> None:
    """A worker that lost a job and got it again runs it under the new token only."""
    before = store.seed(running("a", "me/5"), worker("me"))
    assert (await take_turn(client, settle("a", outcome, token="me/3"), number=6)).refused == {"a"}
    assert store.dump() == but(before, TURN_TAKEN, {"worker:me": {"refused": "a", "turn": 6}})


async def test_a_job_that_is_gone_is_refused(client: Client, store: Store) -> None:
    """A settle must not bring a deleted job back as a record without anything in it."""
    before = store.seed(worker("me"))
    assert (await take_turn(client, settle("a", DONE))).refused == {"a"}
    assert store.dump() == but(before, TURN_TAKEN, {"worker:me": {"refused": "a"}})


async def test_one_lost_lease_does_not_cost_the_others(client: Client, store: Store) -> None:
    """Settles travel in batches; each stands for itself."""
    store.seed(running("a", "other/7"), running("b", "me/1"), worker("me"), worker("other"))
    turn = await take_turn(client, settle("a", DONE), settle("b", DONE))
    assert turn.refused == {"a"}
    image = store.dump()
    assert (image["job:a"]["state"], image["job:b"]["state"]) == ("running", "completed")


async def test_refusals_are_answered_again(client: Client, store: Store) -> None:
    """A worker that did not hear of its lost lease must hear of it the second time."""
    store.seed(running("a", "other/7"), running("b", "other/7"), worker("other"), worker("me"))
    await take_turn(client, settle("a", DONE), settle("b", DONE))
    after = store.dump()
    assert (await take_turn(client, settle("a", DONE), settle("b", DONE))).refused == {"a", "b"}
    assert store.dump() == after


@every_outcome
async def test_a_settle_that_is_sent_again_after_the_worker_was_reclaimed_is_no_lost_lease(
    outcome: Outcome, client: Client, store: Store
) -> None:
    """The worker's own memory of its turns is gone then; the job's record still tells that this run was settled."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", outcome))
    await client.retire(WorkerId("me"))
    before = store.dump()
    assert (await take_turn(client, settle("a", outcome))).refused == frozenset()
    assert store.dump() == but(before, {"workers": {"me": 20}, "worker:me": {"turn": 2, "refused": ""}})


@every_outcome
async def test_a_first_settle_after_the_worker_was_reclaimed_is_refused(
    outcome: Outcome, client: Client, store: Store
) -> None:
    """Nothing was stored of this run, and the job waits for another: to answer "settled" would be a lie."""
    store.seed(running("a", "me/1"), worker("me", lease=-10))
    await client.reclaim()
    before = store.dump()
    turn = await take_turn(client, settle("a", outcome))
    assert turn.refused == {"a"}
    image = store.dump()
    assert (image["job:a"], image["queued"]) == (before["job:a"], ["a"])


async def test_a_first_settle_after_the_crash_limit_is_refused(client: Client, store: Store) -> None:
    """The job has failed for its crashes; the late result is not stored, and the worker's log must say so."""
    store.seed(running("a", "me/1", crashes=2), worker("me", lease=-10))
    await client.reclaim()
    before = store.dump()
    assert (await take_turn(client, settle("a", DONE))).refused == {"a"}
    assert store.dump()["job:a"] == before["job:a"]


async def test_a_first_settle_after_the_heartbeat_handed_the_job_back_is_refused(client: Client, store: Store) -> None:
    """What extend hands back waits for another run, like what reclaim takes back."""
    store.seed(running("a", "me/1"), worker("me"))
    assert (await client.extend(WorkerId("me"), 1, [], "")).returned == ["a"]
    assert (await take_turn(client, settle("a", DONE))).refused == {"a"}


async def test_a_reclaimed_worker_that_comes_back_claims_as_before(client: Client, store: Store) -> None:
    """A worker that was only slow goes on as soon as it can; its new claims are its own."""
    store.seed(running("a", "me/1"), queued("b"), worker("me", lease=-10))
    await client.reclaim()
    turn = await take_turn(client, settle("a", DONE), free=1)
    assert claimed(turn) == [("a", "me/2")]
    assert store.dump()["held:me"] == {"a": "me/2"}


async def test_a_repeated_turn_answers_only_what_is_still_held(client: Client, store: Store) -> None:
    """A job that was taken back between the two sends must not run twice."""
    store.seed(queued("a"), queued("b"), worker("me"))
    await take_turn(client, free=2)
    store.seed({"held:me": {"b": "other/1"}})
    assert claimed(await take_turn(client, free=2)) == [("a", "me/2")]


async def test_a_turn_of_an_ended_job_with_another_token_is_refused(client: Client, store: Store) -> None:
    """The job was ended by another run than this one."""
    before = store.seed(ended("a", "completed", token="other/3", result="1"), worker("me"))
    assert (await take_turn(client, settle("a", DONE))).refused == {"a"}
    assert store.dump() == but(before, TURN_TAKEN, {"worker:me": {"refused": "a"}})
