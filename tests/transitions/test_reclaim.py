"""reclaim: what a dead worker held goes back, with a crash counted."""

from __future__ import annotations

import json

import pytest
import redis

from aqueue.store.client import BATCH, Client
from transitions.conftest import Listening, MakeClient
from transitions.store_image import BASE, Store, but, caught, failed, queued, ran, running, worker

GONE_WORKER = {"workers": {"me": None}, "worker:me": None, "held:me": None}
WORKERS_PER_CALL = 10


async def test_a_dead_workers_job_goes_to_the_front_with_a_crash(client: Client, store: Store) -> None:
    """The promise that a killed worker's jobs run elsewhere; a crash is not an attempt."""
    before = store.seed(
        running("a", "me/1", attempt=1), queued("b"), worker("me", lease=-30), worker("other", lease=30)
    )
    (gone,), remain = await client.reclaim()
    assert (gone.worker, gone.info, gone.requeued, gone.failed, remain) == ("me", "host of me", ["a"], [], False)
    assert store.about((gone.silent_for - 20) * 1000, 30)
    assert store.dump() == but(
        before,
        GONE_WORKER,
        {
            "job:a": {"state": "queued", "crashes": 1, "token": None, "history": [ran("crashed")]},
            "queued": ["a", "b"],
            "stats": {"crashed": 1},
        },
    )


async def test_reclaiming_twice_counts_one_crash(client: Client, store: Store) -> None:
    """Every worker of the fleet does this at about the same time."""
    store.seed(running("a", "me/1"), caught("b", "me"), worker("me", lease=-30))
    await client.reclaim()
    after = store.dump()
    assert await client.reclaim() == ([], False)
    assert store.dump() == after


async def test_a_worker_that_lives_keeps_everything(client: Client, store: Store) -> None:
    """No double run without a lost lease."""
    before = store.seed(running("a", "me/1"), caught("b", "me"), worker("me", lease=10))
    assert await client.reclaim() == ([], False)
    assert store.dump() == before


async def test_the_inbox_goes_back_in_order_and_uncounted(client: Client, store: Store) -> None:
    """What was only caught never ran, so no crash can be its fault."""
    before = store.seed(queued("c"), caught("a", "me"), caught("b", "me"), worker("me", lease=-30))
    (gone,), _ = await client.reclaim()
    assert (gone.requeued, gone.failed) == ([], [])
    assert store.dump() == but(
        before, {"workers": None, "worker:me": None, "inbox:me": None, "queued": ["a", "b", "c"]}
    )


async def test_one_crash_from_the_limit_a_job_becomes_a_suspect(client: Client, store: Store) -> None:
    """It waits apart, and a ticket wakes a worker that will run it without another suspect beside it."""
    before = store.seed(running("a", "me/1", crashes=1), worker("me", lease=-30))
    (gone,), _ = await client.reclaim()
    assert gone.requeued == ["a"]
    assert store.dump() == but(
        before,
        GONE_WORKER,
        {
            "job:a": {"state": "queued", "crashes": 2, "token": None, "history": [ran("crashed")]},
            "suspects": ["a"],
            "queued": ["wake"],
            "workers": None,
            "stats": {"crashed": 1},
        },
    )


async def test_at_the_crash_limit_a_job_fails_with_the_evidence(
    client: Client, store: Store, listening: Listening
) -> None:
    """A poison job must end, and say why, and where it happened last."""
    before = store.seed(running("a", "me/1", crashes=2, unique="k", waiters=" web"), worker("me", lease=-30))
    with listening("web") as heard:
        (gone,), _ = await client.reclaim()
        assert heard() == ["ended a failed"]
    assert (gone.requeued, gone.failed) == ([], ["a"])
    image = store.dump()
    error = json.loads(image["job:a"].pop("error"))
    assert (error["type"], error["failure"]) == ("WorkerCrashed", "crashed")
    assert "3 times" in error["message"]
    assert "worker me" in error["message"]
    assert image == but(
        before,
        GONE_WORKER,
        {
            "job:a": {
                "state": "failed",
                "crashes": 3,
                "ended_ms": 0,
                "waiters": None,
                "token": None,
                "history": [ran("crashed")],
            },
            "ttl": {"job:a": 604_800, "payload:a": 604_800},
            "failed": {"a": 604_800},
            "unique:k": None,
            "workers": None,
            "stats": {"crashed": 1, "failed": 1},
        },
    )


async def test_the_limit_is_the_settings(make_client: MakeClient, store: Store) -> None:
    """`crash_limit=1` means that the first crash ends the job."""
    store.seed(running("a", "me/1"), worker("me", lease=-30))
    (gone,), _ = await make_client(crash_limit=1).reclaim()
    assert gone.failed == ["a"]


@pytest.mark.parametrize(("own", "life"), [(0, {"job:a": 10}), (60_000, {"job:a": 60, "payload:a": 60})])
async def test_the_jobs_own_failure_lifetime_wins(own: int, life: dict[str, int], client: Client, store: Store) -> None:
    """A job that fails by its crashes has failed like any other."""
    store.seed(running("a", "me/1", crashes=2, failure_ttl_ms=own), worker("me", lease=-30))
    await client.reclaim()
    assert store.dump()["ttl"] == life


async def test_the_failed_cap_holds_here_too(make_client: MakeClient, store: Store) -> None:
    """Crashing jobs must not fill the memory either."""
    store.seed(failed("old", ttl=50), running("a", "me/1", crashes=2), worker("me", lease=-30))
    await make_client(failure_cap=1).reclaim()
    image = store.dump()
    assert image["failed"] == {"a": 604_800}
    assert "job:old" not in image
    assert "payload:old" not in image


async def test_a_job_that_was_to_be_cancelled_is_cancelled(client: Client, store: Store, listening: Listening) -> None:
    """It gets no other run, and no crash is counted for what was to end anyway."""
    before = store.seed(running("a", "me/1", cancel=1, waiters=" web", unique="k"), worker("me", lease=-30))
    with listening("web") as heard:
        (gone,), _ = await client.reclaim()
        assert heard() == ["ended a cancelled"]
    assert (gone.requeued, gone.failed) == ([], [])
    assert store.dump() == but(
        before,
        GONE_WORKER,
        {
            "job:a": {"state": "cancelled", "ended_ms": 0, "waiters": None, "token": None, "history": [ran("crashed")]},
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "unique:k": None,
            "workers": None,
            "stats": {"cancelled": 1},
        },
    )


async def test_a_held_id_without_a_running_job_is_dropped(client: Client, store: Store) -> None:
    """A record deleted by hand must not come back as a job without anything in it."""
    before = store.seed({"held:me": {"x": "me/1"}}, worker("me", lease=-30))
    (gone,), _ = await client.reclaim()
    assert (gone.requeued, gone.failed) == ([], [])
    assert store.dump() == but(before, GONE_WORKER, {"workers": None})


async def test_a_worker_that_left_no_record_is_reclaimed_too(client: Client, store: Store, raw: redis.Redis) -> None:
    """Between its first claim and its first beat, a worker has no info."""
    store.seed(running("a", "me/1"), {"workers": {"me": -30}})
    (gone,), _ = await client.reclaim()
    assert (gone.worker, gone.info, gone.requeued) == ("me", "", ["a"])


async def test_one_call_takes_back_a_bounded_number_of_jobs(client: Client, store: Store, raw: redis.Redis) -> None:
    """A worker with thousands of jobs must not stop the server when it dies."""
    store.seed(*(running(f"j{n}", "me/1") for n in range(BATCH + 20)), worker("me", lease=-30))
    (gone,), remain = await client.reclaim()
    assert (len(gone.requeued), remain) == (BATCH, True)
    assert raw.hlen(BASE + "held:me") == 20
    (rest,), remain = await client.reclaim()
    assert (len(rest.requeued), remain) == (20, False)
    assert not {"held:me", "worker:me", "workers"} & set(store.dump())


async def test_many_dead_workers_take_several_calls(client: Client, store: Store) -> None:
    """A fleet that dies at once is taken back in bounded steps, none of which is forgotten."""
    store.seed(*(worker(f"w{n}", lease=-30) for n in range(WORKERS_PER_CALL + 2)))
    first, remain = await client.reclaim()
    assert (len(first), remain) == (WORKERS_PER_CALL, True)
    second, remain = await client.reclaim()
    assert (len(second), remain) == (2, False)
    assert store.dump() == {}


async def test_the_bound_holds_over_several_dead_workers(client: Client, store: Store) -> None:
    """A fleet that dies at once is as many jobs as one worker with all of them."""
    store.seed(
        *(
            running(f"j{n}", f"{name}/1")
            for name, first in (("me", 0), ("other", 300))
            for n in range(first, first + 300)
        ),
        worker("me", lease=-40),
        worker("other", lease=-30),
    )
    first, remain = await client.reclaim()
    assert (sum(len(gone.requeued) for gone in first), remain) == (BATCH, True)
    second, remain = await client.reclaim()
    assert ([(gone.worker, len(gone.requeued)) for gone in second], remain) == ([("other", 100)], False)


async def test_jobs_of_dead_workers_keep_their_order(client: Client, store: Store) -> None:
    """Ids sort by time, so what comes back is again first in, first out, before what has waited less."""
    store.seed(
        running("b", "me/1"), running("a", "me/1"), running("c", "other/1"), caught("d", "me"), queued("e"),
        worker("me", lease=-40), worker("other", lease=-30),
    )  # fmt: skip
    await client.reclaim()
    assert store.dump()["queued"] == ["a", "b", "c", "d", "e"]
