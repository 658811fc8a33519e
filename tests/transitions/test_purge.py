"""purge: all waiting jobs go, in bounded steps."""

from __future__ import annotations

from aqueue.store.client import BATCH, Client
from transitions.conftest import Listening
from transitions.store_image import (
    TICKET,
    Store,
    caught,
    ended,
    failed,
    queued,
    running,
    scheduled,
    suspect,
    without,
    worker,
)


async def test_purging_waiting_jobs_leaves_the_others(client: Client, store: Store) -> None:
    """Running and ended jobs are not what the operator wants to be rid of."""
    kept = (running("r", "me/1"), failed("f"), ended("d", "completed"), caught("i", "me"), worker("me"))
    before = store.seed(*kept, queued("a", unique="k"), suspect("s"), scheduled("b", due=60, unique="l"), TICKET)
    assert await client.purge() == (3, False)
    gone = [f"{kind}:{job_id}" for kind in ("job", "payload") for job_id in ("a", "b", "s")]
    assert store.dump() == without(before, *gone, "unique:k", "unique:l", "queued", "suspects", "scheduled")


async def test_purging_twice_changes_nothing(client: Client, store: Store) -> None:
    """The second call finds nothing."""
    store.seed(queued("a"))
    await client.purge()
    after = store.dump()
    assert await client.purge() == (0, False)
    assert store.dump() == after


async def test_a_stale_id_does_not_take_a_running_job_with_it(client: Client, store: Store) -> None:
    """The list may hold ids of jobs that have moved on."""
    before = store.seed(running("r", "me/1"), ended("d", "cancelled"), {"queued": ["r", "d", "gone"]}, worker("me"))
    assert await client.purge() == (0, False)
    assert store.dump() == without(before, "queued")


async def test_a_stale_id_of_a_scheduled_job_does_not_leave_half_of_it(client: Client, store: Store) -> None:
    """An id without a record in the schedule would be promoted into a job with nothing in it."""
    store.seed({"queued": ["late"]}, scheduled("late", due=9000))
    store.seed(*(scheduled(f"j{n}", due=60) for n in range(BATCH)))
    await client.purge()
    image = store.dump()
    assert ("late" in image.get("scheduled", {})) == ("job:late" in image)


async def test_whoever_waits_is_told(client: Client, store: Store, listening: Listening) -> None:
    """They would wait for ever for jobs that no longer exist."""
    store.seed(queued("a", waiters=" web"), scheduled("b", due=60, waiters=" web"))
    with listening("web") as heard:
        await client.purge()
        assert sorted(heard()) == ["ended a cancelled", "ended b cancelled"]


async def test_one_call_deletes_a_bounded_number(client: Client, store: Store) -> None:
    """A million waiting jobs must not stop the server while they go."""
    store.seed(*(queued(f"j{n}") for n in range(BATCH + 3)))
    assert await client.purge() == (BATCH, True)
    assert store.dump()["queued"] == [f"j{BATCH}", f"j{BATCH + 1}", f"j{BATCH + 2}"]
    assert await client.purge() == (3, False)
    assert store.dump() == {}
