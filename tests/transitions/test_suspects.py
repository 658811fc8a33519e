"""settle_and_claim: jobs one crash away from the limit run one at a time per worker."""

from __future__ import annotations

from aqueue.job import JobId, WorkerId
from aqueue.store.client import Client
from aqueue.store.records import Completed
from transitions.conftest import MakeClient
from transitions.store_image import Store, but, queued, running, suspect, worker
from transitions.turns import TURN_TAKEN, claimed, settle, take_turn

STARTED = {"state": "running", "token": "me/2", "started_ms": 0}
DONE = Completed(b"1", 60_000, "t")


async def test_a_worker_takes_one_suspect_and_fills_the_rest_from_the_queue(client: Client, store: Store) -> None:
    """A poison job must not drag other suspects to the limit with it; harmless neighbours may run."""
    before = store.seed(suspect("s"), suspect("t"), queued("a"), worker("me"))
    assert claimed(await take_turn(client, free=5)) == [("s", "me/2"), ("a", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:s": STARTED,
            "job:a": STARTED,
            "suspects": ["t"],
            "queued": [],
            "held:me": {"s": "me/2", "a": "me/2"},
            "worker:me": {"suspect": "s"},
        },
    )


async def test_a_worker_with_a_suspect_takes_no_other(client: Client, store: Store) -> None:
    """The second suspect waits for a worker that risks nothing else."""
    before = store.seed(running("s", "me/1", crashes=2), suspect("t"), worker("me", suspect="s"))
    assert claimed(await take_turn(client, free=5)) == []
    assert store.dump() == but(before, TURN_TAKEN)


async def test_another_worker_takes_the_next_suspect(client: Client, store: Store) -> None:
    """One at a time is a rule per worker; a fleet must not work through suspects one by one."""
    store.seed(running("s", "me/1", crashes=2), suspect("t"), worker("me", suspect="s"), worker("other"))
    assert claimed(await take_turn(client, free=5, worker=WorkerId("other"))) == [("t", "other/2")]


async def test_a_suspect_met_in_the_queue_is_put_aside(client: Client, store: Store) -> None:
    """A suspect that comes back from a retry or a release is one still."""
    before = store.seed(queued("s", crashes=2), queued("t", crashes=2), queued("a", crashes=1), worker("me"))
    assert claimed(await take_turn(client, free=5)) == [("s", "me/2"), ("a", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:s": STARTED,
            "job:a": STARTED,
            "suspects": ["t"],
            "queued": [],
            "held:me": {"s": "me/2", "a": "me/2"},
            "worker:me": {"suspect": "s"},
        },
    )


async def test_an_ended_suspect_makes_room_for_the_next_in_the_same_turn(client: Client, store: Store) -> None:
    """A worker must not need an idle turn between two suspects."""
    before = store.seed(running("s", "me/1", crashes=2), suspect("t"), worker("me", suspect="s"))
    assert claimed(await take_turn(client, settle("s", DONE), free=1)) == [("t", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:s": {"state": "completed", "ended_ms": 0, "result": "1", "task": "t"},
            "payload:s": None,
            "ttl": {"job:s": 60},
            "job:t": STARTED,
            "suspects": [],
            "held:me": {"s": None, "t": "me/2"},
            "worker:me": {"suspect": "t"},
            "stats": {"completed": 1},
        },
    )


async def test_a_suspect_that_is_no_longer_held_does_not_block_the_worker(client: Client, store: Store) -> None:
    """The heartbeat may have handed the suspect back; the note in the worker's hash is then out of date."""
    store.seed(queued("s", crashes=2), worker("me", suspect="s"))
    assert claimed(await take_turn(client, free=1)) == [("s", "me/2")]


async def test_a_claimed_suspect_is_not_claimed_again(client: Client, store: Store) -> None:
    """A repeated turn answers with the suspect that the first one took."""
    store.seed(suspect("s"), suspect("t"), worker("me"))
    await take_turn(client, free=5)
    after = store.dump()
    assert claimed(await take_turn(client, free=5)) == [("s", "me/2")]
    assert store.dump() == after


async def test_who_is_a_suspect_follows_the_crash_limit(make_client: MakeClient, store: Store) -> None:
    """`crash_limit` is a setting; with five, two crashes are no reason for quarantine yet."""
    store.seed(queued("a", crashes=2), queued("b", crashes=3), worker("me"))
    assert claimed(await take_turn(make_client(crash_limit=5), free=5)) == [("a", "me/2"), ("b", "me/2")]
    assert "suspect" not in store.dump()["worker:me"]


async def test_a_cancelled_suspect_is_discarded(client: Client, store: Store) -> None:
    """Cancel leaves the id in the list of suspects as it does in the queue."""
    store.seed(suspect("s"), suspect("t"), worker("me"))
    await client.cancel(JobId("s"))
    assert claimed(await take_turn(client, free=5)) == [("t", "me/2")]


async def test_a_job_that_never_crashed_is_no_suspect(make_client: MakeClient, store: Store) -> None:
    """With a crash limit of 1 every job is one crash away from it, and all would run one by one."""
    store.seed(queued("a"), queued("b"), worker("me"))
    assert claimed(await take_turn(make_client(crash_limit=1), free=5)) == [("a", "me/2"), ("b", "me/2")]
