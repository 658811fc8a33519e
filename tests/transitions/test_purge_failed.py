"""purge_failed: chosen failed jobs go, each only if it is still the one that was chosen."""

from __future__ import annotations

import redis

from aqueue.job import JobId
from aqueue.store.client import Client
from aqueue.store.failures import FailedEntry
from transitions.store_image import BASE, Store, failed, queued, running, without, worker


async def chosen(client: Client) -> list[FailedEntry]:
    return (await client.failures.look(None, "latest", 500)).entries


async def test_chosen_jobs_go_and_no_others(client: Client, store: Store) -> None:
    """Record, envelope and entry; nothing of the neighbours."""
    before = store.seed(failed("a", 30), failed("b", 20), failed("c", None), queued("d"))
    picked = [entry for entry in await chosen(client) if entry.id in ("a", "c")]
    assert await client.failures.purge(picked) == ["deleted", "deleted"]
    image = without(before, "job:a", "payload:a", "job:c", "payload:c")
    assert store.dump() == {**image, "failed": {"b": 20}}


async def test_sent_twice_it_answers_as_the_first(client: Client, store: Store) -> None:
    """So that whoever counts what was deleted does not count too little."""
    store.seed(failed("a", 30))
    picked = await chosen(client)
    assert await client.failures.purge(picked) == ["deleted"]
    assert await client.failures.purge(picked) == ["deleted"]
    assert store.dump() == {}


async def test_a_job_that_has_moved_on_stays(client: Client, store: Store, raw: redis.Redis) -> None:
    """Run again, running, failed anew since: none of them is what somebody has looked at."""
    store.seed(failed("a", 40), failed("b", 30), failed("c", 20), worker("me"))
    picked = await chosen(client)
    await client.rerun(JobId("a"))
    store.seed(running("b", "me/1"))
    raw.hset(f"{BASE}job:c", "ended_ms", int(store.instant_ms(-9)))
    before = store.dump()
    assert await client.failures.purge(picked) == ["changed"] * 3
    assert store.dump() == before


async def test_an_entry_without_a_record_goes(client: Client, store: Store) -> None:
    """It would be listed for as long as its job was to be kept, and could never be shown."""
    store.seed({"failed": {"ghost": 30}})
    assert await client.failures.purge(await chosen(client)) == ["deleted"]
    assert store.dump() == {}


async def test_a_record_that_cannot_be_read_is_left_to_the_doctor(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """Whatever it is, we have not written it."""
    store.seed({"failed": {"odd": 30}})
    raw.set(f"{BASE}job:odd", "text", ex=60)
    assert await client.failures.purge(await chosen(client)) == ["changed"]
    assert raw.zcard(f"{BASE}failed") == 1
