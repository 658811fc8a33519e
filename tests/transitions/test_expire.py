"""settle_and_claim: a queued job whose ttl has passed becomes expired instead of running."""

from __future__ import annotations

import pytest

from aqueue.store.client import Client
from transitions.conftest import Listening, MakeClient
from transitions.store_image import Store, but, caught, queued, scheduled, suspect, worker
from transitions.turns import TURN_TAKEN, claimed, take_turn


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
