"""settle_and_claim, expire: a job whose ttl has passed becomes expired instead of running."""

from __future__ import annotations

import pytest
import redis

from aqueue.errors import StoreError
from aqueue.job import JobId
from aqueue.store.client import Client
from transitions.conftest import Listening, MakeClient
from transitions.store_image import (
    BASE,
    Image,
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
from transitions.turns import TURN_TAKEN, claimed, take_turn

A = JobId("a")
EXPIRED: Image = {
    "job:a": {"state": "expired", "ended_ms": 0},
    "ttl": {"job:a": 3600, "payload:a": 3600},
    "stats": {"expired": 1},
}


async def test_a_job_past_its_ttl_expires_and_the_next_one_runs(client: Client, store: Store) -> None:
    """Work that nobody wants any more must not take the slot of work that somebody wants."""
    before = store.seed(queued("a", expires_ms=-10), queued("b", expires_ms=30), worker("me"))
    assert claimed(await take_turn(client, free=1)) == [("b", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "expired", "ended_ms": 0},
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "job:b": {"state": "running", "token": "me/2", "started_ms": 0},
            "queued": [],
            "held:me": {"b": "me/2"},
            "stats": {"expired": 1},
        },
    )


async def test_expiring_twice_counts_once(client: Client, store: Store) -> None:
    """A repeated turn must not count again."""
    store.seed(queued("a", expires_ms=-10), worker("me"))
    await take_turn(client, free=1)
    after = store.dump()
    await take_turn(client, free=1)
    assert store.dump() == after


@pytest.mark.parametrize("place", ["inbox", "suspects", "scheduled"])
async def test_a_job_expires_wherever_it_waits(place: str, client: Client, store: Store) -> None:
    """The ttl is a promise about the start, not about the list in which the job waited."""
    parts = {
        "inbox": caught("a", "me", expires_ms=-10),
        "suspects": suspect("a", expires_ms=-10),
        "scheduled": scheduled("a", due=-20, expires_ms=-10),
    }
    before = store.seed(parts[place], worker("me"))
    assert claimed(await take_turn(client, free=1)) == []
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "expired", "ended_ms": 0},
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "inbox:me": None,
            "suspects": None,
            "scheduled": None,
            "stats": {"expired": 1},
        },
    )


async def test_the_end_of_an_expired_job_is_like_any_other(client: Client, store: Store, listening: Listening) -> None:
    """Key, waiters and the job's own lifetime count here too."""
    store.seed(queued("a", expires_ms=-10, unique="k", waiters=" web", result_ttl_ms=0), worker("me"))
    with listening("web") as heard:
        await take_turn(client, free=1)
        assert heard() == ["ended a expired"]
    image = store.dump()
    assert "unique:k" not in image
    assert "payload:a" not in image
    assert image["ttl"] == {"job:a": 10}


async def test_an_expired_job_lives_as_long_as_the_settings_say(make_client: MakeClient, store: Store) -> None:
    """The worker's `result_ttl` must reach the script."""
    store.seed(queued("a", expires_ms=-10), worker("me"))
    await take_turn(make_client(result_ttl=90), free=1)
    assert store.dump()["ttl"] == {"job:a": 90, "payload:a": 90}


async def test_a_job_that_was_started_in_time_does_not_expire_between_its_runs(client: Client, store: Store) -> None:
    """The ttl is about the start; a retry that came to nothing would be a failure that nobody is told of."""
    store.seed(queued("a", expires_ms=-10, started_ms=-20, attempt=1), worker("me"))
    assert claimed(await take_turn(client, free=1)) == [("a", "me/2")]


async def test_a_turn_names_the_jobs_that_expired_in_it_and_an_empty_one_says_nothing_of_them(
    client: Client, store: Store
) -> None:
    """Middleware is told of them; and nobody pays for that in a turn without any."""
    store.seed(queued("a", expires_ms=-10), queued("b"), queued("c", expires_ms=-10), worker("me"))
    turn = await take_turn(client, free=3)
    assert (claimed(turn), turn.expired, turn.held_back) == ([("b", "me/2")], ["a", "c"], [])
    turn = await take_turn(client, free=3, number=3)
    assert (turn.expired, turn.held_back) == ((), ())  # not even an empty list


# for somebody who waits, while no worker comes to it


@pytest.mark.parametrize("place", ["queued", "inbox", "suspects", "scheduled", "ranked", "shelf:mail"])
async def test_whoever_waits_ends_it_wherever_it_is(place: str, client: Client, store: Store, raw: redis.Redis) -> None:
    """There may be no worker; a claim discards what stays in a list."""
    parts = {
        "queued": queued("a", expires_ms=-10),
        "inbox": caught("a", "me", expires_ms=-10),
        "suspects": suspect("a", expires_ms=-10),
        "scheduled": scheduled("a", due=-20, expires_ms=-10),
        "ranked": record("a", "queued", rank="0", expires_ms=-10),
        "shelf:mail": record("a", "queued", shelf="mail", expires_ms=-10),
    }
    before = store.seed(parts[place], worker("me"))
    if place in ("ranked", "shelf:mail"):
        raw.zadd(BASE + place, {"a": 1})
    assert await client.expire(A)
    assert store.dump() == but(before, EXPIRED, {"job:a": {"shelf": None}, "scheduled": None})
    assert claimed(await take_turn(client, free=1)) == []


async def test_sent_twice_it_counts_and_tells_once(client: Client, store: Store, listening: Listening) -> None:
    """Two processes may wait, and a reply may get lost; the second finds that it has ended."""
    before = store.seed(queued("a", expires_ms=-10, unique="k", waiters=" web"))
    with listening("web") as heard:
        assert [await client.expire(A), await client.expire(A)] == [True, True]
        assert heard() == ["ended a expired"]
    assert store.dump() == but(before, EXPIRED, {"job:a": {"waiters": None}, "unique:k": None})


@pytest.mark.parametrize(
    "part",
    [
        queued("a"), queued("a", expires_ms=10), queued("a", expires_ms=-10, started_ms=-20, attempt=1),
        scheduled("a", due=60, expires_ms=-10, started_ms=-20, attempt=1), running("a", "me/1", expires_ms=-10),
        ended("a", "completed", expires_ms=-20, result="1"), ended("a", "cancelled", expires_ms=-20), {},
    ],
    ids=["no ttl", "in time", "ran in time", "runs again", "runs", "done", "cancelled", "gone"],
)  # fmt: skip
async def test_nothing_else_expires(part: Image, client: Client, store: Store) -> None:
    """It may have started between the look and the call."""
    before = store.seed(part, worker("me"))
    assert not await client.expire(A)
    assert store.dump() == before


async def test_what_nobody_came_to_lives_as_long_as_the_settings_say(make_client: MakeClient, store: Store) -> None:
    """The waiter's `result_ttl` must reach the script."""
    store.seed(queued("a", expires_ms=-10))
    assert await make_client(result_ttl=90).expire(A)
    assert store.dump()["ttl"] == {"job:a": 90, "payload:a": 90}


@pytest.mark.parametrize("key", ["ranked", "scheduled"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    key: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """Nothing rolls a script back."""
    store.seed(queued("a", expires_ms=-10))
    raw.set(BASE + key, "what is this", ex=60)
    before = store.dump()
    with pytest.raises(StoreError):
        await client.expire(A)
    assert store.dump() == before
