"""What is noted of runs: by settles and reclaim, in the record, the last twenty."""

from __future__ import annotations

import pytest
import redis

from aqueue.job import JobError, JobId
from aqueue.store.client import Client
from aqueue.store.records import Cancelled, Completed, Failed, Outcome, Released, Retried
from transitions.store_image import BASE, Store, ran, running, worker
from transitions.turns import BOOM, BOOM_STORED, ME, settle, take_turn

DONE = Completed(b"1", 60_000, "t")
KEPT = 20


def history(store: Store, job_id: str = "a") -> list[str]:
    found: list[str] = store.dump()[f"job:{job_id}"].get("history", [])
    return found


async def test_a_job_that_completes_at_once_has_none(client: Client, store: Store) -> None:
    """The plain path must not pay for it, nor a job whose waiters keep it from being plain."""
    store.seed(running("a", "me/1"), running("b", "me/1", waiters=" web", limits="c.aa.1"), worker("me"))
    await take_turn(client, settle("a", DONE), settle("b", DONE))
    assert (history(store), history(store, "b")) == ([], [])


async def test_a_run_that_completes_after_others_is_noted_too(client: Client, store: Store) -> None:
    """So that the story is whole: who had it, and when it went well."""
    before = ran("retried", BOOM_STORED, started=-30, ended=-20, worker="other")
    store.seed(running("a", "me/1", attempt=1, history=[before]), worker("me"))
    await take_turn(client, settle("a", DONE))
    assert history(store) == [ran("completed"), before]


@pytest.mark.parametrize(
    "outcome", [Failed(BOOM, 0), Cancelled(0), Completed(b"1", 0, "t")], ids=lambda o: type(o).__name__
)
async def test_what_is_not_kept_keeps_no_history(outcome: Outcome, client: Client, store: Store) -> None:
    """A stub of ten seconds is there for its state alone."""
    store.seed(running("a", "me/1", history=[ran("retried", BOOM_STORED)]), worker("me"))
    await take_turn(client, settle("a", outcome))
    assert history(store) == []


async def test_a_run_that_was_given_back_is_not_noted(client: Client, store: Store) -> None:
    """It counts for nothing: a task that nobody knows for ten minutes would push all else out."""
    store.seed(running("a", "me/1"), running("b", "me/1"), running("c", "me/1"), worker("me"))
    await take_turn(client, settle("a", Released()), settle("b", Released(5, unknown_task=True)))
    await client.retire(ME)
    assert [history(store, job_id) for job_id in "abc"] == [[], [], []]


async def test_the_last_twenty_runs_are_kept(client: Client, store: Store) -> None:
    """A job that is retried for a week must not grow."""
    old = [ran("retried", f"{{{n}}}", started=-100 * n - 100, ended=-100 * n - 90) for n in range(KEPT)]
    store.seed(running("a", "me/1", history=old), worker("me"))
    await take_turn(client, settle("a", Retried(BOOM, 60, 4)))
    assert history(store) == [ran("retried", BOOM_STORED), *old[:-1]]


async def test_of_an_error_the_history_keeps_little(client: Client, store: Store, raw: redis.Redis) -> None:
    """Twenty tracebacks would be more than all the rest of a job."""
    long = JobError(type="E" * 5000, message="m" * 5000, traceback="t" * 5000)
    store.seed(running("a", "me/1"), worker("me"))
    for turn in range(2, KEPT + 5):
        await take_turn(client, settle("a", Retried(long, 0, 100), f"me/{turn - 1}"), free=1, number=turn)
    assert len(history(store)) == KEPT
    assert raw.hstrlen(f"{BASE}job:a", "history") < KEPT * 600


def endless(text: str) -> str:
    return text * 1000


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "x",
        "1 2 me failed 5\nab",
        "1 2 me failed 99999999999999999999\nab",
        "-1 2 me failed 2\nab",
        endless("1 2 me failed 0"),
    ],
)
async def test_a_history_that_cannot_be_read_begins_anew(
    damage: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """It is told for people's sake; no outcome may depend on it."""
    store.seed(running("a", "me/1"), worker("me"))
    raw.hset(f"{BASE}job:a", "history", damage)
    await take_turn(client, settle("a", Retried(BOOM, 60, 4)))
    assert history(store) == [ran("retried", BOOM_STORED)]


async def test_a_settle_that_is_sent_twice_is_noted_once(client: Client, store: Store) -> None:
    """Its reply may have been lost."""
    store.seed(running("a", "me/1"), worker("me"))
    for _ in range(2):
        await take_turn(client, settle("a", Failed(BOOM, 60_000)))
    assert history(store) == [ran("failed", BOOM_STORED)]


async def test_a_rerun_keeps_the_history_within_its_bound(client: Client, store: Store) -> None:
    """What happened before is what one wants to know when the job fails again."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, 60_000)))
    await client.rerun(JobId("a"))
    assert history(store) == [ran("failed", BOOM_STORED)]


async def test_a_crash_is_noted_with_the_dead_workers_id(client: Client, store: Store) -> None:
    """Which machine it was is the first question."""
    store.seed(running("a", "dead/1", attempt=1), worker("dead", lease=-30))
    await client.reclaim()
    assert history(store) == [ran("crashed", worker="dead")]
