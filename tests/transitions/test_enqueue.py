"""enqueue: new jobs become queued, or scheduled when they are due later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from aqueue.errors import ConfigurationError, StoreFull
from aqueue.job import JobId, WorkerId
from aqueue.store.client import BATCH, Client
from aqueue.store.records import NewJob, Unique
from transitions.store_image import BASE, TICKET, Image, Store, but, ended, queued, running, scheduled, worker

REGISTERED: Image = {"queues": ["q"]}


def new(job_id: str, **options: object) -> NewJob:
    return NewJob(id=JobId(job_id), envelope=f"call {job_id}".encode(), **options)  # type: ignore[arg-type]


def stored(job_id: str, **fields: int | str) -> Image:
    """A record and envelope as enqueue writes them."""
    return {f"job:{job_id}": {"enqueued_ms": 0, "state": "queued", **fields}, f"payload:{job_id}": f"call {job_id}"}


async def test_a_job_without_delay_is_queued(client: Client, store: Store) -> None:
    """The plainest of all transitions."""
    store.seed()
    assert await client.enqueue([new("a")]) == ["a"]
    assert store.dump() == {**REGISTERED, **stored("a"), "queued": ["a"]}


async def test_jobs_queue_up_behind_those_that_wait(client: Client, store: Store) -> None:
    """First in, first out, within a batch and between batches."""
    before = store.seed(queued("x"), queued("y"))
    assert await client.enqueue([new("a"), new("b")]) == ["a", "b"]
    assert store.dump() == but(before, REGISTERED, stored("a"), stored("b"), {"queued": ["x", "y", "a", "b"]})


async def test_enqueue_sent_twice_stores_once(client: Client, store: Store) -> None:
    """A lost reply makes the client send again; the job must not run twice for that."""
    store.seed()
    batch = [new("a"), new("b", delay_ms=60_000), new("c", unique=Unique("k"))]
    first = await client.enqueue(batch)
    after = store.dump()
    assert await client.enqueue(batch) == first == ["a", "b", "c"]
    assert store.dump() == after


@pytest.mark.parametrize("state", ["running", "completed", "failed"])
async def test_enqueue_sent_again_after_the_job_has_moved_on_changes_nothing(
    state: str, client: Client, store: Store
) -> None:
    """The second copy of a call may arrive when the job already runs or has ended."""
    before = store.seed(running("a", "me/1") if state == "running" else ended("a", state), worker("me"), REGISTERED)
    assert await client.enqueue([new("a")]) == ["a"]
    assert store.dump() == before


async def test_a_delayed_job_is_scheduled_and_wakes_a_worker_to_learn_of_it(client: Client, store: Store) -> None:
    """Parked workers look at the queued list alone; without the ticket they would not know when to wake."""
    store.seed()
    await client.enqueue([new("a", delay_ms=60_000)])
    assert store.dump() == {
        **REGISTERED,
        **stored("a", state="scheduled", due_ms=60),
        "scheduled": {"a": 60},
        **TICKET,
    }


async def test_a_due_time_may_be_given_as_an_instant(client: Client, store: Store) -> None:
    """`at=` must mean that instant by the server's clock, not a delay."""
    store.seed()
    await client.enqueue([new("a", at_ms=int(store.instant_ms(3600)), delay_ms=60_000)])
    assert store.dump() == {
        **REGISTERED,
        **stored("a", state="scheduled", due_ms=3600),
        "scheduled": {"a": 3600},
        **TICKET,
    }


async def test_an_instant_in_the_past_is_now(client: Client, store: Store) -> None:
    """A due time that has passed must not wait for a promote."""
    store.seed()
    await client.enqueue([new("a", at_ms=1)])
    assert store.dump() == {**REGISTERED, **stored("a"), "queued": ["a"]}


async def test_a_ticket_goes_on_an_empty_list_only(client: Client, store: Store) -> None:
    """A list that is not empty wakes workers by itself; tickets must not pile up."""
    before = store.seed(queued("x"))
    await client.enqueue([new("a", delay_ms=60_000), new("b", delay_ms=30_000)])
    assert store.dump() == but(
        before,
        REGISTERED,
        stored("a", state="scheduled", due_ms=60),
        stored("b", state="scheduled", due_ms=30),
        {"scheduled": {"a": 60, "b": 30}},
    )


async def test_only_a_new_earliest_due_time_wakes_a_worker(client: Client, store: Store) -> None:
    """Workers know the next due time; a later one is no news."""
    before = store.seed(scheduled("x", due=30))
    await client.enqueue([new("a", delay_ms=60_000)])
    assert store.dump() == but(before, REGISTERED, stored("a", state="scheduled", due_ms=60), {"scheduled": {"a": 60}})


async def test_a_ttl_counts_from_the_due_time(client: Client, store: Store) -> None:
    """A delayed job must not expire while it is not even allowed to start."""
    before = store.seed(queued("x"))
    await client.enqueue([new("a", ttl_ms=30_000), new("b", ttl_ms=30_000, delay_ms=60_000)])
    assert store.dump() == but(
        before,
        REGISTERED,
        stored("a", expires_ms=30),
        stored("b", state="scheduled", due_ms=60, expires_ms=90),
        {"queued": ["x", "a"], "scheduled": {"b": 60}},
    )


async def test_lifetimes_of_one_job_are_stored_with_it(client: Client, store: Store) -> None:
    """They win over the worker's settings, so the worker must find them."""
    store.seed()
    await client.enqueue([new("a", result_ttl_ms=0, failure_ttl_ms=-1)])
    assert store.dump() == {**REGISTERED, **stored("a", result_ttl_ms=0, failure_ttl_ms=-1), "queued": ["a"]}


async def test_a_key_is_held_by_its_job(client: Client, store: Store) -> None:
    """What makes `key=` unique is this entry."""
    store.seed()
    assert await client.enqueue([new("a", unique=Unique("k"))]) == ["a"]
    assert store.dump() == {**REGISTERED, **stored("a", unique="k"), "unique:k": "a", "queued": ["a"]}


@pytest.mark.parametrize("holder", ["queued", "scheduled", "running"])
async def test_a_key_in_use_answers_its_holder_and_stores_nothing(holder: str, client: Client, store: Store) -> None:
    """Two unfinished jobs with one key are what `key=` forbids."""
    holders = {
        "queued": queued("h", unique="k"),
        "scheduled": scheduled("h", due=60, unique="k"),
        "running": running("h", "me/1", unique="k"),
    }
    before = store.seed(holders[holder], worker("me"), REGISTERED)
    assert await client.enqueue([new("a", unique=Unique("k"))]) == ["h"]
    assert store.dump() == before


async def test_one_key_twice_in_a_batch_stores_one_job(client: Client, store: Store) -> None:
    """A batch is one step, and its items must see each other."""
    store.seed()
    assert await client.enqueue([new("a", unique=Unique("k")), new("b", unique=Unique("k"))]) == ["a", "a"]
    assert store.dump() == {**REGISTERED, **stored("a", unique="k"), "unique:k": "a", "queued": ["a"]}


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "expired"])
async def test_a_key_whose_holder_has_ended_is_free(state: str, client: Client, store: Store) -> None:
    """A key that outlived its job would block the next one for ever."""
    before = store.seed(ended("h", state), {"unique:k": "h"})
    assert await client.enqueue([new("a", unique=Unique("k"))]) == ["a"]
    assert store.dump() == but(before, REGISTERED, stored("a", unique="k"), {"unique:k": "a", "queued": ["a"]})


async def test_a_key_whose_holder_has_vanished_is_free(client: Client, store: Store) -> None:
    """A record that was evicted or deleted by hand must not block its key for ever."""
    store.seed({"unique:k": "h"})
    assert await client.enqueue([new("a", unique=Unique("k"))]) == ["a"]
    assert store.dump() == {**REGISTERED, **stored("a", unique="k"), "unique:k": "a", "queued": ["a"]}


async def test_a_full_server_refuses_and_has_stored_nothing(
    client: Client, store: Store, raw: redis.Redis, full: Callable[[], None]
) -> None:
    """A producer that is told "full" may try again; half a batch stored would make that two."""
    store.seed()
    await client.enqueue([new("x")])  # from here on it is the script that meets the full server
    before = store.dump()
    full()
    with pytest.raises(StoreFull, match="stored nothing"):
        await client.enqueue([new("a"), new("b", unique=Unique("k"))])
    raw.config_set("maxmemory", 0)
    assert store.dump() == before


async def test_more_than_a_batch_is_refused_before_anything_is_sent(client: Client, store: Store) -> None:
    """A script of unbounded length would stop the server for everybody."""
    store.seed()
    with pytest.raises(ConfigurationError, match=f"at most {BATCH}"):
        await client.enqueue([new(f"j{n}") for n in range(BATCH + 1)])
    assert store.dump() == {}


async def test_a_whole_batch_fits_into_one_call(client: Client, raw: redis.Redis) -> None:
    """Lua's limit on unpacked values must not be met by the batch that is promised."""
    ids = [f"j{n}" for n in range(BATCH)]
    assert await client.enqueue([new(job_id) for job_id in ids]) == ids
    assert raw.lrange(BASE + "queued", 0, -1) == ids[::-1]


async def test_the_queue_becomes_known_to_tools(client: Client) -> None:
    """`aqueue stats` without arguments finds queues through this."""
    assert await client.queue_names() == []
    await client.enqueue([new("a")])
    assert await client.queue_names() == ["q"]


WAITS = {"unique": "k", "scope": "started"}
REPLACE = Unique("k", scope="started", replace=True)


async def test_a_call_that_replaces_is_done_once_although_it_comes_twice(client: Client, store: Store) -> None:
    """The holder has started in between; what it was told already must not run a second time."""
    before = store.seed(queued("h", **WAITS), REGISTERED)
    assert await client.enqueue([new("a", unique=REPLACE)]) == ["h"]
    replaced = store.dump()
    stub = {"payload:h": "call a", "job:a": {"state": "cancelled", "stands": "h"}}
    assert replaced == {**but(before, stub), "ttl": {"job:a": 10}}
    await client.settle_and_claim(WorkerId("me"), 1, [], 1)
    started = store.dump()
    assert await client.enqueue([new("a", unique=REPLACE)]) == ["h"]
    assert store.dump() == started


async def test_a_scheduled_holder_is_moved_and_no_further_than_allowed(client: Client, store: Store) -> None:
    """A stream of calls cannot keep a job from its start for ever."""
    store.seed(scheduled("h", 600, **WAITS), REGISTERED)
    later = Unique("k", scope="started", replace=True, max_wait_ms=120_000)  # since its enqueue, a minute ago
    for n, (delay, due) in enumerate(((20_000, 20), (90_000, 60))):
        assert await client.enqueue([new(f"a{n}", unique=later, delay_ms=delay)]) == ["h"]
        image = store.dump()
        assert image["scheduled"] == {"h": due}
        assert image["job:h"]["due_ms"] == due


async def test_a_claim_frees_the_key_of_a_job_that_is_unique_until_it_starts(client: Client, store: Store) -> None:
    """The next call is work of its own."""
    store.seed(queued("h", **WAITS), REGISTERED)
    await client.settle_and_claim(WorkerId("me"), 1, [], 1)
    assert "unique:k" not in store.dump()
    assert await client.enqueue([new("a", unique=REPLACE)]) == ["a"]


async def test_ranked_jobs_wait_by_rank_and_push_one_ticket(client: Client, store: Store, raw: redis.Redis) -> None:
    """A worker parks at the list; what waits elsewhere wakes it, once."""
    store.seed()
    await client.enqueue([new("low", rank=5 * 2**43), new("high", rank=0), new("next", rank=0)])
    assert store.dump()["queued"] == TICKET["queued"]
    assert raw.zrange(f"{BASE}ranked", 0, -1) == ["high", "next", "low"]
