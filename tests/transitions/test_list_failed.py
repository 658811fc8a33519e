"""list_failed: looking through failed jobs, page by page, while others fail and leave."""

from __future__ import annotations

import pytest
import redis

from aqueue.store.client import Client
from aqueue.store.failures import FailedLook, Order, Place
from transitions.store_image import BASE, Store, failed, queued, ran
from transitions.turns import BOOM_STORED

SAME = [f"same{n:02}" for n in range(40)]


def ids(look: FailedLook) -> list[str]:
    return [entry.id for entry in look.entries]


async def walked(client: Client, order: Order, size: int) -> list[str]:
    """Go through all of them."""
    found: list[str] = []
    place: Place | None = None
    while page := (await client.failures.look(place, order, size)).entries:
        found += [entry.id for entry in page]
        place = page[-1].place
    return found


@pytest.mark.parametrize("size", [1, 7, 500])
async def test_pages_are_the_list_in_pieces(size: int, client: Client, store: Store, raw: redis.Redis) -> None:
    """Latest first, or what failed first first; those of one moment by their ids, also those that stay for ever."""
    store.seed(
        failed("c", 30), *(failed(job_id, 20) for job_id in SAME), failed("b", 10), failed("z", None), failed("y", None)
    )
    latest = ["z", "y", "c", *reversed(SAME), "b"]
    assert await walked(client, "latest", size) == latest
    assert await walked(client, "oldest", size) == latest[::-1]
    raw.flushall()  # some of them were to stay for ever


@pytest.mark.parametrize("order", ["latest", "oldest"])
async def test_a_page_goes_on_where_the_one_before_ended_although_that_job_has_left(
    order: Order, client: Client, store: Store, raw: redis.Redis
) -> None:
    """With an offset, as many would be skipped as have left; a cursor that must exist would be lost."""
    store.seed(*(failed(job_id, 20) for job_id in SAME))
    first = await client.failures.look(None, order, 10)
    raw.zrem(f"{BASE}failed", *ids(first))
    raw.zadd(
        f"{BASE}failed", {"new": store.instant_ms(30 if order == "latest" else 10), "same00a": store.instant_ms(20)}
    )
    place, rest = first.entries[-1].place, list[str]()
    while page := (await client.failures.look(place, order, 7)).entries:
        rest += [entry.id for entry in page]
        place = page[-1].place
    everything = sorted([*SAME, "same00a"], reverse=order == "latest")
    assert rest == [
        job_id for job_id in everything if job_id not in ids(first) and (order == "latest" or job_id != "same00a")
    ]


async def test_ids_stand_by_their_bytes_whatever_the_locale(client: Client, store: Store) -> None:
    """The server compares bytes; a comparison by language would lose the place."""
    names = ["B", "a", "C", "b-1", "b1", "é", "z", "_", "Z"]
    store.seed(*(failed(name, 20) for name in names))
    assert await walked(client, "oldest", 2) == sorted(names, key=str.encode)
    assert await walked(client, "latest", 2) == sorted(names, key=str.encode, reverse=True)


async def test_an_entry_tells_what_jobs_are_chosen_by(client: Client, store: Store) -> None:
    """The error in short as the last run told it, or as a script wrote it; of the envelope what was asked for."""
    noted, crashed = failed("a", 30, history=[ran("failed", BOOM_STORED)]), failed("b", 20, history=[ran("crashed")])
    seeded = store.seed(noted, crashed, failed("c", 10))
    seen = await client.failures.look(None, "latest", 5, 4)
    assert (seen.listed, [entry.told.decode() for entry in seen.entries]) == (3, [BOOM_STORED, "{}", "{}"])
    assert [entry.head for entry in seen.entries] == [b"call"] * 3
    assert [entry.ended_ms for entry in seen.entries] == [store.instant_ms(-10)] * 3
    assert store.about(seen.now_ms - store.instant_ms(0), 0)
    assert [entry.head for entry in (await client.failures.look(None, "latest", 5)).entries] == [b""] * 3
    assert store.dump() == seeded


async def test_an_entry_without_a_failed_job_says_so(client: Client, store: Store, raw: redis.Redis) -> None:
    """A record may have been evicted, run again, or overwritten by somebody."""
    store.seed(queued("again"), {"failed": {"gone": 30, "again": 20, "odd": 10, "here": 5}}, failed("here", 5))
    raw.set(f"{BASE}job:odd", "text", ex=60)
    seen = await client.failures.look(None, "latest", 5)
    assert [(entry.id, bool(entry.ended)) for entry in seen.entries] == [
        ("gone", False), ("again", False), ("odd", False), ("here", True)
    ]  # fmt: skip


async def test_nothing_has_failed(client: Client, store: Store) -> None:
    """The usual case."""
    store.seed(queued("a"))
    assert (await client.failures.look(None, "oldest", 5)).entries == []
    assert (await client.failures.look(Place(b"5", b"x"), "latest", 5)).entries == []
    assert (await client.failures.look(Place(b"inf", b"x"), "oldest", 5)).listed == 0
