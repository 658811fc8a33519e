"""retire: a worker leaves the fleet and hands back what it holds."""

from __future__ import annotations

from aqueue.store.client import Client
from transitions.conftest import Listening
from transitions.store_image import Store, but, caught, queued, running, worker
from transitions.turns import ME


async def test_a_worker_that_retires_leaves_nothing_behind(client: Client, store: Store) -> None:
    """What it held goes to the front at once, instead of after its lease, and no crash is counted."""
    before = store.seed(
        running("a", "me/1", attempt=1), caught("b", "me"), queued("c"), worker("me"), worker("other", lease=90)
    )
    assert await client.retire(ME) == ["a"]
    assert store.dump() == but(
        before,
        {
            "job:a": {"state": "queued", "token": None},
            "queued": ["a", "b", "c"],
            "held:me": None,
            "inbox:me": None,
            "worker:me": None,
            "workers": {"me": None},
        },
    )


async def test_retiring_twice_hands_back_once(client: Client, store: Store) -> None:
    """The last call of a worker's life may lose its reply too."""
    store.seed(running("a", "me/1"), worker("me"))
    await client.retire(ME)
    after = store.dump()
    assert await client.retire(ME) == []
    assert store.dump() == after


async def test_retiring_leaves_the_others_alone(client: Client, store: Store) -> None:
    """A worker speaks for its own incarnation only."""
    before = store.seed(running("a", "other/1"), caught("b", "other"), worker("other"))
    assert await client.retire(ME) == []
    assert store.dump() == before


async def test_what_was_to_be_cancelled_is_not_handed_on(client: Client, store: Store, listening: Listening) -> None:
    """Whoever asked was told that the cancel is under way; another run would be a promise broken."""
    before = store.seed(running("a", "me/1", cancel=1, waiters=" web", unique="k"), worker("me"))
    with listening("web") as heard:
        assert await client.retire(ME) == []
        assert heard() == ["ended a cancelled"]
    assert store.dump() == but(
        before,
        {
            "job:a": {"state": "cancelled", "ended_ms": 0, "waiters": None, "token": None},
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "unique:k": None,
            "held:me": None,
            "worker:me": None,
            "workers": None,
            "stats": {"cancelled": 1},
        },
    )


async def test_what_comes_back_keeps_its_order(client: Client, store: Store) -> None:
    """A deployment must not turn the queue around."""
    held = (running(job_id, "me/1") for job_id in "bac")
    store.seed(*held, caught("d", "me"), queued("e"), worker("me"))
    assert sorted(await client.retire(ME)) == ["a", "b", "c"]
    assert store.dump()["queued"] == ["a", "b", "c", "d", "e"]
