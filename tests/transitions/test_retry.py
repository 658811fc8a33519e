"""settle_and_claim, outcome retried: running jobs become scheduled, with one attempt more."""

from __future__ import annotations

from aqueue.store.client import Client
from aqueue.store.records import Retried
from transitions.conftest import Listening
from transitions.store_image import Store, but, queued, ran, running, scheduled, worker
from transitions.turns import BOOM, BOOM_STORED, TURN_TAKEN, claimed, settle, take_turn


def again(delay: float = 60) -> Retried:
    return Retried(BOOM, delay, max_attempts=4)


async def test_a_retry_schedules_the_job_and_counts_the_attempt(client: Client, store: Store) -> None:
    """Retry and ack are one script: no moment in which the job is nowhere, or in two places."""
    before = store.seed(running("a", "me/1", attempt=1), worker("me"))
    turn = await take_turn(client, settle("a", again()))
    assert turn.next_due is not None
    assert 59 < turn.next_due <= 60
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {
                "state": "scheduled",
                "attempt": 2,
                "due_ms": 60,
                "error": BOOM_STORED,
                "history": [ran("retried", BOOM_STORED)],
            },
            "scheduled": {"a": 60},
            "queued": ["wake"],
            "held:me": None,
            "stats": {"retried": 1},
        },
    )


async def test_a_retry_sent_twice_counts_once(client: Client, store: Store) -> None:
    """A lost reply must not cost an attempt."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", again()))
    after = store.dump()
    assert (await take_turn(client, settle("a", again()))).refused == frozenset()
    assert store.dump() == after


async def test_a_retry_without_delay_waits_behind_the_others(client: Client, store: Store) -> None:
    """An immediate retry must not push ahead of jobs that have not had their first run."""
    before = store.seed(running("a", "me/1"), queued("b"), worker("me"))
    turn = await take_turn(client, settle("a", again(delay=0)))
    assert claimed(turn) == []
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {
                "state": "queued",
                "attempt": 1,
                "due_ms": 0,
                "error": BOOM_STORED,
                "history": [ran("retried", BOOM_STORED)],
            },
            "queued": ["b", "a"],
            "held:me": None,
            "stats": {"retried": 1},
        },
    )


async def test_a_retry_without_delay_may_be_claimed_by_the_same_turn(client: Client, store: Store) -> None:
    """An idle worker need not ask again for the job it has just handed in; the new run has a new token."""
    store.seed(running("a", "me/1"), worker("me"))
    turn = await take_turn(client, settle("a", again(delay=0)), free=1)
    assert [(lease.id, lease.token, lease.attempt) for lease in turn.leases] == [("a", "me/2", 1)]
    assert store.dump()["held:me"] == {"a": "me/2"}


async def test_a_retry_that_is_not_the_next_due_wakes_nobody(client: Client, store: Store) -> None:
    """Workers that are parked until an earlier due time lose nothing by not knowing of it."""
    before = store.seed(running("a", "me/1"), scheduled("b", due=30), worker("me"))
    await take_turn(client, settle("a", again()))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {
                "state": "scheduled",
                "attempt": 1,
                "due_ms": 60,
                "error": BOOM_STORED,
                "history": [ran("retried", BOOM_STORED)],
            },
            "scheduled": {"a": 60},
            "held:me": None,
            "stats": {"retried": 1},
        },
    )


async def test_a_retry_keeps_the_key_and_the_waiters(client: Client, store: Store, listening: Listening) -> None:
    """A job between two runs has not ended: its key is in use and whoever waits goes on waiting."""
    store.seed(running("a", "me/1", unique="k", waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", again()))
        assert heard() == []
    image = store.dump()
    assert (image["unique:k"], image["job:a"]["waiters"]) == ("a", " web")
    assert "ttl" not in image


async def test_a_job_that_was_to_be_cancelled_gets_no_other_run(
    client: Client, store: Store, listening: Listening
) -> None:
    """Whoever asked for the cancel was told that it is under way; the record is kept as for any cancelled job."""
    before = store.seed(running("a", "me/1", cancel=1, unique="k", waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", again()))
        assert heard() == ["ended a cancelled"]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {
                "state": "cancelled",
                "ended_ms": 0,
                "waiters": None,
                "history": [ran("cancelled", BOOM_STORED)],
            },
            "unique:k": None,
            "held:me": None,
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "stats": {"cancelled": 1},
        },
    )


async def test_a_run_that_was_tried_ends_the_time_in_which_the_task_was_unknown(client: Client, store: Store) -> None:
    """The window counts from when nobody knew the task, not from before somebody ran it."""
    store.seed(running("a", "me/1", unknown_ms=-100), worker("me"))
    await take_turn(client, settle("a", again()))
    assert "unknown_ms" not in store.dump()["job:a"]
