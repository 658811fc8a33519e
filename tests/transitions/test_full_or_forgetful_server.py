"""What a server that is full, or that has forgotten its scripts, does to the transitions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from aqueue.errors import StoreFull
from aqueue.job import Cancellation, JobId
from aqueue.store.client import Client
from aqueue.store.failures import FailedEntry, Place
from aqueue.store.records import Completed, NewJob, Released, Retried
from aqueue.store.schedules import Declaration
from transitions.store_image import Store, failed, queued, running, scheduled, worker
from transitions.turns import BOOM, ME, claimed, settle, take_turn

Fill = Callable[[], None]


def schedule(name: str) -> Declaration:
    return Declaration(id=name, owner="user", task="t", definition="d", spec="{}", call=b"call")


async def test_every_script_survives_a_script_flush(client: Client, store: Store, raw: redis.Redis) -> None:
    """A restarted or failed-over server knows no script; the caller must not notice."""
    store.seed(running("a", "me/1"), scheduled("b", due=-10), queued("c"), failed("f"), worker("me"))
    new = NewJob(id=JobId("n"), envelope=b"call n")
    calls: list[Callable[[], object]] = [
        lambda: client.enqueue([new]),
        lambda: take_turn(client, settle("a", Completed(b"1", 60_000, "t")), free=1),
        lambda: client.extend(ME, 2, [JobId("c")], "info"),
        client.promote,
        client.reclaim,
        client.prune,
        lambda: client.cancel(JobId("n")),
        lambda: client.ended([JobId("b")], "web"),
        lambda: client.expire(JobId("b")),
        lambda: client.rerun(JobId("f")),
        lambda: client.failures.look(None, "latest", 5),
        lambda: client.failures.purge([FailedEntry(Place(b"5", b"f"), "5", b"", b"")]),
        lambda: client.delete(JobId("f")),
        client.pauses.pause,
        client.pauses.resume,
        client.stats,
        lambda: client.inspect([JobId("b")]),
        lambda: client.schedules.define(schedule("a"), "1"),
        lambda: client.schedules.tick(ME, schedule("a"), [], after_ms=1, upto_ms=2, next_ms=3),
        lambda: client.schedules.steer("a", "pause", "2"),
        lambda: client.schedules.page("user"),
        lambda: client.schedules.describe(["a"]),
        lambda: client.schedules.withdraw(ME, 1, [], []),
        lambda: client.schedules.reschedule(JobId("b"), "c", delay_ms=1, at_ms=None),
        client.purge,
        lambda: client.retire(ME),
    ]
    for call in calls:
        raw.script_flush()
        await call()  # type: ignore[misc]
    assert store.dump()["stats"]["completed"] == 1


async def test_a_full_server_still_settles(client: Client, store: Store, full: Fill) -> None:
    """What frees memory must work exactly when there is none; a result lost for this would be a job run twice."""
    store.seed(running("a", "me/1"), running("b", "me/1"), running("c", "me/1"), worker("me"))
    full()
    turn = await take_turn(
        client,
        settle("a", Completed(b"1", 60_000, "t")),
        settle("b", Released()),
        settle("c", Retried(BOOM, 60, 4)),
    )
    assert turn.refused == frozenset()
    image = store.dump()
    assert [image[f"job:{name}"]["state"] for name in "abc"] == ["completed", "queued", "scheduled"]


async def test_a_full_server_still_claims(client: Client, store: Store, full: Fill) -> None:
    """Draining the queue is what makes room."""
    store.seed(queued("a"), scheduled("b", due=-10), worker("me"))
    full()
    assert claimed(await take_turn(client, free=5)) == [("a", "me/2"), ("b", "me/2")]


async def test_a_full_server_still_keeps_the_fleet_going(client: Client, store: Store, full: Fill) -> None:
    """Leases that cannot be renewed would be crashes, on top of the lack of memory."""
    store.seed(
        running("a", "me/1"), running("b", "dead/1"), scheduled("c", due=-10), worker("me"), worker("dead", lease=-30)
    )
    full()
    assert (await client.extend(ME, 1, [JobId("a")], "info")).lost == []
    (gone,), _ = await client.reclaim()
    assert gone.requeued == ["b"]
    assert await client.promote() == 1
    assert await client.prune() == 0
    assert await client.retire(ME) == ["a"]


async def test_a_full_server_still_obeys_its_operator(client: Client, store: Store, full: Fill) -> None:
    """Cancel, delete and purge are how an operator makes room."""
    store.seed(queued("a"), queued("b"), queued("c"), failed("f"))
    full()
    (entry,) = (await client.failures.look(None, "oldest", 1)).entries
    assert await client.failures.purge([entry]) == ["deleted"]
    assert await client.cancel(JobId("a")) is Cancellation.CANCELLED
    assert await client.delete(JobId("b")) == "deleted"
    assert await client.purge() == (1, False)


async def test_a_full_server_can_be_paused_and_resumed(client: Client, store: Store, full: Fill) -> None:
    """A queue that runs wild is stopped first of all, and by a process that has never used it before."""
    store.seed(queued("a"))
    full()
    assert await client.pauses.pause() is True
    assert await client.pauses.resume() is True


async def test_the_schedules_of_a_full_server_can_be_stopped(client: Client, store: Store, full: Fill) -> None:
    """A schedule may be what has filled it; and none is made there."""
    for name in ("a", "b"):
        await client.schedules.define(schedule(name), name)
    full()
    assert await client.schedules.steer("a", "pause", "1") == "done"
    assert await client.schedules.steer("a", "resume", "2") == "done"
    assert await client.schedules.steer("b", "delete", "3") == "done"
    with pytest.raises(StoreFull):
        await client.schedules.define(schedule("c"), "4")
    with pytest.raises(StoreFull):
        await client.schedules.reschedule(JobId("x"), "c", delay_ms=1, at_ms=None)
    assert [row.id for row in (await client.schedules.page("user")).rows] == ["a"]
    assert [one.id for one in (await client.schedules.describe(["a", "b", "c"]))[1]] == ["a"]


async def test_a_full_server_still_answers(client: Client, store: Store, full: Fill) -> None:
    """Whoever waits for a result, or looks what is wrong, must be answered."""
    store.seed(queued("a"), failed("f"))
    full()
    assert [answer.error for answer in await client.ended([JobId("a"), JobId("f")], "web")] == [None, b"{}"]
    assert (await client.stats()).queued == 1
    assert len(await client.inspect([JobId("a")])) == 1


async def test_a_full_server_takes_no_more_work(client: Client, store: Store, full: Fill) -> None:
    """Enqueue and rerun are refused, with a word, and the failed job stays what it is."""
    before = store.seed(failed("f"), {"queues": ["q"]})
    full()
    with pytest.raises(StoreFull):
        await client.enqueue([NewJob(id=JobId("n"), envelope=b"call n")])
    with pytest.raises(StoreFull):
        await client.rerun(JobId("f"))
    assert store.dump() == before
