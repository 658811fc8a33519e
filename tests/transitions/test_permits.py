"""acquire, renew_permits, release_permit, outcome limited: limiters that are passed inside of jobs and elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from aqueue.errors import StoreError, StoreFull
from aqueue.job import JobId
from aqueue.store.client import Client
from aqueue.store.permits import KEEP_PLACE_MS, Answer, Holder, Permits, Turnstile
from aqueue.store.records import Limited
from transitions.conftest import Listening
from transitions.store_image import BASE, Store, but, running, worker
from transitions.test_full_or_forgetful_server import Fill
from transitions.turns import TURN_TAKEN, settle, take_turn

LEASE_MS = 60_000
HOUR_US = 3_600_000_000
TWO_AT_ONCE = Turnstile(kind="c", digest="aa", first=2, second=0, lease_ms=LEASE_MS)
HOURLY = Turnstile(kind="g", digest="bb", first=HOUR_US, second=2, lease_ms=LEASE_MS)
TWO_A_DAY = Turnstile(kind="w", digest="cc", first=2, second=86_400_000, lease_ms=LEASE_MS)
HOUR_MS = HOUR_US // 1000
SLACK_MS = 10_000
"""A test takes much less."""


GONE = -2
"""What a server says of the life of a key that does not exist; it may have ended just now."""


def who(number: int, channel: str = "abc") -> Holder:
    return Holder(f"{channel}/{number:012}")


@pytest.fixture
def permits(client: Client) -> Permits:
    return Permits(client)


@pytest.fixture(autouse=True)
def somebody_listens(listening: Listening) -> Iterator[None]:
    """Let the process live whose holders these are."""
    with listening("abc"):
        yield


def hours(answer: Answer) -> float:
    """Give until when somebody is to wait, in hours."""
    assert 0 <= -answer.ms % HOUR_MS <= SLACK_MS
    return round(answer.ms / HOUR_MS)


def members(raw: redis.Redis, kind: str, digest: str) -> list[str]:
    return [str(member) for member in raw.zrange(f"{BASE}{kind}:{digest}", 0, -1)]


def in_line(raw: redis.Redis, digest: str = "aa") -> list[str]:
    return members(raw, "line", digest)


def holding(raw: redis.Redis) -> set[str]:
    return set(members(raw, "holders", "aa"))


def assert_all_expire(raw: redis.Redis) -> None:
    kinds = ("holders", "pace", "passes", "line", "patience")
    for key in map(str, raw.scan_iter()):
        assert key.removeprefix(BASE).partition(":")[0] in kinds
        left = raw.pttl(key)
        assert left == GONE or 0 <= left <= 2 * 86_400_000, key


# permits


async def test_so_many_have_a_permit_and_the_others_are_told_when_to_ask(permits: Permits, raw: redis.Redis) -> None:
    """Who is turned away leaves nothing behind."""
    for n in range(2):
        assert await permits.acquire(TWO_AT_ONCE, who(n)) == Answer("granted", LEASE_MS)
    answer = await permits.acquire(TWO_AT_ONCE, who(2))
    assert answer.word == "limited"
    assert LEASE_MS - SLACK_MS < answer.ms <= LEASE_MS
    assert (holding(raw), in_line(raw)) == ({who(0), who(1)}, [])
    assert_all_expire(raw)


async def test_asking_twice_gives_one_permit(permits: Permits, raw: redis.Redis) -> None:
    """The first answer may have been lost."""
    for _ in range(3):
        assert (await permits.acquire(TWO_AT_ONCE, who(0))).word == "granted"
    assert holding(raw) == {who(0)}


async def test_a_released_permit_goes_to_who_waits_longest_who_is_told(
    permits: Permits, raw: redis.Redis, listening: Listening
) -> None:
    """And to nobody else, however often the release is sent, and whoever asks in between."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    for n in (2, 3):
        assert (await permits.acquire(TWO_AT_ONCE, who(n), wait_ms=-1)).word == "waits"
    assert (await permits.acquire(TWO_AT_ONCE, who(2), wait_ms=-1)).word == "waits"  # sent twice: one place in line
    assert in_line(raw) == [who(2), who(3)]
    with listening("abc") as heard:
        assert await permits.release(TWO_AT_ONCE, who(0)) is True
        assert await permits.release(TWO_AT_ONCE, who(0)) is False
        assert heard() == [f"permitted {who(2)}"]
    assert holding(raw) == {who(1), who(2)}
    assert (await permits.acquire(TWO_AT_ONCE, who(4))).word == "limited"
    assert (await permits.acquire(TWO_AT_ONCE, who(2), wait_ms=-1)).word == "granted"
    assert in_line(raw) == [who(3)]
    assert_all_expire(raw)


async def test_a_newcomer_is_not_quicker_than_who_waits(permits: Permits, raw: redis.Redis) -> None:
    """A permit whose lease has ended is free; the first to notice may be somebody else than the first in line."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    await permits.acquire(TWO_AT_ONCE, who(2), wait_ms=-1)
    raw.zadd(f"{BASE}holders:aa", {who(0): 1})
    assert (await permits.acquire(TWO_AT_ONCE, who(3))).word == "limited"
    assert holding(raw) == {who(1), who(2)}


async def test_who_gives_up_or_falls_silent_is_passed_over(permits: Permits, raw: redis.Redis) -> None:
    """A permit for a dead process would be nobody's for a whole lease."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    for n in (2, 3, 4):
        await permits.acquire(TWO_AT_ONCE, who(n), wait_ms=-1)
    assert await permits.release(TWO_AT_ONCE, who(3)) is False  # its caller was cancelled
    raw.zadd(f"{BASE}patience:aa", {who(2): 1})
    await permits.release(TWO_AT_ONCE, who(1))
    assert holding(raw) == {who(0), who(4)}
    assert (in_line(raw), members(raw, "patience", "aa")) == ([], [])


async def test_who_hears_nothing_is_passed_over_unless_it_is_who_asks(permits: Permits, raw: redis.Redis) -> None:
    """A dead process leaves many in line, each of which would keep a permit from the others for a while."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    for n in range(3):
        await permits.acquire(TWO_AT_ONCE, who(n, channel="dead"), wait_ms=-1)
    await permits.acquire(TWO_AT_ONCE, who(3), wait_ms=-1)
    raw.zadd(f"{BASE}holders:aa", {who(0): 1})
    assert (await permits.acquire(TWO_AT_ONCE, who(0, channel="dead"), wait_ms=-1)).word == "granted"
    await permits.release(TWO_AT_ONCE, who(1))
    assert holding(raw) == {who(0, channel="dead"), who(3)}
    assert in_line(raw) == []


async def test_a_permit_that_was_handed_on_is_to_be_asked_for(permits: Permits, raw: redis.Redis) -> None:
    """A hung process hears nothing of what it is told."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    await permits.acquire(TWO_AT_ONCE, who(2), wait_ms=-1)
    await permits.release(TWO_AT_ONCE, who(0))
    ends = float(raw.zscore(f"{BASE}holders:aa", who(2)) or 0)
    assert 0 < float(raw.zscore(f"{BASE}holders:aa", who(1)) or 0) - ends < LEASE_MS - 1000
    assert (await permits.acquire(TWO_AT_ONCE, who(2), wait_ms=-1)) == Answer("granted", LEASE_MS)
    assert float(raw.zscore(f"{BASE}holders:aa", who(2)) or 0) > ends + LEASE_MS - 3000


async def test_the_first_in_line_looks_when_the_first_lease_ends(permits: Permits, raw: redis.Redis) -> None:
    """And the next when the next does, so that they do not all come at once."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    now = sum(int(part) * factor for part, factor in zip(raw.time(), (1000, 0.001), strict=True))
    raw.zadd(f"{BASE}holders:aa", {who(0): now + HOUR_MS, who(1): now + 2 * HOUR_MS})
    waits = [await permits.acquire(TWO_AT_ONCE, who(n), wait_ms=-1) for n in (2, 3, 4)]
    assert [hours(answer) for answer in waits] == [1, 2, 2]


async def test_a_permit_is_renewed_until_it_is_lost(permits: Permits, raw: redis.Redis) -> None:
    """One that somebody else may have by now does not come back; neither does one that was released."""
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    raw.zadd(f"{BASE}holders:aa", {who(0): 1})
    await permits.release(TWO_AT_ONCE, who(1))
    held = [(TWO_AT_ONCE, who(n)) for n in range(3)]
    assert await permits.renew(held) == [False, False, False]  # the release has seen that its lease had ended
    await permits.acquire(TWO_AT_ONCE, who(2))
    raw.zadd(f"{BASE}holders:aa", {who(2): 1})  # late, but nobody else has come
    for _ in range(2):
        assert await permits.renew(held) == [False, False, True]
    assert LEASE_MS - SLACK_MS < raw.pttl(f"{BASE}holders:aa") <= LEASE_MS + 1
    assert holding(raw) == {who(2)}


async def test_a_changed_limit_counts_the_same_permits(permits: Permits, raw: redis.Redis) -> None:
    """Old and new code run side by side during a deploy."""
    one = Turnstile(kind="c", digest="aa", first=1, second=0, lease_ms=LEASE_MS)
    for n in range(2):
        await permits.acquire(TWO_AT_ONCE, who(n))
    await permits.acquire(one, who(2), wait_ms=-1)
    await permits.release(one, who(0))
    assert holding(raw) == {who(1)}
    await permits.release(one, who(1))
    assert holding(raw) == {who(2)}


# rates and windows


@pytest.mark.parametrize("gate", [HOURLY, TWO_A_DAY], ids=["rate", "window"])
async def test_asking_twice_passes_once(permits: Permits, raw: redis.Redis, gate: Turnstile) -> None:
    """The first answer may have been lost."""
    for _ in range(3):
        assert await permits.acquire(gate, who(0)) == Answer("granted", 0)
    assert (await permits.acquire(gate, who(1))).word == "granted"
    assert (await permits.acquire(gate, who(2))).word == "limited"
    assert (await permits.acquire(gate, who(1))).word == "granted"
    assert_all_expire(raw)


async def test_each_who_waits_for_a_rate_has_an_instant_of_its_own(permits: Permits, raw: redis.Redis) -> None:
    """Nobody has to ask in vain; who would wait too long is told at once, and takes nobody's place."""
    for n in range(2):
        assert (await permits.acquire(HOURLY, who(n))).word == "granted"
    waits = [await permits.acquire(HOURLY, who(n), wait_ms=-1) for n in (2, 3)]
    assert [(answer.word, hours(answer)) for answer in waits] == [("waits", 1), ("waits", 2)]
    assert (await permits.acquire(HOURLY, who(3), wait_ms=-1)).word == "waits"  # sent twice: one place
    late = [await permits.acquire(HOURLY, who(n), wait_ms=2 * HOUR_MS) for n in (4, 5)]
    assert [(answer.word, hours(answer)) for answer in late] == [("limited", 3), ("limited", 3)]
    assert in_line(raw, "bb") == [who(2), who(3)]
    assert_all_expire(raw)


@pytest.mark.parametrize("gate", [HOURLY, TWO_AT_ONCE], ids=["rate", "concurrency"])
async def test_who_comes_within_one_millisecond_stands_in_order_too(
    permits: Permits, raw: redis.Redis, gate: Turnstile
) -> None:
    """Else two would be named the same instant, and one of them would come in vain."""
    for n in range(2):
        await permits.acquire(gate, who(n))
    holders = [who(100 - n) for n in range(40)]  # whose names sort the other way round
    answers = await asyncio.gather(*(permits.acquire(gate, holder, wait_ms=-1) for holder in holders))
    assert in_line(raw, gate.digest) == holders
    if gate is HOURLY:
        assert [hours(answer) for answer in answers] == list(range(1, 41))
        again = await asyncio.gather(*(permits.acquire(gate, holder, wait_ms=-1) for holder in reversed(holders)))
        assert [hours(answer) for answer in again] == list(range(40, 0, -1))


async def test_each_who_waits_for_a_window_has_an_instant_of_its_own(permits: Permits, raw: redis.Redis) -> None:
    """As many as the limit pass when those before them are out of the window, and so on."""
    for n in range(2):
        await permits.acquire(TWO_A_DAY, who(n))
    waits = [await permits.acquire(TWO_A_DAY, who(n), wait_ms=-1) for n in range(2, 7)]
    assert [hours(answer) for answer in waits] == [24, 24, 48, 48, 72]
    assert in_line(raw, "cc") == [who(n) for n in range(2, 7)]


@pytest.mark.parametrize("gate", [HOURLY, TWO_A_DAY], ids=["rate", "window"])
async def test_who_was_named_an_instant_passes_then_and_a_newcomer_does_not(
    permits: Permits, raw: redis.Redis, gate: Turnstile
) -> None:
    """Even if it comes along first."""
    for n in range(2):
        await permits.acquire(gate, who(n))
    await permits.acquire(gate, who(2), wait_ms=-1)
    _let_pass(raw, gate, hours=1 if gate is HOURLY else 24)
    if gate is TWO_A_DAY:  # both of the first day are out, one of the second waits: there is room for one more
        assert (await permits.acquire(gate, who(3))).word == "granted"
    assert (await permits.acquire(gate, who(4))).word == "limited"
    assert (await permits.acquire(gate, who(2), wait_ms=-1)).word == "granted"
    assert in_line(raw, gate.digest) == []


async def test_who_does_not_come_at_its_instant_makes_way(permits: Permits, raw: redis.Redis) -> None:
    """A process may die while it waits."""
    for n in range(2):
        await permits.acquire(HOURLY, who(n))
    await permits.acquire(HOURLY, who(2), wait_ms=-1)
    await permits.acquire(HOURLY, who(3), wait_ms=-1)
    _let_pass(raw, HOURLY, hours=2)
    assert (await permits.acquire(HOURLY, who(3), wait_ms=-1)).word == "granted"  # who is late keeps nobody
    assert (await permits.acquire(HOURLY, who(4))).word == "granted"
    assert (await permits.acquire(HOURLY, who(5))).word == "limited"


async def test_a_job_that_is_turned_away_has_its_instant_when_it_comes_back(permits: Permits, raw: redis.Redis) -> None:
    """Else all jobs that were turned away would come back at the same instant, and all but one in vain."""
    for n in range(2):
        await permits.acquire(HOURLY, who(n))
    away = [await permits.acquire(HOURLY, who(n), job=f"q/{n}") for n in (2, 3)]
    assert [(answer.word, hours(answer)) for answer in away] == [("limited", 1), ("limited", 2)]
    _let_pass(raw, HOURLY, hours=1)
    assert (await permits.acquire(HOURLY, who(4))).word == "limited"
    assert (await permits.acquire(HOURLY, who(5), job="q/2")).word == "granted"
    assert in_line(raw, "bb") == ["q/3"]


def _let_pass(raw: redis.Redis, gate: Turnstile, *, hours: int) -> None:
    """Move all that was noted into the past, but for a moment in which who was named an instant is on time."""
    gone = hours * HOUR_MS + 1
    pace, patience = f"{BASE}pace:{gate.digest}", f"{BASE}patience:{gate.digest}"
    if gate.kind == "g":
        raw.set(pace, str(float(str(raw.get(pace))) - gone), px=HOUR_MS)
    for zset in (patience, pace) if gate.kind == "w" else (patience,):
        for member in map(str, raw.zrange(zset, 0, -1)):
            raw.zincrby(zset, -gone, member)


async def test_a_clock_that_was_set_back_closes_no_gate(permits: Permits, raw: redis.Redis) -> None:
    """What was noted for tomorrow says no more than that the gate is used up now."""
    for gate in (HOURLY, TWO_A_DAY):
        for n in range(2):
            await permits.acquire(gate, who(n))
        await permits.acquire(gate, who(2), wait_ms=-1)
        _let_pass(raw, gate, hours=-1000)
    assert hours(await permits.acquire(HOURLY, who(2), wait_ms=-1)) <= 2
    assert hours(await permits.acquire(TWO_A_DAY, who(2), wait_ms=-1)) <= 24
    assert hours(await permits.acquire(TWO_A_DAY, who(3), wait_ms=-1)) <= 48


# wrong types, a full server


@pytest.mark.parametrize("kind", ["holders", "pace", "passes", "line", "patience"])
@pytest.mark.parametrize("gate", [TWO_AT_ONCE, HOURLY, TWO_A_DAY], ids=["concurrency", "rate", "window"])
async def test_a_key_of_the_wrong_type_is_refused_before_anything_is_written(
    permits: Permits, raw: redis.Redis, kind: str, gate: Turnstile
) -> None:
    """Half a transition could never be told from a whole one."""
    await permits.acquire(gate, who(0))
    await permits.acquire(gate, who(1), wait_ms=-1)
    key = f"{BASE}{kind}:{gate.digest}"
    raw.delete(key)
    raw.lpush(key, "theirs")
    raw.expire(key, 60)
    before = {key: raw.dump(key) for key in raw.scan_iter()}
    if kind != "pace" or gate is not TWO_AT_ONCE:
        for holder in [who(2)] if kind == "pace" else [who(0), who(2)]:
            with pytest.raises(StoreError, match="another type of value"):
                await permits.acquire(gate, holder, wait_ms=-1)
    if kind in ("holders", "line", "patience"):
        with pytest.raises(StoreError, match="another type of value"):
            await permits.release(gate, who(0))
    assert {key: raw.dump(key) for key in raw.scan_iter()} == before
    if kind == "holders":  # the others' permits are renewed
        other = Turnstile(kind="c", digest="dd", first=1, second=0, lease_ms=LEASE_MS)
        await permits.acquire(other, who(0))
        assert await permits.renew([(gate, who(0)), (other, who(0))]) == [False, True]


async def test_a_full_server_gives_no_permit_and_takes_it_back(permits: Permits, raw: redis.Redis, full: Fill) -> None:
    """What frees memory, or keeps a promise, must work exactly when there is none."""
    await permits.acquire(TWO_AT_ONCE, who(0))
    await permits.acquire(TWO_AT_ONCE, who(1))
    full()
    with pytest.raises(StoreFull):
        await permits.acquire(TWO_AT_ONCE, who(2))
    assert await permits.renew([(TWO_AT_ONCE, who(0))]) == [True]
    assert await permits.release(TWO_AT_ONCE, who(1)) is True
    assert holding(raw) == {who(0)}


async def test_the_scripts_survive_a_script_flush(permits: Permits, raw: redis.Redis) -> None:
    """A restarted or failed-over server knows no script; the caller must not notice."""
    raw.script_flush()
    await permits.acquire(TWO_AT_ONCE, who(0))
    raw.script_flush()
    assert await permits.renew([(TWO_AT_ONCE, who(0))]) == [True]
    raw.script_flush()
    assert await permits.release(TWO_AT_ONCE, who(0)) is True


async def test_an_idle_limiter_leaves_no_key(permits: Permits, raw: redis.Redis) -> None:
    """Names may be made of values, so that there are very many."""
    short = [
        Turnstile(kind="c", digest="a1", first=1, second=0, lease_ms=20),
        Turnstile(kind="g", digest="b1", first=20_000, second=1, lease_ms=20),
        Turnstile(kind="w", digest="c1", first=1, second=20, lease_ms=20),
    ]
    for gate in short:
        for n in range(3):
            await permits.acquire(gate, who(n), job=f"q/{n}", wait_ms=-1 if n == 1 else 0)
    assert_all_expire(raw)
    for key in list(raw.scan_iter()):
        assert raw.pttl(key) <= KEEP_PLACE_MS + 100
        raw.pexpire(key, raw.pttl(key) if raw.pttl(key) < 100 else 1)
    async with asyncio.timeout(10):
        while raw.dbsize():
            await asyncio.sleep(0.005)


# the job


async def test_a_limited_job_is_scheduled_and_nothing_is_counted(client: Client, store: Store) -> None:
    """But how often it was, and by which limiter, for people who wonder why a job does not end."""
    before = store.seed(running("a", "me/1", attempt=1, crashes=1), worker("me"))
    assert (await take_turn(client, settle("a", Limited(60, "crm")))).refused == frozenset()
    after = but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "scheduled", "due_ms": 60, "limited": "1", "limited_by": "crm"},
            "scheduled": {"a": 60}, "queued": ["wake"], "held:me": None, "stats": {"limited": 1},
        },
    )  # fmt: skip
    assert store.dump() == after
    await take_turn(client, settle("a", Limited(60, "crm")))
    assert store.dump() == after


async def test_a_job_that_is_limited_at_once_is_no_busy_loop(client: Client, store: Store, raw: redis.Redis) -> None:
    """An instant that has come by now is a few milliseconds away."""
    store.seed(running("a", "me/1"), worker("me"))
    begun = store.now_ms()
    await take_turn(client, settle("a", Limited(0, "")))
    assert float(raw.zscore(f"{BASE}scheduled", "a") or 0) >= begun + 5


async def test_a_limited_job_that_was_to_be_cancelled_is_cancelled(client: Client, store: Store) -> None:
    """It does not get another run."""
    store.seed(running("a", "me/1", cancel=1), worker("me"))
    await take_turn(client, settle("a", Limited(60, "crm")))
    assert store.dump()["job:a"]["state"] == "cancelled"


async def test_a_rerun_forgets_that_a_job_was_limited(client: Client, store: Store, raw: redis.Redis) -> None:
    """It has fresh counters."""
    store.seed(running("a", "me/1", cancel=1, limited="3", limited_by="crm"), worker("me"))
    await take_turn(client, settle("a", Limited(60, "crm")))
    assert await client.rerun(JobId("a")) == "queued"
    assert not raw.hmget(f"{BASE}job:a", ["limited"])[0]
