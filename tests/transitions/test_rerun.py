"""rerun: an ended job is queued again with fresh counters."""

from __future__ import annotations

import pytest
import redis

from aqueue.job import JobId
from aqueue.store.client import Client
from aqueue.store.failures import Again
from aqueue.store.records import Failed
from transitions.store_image import BASE, Image, Store, but, ended, failed, queued, running, scheduled, worker
from transitions.turns import BOOM, claimed, settle, take_turn

A = JobId("a")


async def test_a_failed_job_gets_a_fresh_start_behind_the_others(client: Client, store: Store) -> None:
    """No trace of the former runs may bound, hide or end the new one."""
    before = store.seed(
        queued("x"),
        failed("a", crashes=2, token="me/1", due_ms=-50, expires_ms=-40, started_ms=-20, unknown_ms=-30, cancel=1),
        failed("b"),
    )
    assert await client.rerun(A, "once") == "queued"
    fresh = {"state": "queued", "enqueued_ms": -60, "due_ms": 0, "rerun": "once"}
    assert store.dump() == but(
        {**before, "job:a": fresh},
        {
            "ttl": {"job:a": None, "payload:a": None},
            "failed": {"a": None},
            "queued": ["x", "a"],
            "stats": {"rerun": 1},
        },
    )


@pytest.mark.parametrize("state", ["cancelled", "expired"])
async def test_other_ended_jobs_run_again_too(state: str, client: Client, store: Store) -> None:
    """A job that never ran is the plainest case to be run after all."""
    before = store.seed(ended("a", state, expires_ms=-40))
    assert await client.rerun(A, "once") == "queued"
    assert store.dump() == but(
        {**before, "job:a": {"state": "queued", "enqueued_ms": -60, "due_ms": 0, "rerun": "once"}},
        {"ttl": None, "queued": ["a"], "stats": {"rerun": 1}},
    )


async def test_rerunning_twice_queues_once(client: Client, store: Store) -> None:
    """The second call finds a job that has not ended."""
    store.seed(failed("a"))
    await client.rerun(A)
    after = store.dump()
    assert await client.rerun(A) == "unfinished"
    assert store.dump() == after


async def test_a_call_that_is_sent_twice_answers_as_the_first(client: Client, store: Store) -> None:
    """The reply may have been lost; the caller is not to be told that the job it has queued cannot be queued."""
    store.seed(failed("a"))
    await client.rerun(A, "once")
    after = store.dump()
    assert await client.rerun(A, "once") == "queued"
    assert store.dump() == after


async def test_a_call_that_is_sent_twice_does_not_run_a_job_again_that_has_failed_again(
    client: Client, store: Store
) -> None:
    """The first was executed, and the run it brought has come to its end, before the second arrives."""
    store.seed(failed("a"), worker("me"))
    await client.rerun(A, "once")
    await take_turn(client, free=1)
    await take_turn(client, settle("a", Failed(BOOM, 60_000), "me/2"), number=3)
    after = store.dump()
    assert await client.rerun(A, "once") == "queued"
    assert store.dump() == after
    assert await client.rerun(A, "a second time") == "queued"


@pytest.mark.parametrize("state", ["queued", "scheduled", "running"])
async def test_a_job_that_has_not_ended_is_refused(state: str, client: Client, store: Store) -> None:
    """A second place in the queue would be a second run."""
    parts: dict[str, Image] = {
        "queued": queued("a"),
        "scheduled": scheduled("a", due=60),
        "running": running("a", "me/1"),
    }
    before = store.seed(parts[state], worker("me"))
    assert await client.rerun(A) == "unfinished"
    assert store.dump() == before


async def test_a_completed_job_is_gone(client: Client, store: Store) -> None:
    """Its envelope went with its completion; there is nothing left to run."""
    before = store.seed(ended("a", "completed", result="1"))
    assert await client.rerun(A) == "gone"
    assert store.dump() == before


async def test_a_failed_job_without_its_envelope_is_gone(client: Client, store: Store, raw: redis.Redis) -> None:
    """A stub of ten seconds must not come back as a job without arguments."""
    store.seed(ended("a", "failed", ttl=10))
    raw.delete(BASE + "payload:a")
    before = store.dump()
    assert await client.rerun(A) == "gone"
    assert store.dump() == before


async def test_a_job_that_does_not_exist_is_missing(client: Client, store: Store) -> None:
    """A typing error must not make a job."""
    store.seed()
    assert await client.rerun(A) == "missing"
    assert store.dump() == {}


async def test_a_rerun_job_no_longer_claims_its_key(client: Client, store: Store) -> None:
    """Somebody else may hold the key by now, and must not lose it when this job ends."""
    store.seed(queued("other", unique="k"), failed("a"))
    store.seed({"job:a": {"unique": "k"}})
    await client.rerun(A)
    image = store.dump()
    assert image["unique:k"] == "other"
    assert "unique" not in image["job:a"]


async def test_a_cancelled_job_that_is_run_again_runs_once(client: Client, store: Store) -> None:
    """Its id is in the list twice then: once from before the cancel, once from the rerun."""
    store.seed(queued("a"), worker("me"))
    await client.cancel(A)
    await client.rerun(A)
    assert store.dump()["queued"] == ["a", "a"]
    assert claimed(await take_turn(client, free=5)) == [("a", "me/2")]


# several at once, after a delay, with other arguments


async def test_a_delayed_rerun_waits_for_its_time(client: Client, store: Store) -> None:
    """And sent twice it answers as the first."""
    before = store.seed(failed("a"), failed("b"))
    for _ in range(2):
        assert await client.failures.rerun([Again(A)], "once", 60_000) == ["scheduled"]
    assert store.dump() == but(
        {**before, "job:a": {"state": "scheduled", "enqueued_ms": -60, "due_ms": 60, "rerun": "once"}},
        {
            "ttl": {"job:a": None, "payload:a": None},
            "failed": {"a": None},
            "scheduled": {"a": 60},
            "queued": ["wake"],
            "stats": {"rerun": 1},
        },
    )


async def test_other_arguments_take_their_place_with_the_rerun(client: Client, store: Store) -> None:
    """In one step: no run may begin with the old ones, and no failed job be left with the new ones."""
    store.seed(failed("a", limits="c.aa.1"), failed("b", limits="c.aa.1"), failed("c", limits="c.aa.1"))
    changed = [
        Again(A, envelope=b"new a", limits="c.bb.1"),
        Again(JobId("b"), envelope=b"new b", limits=""),
        Again(JobId("c"), envelope=b"new c"),
    ]
    for _ in range(2):
        assert await client.failures.rerun(changed, "once") == ["queued"] * 3
        image = store.dump()
        assert [image[f"payload:{job_id}"] for job_id in "abc"] == ["new a", "new b", "new c"]
        assert [image[f"job:{job_id}"].get("limits") for job_id in "abc"] == ["c.bb.1", None, "c.aa.1"]
        assert image["queued"] == ["a", "b", "c"]
        assert "ttl" not in image


async def test_new_arguments_of_a_refused_job_are_not_stored(client: Client, store: Store) -> None:
    """They would be run by whoever runs it next."""
    before = store.seed(queued("a"))
    assert await client.failures.rerun([Again(A, envelope=b"new")], "once") == ["unfinished"]
    assert store.dump() == before


async def test_only_the_failure_that_was_looked_at_is_run_again(client: Client, store: Store) -> None:
    """Between the look and the rerun it may have been run by somebody else, and failed for another reason."""
    store.seed(failed("a"), failed("b"), ended("c", "cancelled"))
    since = str(int(store.instant_ms(-10)))
    again = [Again(A, since), Again(JobId("b"), "1"), Again(JobId("c"), since), Again(JobId("d"), since)]
    assert await client.failures.rerun(again, "once") == ["queued", "changed", "changed", "missing"]
    assert store.dump()["queued"] == ["a"]


async def test_a_damaged_record_costs_its_neighbours_nothing(client: Client, store: Store, raw: redis.Redis) -> None:
    """Five hundred jobs are to run again; one of them was overwritten by somebody."""
    store.seed(failed("a"), failed("c"))
    raw.set(f"{BASE}job:b", "text", ex=60)
    words = await client.failures.rerun([Again(JobId(job_id)) for job_id in "abc"], "once")
    assert words == ["queued", "damaged", "queued"]
