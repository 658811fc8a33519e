"""reschedule: a job that waits is given another time, wherever it waits."""

from __future__ import annotations

import pytest
import redis

from aqueue.errors import StoreError
from aqueue.job import JobId
from aqueue.store.client import Client
from aqueue.store.records import Completed, NewJob
from transitions.store_image import (
    BASE,
    TICKET,
    Store,
    but,
    caught,
    ended,
    queued,
    record,
    running,
    scheduled,
    suspect,
    worker,
)
from transitions.turns import claimed, settle, take_turn

A = JobId("a")
CROWD = {"limits": "c.aa.1"}


async def later(client: Client, seconds: int = 60, call: str = "c") -> tuple[str, int]:
    return await client.schedules.reschedule(A, f"{call}{seconds}", delay_ms=seconds * 1000, at_ms=None)


async def test_a_scheduled_job_is_due_at_another_time(client: Client, store: Store) -> None:
    """Later, and earlier; who parks is woken for what is now the first."""
    before = store.seed(scheduled("a", due=60), scheduled("b", due=90))
    assert (await later(client, 120))[0] == "scheduled"
    assert store.dump() == but(before, {"scheduled": {"a": 120}, "job:a": {"due_ms": 120, "retimed": "c120"}})
    assert (await later(client, 30))[0] == "scheduled"
    assert store.dump() == but(before, {"scheduled": {"a": 30}, "job:a": {"due_ms": 30, "retimed": "c30"}}, TICKET)


async def test_a_scheduled_job_is_queued_at_once_when_its_time_has_come(client: Client, store: Store) -> None:
    """And not a second time by the same call."""
    before = store.seed(scheduled("a", due=60))
    for _ in range(2):
        assert (await later(client, 0))[0] == "queued"
        assert store.dump() == but(
            before,
            {"scheduled": {"a": None}, "job:a": {"state": "queued", "due_ms": 0, "retimed": "c0"}, "queued": ["a"]},
        )


async def test_one_of_another_priority_goes_where_its_rank_is(client: Client, store: Store) -> None:
    """In time and out of it."""
    rank = str(2 * 2**43)
    store.seed(scheduled("a", due=60, rank=rank))
    await later(client, 0)
    image = store.dump()
    assert (list(image["ranked"]), image["queued"]) == (["a"], ["wake"])
    await later(client, 60)
    assert "ranked" not in store.dump()


@pytest.mark.parametrize("place", ["queued", "inbox", "suspects"])
async def test_a_queued_job_waits_again_wherever_it_is(place: str, client: Client, store: Store) -> None:
    """Its id stays where it is; a claim that meets it leaves it alone, and runs it once it is due."""
    seeds = {"queued": queued("a"), "inbox": caught("a", "me"), "suspects": suspect("a")}
    before = store.seed(seeds[place], worker("me"))
    for _ in range(2):  # sent twice
        assert (await later(client))[0] == "scheduled"
    ticket = {} if place == "queued" else TICKET
    assert store.dump() == but(
        before, {"scheduled": {"a": 60}, "job:a": {"state": "scheduled", "due_ms": 60, "retimed": "c60"}}, ticket
    )
    assert claimed(await take_turn(client, free=5)) == []
    await later(client, 0)
    assert claimed(await take_turn(client, free=5, number=3)) == [("a", "me/3")]
    assert claimed(await take_turn(client, free=5, number=4)) == []


async def test_a_job_that_comes_back_while_its_old_id_still_lies_there_runs_once(client: Client, store: Store) -> None:
    """The queue was paused, say, so that no claim has met it in between."""
    store.seed(queued("a"), worker("me"))
    await later(client)
    await later(client, 0)
    assert store.dump()["queued"] == ["a", "a"]
    assert claimed(await take_turn(client, free=5)) == [("a", "me/2")]


async def test_a_job_before_a_closed_gate_leaves_the_line(client: Client, store: Store, raw: redis.Redis) -> None:
    """The next in line is then the next; and a permit that was already its own goes to that one."""
    store.seed(queued("a", **CROWD), queued("b", **CROWD), worker("me"))
    for job_id in "ab":
        raw.lrem(f"{BASE}queued", 0, job_id)
        raw.zadd(f"{BASE}waiting:aa", {job_id: ord(job_id)})
        raw.zadd(f"{BASE}held_back", {job_id: ord(job_id)})
    await later(client)
    assert raw.zrange(f"{BASE}waiting:aa", 0, -1) == raw.zrange(f"{BASE}held_back", 0, -1) == ["b"]
    await later(client, 0)
    raw.sadd(f"{BASE}permits:aa", "a")
    await later(client)
    assert raw.smembers(f"{BASE}permits:aa") == {"b"}
    assert raw.exists(f"{BASE}waiting:aa", f"{BASE}held_back") == 0


async def test_a_job_of_a_paused_task_leaves_its_shelf(client: Client, store: Store, raw: redis.Redis) -> None:
    """Else it would be taken from there, before its time, once the task is resumed."""
    store.seed(record("a", "queued", shelf="t"))
    raw.zadd(f"{BASE}shelf:t", {"a": -5})
    raw.hset(f"{BASE}shelves", "t", "1")
    await later(client)
    image = store.dump()
    assert "shelf:t" not in image
    assert "shelf" not in image["job:a"]
    assert image["scheduled"] == {"a": 60}


async def test_its_ttl_counts_from_the_new_time(client: Client, store: Store) -> None:
    """A job that may wait ten seconds for its start may do so whenever that is."""
    store.seed(scheduled("a", due=60, expires_ms=70))
    await later(client, 300)
    assert store.dump()["job:a"]["expires_ms"] == 310


@pytest.mark.parametrize(
    ("state", "word"),
    [("running", "running"), ("completed", "ended"), ("failed", "ended"), ("cancelled", "ended"), ("", "missing")],
)
async def test_what_does_not_wait_is_left_alone(state: str, word: str, client: Client, store: Store) -> None:
    """A run cannot be put off, and what has ended is run again in another way."""
    of_state = {"running": {**running("a", "me/1"), **worker("me")}, "": queued("b")}
    before = store.seed(of_state.get(state) or ended("a", state))
    assert (await later(client))[0] == word
    assert store.dump() == before


@pytest.mark.parametrize("key", ["queued", "ranked", "scheduled", "held_back"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    key: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """Nothing rolls a script back."""
    store.seed(scheduled("a", due=60) if key == "queued" else queued("a", **CROWD))
    raw.delete(BASE + key)
    raw.set(BASE + key, "what is this")
    before = store.dump()
    with pytest.raises(StoreError):
        await later(client)
    assert store.dump() == before


async def test_a_call_that_comes_again_is_answered_as_before(client: Client, store: Store) -> None:
    """Its job may have begun meanwhile, or ended, or have been given another time by somebody else."""
    store.seed(queued("a"), worker("me"))
    first = await later(client, 60)
    assert await later(client, 60) == first
    await later(client, 0)
    assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]
    assert (await later(client, 0))[0] == "queued"
    assert (await later(client, 0, "another"))[0] == "running"
    await take_turn(client, settle("a", Completed(b"1", 60_000, "t"), "me/2"), number=3)
    assert (await later(client, 0))[0] == "queued"
    assert (await later(client, 0, "another"))[0] == "ended"


async def test_delays_of_any_length_are_kept_exactly_and_in_order(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """Days, two years, a century: sorted as instants are, to the millisecond."""
    day = 86_400_000
    delays = {"c": 100 * 365 * day, "a": day, "b": 2 * 365 * day, "b2": 2 * 365 * day + 1}
    now = store.now_ms()
    await client.enqueue([NewJob(id=JobId(name), envelope=b"x", at_ms=now + delay) for name, delay in delays.items()])
    assert raw.zrange(f"{BASE}scheduled", 0, -1, withscores=True) == [
        (name, now + delays[name]) for name in ("a", "b", "b2", "c")
    ]
    assert raw.hget(f"{BASE}job:b2", "due_ms") == str(now + delays["b2"])
    assert await client.promote() == 0
