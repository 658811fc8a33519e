"""cancel: a waiting job ends, a running one is told."""

from __future__ import annotations

import pytest

from aqueue.job import Cancellation, JobId
from aqueue.store.client import Client
from transitions.conftest import Listening, MakeClient
from transitions.store_image import Image, Store, but, caught, ended, queued, running, scheduled, suspect, worker

A = JobId("a")
CANCELLED: Image = {
    "job:a": {"state": "cancelled", "ended_ms": 0},
    "ttl": {"job:a": 3600, "payload:a": 3600},
    "stats": {"cancelled": 1},
}


async def test_a_queued_job_is_cancelled_and_its_id_stays_in_the_list(client: Client, store: Store) -> None:
    """To look for the id would cost as much as the backlog; a claim discards it."""
    before = store.seed(queued("a"), queued("b"))
    assert await client.cancel(A) is Cancellation.CANCELLED
    assert store.dump() == but(before, CANCELLED)


async def test_a_scheduled_job_is_cancelled_and_leaves_the_schedule(client: Client, store: Store) -> None:
    """Promote would otherwise bring it back to life."""
    before = store.seed(scheduled("a", due=60), scheduled("b", due=90))
    assert await client.cancel(A) is Cancellation.CANCELLED
    assert store.dump() == but(before, CANCELLED, {"scheduled": {"a": None}})


@pytest.mark.parametrize("place", ["inbox", "suspects"])
async def test_a_waiting_job_is_cancelled_wherever_it_is(place: str, client: Client, store: Store) -> None:
    """A job that a parked fetch has caught, or that is a suspect, has not started either."""
    before = store.seed(caught("a", "me") if place == "inbox" else suspect("a"), worker("me"))
    assert await client.cancel(A) is Cancellation.CANCELLED
    assert store.dump() == but(before, CANCELLED)


async def test_a_running_job_is_flagged_and_its_worker_told(client: Client, store: Store, listening: Listening) -> None:
    """Only the worker can end a run; the flag is for its heartbeat in case the message is lost."""
    before = store.seed(running("a", "me/1"), worker("me"))
    with listening("me") as heard:
        assert await client.cancel(A) is Cancellation.REQUESTED
        assert heard() == ["cancel a"]
    assert store.dump() == but(before, {"job:a": {"cancel": 1}})


async def test_the_holder_is_told_whatever_its_name(client: Client, store: Store, listening: Listening) -> None:
    """The worker's name is read from the token, whose last part is the turn."""
    store.seed(running("a", "w/1/2"), worker("w/1"))
    with listening("w/1") as heard:
        await client.cancel(A)
        assert heard() == ["cancel a"]


async def test_requesting_twice_tells_twice_and_changes_nothing(
    client: Client, store: Store, listening: Listening
) -> None:
    """Whoever asks again perhaps does so because the first message was lost."""
    store.seed(running("a", "me/1"), worker("me"))
    await client.cancel(A)
    after = store.dump()
    with listening("me") as heard:
        assert await client.cancel(A) is Cancellation.REQUESTED
        assert heard() == ["cancel a"]
    assert store.dump() == after


async def test_cancelling_twice_changes_nothing(client: Client, store: Store) -> None:
    """A reply that got lost is asked for again: the same answer, and no second count or message."""
    store.seed(queued("a"))
    await client.cancel(A)
    after = store.dump()
    assert await client.cancel(A) is Cancellation.CANCELLED
    assert store.dump() == after


async def test_a_job_that_was_cancelled_while_it_ran_has_ended(client: Client, store: Store) -> None:
    """Only whoever stopped it before its start may rely on its never having run."""
    before = store.seed(ended("a", "cancelled", cancel=1))
    assert await client.cancel(A) is Cancellation.TOO_LATE
    assert store.dump() == before


@pytest.mark.parametrize("state", ["completed", "failed", "expired"])
async def test_an_ended_job_stays_as_it_ended(state: str, client: Client, store: Store) -> None:
    """A result must not vanish because somebody cancels too late."""
    before = store.seed(ended("a", state))
    assert await client.cancel(A) is Cancellation.TOO_LATE
    assert store.dump() == before


async def test_a_job_that_does_not_exist_is_none(client: Client, store: Store) -> None:
    """A typing error must be told apart from a job that has ended."""
    store.seed()
    assert await client.cancel(A) is None
    assert store.dump() == {}


async def test_cancelling_frees_the_key_and_tells_the_waiters(
    client: Client, store: Store, listening: Listening
) -> None:
    """Whoever waits for the result of a job that never runs would wait for ever."""
    before = store.seed(queued("a", unique="k", waiters=" web"))
    with listening("web") as heard:
        await client.cancel(A)
        assert heard() == ["ended a cancelled"]
    assert store.dump() == but(before, CANCELLED, {"job:a": {"waiters": None}, "unique:k": None})


async def test_the_record_lives_as_long_as_a_result_would(make_client: MakeClient, store: Store) -> None:
    """The client's `result_ttl` must reach the script; the job's own wins."""
    store.seed(queued("a"), queued("b", result_ttl_ms=60_000), queued("c", result_ttl_ms=0))
    client = make_client(result_ttl=90)
    for job_id in ("a", "b", "c"):
        await client.cancel(JobId(job_id))
    assert store.dump()["ttl"] == {"job:a": 90, "payload:a": 90, "job:b": 60, "payload:b": 60, "job:c": 10}
