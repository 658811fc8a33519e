"""`@queue.cron` and `@queue.every`: each slot once, whoever is there, and nothing that the code no longer has."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

import pytest
import redis
from facts import until
from servers import Server, binaries

from aqueue import BadArguments, ConfigurationError, NotSerializable, Queue, Worker
from aqueue.schedule import Cron, Every, make_schedule, zone_of


@pytest.fixture
def engine() -> str:
    """Most of this is what workers compute; one server will do, and the fault tests take another."""
    return next(iter(binaries()))


async def test_an_interval_starts_a_job_each_time(queue: Queue) -> None:
    """Three workers know the time, and each slot starts one job."""
    ran: list[str] = []

    @queue.every(0.1, args=["tick"])
    async def note(word: str) -> None:
        ran.append(word)

    async with Worker(queue), Worker(queue), Worker(queue):
        await until(lambda: len(ran) >= 5)
    counters = (await queue.stats()).counters
    (entry,) = await queue.schedules.list()
    assert (entry.id, entry.task, entry.owner) == ("note", "note", "code")
    assert ran == ["tick"] * counters["completed"]
    assert entry.last_slot is not None
    assert entry.last_slot.microsecond % 100_000 == 0
    assert entry.last_slot < entry.next[0]


async def _jobs_of(queue: Queue, raw: redis.Redis, name: str) -> list[int]:
    keys = [str(key) for key in raw.scan_iter(f"aqueue:{{{queue.name}}}:job:{name}.*")]
    return sorted(int(key.rpartition(".")[2]) for key in keys)


@pytest.mark.parametrize(("misfire", "count"), [("all", 10), ("once", 1), ("skip", 0)])
async def test_slots_that_were_missed_are_made_up_for_as_told(
    queue: Queue, raw: redis.Redis, misfire: str, count: int
) -> None:
    """No worker was there for ten minutes."""

    @queue.every("1m", misfire=misfire)  # type: ignore[arg-type]
    async def work() -> None: ...

    async with Worker(queue):
        await until(lambda: raw.exists("aqueue:{q}:schedule:work"))
    seconds, _ = raw.time()
    then = int(seconds) // 60 * 60_000 - 10 * 60_000
    raw.hset("aqueue:{q}:schedule:work", "slot_ms", then)
    async with Worker(queue):
        await until(lambda: int(str(raw.hget("aqueue:{q}:schedule:work", "slot_ms"))) > then + 10 * 60_000 - 1)
        await until(lambda: _settled(queue))
    slots = {(slot - then) // 60_000 for slot in await _jobs_of(queue, raw, "work")}
    assert slots - {10, 11} == set(range(11 - count, 10))  # the last one may not be missed yet, or the next one come
    assert count == 0 or slots & {10, 11}


async def _settled(queue: Queue) -> bool:
    stats = await queue.stats()
    return not stats.queued + stats.running


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
async def test_a_slot_whose_predecessor_has_not_ended(queue: Queue, overlap: str) -> None:
    """It is left out, waits, or runs beside."""
    gate, running, most, starts = asyncio.Event(), 0, 0, 0

    @queue.every(0.1, overlap=overlap)  # type: ignore[arg-type]
    async def work() -> None:
        nonlocal running, most, starts
        starts += 1
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    async with Worker(queue, concurrency=20):

        async def three_slots() -> bool:
            waiting = (await queue.stats()).held_back if overlap == "queue" else 0
            return starts + waiting >= (1 if overlap == "skip" else 3)

        await until(three_slots)
        await asyncio.sleep(0.3)  # more slots pass; none of them may start in the first case
        assert most == (1 if overlap != "allow" else starts)
        assert (starts > 1) == (overlap == "allow")
        assert ((await queue.stats()).held_back > 0) == (overlap == "queue")
        gate.set()
    await queue.purge()


async def test_a_schedule_that_the_code_no_longer_has_is_forgotten(server: Server, raw: redis.Redis) -> None:
    """By the first worker that knows the task without it; schedules of tasks that it does not know stay."""

    async def one() -> None: ...
    async def other() -> None: ...

    async with Queue("q", url=server.url) as queue:
        queue.every(600)(one)
        queue.cron("0 3 * * *")(one)
        queue.every(600)(other)
        async with Worker(queue):
            await until(lambda: raw.zcard("aqueue:{q}:schedules") == 3)
    async with Queue("q", url=server.url) as queue:
        queue.every(600)(one)
        async with Worker(queue):
            await until(lambda: raw.zcard("aqueue:{q}:schedules") == 2)
            assert set(map(str, raw.zrange("aqueue:{q}:schedules", 0, -1))) == {"one", "other"}


async def test_old_and_new_code_side_by_side_do_not_fight(server: Server, raw: redis.Redis) -> None:
    """The newer definition counts while a worker of it lives; then the older one again."""
    ran: list[str] = []

    def release(name: str, interval: float) -> Queue:
        queue = Queue("q", url=server.url)

        @queue.every(interval, kwargs={"release": name})
        async def work(release: str) -> None:
            ran.append(release)

        return queue

    old, new = release("old", 0.1), release("new", 0.15)
    async with Worker(old):
        await until(lambda: "old" in ran)
        async with Worker(new):
            await until(lambda: "new" in ran)
            await asyncio.sleep(0.2)  # what the old one has begun is through
            ran.clear()
            await until(lambda: len(ran) >= 4)
            assert set(ran) == {"new"}
        ran.clear()
        await until(lambda: "old" in ran)
    await old.close()
    await new.close()


async def test_a_wiped_server_is_told_again(queue: Queue, raw: redis.Redis) -> None:
    """It goes on from where the workers believe it to be."""
    ran: list[None] = []

    @queue.every(0.1)
    async def work() -> None:
        ran.append(None)

    async with Worker(queue):
        await until(lambda: len(ran) >= 2)
        raw.flushall()
        ran.clear()
        await until(lambda: len(ran) >= 2)


async def test_a_job_at_the_start_and_jitter(queue: Queue, raw: redis.Redis) -> None:
    """One when the schedule is new, by however many workers; and delays that all workers agree on."""
    ran: list[None] = []

    @queue.cron("0 0 1 1 *", run_at_start=True)
    async def yearly() -> None:
        ran.append(None)

    @queue.every(0.2, jitter=600)
    async def spread() -> None: ...

    async with Worker(queue), Worker(queue):
        await until(lambda: ran)
        await until(lambda: len(raw.keys("aqueue:{q}:job:spread.*")) >= 3)
    assert len(ran) == 1
    delayed = [key for key in map(str, raw.scan_iter("aqueue:{q}:job:spread.*")) if raw.hexists(key, "due_ms")]
    assert delayed


async def test_the_order_of_decorators_and_several_schedules(queue: Queue) -> None:
    """A task may have options and several times."""

    @queue.cron("@hourly", kwargs={"deep": False})
    @queue.cron("0 3 * * *", tz="Europe/Paris", id="nightly", kwargs={"deep": True})
    @queue.task(timeout=60)
    async def clean(*, deep: bool) -> None: ...

    assert list(queue.schedules.declared) == ["nightly", "clean"]
    assert b'"deep":true' in queue.schedules.declared["nightly"].call
    assert clean.defaults.timeout == 60


async def test_bad_schedules_are_refused_where_they_are_written(queue: Queue) -> None:
    """The message names what is wrong and where."""

    async def work() -> None: ...
    async def keep(value: object) -> None: ...

    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: queue.cron("61 * * * *"), "field 1, the minute, is '61'"),
        (lambda: queue.cron("* * * * * 9"), "field 6, the day-of-week, is '9'"),
        (lambda: queue.cron("hourly"), "it has 1 fields"),
        (lambda: queue.cron("@hourley"), "is none of @yearly"),
        (lambda: queue.cron(5), "is text such as"),  # type: ignore[arg-type]
        (lambda: queue.cron("@daily", tz="Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (lambda: queue.cron("@daily", tz=2), "tz must be a zone's name"),  # type: ignore[arg-type]
        (lambda: queue.every(0), "every must be at least 0.1 s"),
        (lambda: queue.every(5, misfire="never")(work), "misfire must be"),  # type: ignore[arg-type]
        (lambda: queue.every(5, overlap="never")(work), "overlap must be"),  # type: ignore[arg-type]
        (lambda: queue.every(5, start=datetime(2026, 1, 1))(work), "must carry a time zone"),  # noqa: DTZ001
        (
            lambda: queue.every(5, start=datetime(2026, 1, 2, tzinfo=UTC), end=datetime(2026, 1, 1, tzinfo=UTC))(work),
            "ends before it starts",
        ),
        (lambda: queue.every(5, id="a b")(work), "schedule id must not contain"),
        (lambda: queue.every("36h", tz="Europe/Paris"), "an interval of whole days"),
        (lambda: queue.every("1d", tz="Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (lambda: queue.every("1d", misfire_grace=60)(work), "misfire_grace says how late"),
        (lambda: queue.every("1d", misfire="skip", misfire_grace=-1)(work), "misfire_grace must be"),
    ]
    for write, complaint in wrong:
        with pytest.raises(ConfigurationError, match=complaint):
            write()
    with pytest.raises(BadArguments):
        queue.every(5, args=[1])(work)
    with pytest.raises(NotSerializable, match="argument 1 of keep cannot be sent"):
        queue.every(5, args=[object()])(keep)
    queue.every(5, id="mine")(work)
    with pytest.raises(ConfigurationError, match="There is a schedule 'mine' already"):
        queue.every(5, id="mine")(work)
    with pytest.raises(ConfigurationError, match="is a task of queue other"):
        queue.every(5)(Queue("other").task(work))


ZONES = (
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Chatham",
    "Africa/Casablanca",
)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "15 1 * * *", "0 0 * * *", "45 23 * * *", "5 30 2 * * *"])
def test_a_daily_slot_comes_once_a_day_all_year(zone: str, expression: str) -> None:
    """Over every change of the clocks, of an hour or half of one, in either half of the world."""
    begin = round(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp() * 1000)
    cron = Cron(expression, zone)
    slots = list(itertools.takewhile(lambda slot: slot <= begin + 366 * 86_400_000, cron.after(begin)))
    local = [datetime.fromtimestamp(slot / 1000, UTC).astimezone(zone_of(zone)).date() for slot in slots]
    assert [later - day for day, later in itertools.pairwise(local)] == [timedelta(1)] * (len(local) - 1)
    assert len(local) in (365, 366, 367)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "45 1 * * *", "5 30 2 * * *", "*/7 * * * *", "0 */2 * * *"])
def test_the_next_slot_is_never_one_that_has_passed(zone: str, expression: str) -> None:
    """From any moment around a change of the clocks; a worker would wait for it in vain, and look again at once."""
    cron, year = Cron(expression, zone), round(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    offsets = [datetime.fromtimestamp(year + 3600 * hour, zone_of(zone)).utcoffset() for hour in range(24 * 365)]
    changes = [hour for hour, (one, other) in enumerate(itertools.pairwise(offsets)) if one != other]
    for change in changes:
        for minute in range(-180, 180, 10):
            moment = (year + 3600 * change + 60 * minute) * 1000
            assert next(cron.after(moment)) > moment


@pytest.mark.parametrize("zone", ZONES)
def test_an_interval_of_days_keeps_its_time_of_day(zone: str) -> None:
    """Every ten days at half past two, whatever the clocks do; where there is no such time, right after the gap."""
    start = datetime(2026, 1, 5, 2, 30, tzinfo=zone_of(zone))
    schedule = make_schedule(Every("10d", zone), id="x", start=start)
    begin = round(start.timestamp() * 1000)
    slots = list(itertools.islice(schedule.upcoming(begin - 1), 110))
    assert slots[0] == begin
    local = [datetime.fromtimestamp(slot / 1000, UTC).astimezone(zone_of(zone)) for slot in slots]
    assert [later.date() - day.date() for day, later in itertools.pairwise(local)] == [timedelta(10)] * 109
    assert {one.hour * 60 + one.minute for one in local} <= {150, 180, 210}
    assert sum(one.hour * 60 + one.minute != 150 for one in local) <= 3
    for slot in slots[1:]:
        assert next(schedule.upcoming(slot - 1)) == slot
        assert next(schedule.upcoming(slot)) > slot


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_an_interval_is_counted_from_its_start(zone: str | None) -> None:
    """As whoever names one expects; without a start it is counted from midnight, there or in Greenwich."""
    start = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    schedule = make_schedule(Every("2d", zone), id="x", start=start)
    first, second = itertools.islice(schedule.upcoming(0), 2)
    assert (first, second) == (round(start.timestamp() * 1000), round(start.timestamp() * 1000) + 2 * 86_400_000)
    midnight = make_schedule(Every("1d", zone), id="x").next(first)
    assert midnight is not None
    assert datetime.fromtimestamp(midnight / 1000, zone_of(zone or "UTC")).time() == time()


@pytest.mark.parametrize(("grace", "count"), [(None, 0), ("1m", 1), (0, 0)])
def test_how_late_is_too_late(grace: str | int | None, count: int) -> None:
    """Half a minute is missed by default, and not where a minute will do."""
    schedule = make_schedule(Every("1h"), id="x", misfire="skip", misfire_grace=grace)
    assert len(schedule.slots(3_600_000, 7_230_000)) == count


def test_hourly_slots_follow_the_clock_and_not_its_changes() -> None:
    """What comes each hour comes each hour."""
    begin = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    slots = list(itertools.islice(Cron("0 * * * *", "Europe/Paris").after(begin), 24 * 365))
    assert {later - slot for slot, later in itertools.pairwise(slots)} == {3_600_000}


def test_years_without_a_worker_are_looked_at_in_no_time() -> None:
    """Only the last slots are computed, whatever was missed."""
    now = round(datetime(2026, 7, 1, tzinfo=UTC).timestamp() * 1000)
    for timing in (Every(0.1), Cron("* * * * * *"), Cron("*/5 * * * *", "Europe/Paris")):
        schedule = make_schedule(timing, id="x", misfire="all")
        slots = schedule.slots(1, now)
        assert 98 <= len(slots) <= 100
        assert max(slots) <= now
        assert slots == sorted(set(slots))
