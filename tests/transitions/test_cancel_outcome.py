"""settle_and_claim, outcome cancelled: the worker has ended a run on request."""

from __future__ import annotations

import pytest

from aqueue.store.client import Client
from aqueue.store.records import Cancelled
from transitions.conftest import Listening
from transitions.store_image import Store, but, ran, running, worker
from transitions.turns import TURN_TAKEN, settle, take_turn

ENDED = Cancelled(60_000)


async def test_a_cancelled_run_ends_the_job_and_counts_no_attempt(client: Client, store: Store) -> None:
    """The envelope stays as long as the record, so that the job can be run again."""
    before = store.seed(running("a", "me/1", attempt=1, cancel=1), worker("me"))
    await take_turn(client, settle("a", ENDED))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "cancelled", "ended_ms": 0, "history": [ran("cancelled")]},
            "ttl": {"job:a": 60, "payload:a": 60},
            "held:me": None,
            "stats": {"cancelled": 1},
        },
    )


async def test_a_cancelled_run_settled_twice_counts_once(client: Client, store: Store) -> None:
    """A lost reply must not count twice."""
    store.seed(running("a", "me/1", cancel=1), worker("me"))
    await take_turn(client, settle("a", ENDED))
    after = store.dump()
    assert (await take_turn(client, settle("a", ENDED))).refused == frozenset()
    assert store.dump() == after


@pytest.mark.parametrize(("own", "life"), [(0, {"job:a": 10}), (90_000, {"job:a": 90, "payload:a": 90})])
async def test_the_jobs_own_result_lifetime_wins(own: int, life: dict[str, int], client: Client, store: Store) -> None:
    """A cancelled job lives as long as its result would have."""
    store.seed(running("a", "me/1", result_ttl_ms=own, failure_ttl_ms=50_000), worker("me"))
    await take_turn(client, settle("a", ENDED))
    assert store.dump()["ttl"] == life


async def test_a_cancelled_run_frees_the_key_and_tells_the_waiters(
    client: Client, store: Store, listening: Listening
) -> None:
    """A cancelled job is as ended as a completed one."""
    store.seed(running("a", "me/1", unique="k", waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", ENDED))
        assert heard() == ["ended a cancelled"]
    assert "unique:k" not in store.dump()
