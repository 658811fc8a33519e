"""`queue.schedule(...)` and `queue.schedules`: made, changed and removed while workers run, each slot once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from facts import until
from servers import Server, binaries

from aqueue import (
    ConfigurationError,
    Context,
    Encryption,
    JobFailed,
    NotSerializable,
    PayloadRefused,
    Queue,
    ScheduleInfo,
    ScheduleNotFound,
    Settings,
    Signing,
    Worker,
)
from aqueue.schedule import make_schedule
from aqueue.schedules import timing_of
from aqueue.worker.ear import Bell

SOON = timedelta(milliseconds=200)
KEY = "k1:" + "A" * 42 + "E="
NEXT_KEY = "k2:" + "B" * 42 + "E="


@pytest.fixture
def engine() -> str:
    """Most of this is what workers compute; one server will do, and the scripts' own tests take all."""
    return next(iter(binaries()))


class Notes:
    """A task that notes its slots, and what it was called with."""

    def __init__(self, queue: Queue) -> None:
        self.slots: list[datetime | None] = []
        self.words: list[str] = []

        @queue.task(name="note")
        async def note(ctx: Context, word: str = "") -> str:
            self.slots.append(ctx.slot)
            self.words.append(word)
            return word

        self.task = note


@pytest.fixture
def notes(queue: Queue) -> Notes:
    return Notes(queue)


def _now() -> datetime:
    return datetime.now(UTC)


def _whole_ms(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


async def _gone(queue: Queue, schedule_id: str) -> bool:
    return schedule_id not in {info.id for info in await queue.schedules.list()}


async def test_workers_that_were_there_before_start_it_each_slot_once(
    server: Server, queue: Queue, notes: Notes
) -> None:
    """Also those whose code knows nothing of it, at once and without polling; and each slot is on the grid."""
    async with Queue("q", url=server.url) as app, Worker(queue), Worker(queue), Worker(queue):
        made = await app.schedule(app.remote("note").call("tick"), every=0.1, id="tick", misfire="all")
        assert (made.owner, made.state, made.times, made.args) == ("user", "active", "every 0.1 s", ["tick"])
        assert len(made.next) == 3
        await until(lambda: len(notes.slots) >= 5)
        await app.schedules.delete("tick")
        assert await app.schedules.list() == []
    slots = sorted(slot for slot in notes.slots if slot is not None)
    assert slots == [slots[0] + n * timedelta(seconds=0.1) for n in range(len(slots))]
    assert slots[0] <= made.next[0]  # the first after it was made; the answer may have come when that had passed
    assert all(slot.microsecond % 100_000 == 0 for slot in slots)


async def test_an_instant_comes_once_and_is_then_gone(queue: Queue, notes: Notes) -> None:
    """Before its time nothing runs; the list no longer has it afterwards, and a day long it can be asked for."""
    async with Worker(queue), Worker(queue):
        far = _now() + timedelta(hours=1)
        made = await queue.schedule(notes.task.call("once"), at=far, id="once")
        assert made.next == [_whole_ms(far)]
        at = _now() + SOON
        await queue.schedule(notes.task.call("once"), at=at, id="once")  # whose answer may come after that
        await until(lambda: _gone(queue, "once"))
        await until(lambda: notes.words)
    assert notes.words == ["once"]
    assert notes.slots == [_whole_ms(at)]
    ended = await queue.schedules.get("once")
    assert (ended.state, ended.next, ended.jobs) == ("ended", [], 1)
    again = await queue.schedule(notes.task.call("once"), at=at, id="once")  # the same once more is the same
    assert again.state == "ended"
    with pytest.raises(ConfigurationError, match="has ended"):
        await queue.schedules.edit("once", misfire="all")
    with pytest.raises(ConfigurationError, match="has ended"):
        await queue.schedules.pause("once")


@pytest.mark.parametrize(("misfire", "count"), [("once", 1), ("skip", 0)])
async def test_an_instant_that_has_passed(queue: Queue, notes: Notes, misfire: Any, count: int) -> None:
    """It comes at once, as a delay that is over does; unless what is missed is to be skipped."""
    await queue.schedule(notes.task.call(), at=_now() - timedelta(minutes=1), id="late", misfire=misfire)
    assert (await queue.schedules.get("late")).next != []
    async with Worker(queue):
        await until(lambda: _gone(queue, "late"))
        await until(lambda: _idle(queue))  # a worker that stops gives back what it has not begun
    assert len(notes.words) == count


async def test_so_many_jobs_and_no_more(queue: Queue, notes: Notes) -> None:
    """Whoever counts, and however many workers there are."""
    async with Worker(queue), Worker(queue), Worker(queue):
        await queue.schedule(notes.task.call(), every=0.1, id="thrice", repeat=3, run_at_start=True)
        await until(lambda: _gone(queue, "thrice"))
        await until(lambda: len(notes.slots) == 3)
        await asyncio.sleep(0.25)  # more would have come by now
    assert len(notes.slots) == 3
    assert notes.slots.count(None) == 1  # the job at the start stands for no slot
    info = await queue.schedules.get("thrice")
    assert (info.state, info.jobs, info.repeat) == ("ended", 3, 3)


async def test_the_same_again_changes_nothing_and_another_replaces_it(
    queue: Queue, notes: Notes, raw: redis.Redis
) -> None:
    """An application may make its schedules at every start."""
    first = await queue.schedule(notes.task.call("one"), cron="0 3 * * *", tz="Europe/Paris", id="nightly")
    before = raw.hgetall("aqueue:{q}:schedule:nightly")
    assert await queue.schedule(notes.task.call("one"), cron="0 3 * * *", tz="Europe/Paris", id="nightly") == first
    assert raw.hgetall("aqueue:{q}:schedule:nightly") == before
    other = await queue.schedule(notes.task.call("two"), every=3600, id="nightly", overlap="queue")
    assert (other.times, other.args, other.overlap) == ("every 3600 s", ["two"], "queue")
    assert [info.id for info in await queue.schedules.list()] == ["nightly"]


async def test_an_edit_changes_what_it_names(queue: Queue, notes: Notes) -> None:
    """All the rest stays, among it a pause."""
    start, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    made = await queue.schedule(
        notes.task.call("one"), cron="0 3 * * *", tz="Europe/Paris", id="x", misfire="all", overlap="skip", jitter=5,
        start=start, end=end, repeat=7,
    )  # fmt: skip
    assert await queue.schedules.pause("x")

    async def edited(**changes: Any) -> ScheduleInfo:
        return await queue.schedules.edit("x", **changes)

    assert (await edited(tz="Asia/Tokyo")).times == "0 3 * * * Asia/Tokyo"
    assert (await edited(cron="0 4 * * *")).times == "0 4 * * * Asia/Tokyo"
    assert (await edited(call=notes.task.call("two"))).args == ["two"]
    assert (await edited(overlap="queue", misfire="once")).overlap == "queue"
    last = await edited(every="1h", end=None, jitter=0, repeat=None)
    assert (last.start, last.end, last.jitter, last.repeat) == (start, None, 0, None)
    assert (last.times, last.state, last.misfire) == ("every 3600 s", "paused", "once")
    assert made.next[0] == start.replace(hour=2)
    assert await queue.schedules.resume("x")
    assert (await queue.schedules.get("x")).next[0] == start
    assert (await edited()).overlap == "queue"  # nothing at all
    with pytest.raises(ConfigurationError, match="interval of whole days"):
        await edited(tz="UTC")
    assert (await edited(every="2d", tz="Asia/Tokyo")).times == "every 172800 s Asia/Tokyo"
    assert (await edited(every="1d")).times == "every 86400 s Asia/Tokyo"
    assert (await edited(misfire="skip", misfire_grace="1m")).misfire_grace == 60
    assert (await edited(jitter=1)).misfire_grace == 60
    assert (await edited(misfire="all")).misfire_grace == 10
    await edited(at=end, start=None)
    with pytest.raises(ConfigurationError, match="tz is for cron and every"):
        await edited(tz="UTC")
    with pytest.raises(TypeError, match="nothing called intervall"):
        await edited(intervall=3)


async def test_an_edit_starts_no_slot_that_has_passed(queue: Queue, notes: Notes, raw: redis.Redis) -> None:
    """Other times count from the edit on; with the same times, what was missed is made up for with what is new."""
    key = "aqueue:{q}:schedule:x"
    await queue.schedule(notes.task.call("old"), every="1h", id="x", misfire="all")
    hours = _now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    raw.hset(key, "slot_ms", round(hours.timestamp() * 1000))  # three slots, and no worker was there
    await queue.schedules.edit("x", call=notes.task.call("new"))
    async with Worker(queue):
        await until(lambda: len(notes.words) >= 3)
    assert set(notes.words) == {"new"}
    assert min(filter(None, notes.slots)) == hours + timedelta(hours=1)
    notes.words.clear()
    raw.hset(key, "slot_ms", round(hours.timestamp() * 1000))
    await queue.schedules.edit("x", every="2h")
    async with Worker(queue):
        await until(lambda: raw.hget(key, "worker"))
        await until(lambda: _looked_after(raw, key))
    assert notes.words == []


def _looked_after(raw: redis.Redis, key: str) -> bool:
    return raw.zscore("aqueue:{q}:user_made", "x") != float(str(raw.hget(key, "declared_ms")))


async def test_slots_that_pass_during_a_pause_are_skipped(queue: Queue, notes: Notes) -> None:
    """And those after it come, on workers that were there all the time."""
    async with Worker(queue), Worker(queue):
        await queue.schedule(notes.task.call(), every=0.1, id="x", misfire="all")
        await until(lambda: len(notes.slots) >= 2)
        assert await queue.schedules.pause("x")
        assert not await queue.schedules.pause("x")
        paused = _now()
        info = await queue.schedules.get("x")
        assert (info.state, info.next) == ("paused", [])
        assert [one.id for one in await queue.schedules.list()] == ["x"]
        await asyncio.sleep(0.35)
        resumed = _now()
        assert await queue.schedules.resume("x")
        assert not await queue.schedules.resume("x")
        notes.slots.clear()
        await until(lambda: len(notes.slots) >= 2)
        await queue.schedules.delete("x")
    assert not [slot for slot in notes.slots if slot and paused + timedelta(seconds=0.1) < slot < resumed]


async def test_now_starts_one_job_beside_the_slots(queue: Queue, notes: Notes) -> None:
    """Also while it is paused, and once for each call."""
    await queue.schedule(notes.task.call("now"), cron="0 3 1 1 *", id="x", overlap="skip", jitter=500)
    await queue.schedules.pause("x")
    before = await queue.schedules.get("x")
    async with Worker(queue):
        job = await queue.schedules.run("x")
        assert await job.result(timeout=10) == "now"
        one, same = await queue.schedules.run("x", call="button"), await queue.schedules.run("x", call="button")
        assert one == same
        assert one != job
        assert await one.result(timeout=10) == "now"
    assert notes.slots == [None, None]
    assert await queue.schedules.get("x") == before


async def test_schedules_of_the_code_beside_those_of_users(
    queue: Queue, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """They are listed, paused, resumed and run alike; to edit or delete them is to change the code."""
    queue.every(0.1, id="fixed", args=["code"])(notes.task)
    async with Worker(queue), Worker(queue):
        await until(lambda: len(notes.words) >= 2)
        assert (await queue.schedules.get("fixed")).owner == "code"
        assert await queue.schedules.pause("fixed")
        await until(lambda: _quiet(notes))
        job = await queue.schedules.run("fixed")
        assert await job.result(timeout=10) == "code"
        notes.words.clear()
        await asyncio.sleep(0.15)
        assert notes.words == []
        assert await queue.schedules.resume("fixed")
        await until(lambda: len(notes.words) >= 2)
        stranger = Queue("q", client=None, url=queue.address)
        for app in (queue, stranger):  # who knows the code, and who is told by the server
            with pytest.raises(ConfigurationError, match="belongs to the code; change it there"):
                await app.schedules.edit("fixed", misfire="all")
            with pytest.raises(ConfigurationError, match="belongs to the code; change it there"):
                await app.schedules.delete("fixed")
            with pytest.raises(ConfigurationError, match="belongs to the code; change it there"):
                await app.schedule(app.remote("note").call(), every=5, id="fixed")
        await stranger.close()


async def _idle(queue: Queue) -> bool:
    stats = await queue.stats()
    return not stats.queued + stats.running


async def _quiet(notes: Notes) -> bool:
    before = len(notes.words)
    await asyncio.sleep(0.25)
    return len(notes.words) == before


async def test_code_that_takes_a_users_id_is_told_and_waits(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """What somebody has made at run time is not lost by a deploy; once it is deleted, the code has its way."""
    first = Notes(queue)
    await queue.schedule(first.task.call("user"), every=0.1, id="x")
    queue.every(0.1, id="x", args=["code"])(first.task)
    with caplog.at_level(logging.ERROR):
        async with Worker(queue):
            await until(lambda: "user" in first.words)
            await asyncio.sleep(0.15)
            assert "code" not in first.words
            assert (await queue.schedules.get("x")).owner == "user"
            queue.schedules.declared.pop("x")  # as an administrator's process, which has no such code
            await queue.schedules.delete("x")
            await until(lambda: "code" in first.words)
    assert Counter(record.message.partition(",")[0] for record in caplog.records) == {
        "queue q: a schedule x was made at run time": 1
    }


async def test_a_change_that_nobody_heard_of_is_in_the_next_heartbeat(
    queue: Queue, notes: Notes, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel may be down just then."""
    unheard: list[str] = []
    monkeypatch.setattr(Bell, "heard", lambda _, message: unheard.append(message))
    bell = queue.unchecked_store().keys.bell
    async with Worker(queue):
        await until(lambda: raw.pubsub_shardchannels(bell), "it listens")
        await asyncio.sleep(0.1)  # the first look is over; nothing would make it look again for a minute
        await queue.schedule(notes.task.call("heard"), every=0.1, id="x")
        await until(lambda: notes.words)
        assert len(unheard) == 1
        await queue.schedules.delete("x")


async def test_it_lives_without_workers_and_over_a_restart(own_server: Server) -> None:
    """Made while no worker was there, it is started by those who come, also after the server has gone and come back."""
    async with Queue("q", url=own_server.url) as app:
        await app.schedule(app.remote("note").call("kept"), every=0.2, id="x")
    own_server.kill()
    own_server.start()
    async with Queue("q", url=own_server.url) as queue:
        notes = Notes(queue)
        async with Worker(queue):
            await until(lambda: len(notes.words) >= 2)
            own_server.kill()
            own_server.start()
            notes.words.clear()
            await until(lambda: len(notes.words) >= 2)
    assert set(notes.words) == {"kept"}


async def test_a_wiped_server_has_none_left(queue: Queue, notes: Notes, raw: redis.Redis) -> None:
    """Only code can tell it again; workers drop what is no longer stored, and take up what is made anew."""
    async with Worker(queue):
        await queue.schedule(notes.task.call("before"), every=0.1, id="x")
        await until(lambda: notes.words)
        raw.flushall()
        await until(lambda: _quiet(notes))
        assert await queue.schedules.list() == []
        await queue.schedule(notes.task.call("after"), every=0.1, id="x")
        await until(lambda: "after" in notes.words)
        await queue.schedules.delete("x")


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_overlap_is_as_for_the_codes(queue: Queue, raw: redis.Redis, overlap: Any) -> None:
    """One that has not ended holds the next back, or has it left out."""
    gate, starts = asyncio.Event(), 0

    @queue.task
    async def work() -> None:
        nonlocal starts
        starts += 1
        await gate.wait()

    async with Worker(queue):
        await queue.schedule(work.call(), every=0.1, id="x", overlap=overlap)
        await until(lambda: starts)
        begun = await queue.schedules.get("x")
        await until(lambda: _passed(raw, begun, 2), "two more slots have passed")
        await until(lambda: _held_back(queue, overlap == "queue"), "the next are held back, or left out")
        assert starts == 1
        await queue.schedules.delete("x")
        gate.set()


def _passed(raw: redis.Redis, schedule: ScheduleInfo, slots: int) -> bool:
    """Say whether workers have dealt with so many slots more."""
    dealt_with = float(str(raw.hget(f"aqueue:{{q}}:schedule:{schedule.id}", "slot_ms")))
    return dealt_with >= schedule.next[slots - 1].timestamp() * 1000


async def _held_back(queue: Queue, some: bool) -> bool:  # noqa: FBT001
    return ((await queue.stats()).held_back > 0) == some


@pytest.mark.parametrize("seal", [Signing, Encryption])
async def test_what_is_stored_is_sealed_and_so_are_its_jobs(
    server: Server, raw: redis.Redis, seal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has the key starts it; whoever has none, or moved the call elsewhere, starts nothing."""
    settings = Settings(seal=seal(KEY), lease=1.5)
    async with Queue("q", url=server.url, settings=settings) as queue:
        notes = Notes(queue)
        made = await queue.schedule(notes.task.call("secret"), every=0.1, id="x")
        assert made.args == ["secret"]
        assert made.payload == seal.word
        call = raw_call(raw, "x")
        assert (b"secret" in call) == (seal is Signing)
        async with Worker(queue):
            await until(lambda: len(notes.words) >= 2)
            assert await (await queue.schedules.run("x")).result(timeout=10) == "secret"
            moved = await queue.enqueue("note", "mine")
            await moved.result(timeout=10)
        await queue.schedules.pause("x")
        await queue.purge()  # of a slot whose job the worker has not begun
        async with Queue("q", url=server.url, settings=Settings(lease=1.5)) as keyless:
            with pytest.raises(PayloadRefused, match=f"arguments of schedule x are {seal.word}"):
                await keyless.schedules.run("x")
        raw.copy("aqueue:{q}:schedule:x", "aqueue:{q}:schedule:y")
        raw.hdel("aqueue:{q}:schedule:y", "paused")
        raw.zadd("aqueue:{q}:user_made", {"y": 1})
        raw.hset("aqueue:{q}:job:x", mapping={"state": "queued", "enqueued_ms": 1})
        raw.set("aqueue:{q}:payload:x", call)
        raw.lpush("aqueue:{q}:queued", "x")
        notes.words.clear()
        with caplog.at_level(logging.ERROR):
            async with Worker(queue):
                await until(lambda: any("leaves a schedule alone" in record.message for record in caplog.records))
                with pytest.raises(PayloadRefused, match="arguments of schedule y are not what was sealed for it"):
                    await queue.schedules.run("y")
                with pytest.raises(JobFailed, match="PayloadRefused"):
                    await queue.job("x").result(timeout=10)
        assert notes.words == []
        await queue.schedules.delete("x")
        await queue.schedules.delete("y")


@pytest.mark.parametrize("again", ["edited", "made"])
async def test_a_key_is_replaced_and_no_schedule_is_refused(server: Server, again: str) -> None:
    """Whoever has the old key and the new one seals a schedule with the new one; its count goes on."""

    def release(ring: str) -> tuple[Queue, Notes]:
        queue = Queue("q", url=server.url, settings=Settings(seal=Signing(ring), lease=1.5))
        return queue, Notes(queue)

    rings = (KEY, f"{KEY},{NEXT_KEY}", f"{NEXT_KEY},{KEY}", NEXT_KEY)
    old, _, both, new = releases = [release(ring) for ring in rings]

    async def make(queue: Queue, notes: Notes) -> None:
        await queue.schedule(notes.task.call("x"), every=0.1, id="x", repeat=100)

    await make(*old)
    async with Worker(releases[1][0]):
        await until(lambda: releases[1][1].words)
        if again == "made":
            await make(*both)
        else:
            await both[0].schedules.edit("x")
        releases[1][1].words.clear()
        await until(lambda: releases[1][1].words)
    assert (await both[0].schedules.get("x")).jobs >= 2
    async with Worker(new[0]):
        await until(lambda: new[1].words)
        assert (await new[0].schedules.get("x")).args == ["x"]
        await new[0].schedules.delete("x")
    for queue, _ in releases:
        await queue.close()


async def test_a_server_that_falls_back_starts_no_slot_again_whose_job_it_has(
    queue: Queue, notes: Notes, raw: redis.Redis
) -> None:
    """A replica may be behind; what it lost of a schedule's progress is found again by the jobs' ids."""
    async with Worker(queue), Worker(queue):
        await queue.schedule(notes.task.call(), every=0.1, id="x", misfire="all")
        await until(lambda: len(notes.slots) >= 4)
        raw.hincrby("aqueue:{q}:schedule:x", "slot_ms", -300)
        begun = len(notes.slots)
        await until(lambda: len(notes.slots) >= begun + 4)
        await queue.schedules.delete("x")
    assert set(Counter(notes.slots).values()) == {1}
    slots = sorted(filter(None, notes.slots))
    assert slots[-1] - slots[0] == (len(slots) - 1) * timedelta(seconds=0.1)


def raw_call(raw: redis.Redis, schedule_id: str) -> bytes:
    talker: Any = raw
    call: bytes = talker.execute_command("HGET", f"aqueue:{{q}}:schedule:{schedule_id}", "call", NEVER_DECODE=[])
    assert isinstance(call, bytes)
    return call


async def test_a_zone_may_be_given_as_an_object(queue: Queue, notes: Notes) -> None:
    """It is stored by its name, so it must have one."""
    plus_two = await queue.schedule(notes.task.call(), cron="0 12 * * *", tz=timezone(timedelta(hours=2)), id="x")
    assert plus_two.times == "0 12 * * * UTC+02:00"
    assert {instant.hour for instant in plus_two.next} == {10}


async def test_bad_schedules_are_refused_before_anything_is_stored(
    queue: Queue, notes: Notes, raw: redis.Redis
) -> None:
    """The message names what is wrong and where."""
    call, naive = notes.task.call(), datetime(2030, 1, 1)  # noqa: DTZ001
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "exactly one of cron, every and at, not none of them"),
        ({"cron": "@daily", "every": 5}, "exactly one of cron, every and at, not cron and every"),
        ({"cron": "61 * * * *"}, "field 1, the minute, is '61'"),
        ({"cron": "@daily", "tz": "Mars/Olympus"}, "no time zone 'Mars/Olympus'"),
        ({"cron": "@daily", "tz": timezone(timedelta(seconds=5))}, "tz must be a zone's name"),
        ({"every": 5, "tz": "UTC"}, "an interval of whole days; leave it out with every 5 s"),
        ({"at": _now(), "tz": "UTC"}, "tz is for cron and every"),
        ({"every": 0}, "every must be at least"),
        ({"at": naive}, "at must carry a time zone"),
        ({"at": "tomorrow"}, "at must be a datetime"),
        ({"at": _now(), "repeat": 2}, "at comes once; leave out"),
        ({"every": 5, "start": naive}, "start must carry a time zone"),
        ({"every": 5, "repeat": 0}, "repeat must be a whole number of at least 1"),
        ({"every": 5, "repeat": True}, "repeat must be a whole number"),
        ({"every": 5, "misfire": "never"}, "misfire must be"),
        ({"every": 5, "id": "a b"}, "schedule id must not contain"),
        ({"every": 5, "call": "note"}, "takes a call such as task.call"),
        ({"every": 5, "call": Queue("other").remote("note").call()}, "is a task of queue other"),
        ({"every": 5, "call": notes.task.options(at=_now()).call()}, "leave out the option at"),
    ]
    for given, complaint in wrong:
        options: dict[str, Any] = {"call": call, "id": "x", **given}
        with pytest.raises(ConfigurationError, match=complaint):
            await queue.schedule(options.pop("call"), **options)
    with pytest.raises(NotSerializable):
        await queue.schedule(queue.remote("note").call(object()), every=5, id="x")
    assert not raw.keys("aqueue:{q}:schedule*")


async def test_an_unknown_id_is_answered_with_those_that_look_like_it(queue: Queue, notes: Notes) -> None:
    """It is a typing error most of the time."""
    await queue.schedule(notes.task.call(), every=60, id="nightly")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: queue.schedules.get("nightyl"),
        lambda: queue.schedules.edit("nightyl", repeat=1),
        lambda: queue.schedules.pause("nightyl"),
        lambda: queue.schedules.resume("nightyl"),
        lambda: queue.schedules.run("nightyl"),
        lambda: queue.schedules.delete("nightyl"),
    ]
    for call in calls:
        with pytest.raises(ScheduleNotFound, match="no schedule 'nightyl' on queue q; did you mean nightly"):
            await call()
    await queue.schedules.delete("nightly")
    with pytest.raises(ScheduleNotFound, match="`aqueue schedules` lists them"):
        await queue.schedules.delete("nightly")


async def test_two_who_edit_at_once_both_have_their_way(queue: Queue, notes: Notes) -> None:
    """Each change is made to what is stored by then."""
    await queue.schedule(notes.task.call(), every=60, id="x")
    await asyncio.gather(
        queue.schedules.edit("x", repeat=5),
        queue.schedules.edit("x", misfire="all"),
        queue.schedules.edit("x", jitter=3),
        queue.schedules.edit("x", overlap="skip"),
    )
    info = await queue.schedules.get("x")
    assert (info.repeat, info.misfire, info.jitter, info.overlap) == (5, "all", 3, "skip")


async def test_more_than_one_page(queue: Queue, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list is read, and looked after, in parts."""
    monkeypatch.setattr("aqueue.store.schedules.PAGE", 3)
    monkeypatch.setattr("aqueue.worker.timetable.PAGE", 3)
    for n in range(8):
        await queue.schedule(notes.task.call(f"{n}"), every=0.2, id=f"s{n}")
    assert sorted(info.id for info in await queue.schedules.list()) == [f"s{n}" for n in range(8)]
    async with Worker(queue):
        await until(lambda: set(notes.words) == set("01234567"))
    for n in range(8):
        await queue.schedules.delete(f"s{n}")


def test_a_schedule_ends_where_it_is_told_to() -> None:
    """`start` and `end` bound whatever says when."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    schedule = make_schedule(timing_of(None, 60, None, None), id="x", start=start, end=start + timedelta(minutes=2))
    assert len(list(schedule.upcoming(0))) == 3
