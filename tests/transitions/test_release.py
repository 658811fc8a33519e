"""settle_and_claim, outcome released: running jobs go back, uncounted."""

from __future__ import annotations

from aqueue.store.client import Client
from aqueue.store.records import Released
from transitions.conftest import Listening
from transitions.store_image import Store, but, queued, ran, running, worker
from transitions.turns import BOOM, BOOM_STORED, TURN_TAKEN, claimed, settle, take_turn

FRONT = Released()


async def test_a_release_puts_the_job_at_the_front_and_counts_nothing(client: Client, store: Store) -> None:
    """A drain is not the job's fault, and the job has already waited once."""
    before = store.seed(running("a", "me/1", attempt=1, crashes=1), queued("b"), worker("me"))
    turn = await take_turn(client, settle("a", FRONT))
    assert turn.refused == frozenset()
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {"job:a": {"state": "queued"}, "queued": ["a", "b"], "held:me": None, "stats": {"released": 1}},
    )


async def test_a_release_sent_twice_puts_the_job_back_once(client: Client, store: Store) -> None:
    """A lost reply must not queue the job a second time."""
    store.seed(running("a", "me/1"), worker("me"))
    await take_turn(client, settle("a", FRONT))
    after = store.dump()
    assert (await take_turn(client, settle("a", FRONT))).refused == frozenset()
    assert store.dump() == after


async def test_a_release_with_a_delay_schedules_the_job(client: Client, store: Store) -> None:
    """Unknown tasks come back later without costing an attempt."""
    before = store.seed(running("a", "me/1", attempt=1), worker("me"))
    await take_turn(client, settle("a", Released(60)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "scheduled", "due_ms": 60},
            "scheduled": {"a": 60},
            "queued": ["wake"],
            "held:me": None,
            "stats": {"released": 1},
        },
    )


async def test_an_unknown_task_notes_since_when(client: Client, store: Store) -> None:
    """The window after which an unknown task fails is counted from here."""
    before = store.seed(running("a", "me/1"), queued("b"), worker("me"))
    await take_turn(client, settle("a", Released(60, unknown_task=True)))
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "scheduled", "due_ms": 60, "unknown_ms": 0},
            "scheduled": {"a": 60},
            "held:me": None,
            "stats": {"released": 1},
        },
    )


async def test_a_task_that_stays_unknown_keeps_its_first_instant(client: Client, store: Store) -> None:
    """If each release began a new window, the job would be handed back for ever."""
    store.seed(running("a", "me/1", unknown_ms=-100), worker("me"))
    await take_turn(client, settle("a", Released(60, unknown_task=True)))
    assert store.dump()["job:a"]["unknown_ms"] == -100


async def test_a_job_that_asks_to_run_later_says_why_and_counts_nothing(client: Client, store: Store) -> None:
    """Its task is known here: for how long it was not no longer counts."""
    before = store.seed(running("a", "me/1", attempt=1, crashes=1, unknown_ms=-100), worker("me"))
    for _ in range(2):  # the second as after a lost reply
        assert (await take_turn(client, settle("a", Released(60, error=BOOM)))).refused == frozenset()
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "scheduled", "due_ms": 60, "error": BOOM_STORED, "unknown_ms": None},
            "scheduled": {"a": 60},
            "queued": ["wake"],
            "held:me": None,
            "stats": {"released": 1},
        },
    )


async def test_a_released_suspect_frees_the_workers_place_for_the_next(client: Client, store: Store) -> None:
    """A worker runs one suspect at a time, and one that it no longer runs is none."""
    store.seed(running("a", "me/1", crashes=2), worker("me", suspect="a"))
    await take_turn(client, settle("a", FRONT))
    assert "suspect" not in store.dump()["worker:me"]


async def test_a_job_that_was_to_be_cancelled_is_not_handed_on(
    client: Client, store: Store, listening: Listening
) -> None:
    """A drain must not bring a cancelled job back to life; the record is kept as for any cancelled job."""
    before = store.seed(running("a", "me/1", cancel=1, waiters=" web"), worker("me"))
    with listening("web") as heard:
        await take_turn(client, settle("a", FRONT))
        assert heard() == ["ended a cancelled"]
    assert store.dump() == but(
        before,
        TURN_TAKEN,
        {
            "job:a": {"state": "cancelled", "ended_ms": 0, "waiters": None, "history": [ran("cancelled")]},
            "held:me": None,
            "ttl": {"job:a": 3600, "payload:a": 3600},
            "stats": {"cancelled": 1},
        },
    )


async def test_jobs_released_together_keep_their_order(client: Client, store: Store) -> None:
    """A drain hands back many at once; the oldest is to be the next again."""
    store.seed(*(running(job_id, "me/1") for job_id in "bac"), queued("d"), worker("me"))
    await take_turn(client, *(settle(job_id, FRONT) for job_id in "bac"))
    assert store.dump()["queued"] == ["a", "b", "c", "d"]


async def test_a_released_job_may_be_claimed_by_the_same_turn(client: Client, store: Store) -> None:
    """It is at the front, and nothing says that its next run must be elsewhere."""
    store.seed(running("a", "me/1"), queued("b"), worker("me"))
    assert claimed(await take_turn(client, settle("a", FRONT), free=1)) == [("a", "me/2")]
    assert store.dump()["queued"] == ["b"]
