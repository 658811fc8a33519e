"""settle_and_claim, outcome completed: running jobs become completed. Here too: what every end has in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from aqueue.store.client import Client
from aqueue.store.records import Completed
from transitions.conftest import Listening
from transitions.store_image import Store, but, queued, running, without, worker
from transitions.turns import TURN_TAKEN, claimed, settle, take_turn

HOUR_MS = 3_600_000


def done(ttl_ms: int = HOUR_MS) -> Completed:
    return Completed(b"42", ttl_ms, "double")


@pytest.fixture
def cleared(raw: redis.Redis) -> Iterator[None]:
    """For tests that keep something for ever on purpose."""
    yield
    raw.flushall()


async def test_completing_stores_the_result_and_frees_the_slot(client: Client, store: Store) -> None:
    """Result, lifetime, counters and the worker's list are one step: no crash can come between them."""
    before = store.seed(running("a", "me/1", attempt=1), running("b", "me/1"), worker("me"))
    turn = await take_turn(client, settle("a", done()))
    assert (turn.refused, turn.leases, turn.state) == (frozenset(), [], "OK")
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "completed", "ended_ms": 0, "result": "42", "task": "double"},
            "payload:a": None,
            "ttl": {"job:a": 3600},
            "held:me": {"a": None},
            "stats": {"completed": 1},
        },
    )


async def test_completing_twice_in_one_turn_number_is_answered_as_the_first(client: Client, store: Store) -> None:
    """A repeated settle must not count twice nor look like a lost lease."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", done()))
    after = store.dump()
    turn = await take_turn(client, settle("a", done()))
    assert turn.refused == frozenset()
    assert store.dump() == after


async def test_one_turn_settles_and_claims(client: Client, store: Store) -> None:
    """Under load, the round trip that ends one job starts the next."""
    before = store.seed(running("a", "me/1"), queued("b"), worker("me"))
    turn = await take_turn(client, settle("a", done()), free=1)
    assert claimed(turn) == [("b", "me/2")]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "completed", "ended_ms": 0, "result": "42", "task": "double"},
            "payload:a": None,
            "ttl": {"job:a": 3600},
            "job:b": {"state": "running", "token": "me/2", "started_ms": 0},
            "queued": [],
            "held:me": {"a": None, "b": "me/2"},
            "stats": {"completed": 1},
        },
    )


async def test_many_jobs_are_settled_at_once(client: Client, store: Store) -> None:
    """A worker settles in batches; each item has its own keys and fields."""
    count = 500
    store.seed(*(running(f"j{n}", "me/1") for n in range(count)), worker("me"))
    settles = [settle(f"j{n}", Completed(str(n).encode(), HOUR_MS, "t")) for n in range(count)]
    await take_turn(client, *settles)
    image = store.dump()
    assert image["stats"] == {"completed": count}
    assert "held:me" not in image
    assert [image[f"job:j{n}"]["result"] for n in range(count)] == [str(n) for n in range(count)]


async def test_a_result_that_is_not_kept_leaves_a_stub_of_ten_seconds(client: Client, store: Store) -> None:
    """The stub keeps an enqueue that was sent twice from running the job again, and then goes."""
    before = store.seed(running("a", "me/1", error="{}"), worker("me"))
    await take_turn(client, settle("a", done(ttl_ms=0)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "completed", "ended_ms": 0, "error": None},
            "payload:a": None,
            "ttl": {"job:a": 10},
            "held:me": {},
            "stats": {"completed": 1},
        },
        {"held:me": None},
    )


async def test_a_result_may_be_kept_for_ever(client: Client, store: Store, cleared: None) -> None:
    """-1 is promised to mean for ever, not "at once" and not "an hour"."""
    before = store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", done(ttl_ms=-1)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "completed", "ended_ms": 0, "result": "42", "task": "double"},
            "payload:a": None,
            "held:me": None,
            "stats": {"completed": 1},
        },
    )


@pytest.mark.parametrize(("own", "life"), [(60_000, 60), (0, 10), (-1, None)])
async def test_the_jobs_own_lifetime_wins(
    own: int, life: int | None, client: Client, store: Store, cleared: None
) -> None:
    """Whoever enqueued the job said how long its result is wanted."""
    store.seed(running("a", "me/1", result_ttl_ms=own, failure_ttl_ms=90_000), worker("me"))
    await take_turn(client, settle("a", done()))
    image = store.dump()
    assert image.get("ttl") == (None if life is None else {"job:a": life})
    assert image["job:a"].get("result") == (None if own == 0 else "42")


async def test_the_end_frees_the_unique_key(client: Client, store: Store) -> None:
    """The next job with the key must be accepted from this moment on."""
    before = store.seed(running("a", "me/1", unique="k"), worker("me"))
    await take_turn(client, settle("a", done()))
    image = store.dump()
    assert "unique:k" not in image
    assert without(image, "job:a", "stats") == but(
        without(before, "job:a", "payload:a", "unique:k", "held:me"), TURN_TAKEN
    )


async def test_the_end_leaves_a_unique_key_that_is_somebody_elses(client: Client, store: Store) -> None:
    """A key that was taken over must not be freed by its former holder."""
    store.seed(running("a", "me/1", unique="k"), queued("b"), worker("me"))
    store.seed({"unique:k": "b"})
    await take_turn(client, settle("a", done()))
    assert store.dump()["unique:k"] == "b"


async def test_the_end_is_told_to_every_waiter(client: Client, store: Store, listening: Listening) -> None:
    """`result()` waits by notification; a waiter that is forgotten waits for seconds instead of a millisecond."""
    store.seed(running("a", "me/1", waiters=" web1 web2"), worker("me"))
    with listening("web1") as first, listening("web2") as second, listening("web3") as third:
        await take_turn(client, settle("a", done()))
        assert first() == second() == ["ended a completed 42"]
        assert third() == []
    assert "waiters" not in store.dump()["job:a"]


@pytest.mark.parametrize("ttl_ms", [HOUR_MS, 0])
async def test_the_short_way_ends_where_the_general_one_does(client: Client, store: Store, ttl_ms: int) -> None:
    """A record of nothing unusual is completed with fewer commands; nobody may be able to tell afterwards."""
    store.seed(running("a", "me/1"), running("b", "me/1", attempt=0), worker("me"))
    await take_turn(client, settle("a", done(ttl_ms)), settle("b", done(ttl_ms)))
    image = store.dump()
    assert image["job:a"] == {name: value for name, value in image["job:b"].items() if name != "attempt"}
    assert image["ttl"]["job:a"] == image["ttl"]["job:b"]
    assert not {"payload:a", "payload:b"} & image.keys()


async def test_a_damaged_record_is_not_taken_for_a_plain_one(client: Client, store: Store, raw: redis.Redis) -> None:
    """The short way asks for the number of fields, and what is no hash has none."""
    store.seed(running("a", "me/1"), running("b", "me/1"), worker("me"))
    raw.set("aqueue:{q}:job:a", "no hash")
    await take_turn(client, settle("a", done()), settle("b", done()))
    assert (store.dump()["job:b"]["state"], raw.get("aqueue:{q}:job:a")) == ("completed", "no hash")
    assert raw.hget("aqueue:{q}:stats", "damaged") == "1"
    raw.delete("aqueue:{q}:job:a", "aqueue:{q}:payload:a")


async def test_a_large_result_is_not_told_to_everybody(client: Client, store: Store, listening: Listening) -> None:
    """A small one spares the waiter a request; megabytes would go to processes that no longer care."""
    store.seed(running("a", "me/1", waiters=" web"), running("b", "me/1", waiters=" web"), worker("me"))
    small, large = b"1" * 4096, b"1" * 4097
    with listening("web") as heard:
        await take_turn(client, settle("a", Completed(small, 60_000, "t")), settle("b", Completed(large, 60_000, "t")))
        assert heard() == [f"ended a completed {small.decode()}", "ended b completed"]


async def test_a_result_that_is_not_kept_is_not_told(client: Client, store: Store, listening: Listening) -> None:
    """With result_ttl=0 there is none, for whoever waits as for whoever asks later."""
    store.seed(running("a", "me/1", waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", Completed(b"42", 0, "t")))
        assert heard() == ["ended a completed"]


async def test_a_cancel_that_comes_too_late_does_not_take_the_result_away(client: Client, store: Store) -> None:
    """The run has ended with a result before its worker heard of the cancel."""
    store.seed(running("a", "me/1", cancel=1), worker("me"))
    await take_turn(client, settle("a", done()))
    image = store.dump()
    assert (image["job:a"]["state"], image["job:a"]["result"]) == ("completed", "42")
    assert image["stats"] == {"completed": 1}
