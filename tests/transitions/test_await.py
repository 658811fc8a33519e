"""await (Client.ended): how jobs ended, and a request to be told about those that have not."""

from __future__ import annotations

import pytest
import redis

from aqueue.job import JobId, JobState
from aqueue.store.client import Client
from aqueue.store.records import Ended
from transitions.store_image import BASE, Image, Store, but, ended, failed, queued, running, scheduled, worker

A = JobId("a")
MISSING = Ended(None, None, None)


def waiting(state: str) -> tuple[Image, ...]:
    parts = {"queued": queued("a"), "scheduled": scheduled("a", due=60), "running": running("a", "me/1")}
    return parts[state], worker("me")


@pytest.mark.parametrize("state", ["queued", "scheduled", "running"])
async def test_a_job_that_has_not_ended_notes_who_waits(state: str, client: Client, store: Store) -> None:
    """The end is told to these; a waiter that is not noted waits for the next re-check."""
    before = store.seed(*waiting(state))
    assert await client.ended([A], "web") == [Ended(JobState(state), None, None)]
    assert store.dump() == but(before, {"job:a": {"waiters": " web"}})


async def test_asking_twice_notes_the_waiter_once(client: Client, store: Store) -> None:
    """Waiters ask again every few seconds; the record must not grow with each."""
    store.seed(queued("a"))
    await client.ended([A], "web")
    after = store.dump()
    assert await client.ended([A], "web") == [Ended(JobState.QUEUED, None, None)]
    assert store.dump() == after


async def test_several_processes_may_wait(client: Client, store: Store) -> None:
    """One waiter must not push another out."""
    before = store.seed(queued("a", waiters=" web1"))
    await client.ended([A], "web2")
    assert store.dump() == but(before, {"job:a": {"waiters": " web1 web2"}})


async def test_a_completed_job_answers_its_result(client: Client, store: Store) -> None:
    """The end may come before the question; then nobody will tell of it any more."""
    before = store.seed(ended("a", "completed", result="42", error="of an earlier run"))
    assert await client.ended([A], "web") == [Ended(JobState.COMPLETED, b"42", b"of an earlier run")]
    assert store.dump() == before


async def test_a_failed_job_answers_its_error(client: Client, store: Store) -> None:
    """`JobFailed` carries what the remote side recorded."""
    before = store.seed(failed("a"))
    assert await client.ended([A], "web") == [Ended(JobState.FAILED, None, b"{}")]
    assert store.dump() == before


@pytest.mark.parametrize("state", ["cancelled", "expired"])
async def test_other_ends_answer_their_state(state: str, client: Client, store: Store) -> None:
    """`JobCancelled` and `JobExpired` are told apart by this."""
    before = store.seed(ended("a", state))
    assert await client.ended([A], "web") == [Ended(JobState(state), None, None)]
    assert store.dump() == before


async def test_a_missing_job_is_none_and_stays_missing(client: Client, store: Store) -> None:
    """A record made by a waiter would be a job that nobody enqueued."""
    store.seed()
    assert await client.ended([A], "web") == [MISSING]
    assert store.dump() == {}


async def test_many_jobs_are_asked_at_once_and_answered_in_order(client: Client, store: Store) -> None:
    """One process waits for hundreds of jobs with one call."""
    store.seed(ended("a", "completed", result="1"), queued("b"), ended("d", "cancelled"))
    ids = [JobId(job_id) for job_id in ("d", "c", "b", "a")]
    states = [answer.state for answer in await client.ended(ids, "web")]
    assert states == [JobState.CANCELLED, None, JobState.QUEUED, JobState.COMPLETED]


async def test_a_damaged_record_does_not_cost_the_other_answers(client: Client, store: Store, raw: redis.Redis) -> None:
    """One strange key must not keep a whole process from its results."""
    store.seed(ended("b", "completed", result="1"))
    raw.set(BASE + "job:a", "no hash", ex=60)
    assert await client.ended([A, JobId("b")], "web") == [
        Ended(None, None, None, damaged=True),
        Ended(JobState.COMPLETED, b"1", None),
    ]


@pytest.mark.parametrize(
    ("part", "least", "most"),
    [
        (queued("a", expires_ms=3600), 3590, 3600),
        (scheduled("a", due=60, expires_ms=3600), 3590, 3600),
        (queued("a", expires_ms=-3600), -3700, -3600),
        (queued("a", expires_ms=3600, started_ms=-20, attempt=1), None, None),
        (running("a", "me/1", expires_ms=3600), None, None),
        (ended("a", "expired", expires_ms=-20), None, None),
    ],
    ids=["queued", "scheduled", "late", "ran in time", "running", "ended"],
)
async def test_a_ttl_is_told_while_it_counts(
    part: Image, least: float | None, most: float | None, client: Client, store: Store
) -> None:
    """Whoever waits ends the job at that moment; a start has kept the promise."""
    store.seed(part, worker("me"))
    (answer,) = await client.ended([A], "web")
    if least is None or most is None:
        assert answer.left is None
    else:
        assert answer.left is not None
        assert least <= answer.left <= most
