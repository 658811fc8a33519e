"""extend: the heartbeat renews the lease and compares what the worker runs with what it holds."""

from __future__ import annotations

from aqueue.job import JobId
from aqueue.store.client import Client
from aqueue.store.records import Beat
from transitions.conftest import Listening
from transitions.store_image import Image, Store, but, caught, queued, running, scheduled, suspect, worker
from transitions.turns import ME

A, B = JobId("a"), JobId("b")
NOTHING = Beat([], [], [], None, None)
BEATEN: Image = {"workers": {"me": 20}, "worker:me": {"info": "new"}}


async def test_a_beat_moves_the_deadline_and_nothing_else(client: Client, store: Store) -> None:
    """A job that takes longer than the lease is safe through this alone."""
    before = store.seed(running("a", "me/1"), queued("b"), worker("me"))
    assert await client.extend(ME, 1, [A], "new") == NOTHING
    assert store.dump() == but(before, BEATEN)


async def test_a_beat_sent_twice_answers_the_same(client: Client, store: Store) -> None:
    """The heartbeat's connection may lose a reply as any other."""
    store.seed(running("a", "me/1"), running("b", "me/1", cancel=1), worker("me"))
    first = await client.extend(ME, 1, [A, B, JobId("c")], "new")
    after = store.dump()
    assert await client.extend(ME, 1, [A, B, JobId("c")], "new") == first == Beat(["c"], [B], [], None, None)  # type: ignore[list-item]
    assert store.dump() == after


async def test_what_is_run_but_not_held_is_lost(client: Client, store: Store) -> None:
    """The run must be ended: somebody else has the job, or has ended it."""
    before = store.seed(running("a", "other/1"), worker("other", lease=90), worker("me"))
    beat = await client.extend(ME, 1, [A], "new")
    assert (beat.lost, beat.cancelled, beat.returned) == ([A], [], [])
    assert store.dump() == but(before, BEATEN)


async def test_a_cancel_is_told_until_it_is_obeyed(client: Client, store: Store) -> None:
    """The message on the channel may be lost; the heartbeat is the net beneath it."""
    before = store.seed(running("a", "me/1", cancel=1), running("b", "me/1"), worker("me"))
    assert (await client.extend(ME, 1, [A, B], "new")).cancelled == [A]
    assert store.dump() == but(before, BEATEN)


async def test_what_was_claimed_and_never_arrived_goes_back_to_the_front(client: Client, store: Store) -> None:
    """A claim whose reply was lost holds jobs that nobody runs; no crash is counted for them."""
    before = store.seed(running("a", "me/1"), running("b", "me/1"), queued("c"), worker("me"))
    assert (await client.extend(ME, 1, [B], "new")).returned == [A]
    assert store.dump() == but(
        before,
        BEATEN,
        {"job:a": {"state": "queued", "token": None}, "queued": ["a", "c"], "held:me": {"a": None}},
    )


async def test_handing_back_twice_hands_back_once(client: Client, store: Store) -> None:
    """The second copy of a beat finds nothing left to hand back."""
    store.seed(running("a", "me/1"), worker("me"))
    await client.extend(ME, 1, [], "new")
    after = store.dump()
    assert (await client.extend(ME, 1, [], "new")).returned == []
    assert store.dump() == after


async def test_a_claim_whose_answer_is_still_on_its_way_is_left_alone(client: Client, store: Store) -> None:
    """The heartbeat runs beside the turns; it must not take away what the next reply brings."""
    before = store.seed(running("a", "me/2"), worker("me", turn=2))
    assert await client.extend(ME, 1, [], "new") == NOTHING
    assert store.dump() == but(before, BEATEN)


async def test_turns_are_compared_as_numbers(client: Client, store: Store) -> None:
    """As text, turn 10 would come before turn 9, and a running worker would lose its jobs."""
    store.seed(running("a", "me/10"), worker("me", turn=10))
    assert (await client.extend(ME, 9, [], "new")).returned == []
    assert (await client.extend(ME, 10, [], "new")).returned == [A]


async def test_what_never_arrived_and_was_to_be_cancelled_is_cancelled(
    client: Client, store: Store, listening: Listening
) -> None:
    """Whoever asked was told that the cancel is under way; another run would be a promise broken."""
    before = store.seed(running("a", "me/1", cancel=1, waiters=" web"), worker("me"))
    with listening("web") as heard:
        assert (await client.extend(ME, 1, [], "new")).returned == []
        assert heard() == ["ended a cancelled"]
    assert store.dump() == but(
        before,
        BEATEN,
        {
            "job:a": {"state": "cancelled", "ended_ms": 0, "waiters": None, "token": None},
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "held:me": None,
            "stats": {"cancelled": 1},
        },
    )


async def test_a_worker_that_was_reclaimed_is_back_with_its_next_beat(client: Client, store: Store) -> None:
    """It lives; it has only lost what it held."""
    store.seed(running("a", "me/1"), worker("me", lease=-10))
    await client.reclaim()
    beat = await client.extend(ME, 1, [A], "new")
    assert (beat.lost, beat.returned) == ([A], [])
    image = store.dump()
    assert (image["workers"], image["worker:me"]) == ({"me": 20}, {"info": "new"})


async def test_the_next_lease_to_end_is_told(client: Client, store: Store) -> None:
    """Somebody must reclaim in time, also on an idle queue."""
    store.seed(worker("me", lease=5), worker("other", lease=90), worker("third", lease=60))
    beat = await client.extend(ME, 1, [], "new")
    assert beat.next_reclaim is not None
    assert 55 < beat.next_reclaim <= 60


async def test_a_lease_that_has_ended_is_told_as_now(client: Client, store: Store) -> None:
    """A negative span would be no time to wait, and is none that a timer takes."""
    store.seed(worker("other", lease=-90), worker("me"))
    assert (await client.extend(ME, 1, [], "new")).next_reclaim == 0


async def test_the_next_due_time_is_told(client: Client, store: Store) -> None:
    """A worker whose slots are full learns here when to promote."""
    store.seed(scheduled("a", due=60), scheduled("b", due=90), worker("me"))
    beat = await client.extend(ME, 1, [], "new")
    assert beat.next_due is not None
    assert 55 < beat.next_due <= 60


async def test_an_overdue_job_is_told_as_now(client: Client, store: Store) -> None:
    """A negative span would be no time to wait, and is none that a timer takes."""
    store.seed(scheduled("a", due=-60), worker("me"))
    assert (await client.extend(ME, 1, [], "new")).next_due == 0


async def test_what_is_handed_back_keeps_its_order(client: Client, store: Store) -> None:
    """A lost reply must not turn the queue around."""
    store.seed(*(running(job_id, "me/1") for job_id in "bac"), queued("d"), worker("me"))
    assert sorted((await client.extend(ME, 1, [], "new")).returned) == ["a", "b", "c"]
    assert store.dump()["queued"] == ["a", "b", "c", "d"]


async def test_a_suspect_that_waits_calls_for_a_turn(client: Client, store: Store) -> None:
    """Whoever put it aside was busy with another one; an idle worker would not look for it for ever."""
    store.seed(suspect("s"), scheduled("d", due=60), worker("me"))
    assert (await client.extend(ME, 1, [], "new")).next_due == 0


async def test_a_suspect_that_waits_does_not_call_a_worker_that_runs_one(client: Client, store: Store) -> None:
    """It would be put aside again, at every beat."""
    store.seed(running("s", "me/1", crashes=2), suspect("t"), worker("me", suspect="s"))
    assert (await client.extend(ME, 1, [JobId("s")], "new")).next_due is None


async def test_what_lies_in_the_inbox_is_told(client: Client, store: Store) -> None:
    """A parked fetch whose connection broke may catch a job after all, and nobody is told."""
    before = store.seed(caught("a", "me"), worker("me"))
    assert (await client.extend(ME, 1, [], "new")).caught == 1
    assert store.dump() == but(before, BEATEN)
