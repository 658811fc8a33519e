"""define, steer, tick, describe: schedules as they are stored, and what each transition may be sent twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import redis

from aqueue.errors import StoreError
from aqueue.job import JobId, WorkerId
from aqueue.store.client import Client
from aqueue.store.records import NewJob
from aqueue.store.schedules import Declaration, Slot, Tick
from transitions.conftest import Listening
from transitions.store_image import BASE, Image, Store, but, worker

DAY = 86_400
ONE = Declaration(
    id="one", owner="user", task="t", definition="d1", spec="{}", call=b"call", timing="hourly", declared_ms=1
)
OTHER = msgspec.structs.replace(ONE, definition="d2", spec="{2}")
CODES = msgspec.structs.replace(ONE, owner="code")
TOLD: Image = {"ttl": {"changed": 120}}


def stored(**fields: Any) -> Image:
    """A user's schedule that waits for its next slot."""
    entry = {
        "owner": "user", "definition": "d1", "spec": "{}", "call": "call", "task": "t", "timing": "hourly",
        "made": "first", "declared_ms": -60, "slot_ms": -30, **fields,
    }  # fmt: skip
    return {"schedule:one": entry}


def listed(store: Store, raw: redis.Redis, score: float = 60, owner: str = "user") -> None:
    index = "user_made" if owner == "user" else "schedules"
    raw.zadd(BASE + index, {"one": store.instant_ms(score)})


async def tick(
    client: Client, one: Declaration, *slots: int, after: int, upto: int, next_ms: int | None = None
) -> Tick:
    jobs = [Slot(slot, NewJob(id=JobId(f"one.{slot}"), envelope=b"call")) for slot in slots]
    return await client.schedules.tick(WorkerId("me"), one, jobs, after_ms=after, upto_ms=upto, next_ms=next_ms)


async def test_what_is_defined_is_stored_whole_and_told_to_all(
    client: Client, store: Store, listening: Listening
) -> None:
    """Any worker must be able to start it, and those that wait must look."""
    before = store.seed(worker("me"))
    with listening("schedules") as heard:
        assert await client.schedules.define(ONE, "first") == "new"
        assert heard() == ["first"]
    entry = {**stored()["schedule:one"], "declared_ms": 0, "slot_ms": 0}
    assert store.dump() == but(before, {"schedule:one": entry, "user_made": {"one": 0}, "changed": "first"}, TOLD)


async def test_the_same_definition_changes_nothing(client: Client, store: Store, raw: redis.Redis) -> None:
    """An application defines its schedules at each start, and a call may be sent twice."""
    store.seed(stored(paused="1"))
    listed(store, raw)
    before = store.dump()
    assert await client.schedules.define(ONE, "second") == "kept"
    assert await client.schedules.define(OTHER, "first") == "kept"  # that call has been here
    assert store.dump() == before


async def test_another_definition_takes_its_place(client: Client, store: Store, raw: redis.Redis) -> None:
    """A pause stays, and so does how far it is while its times stay; whatever was counted begins anew."""
    store.seed(stored(paused="1", started="5", job="j"))
    listed(store, raw, float("inf"))
    assert await client.schedules.define(OTHER, "second") == "changed"
    entry = store.dump()["schedule:one"]
    assert entry == {
        **stored()["schedule:one"], "definition": "d2", "spec": "{2}", "made": "second", "declared_ms": 0,
        "paused": "1", "job": "j",
    }  # fmt: skip
    later = msgspec.structs.replace(OTHER, definition="d3", timing="daily")
    assert await client.schedules.define(later, "third") == "changed"
    image = store.dump()
    assert (image["schedule:one"]["slot_ms"], image["user_made"]) == (0, {"one": float("inf")})


async def test_an_edit_keeps_the_count_and_wants_what_it_was_made_of(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """Somebody else may have changed it since; sent twice, it is done once."""
    store.seed(stored(started="5"))
    listed(store, raw)
    before = store.dump()
    assert await client.schedules.define(OTHER, "second", expected="d0") == "other"
    assert store.dump() == before
    assert await client.schedules.define(OTHER, "second", expected="d1") == "changed"
    assert await client.schedules.define(OTHER, "second", expected="d1") == "kept"
    assert await client.schedules.define(OTHER, "another", expected="d1") == "kept"
    assert store.dump()["schedule:one"]["started"] == "5"


async def test_an_instant_that_has_passed_is_still_to_come(client: Client, store: Store) -> None:
    """As a delay that is over; what repeats begins with its next slot."""
    now = store.now_ms()
    await client.schedules.define(msgspec.structs.replace(ONE, once_ms=now - 5000), "first")
    _, (one,) = await client.schedules.describe(["one"])
    assert one.slot_ms == now - 5001


@pytest.mark.parametrize("what", ["define", "delete"])
async def test_what_belongs_to_the_code_is_not_the_users(
    what: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """The next worker that starts would bring it back."""
    store.seed(stored(owner="code"))
    listed(store, raw, owner="code")
    before = store.dump()
    if what == "define":
        assert await client.schedules.define(OTHER, "x") == "code"
    else:
        assert await client.schedules.steer("one", "delete", "x") == "code"
    assert store.dump() == before


async def test_a_pause_and_its_end(client: Client, store: Store, raw: redis.Redis, listening: Listening) -> None:
    """Nobody looks at it meanwhile, and what has passed by then is dealt with; each is told once."""
    store.seed(stored())
    listed(store, raw)
    with listening("schedules") as heard:
        assert await client.schedules.steer("one", "pause", "a") == "done"
        assert heard() == ["a"]
    paused = store.dump()
    assert paused["user_made"] == {"one": float("inf")}
    assert await client.schedules.steer("one", "pause", "a") == "done"  # the same call
    assert await client.schedules.steer("one", "pause", "b") == "already"
    assert store.dump() == paused
    assert await client.schedules.steer("one", "resume", "c") == "done"
    resumed = store.dump()
    assert (resumed["schedule:one"]["slot_ms"], resumed["user_made"], resumed["changed"]) == (0, {"one": 0}, "c")
    assert await client.schedules.steer("one", "resume", "c") == "done"
    assert await client.schedules.steer("one", "resume", "d") == "already"
    assert store.dump() == resumed


async def test_a_delete_leaves_a_note_for_calls_that_come_late(client: Client, store: Store, raw: redis.Redis) -> None:
    """Itself, and the one that has made the schedule, both of whose answers may have been lost; not for new ones."""
    store.seed(stored())
    listed(store, raw)
    assert await client.schedules.steer("one", "delete", "bye") == "done"
    gone = store.dump()
    assert gone == {
        "schedule:one": {"owner": "user", "made": "bye", "before": "first", "removed_ms": 0},
        "changed": "bye",
        "ttl": {"changed": 120, "schedule:one": DAY},
    }
    assert await client.schedules.steer("one", "delete", "bye") == "done"
    assert await client.schedules.define(ONE, "first") == "kept"
    assert await client.schedules.steer("one", "delete", "again") == "missing"
    assert (await client.schedules.describe(["one"]))[1] == []
    assert store.dump() == gone
    assert await client.schedules.define(ONE, "second") == "new"
    assert store.dump()["ttl"] == {"changed": 120}


async def test_the_same_that_is_sealed_anew_is_taken(client: Client, store: Store, raw: redis.Redis) -> None:
    """With the next key; nothing else about it is new."""
    store.seed(stored(started="5"))
    listed(store, raw)
    before = store.dump()
    assert await client.schedules.define(msgspec.structs.replace(ONE, call=b"sealed anew"), "second") == "kept"
    assert store.dump() == but(before, {"schedule:one": {"call": "sealed anew"}, "changed": "second"}, TOLD)


async def test_a_schedule_of_the_first_release_goes_on(client: Client, store: Store, raw: redis.Redis) -> None:
    """It knew no owners; a slot that was missed during the upgrade is still made up for."""
    old = {"definition": "old", "declared_ms": -60, "slot_ms": -30, "task": "t", "worker": "gone"}
    store.seed({"schedule:one": old}, worker("me"))
    listed(store, raw, owner="code")
    found = await tick(client, CODES, after=0, upto=0, next_ms=None)
    assert (found.state, found.last_ms) == ("new", round(store.instant_ms(-30)))
    assert store.dump()["schedule:one"]["owner"] == "code"
    assert await client.schedules.define(ONE, "x") == "code"


async def test_a_slot_starts_its_job_once(client: Client, store: Store, raw: redis.Redis) -> None:
    """However often it is told, and whoever tells it."""
    store.seed(stored(), worker("me"))
    listed(store, raw)
    now = store.now_ms()
    after, slot = round(store.instant_ms(-30)), now - 1000
    first = await tick(client, ONE, slot, after=after, upto=now, next_ms=now + 60_000)
    assert (first.state, first.stored) == ("known", [f"one.{slot}"])
    before = store.dump()
    again = await tick(client, ONE, slot, after=after, upto=now, next_ms=now + 60_000)
    assert (again.stored, again.last_ms) == ([], first.last_ms)
    assert store.dump() == before
    assert before["queued"] == [f"one.{slot}"]
    assert before["schedule:one"]["started"] == "1"
    assert raw.zscore(f"{BASE}user_made", "one") == now + 60_000


async def test_a_worker_whose_clock_runs_ahead_ends_nothing(client: Client, store: Store, raw: redis.Redis) -> None:
    """The only slot has not come by the server's clock; it is still to come."""
    store.seed(stored(), worker("me"))
    listed(store, raw)
    after, slot = round(store.instant_ms(-30)), store.now_ms() + 5000
    found = await tick(client, ONE, slot, after=after, upto=slot + 1, next_ms=None)
    assert (found.state, found.stored) == ("known", [])
    assert found.last_ms < slot
    assert raw.zscore(f"{BASE}user_made", "one") == slot


async def test_after_its_last_slot_it_is_a_note(client: Client, store: Store, raw: redis.Redis) -> None:
    """A late call finds that it has ended, for a day."""
    store.seed(stored(), worker("me"))
    listed(store, raw)
    now, after = store.now_ms(), round(store.instant_ms(-30))
    assert (await tick(client, ONE, now - 10, after=after, upto=now)).state == "ended"
    image = store.dump()
    assert "user_made" not in image
    assert image["ttl"] == {"schedule:one": DAY}
    assert (await tick(client, ONE, now - 10, after=after, upto=now)).state == "gone"
    assert await client.schedules.define(ONE, "second") == "kept"
    assert await client.schedules.steer("one", "pause", "x") == "ended"
    assert store.dump() == image
    assert (await client.schedules.describe(["one"]))[1][0].ended
    assert await client.schedules.define(OTHER, "third") == "new"
    assert "ttl" in store.dump()
    assert store.dump()["ttl"] == {"changed": 120}


async def test_so_many_jobs_are_counted_by_the_server(client: Client, store: Store, raw: redis.Redis) -> None:
    """Two workers may each know of three slots that have come; two are left."""
    store.seed(stored(started="1"), worker("me"))
    listed(store, raw)
    now, after = store.now_ms(), round(store.instant_ms(-30))
    thrice = msgspec.structs.replace(ONE, most=3)
    found = await tick(client, thrice, now - 30, now - 20, now - 10, after=after, upto=now, next_ms=now + 50)
    assert (found.state, found.stored) == ("ended", [f"one.{now - 30}", f"one.{now - 20}"])
    assert store.dump()["queued"] == [f"one.{now - 30}", f"one.{now - 20}"]
    assert store.dump()["schedule:one"]["started"] == "3"


async def test_while_it_is_paused_slots_pass(client: Client, store: Store, raw: redis.Redis) -> None:
    """Of the code's and the users' alike; the job that is to come at the start waits."""
    store.seed(stored(paused="1", begins="1"), worker("me"))
    listed(store, raw, float("inf"))
    now, after = store.now_ms(), round(store.instant_ms(-30))
    found = await tick(client, ONE, now - 10, -1, after=after, upto=now, next_ms=now + 50)
    assert (found.state, found.stored) == ("paused", [])
    image = store.dump()
    assert "queued" not in image
    assert (image["schedule:one"]["begins"], image["schedule:one"]["slot_ms"]) == ("1", 0)
    assert image["user_made"] == {"one": float("inf")}


async def test_the_job_at_the_start_comes_once(client: Client, store: Store, raw: redis.Redis) -> None:
    """Each worker makes up an id of its own for it."""
    await client.schedules.define(msgspec.structs.replace(ONE, begins=True), "first")
    now = store.now_ms()
    stored_jobs: list[str] = []
    for name in ("mine", "yours"):
        slot = Slot(-1, NewJob(id=JobId(name), envelope=b"call"))
        found = await client.schedules.tick(WorkerId("me"), ONE, [slot], after_ms=1, upto_ms=now, next_ms=now + 9000)
        stored_jobs += found.stored
    assert stored_jobs == ["mine"]


async def test_only_what_is_stored_is_a_users_schedule(client: Client, store: Store, raw: redis.Redis) -> None:
    """Neither a server that lost it, nor one that knows another by now, takes it from a worker."""
    before = store.seed(worker("me"))
    now = store.now_ms()
    assert (await tick(client, ONE, now - 10, after=now - 20, upto=now)).state == "gone"
    assert store.dump() == before
    store.seed(stored(), worker("me"))
    listed(store, raw)
    before = store.dump()
    assert (await tick(client, OTHER, now - 10, after=now - 20, upto=now)).state == "gone"
    assert (await tick(client, CODES, now - 10, after=0, upto=0)).state == "taken"
    assert store.dump() == before


async def test_code_takes_an_id_that_no_user_holds_any_more(client: Client, store: Store, raw: redis.Redis) -> None:
    """A note of a schedule that has ended, or was deleted, is in nobody's way."""
    for note in (stored(ended_ms=0), {"schedule:one": {"owner": "user", "made": "x", "removed_ms": 0}}):
        raw.flushall()
        store.seed(note, worker("me"))
        assert (await tick(client, CODES, after=0, upto=0, next_ms=None)).state == "new"
        _, (one,) = await client.schedules.describe(["one"])
        assert (one.owner, one.ended) == ("code", False)


async def test_withdrawing_leaves_users_alone(client: Client, store: Store, raw: redis.Redis) -> None:
    """A worker that knows the task does not know what users have made of it."""
    store.seed(stored())
    listed(store, raw)
    listed(store, raw, owner="code")  # a line that was left behind by a server that has lost the rest
    before = store.dump()
    assert await client.schedules.withdraw(WorkerId("me"), store.now_ms(), ["t"], []) == []
    assert store.dump() == before


@pytest.mark.parametrize(
    ("late_days", "tender"), [(6.9, "dead"), (7.1, "dead"), (7.1, "me")], ids=["6 days", "a week", "a worker has it"]
)
async def test_what_went_with_its_task_is_forgotten_after_a_week(
    late_days: float, tender: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """Nobody who knows the task is left to say so; but workers of another program know nothing of it from the start."""
    store.seed(stored(owner="code", task="gone", worker=tender), worker("me"))
    listed(store, raw, -late_days * DAY, owner="code")
    before = store.dump()
    found = await client.schedules.withdraw(WorkerId("other"), store.now_ms(), ["t"], [])
    if late_days > 7 and tender == "dead":
        assert found == ["one"]
        assert (await client.schedules.page("code")).rows == []
        assert (await tick(client, CODES, after=0, upto=0, next_ms=None)).state == "new"  # and it may come back
    else:
        assert (found, store.dump()) == ([], before)


async def test_a_page_is_as_long_as_was_asked(client: Client, store: Store, raw: redis.Redis) -> None:
    """Workers ask for what is soon due only; who lists all asks for the next."""
    now = store.now_ms()
    raw.zadd(f"{BASE}user_made", {"a": now + 1000, "b": now + 500_000, "c": float("inf")})
    raw.zadd(f"{BASE}schedules", {"d": now})
    assert [(row.id, row.next_ms) for row in (await client.schedules.page("user")).rows] == [
        ("a", now + 1000), ("b", now + 500_000), ("c", None),
    ]  # fmt: skip
    assert [row.id for row in (await client.schedules.page("user", 1)).rows] == ["b", "c"]
    assert [row.id for row in (await client.schedules.page("user", within_ms=75_000)).rows] == ["a"]
    assert [row.id for row in (await client.schedules.page("code")).rows] == ["d"]
    raw.flushall()


@pytest.mark.parametrize("key", ["user_made", "schedule:one", "changed", "queued", "ranked", "scheduled"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    key: str, client: Client, store: Store, raw: redis.Redis
) -> None:
    """Nothing rolls a script back."""
    store.seed(stored(), worker("me"))
    listed(store, raw)
    raw.delete(BASE + key)
    if key == "changed":
        raw.lpush(BASE + key, "what is this")
    else:
        raw.set(BASE + key, "what is this")
    before, now = store.dump(), store.now_ms()
    if key != "changed":
        with pytest.raises(StoreError):
            await tick(client, ONE, now - 10, after=now - 20, upto=now)
    if key in ("user_made", "schedule:one", "changed"):
        with pytest.raises(StoreError):
            await client.schedules.steer("one", "delete", "x")
        with pytest.raises(StoreError):
            await client.schedules.define(OTHER, "x")
    assert store.dump() == before
    raw.flushall()


async def test_a_heartbeat_tells_which_change_was_the_last(client: Client, store: Store, raw: redis.Redis) -> None:
    """Whoever heard of none asks then; a key of another type costs no lease."""
    store.seed(worker("me"))
    assert (await client.extend(WorkerId("me"), 1, [], "x")).change == ""
    await client.schedules.define(ONE, "first")
    assert (await client.extend(WorkerId("me"), 1, [], "x")).change == "first"
    raw.delete(f"{BASE}changed")
    raw.lpush(f"{BASE}changed", "x")
    assert (await client.extend(WorkerId("me"), 1, [], "x")).change == ""
    raw.delete(f"{BASE}changed")
