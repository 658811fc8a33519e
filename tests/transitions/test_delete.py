"""delete: a job that is not running goes with all that is stored of it."""

from __future__ import annotations

import pytest
import redis

from aqueue.job import JobId
from aqueue.store.client import Client
from transitions.conftest import Listening
from transitions.store_image import BASE, Store, but, ended, failed, queued, running, scheduled, without, worker
from transitions.turns import claimed, take_turn

A = JobId("a")


@pytest.mark.parametrize("state", ["queued", "scheduled"])
async def test_a_waiting_job_goes_with_its_key(state: str, client: Client, store: Store) -> None:
    """Only its id may stay in the list, where a claim discards it."""
    part = queued("a", unique="k") if state == "queued" else scheduled("a", due=60, unique="k")
    before = store.seed(part, queued("b"), scheduled("c", due=90))
    assert await client.delete(A) == "deleted"
    assert store.dump() == but(without(before, "job:a", "payload:a", "unique:k"), {"scheduled": {"a": None}})


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "expired"])
async def test_an_ended_job_goes(state: str, client: Client, store: Store) -> None:
    """Deleting is how data is removed before its lifetime ends."""
    before = store.seed(failed("a") if state == "failed" else ended("a", state), failed("b"))
    assert await client.delete(A) == "deleted"
    assert store.dump() == but(without(before, "job:a", "payload:a"), {"failed": {"a": None}})


async def test_a_running_job_is_refused(client: Client, store: Store) -> None:
    """Its worker would settle into nothing; cancel is the way."""
    before = store.seed(running("a", "me/1"), worker("me"))
    assert await client.delete(A) == "running"
    assert store.dump() == before


async def test_a_job_that_does_not_exist_is_missing(client: Client, store: Store) -> None:
    """A typing error must be noticed."""
    store.seed()
    assert await client.delete(A) == "missing"
    assert store.dump() == {}


async def test_deleting_twice_changes_nothing(client: Client, store: Store) -> None:
    """The second call finds nothing."""
    store.seed(queued("a"), queued("b"))
    await client.delete(A)
    after = store.dump()
    assert await client.delete(A) == "missing"
    assert store.dump() == after


async def test_deleting_tells_whoever_waits(client: Client, store: Store, listening: Listening) -> None:
    """They would wait for ever for a job that no longer exists."""
    store.seed(queued("a", waiters=" web"))
    with listening("web") as heard:
        await client.delete(A)
        assert heard() == ["ended a cancelled"]


async def test_a_deleted_job_never_runs(client: Client, store: Store) -> None:
    """Its id is in the list still."""
    store.seed(queued("a"), queued("b"), worker("me"))
    await client.delete(A)
    assert claimed(await take_turn(client, free=5)) == [("b", "me/2")]


async def test_a_damaged_record_can_be_deleted(client: Client, store: Store, raw: redis.Redis) -> None:
    """The message about a damaged record names this as the remedy."""
    store.seed()
    raw.set(BASE + "job:a", "no hash")
    assert await client.delete(A) == "deleted"
    assert store.dump() == {}
