"""settle_and_claim, outcome failed: running jobs become failed and are listed among the dead letters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from aqueue.store.client import Client
from aqueue.store.records import Failed
from transitions.conftest import Listening, MakeClient
from transitions.store_image import Store, but, failed, ran, running, without, worker
from transitions.turns import BOOM, BOOM_STORED, TURN_TAKEN, settle, take_turn

WEEK_MS = 604_800_000
FOREVER = float("inf")


@pytest.fixture
def cleared(raw: redis.Redis) -> Iterator[None]:
    """For tests that keep something for ever on purpose."""
    yield
    raw.flushall()


async def test_failing_keeps_error_and_envelope_among_the_failed(client: Client, store: Store) -> None:
    """A dead letter is worth something only with its reason, and with what is needed to run it again."""
    before = store.seed(running("a", "me/1", attempt=3), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {
                "state": "failed",
                "ended_ms": 0,
                "attempt": 4,
                "error": BOOM_STORED,
                "history": [ran("failed", BOOM_STORED)],
            },
            "ttl": {"job:a": 604_800, "payload:a": 604_800},
            "failed": {"a": 604_800},
            "held:me": None,
            "stats": {"failed": 1},
        },
    )


async def test_failing_sent_twice_counts_once(client: Client, store: Store) -> None:
    """A lost reply must not cost an attempt nor show up as a second failure."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
    after = store.dump()
    assert (await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))).refused == frozenset()
    assert store.dump() == after


async def test_a_failure_that_is_not_kept_is_in_no_list(client: Client, store: Store) -> None:
    """An entry without a record would be listed and could not be shown."""
    before = store.seed(running("a", "me/1", error="{}"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, 0)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "failed", "ended_ms": 0, "attempt": 1, "error": None},
            "payload:a": None,
            "ttl": {"job:a": 10},
            "held:me": None,
            "stats": {"failed": 1},
        },
    )


async def test_a_failure_may_be_kept_for_ever(client: Client, store: Store, cleared: None) -> None:
    """-1 keeps record, envelope and list entry; prune must never reach it."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, -1)))
    image = store.dump()
    assert image["failed"] == {"a": FOREVER}
    assert "ttl" not in image
    assert image["payload:a"] == "call a"


@pytest.mark.parametrize(("own", "listed"), [(60_000, {"a": 60}), (0, None), (-1, {"a": FOREVER})])
async def test_the_jobs_own_lifetime_of_failures_wins(
    own: int, listed: dict[str, float] | None, client: Client, store: Store, cleared: None
) -> None:
    """Whoever enqueued the job said how long a failure is wanted; the result's lifetime has no say."""
    store.seed(running("a", "me/1", failure_ttl_ms=own, result_ttl_ms=90_000), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
    assert store.dump().get("failed") == listed


async def test_the_failed_list_is_capped_and_takes_the_records_with_it(make_client: MakeClient, store: Store) -> None:
    """A task that always fails must not fill the memory; what goes is what would have gone first."""
    client = make_client(failure_cap=2)
    before = store.seed(failed("old", ttl=100), failed("older", ttl=50), running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
    assert store.dump() == but(
        without(before, "job:older", "payload:older"),
        TURN_TAKEN,
        {
            "job:a": {
                "state": "failed",
                "ended_ms": 0,
                "attempt": 1,
                "error": BOOM_STORED,
                "history": [ran("failed", BOOM_STORED)],
            },
            "ttl": {"job:a": 604_800, "payload:a": 604_800},
            "failed": {"a": 604_800, "older": None},
            "held:me": None,
            "stats": {"failed": 1},
        },
    )


async def test_at_the_cap_nothing_is_trimmed(make_client: MakeClient, store: Store) -> None:
    """The cap says how many are kept, not one fewer."""
    client = make_client(failure_cap=2)
    store.seed(failed("old", ttl=100), running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
    assert store.dump()["failed"] == {"old": 100, "a": 604_800}


async def test_a_failure_frees_the_key_and_tells_the_waiters(
    client: Client, store: Store, listening: Listening
) -> None:
    """A failed job is as ended as a completed one."""
    store.seed(running("a", "me/1", unique="k", waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", Failed(BOOM, WEEK_MS)))
        assert heard() == ["ended a failed"]
    image = store.dump()
    assert "unique:k" not in image
    assert "waiters" not in image["job:a"]
