"""stats: what a queue holds at this moment."""

from __future__ import annotations

from aqueue.job import WorkerId
from aqueue.store.client import Client
from aqueue.store.records import QueueStats, WorkerStats
from transitions.store_image import PAUSED, TICKET, Store, caught, failed, queued, running, scheduled, suspect, worker

EMPTY = QueueStats(name="q", queued=0, scheduled=0, running=0, failed=0, paused=False, oldest=None)


async def test_an_empty_queue_has_only_zeros(client: Client, store: Store) -> None:
    """A queue that nobody has used yet is no error."""
    store.seed()
    assert await client.stats() == EMPTY
    assert store.dump() == {}


async def test_everything_is_counted_and_nothing_changed(client: Client, store: Store) -> None:
    """Operators and autoscalers act on these numbers."""
    before = store.seed(
        queued("a"),
        queued("b", enqueued_ms=-30),
        suspect("s"),
        scheduled("c", due=60),
        running("d", "me/1"),
        running("e", "me/1"),
        running("f", "other/1"),
        failed("g"),
        worker("me", lease=20),
        worker("other", lease=40),
        PAUSED,
        {"stats": {"completed": 7, "failed": 1}},
    )
    stats = await client.stats()
    assert (stats.queued, stats.scheduled, stats.running, stats.failed, stats.paused) == (3, 1, 3, 1, True)
    assert stats.counters == {"completed": 7, "failed": 1}
    assert [(w.id, w.info, w.running) for w in stats.workers] == [
        ("me", "host of me", 2),
        ("other", "host of other", 1),
    ]
    assert all(limit - 5 < w.lease_left <= limit for w, limit in zip(stats.workers, (20, 40), strict=True))
    assert store.dump() == before


async def test_the_age_of_the_oldest_job_counts_from_when_it_was_due(client: Client, store: Store) -> None:
    """A job that was delayed for a day has not waited for a day."""
    store.seed(queued("a", due_ms=-20), queued("b"))
    oldest = (await client.stats()).oldest
    assert oldest is not None
    assert store.about(oldest * 1000, 20)


async def test_what_a_parked_fetch_has_caught_waits_still(client: Client, store: Store) -> None:
    """Else a queue looks empty for a moment, and for as long as a lease lasts if the worker has died just then."""
    store.seed(
        queued("b"), caught("a", "me", due_ms=-20), worker("me"), TICKET, {"inbox:other": ["wake"]}, worker("other")
    )
    stats = await client.stats()
    assert (stats.queued, stats.running) == (2, 0)
    assert stats.oldest is not None
    assert store.about(stats.oldest * 1000, 20)


async def test_a_ticket_is_no_job(client: Client, store: Store) -> None:
    """An autoscaler must not start a worker for it."""
    store.seed(TICKET)
    assert await client.stats() == EMPTY


async def test_a_ticket_does_not_hide_the_age_of_what_waits(client: Client, store: Store) -> None:
    """With no worker alive nobody takes the ticket away, and this age is what an alarm looks at."""
    store.seed(TICKET, queued("a"))
    stats = await client.stats()
    assert stats.queued == 1
    assert stats.oldest is not None
    assert store.about(stats.oldest * 1000, 60)


async def test_a_dead_worker_is_listed_with_its_lease_overdrawn(client: Client, store: Store) -> None:
    """That is how one sees that nobody reclaims."""
    store.seed(running("a", "me/1"), {"workers": {"me": -30}})
    (seen,) = (await client.stats()).workers
    assert isinstance(seen, WorkerStats)
    assert (seen.id, seen.info, seen.running) == (WorkerId("me"), "", 1)
    assert -35 < seen.lease_left <= -30


async def test_a_ticket_before_a_job_is_not_counted(client: Client, store: Store) -> None:
    """A job that was released lies before the ticket, one that was enqueued behind it."""
    store.seed(queued("a"), TICKET, queued("b"))
    stats = await client.stats()
    assert stats.queued == 2
    assert stats.oldest is not None
    assert store.about(stats.oldest * 1000, 60)
