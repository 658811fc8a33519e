"""settle_and_claim, reclaim: jobs before the gates of their limits."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from aqueue.job import JobId, WorkerId
from aqueue.store.client import Client
from aqueue.store.records import Completed
from transitions.store_image import BASE, Store, queued, running, worker
from transitions.turns import claimed, settle, take_turn

PERMITS = f"{BASE}permits:aa"
CROWD = {"limits": "c.aa.1"}
PACED = {"limits": "g.bb.3600000000.1"}
BOTH = {"limits": "g.bb.3600000000.1,c.aa.1"}
DONE = Completed(b"1", 60_000, "t")


def waiting(raw: redis.Redis, digest: str, *job_ids: str) -> None:
    """Let these jobs stand before a gate, in this order."""
    for place, job_id in enumerate(job_ids):
        raw.lrem(f"{BASE}queued", 0, job_id)
        raw.zadd(f"{BASE}waiting:{digest}", {job_id: place})
        raw.zadd(f"{BASE}held_back", {job_id: place})


def line(raw: redis.Redis, digest: str) -> list[str]:
    return [str(job_id) for job_id in raw.zrange(f"{BASE}waiting:{digest}", 0, -1)]


async def test_a_permit_goes_to_the_next_in_line_before_it_runs(client: Client, store: Store, raw: redis.Redis) -> None:
    """A wake-up could get lost with the job that was woken; a permit is freed by whatever ends the job."""
    store.seed(running("a", "me/1", **CROWD), queued("b", **CROWD), queued("c", **CROWD), worker("me"))
    raw.sadd(PERMITS, "a")
    waiting(raw, "aa", "b", "c")
    await take_turn(client, settle("a", DONE))
    assert raw.smembers(PERMITS) == {"b"}
    assert (line(raw, "aa"), store.dump()["queued"]) == (["c"], ["b"])
    await client.cancel(JobId("b"))
    assert raw.smembers(PERMITS) == {"c"}
    assert raw.exists(f"{BASE}held_back") == 0


async def test_a_crash_hands_the_permit_on(client: Client, store: Store, raw: redis.Redis) -> None:
    """The job that crashed stands in line again, as a suspect perhaps for long."""
    store.seed(running("a", "dead/1", crashes=1, **CROWD), queued("b", **CROWD), {"workers": {"dead": -10}})
    raw.sadd(PERMITS, "a")
    waiting(raw, "aa", "b")
    await client.reclaim()
    assert raw.smembers(PERMITS) == {"b"}


async def test_nobody_passes_those_who_wait_for_their_time(client: Client, store: Store, raw: redis.Redis) -> None:
    """The gate may be open at the very moment at which another job comes along."""
    store.seed(queued("old", **PACED), queued("new", **PACED), worker("me"))
    waiting(raw, "bb", "old")
    assert claimed(await take_turn(client, free=5)) == []
    assert line(raw, "bb") == ["old", "new"]
    assert raw.zcard(f"{BASE}timers") == 1


async def test_who_waits_for_its_time_holds_no_permit(client: Client, store: Store, raw: redis.Redis) -> None:
    """Else one job that may not start would keep those from starting that may."""
    store.seed(queued("a", **BOTH), queued("b", **CROWD), worker("me"))
    raw.sadd(PERMITS, "a")
    waiting(raw, "aa", "b")
    raw.set(f"{BASE}pace:bb", str(store.now_ms() + 60_000), px=60_000)
    assert claimed(await take_turn(client, free=5)) == [("b", "me/2")]
    assert raw.smembers(PERMITS) == {"b"}
    assert line(raw, "bb") == ["a"]


async def test_a_turn_that_is_sent_twice_passes_a_gate_once(client: Client, store: Store, raw: redis.Redis) -> None:
    """The second is answered as the first."""
    store.seed(queued("a", **BOTH), queued("b", **BOTH), worker("me"))
    first = await take_turn(client, free=5)
    after, pace = store.dump(), raw.get(f"{BASE}pace:bb")
    assert claimed(await take_turn(client, free=5)) == claimed(first) == [("a", "me/2")]
    assert (store.dump(), raw.get(f"{BASE}pace:bb")) == (after, pace)


@pytest.mark.parametrize("limits", ["", "nonsense", "c..", "x.aa.1", "g.bb.0.0", "c.aa.0", "w.cc.0.0"])
async def test_limits_that_nobody_can_read_lose_no_job(
    client: Client, store: Store, raw: redis.Redis, limits: str
) -> None:
    """Somebody else's program may have written them; its neighbours run."""
    fields: dict[str, Any] = {"limits": limits}
    store.seed(queued("a", **fields), queued("b"), worker("me"))
    assert ("b", "me/2") in claimed(await take_turn(client, free=5))
    await client.settle_and_claim(WorkerId("me"), 3, [], 1)
    assert raw.exists(f"{BASE}job:a") == 1


async def test_a_turn_names_the_jobs_that_it_holds_back(client: Client, store: Store, raw: redis.Redis) -> None:
    """Middleware is told of them."""
    store.seed(*(queued(job_id, **CROWD) for job_id in "abc"), worker("me"))
    turn = await take_turn(client, free=3)
    assert (claimed(turn), turn.held_back, turn.expired) == ([("a", "me/2")], ["b", "c"], [])
    raw.delete(PERMITS, f"{BASE}waiting:aa", f"{BASE}held_back")
