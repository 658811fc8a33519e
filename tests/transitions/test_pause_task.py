"""pause_task, resume_task and what claims do meanwhile: jobs of one task wait aside and stand in nobody's way."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis

from aqueue.errors import ConfigurationError, StoreError
from aqueue.job import Cancellation, JobId, JobState
from aqueue.store.client import Client
from aqueue.store.records import Completed, Fault, NewJob, Shelf
from transitions.conftest import Listening, MakeClient
from transitions.store_image import BASE, Image, Store, but, caught, queued, running, suspect, without, worker
from transitions.turns import TURN_TAKEN, claimed, settle, take_turn


def of(task: str, *jobs: Image) -> Image:
    """Give these jobs envelopes of one task."""
    ids = [name.partition(":")[2] for image in jobs for name in image if name.startswith("job:")]
    return {f"payload:{job_id}": json.dumps([1, task, [], {}, {}], separators=(",", ":")) for job_id in ids}


def seeded(task: str, job: Image) -> Image:
    return {**job, **of(task, job)}


def shelf_of(store: Store, raw: redis.Redis, task: str = "mail") -> list[str]:
    """Give the ids on a shelf in the order in which they come back."""
    return [str(job_id) for job_id in raw.zrange(f"{BASE}shelf:{task}", 0, -1)]


async def test_a_paused_task_is_noted_and_told(client: Client, store: Store, listening: Listening) -> None:
    """Every claim reads the note; what is told is for the log lines of workers."""
    before = store.seed(worker("me"))
    with listening("me") as heard:
        assert await client.pauses.pause_task("mail") is True
        assert await client.pauses.pause_task("mail") is False
        assert heard() == ["pause mail"]
    (since,) = (await client.stats()).shelves
    assert (since.task, since.jobs) == ("mail", 0)
    assert without(store.dump(), "shelves") == but(before, {"queues": ["q"]})


async def test_a_claim_sets_jobs_of_a_paused_task_aside(client: Client, store: Store, raw: redis.Redis) -> None:
    """Those behind them start at once, and no slot is taken; the record says where the job is."""
    jobs = [seeded("mail", queued("a")), seeded("other", queued("b")), seeded("mail", queued("c", attempt=1))]
    before = store.seed(*jobs, seeded("mail", caught("d", "me")), seeded("mail", suspect("e")), worker("me"))
    await client.pauses.pause_task("mail")
    assert claimed(await take_turn(client, free=1)) == [("b", "me/2")]
    assert claimed(await take_turn(client, free=9, number=3)) == []
    assert shelf_of(store, raw) == ["d", "e", "a", "c"]
    after = store.dump()
    assert without(after, "shelves", "shelf:mail") == but(
        before,
        TURN_TAKEN,
        {"worker:me": {"turn": 3}},
        {f"job:{name}": {"shelf": "mail"} for name in "acde"},
        {"job:b": {"state": "running", "token": "me/2", "started_ms": 0}, "held:me": {"b": "me/2"}},
        {"queued": [], "suspects": [], "inbox:me": [], "queues": ["q"]},
    )


async def test_a_turn_that_sets_jobs_aside_and_is_sent_again_changes_nothing(client: Client, store: Store) -> None:
    """Its answer may have been lost."""
    store.seed(seeded("mail", queued("a")), seeded("other", queued("b")), worker("me"))
    await client.pauses.pause_task("mail")
    first = claimed(await take_turn(client, free=5))
    after = store.dump()
    assert claimed(await take_turn(client, free=5)) == first == [("b", "me/2")]
    assert store.dump() == after


async def test_jobs_come_back_before_all_others_and_in_their_old_order(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """They are taken from where they lie; the shelf is forgotten when it is empty."""
    store.seed(*(seeded("mail", queued(name)) for name in "cab"), worker("me"))  # the order of the list, not of the ids
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    await client.enqueue([NewJob(id=JobId("d"), envelope=b'[1,"mail",[],{},{}]')])
    await take_turn(client, free=5, number=3)
    await client.enqueue([NewJob(id=JobId(name), envelope=b'[1,"mail",[],{},{}]') for name in ("e", "f")])
    assert await client.pauses.resume_task("mail") is True
    assert await client.pauses.resume_task("mail") is False
    assert claimed(await take_turn(client, free=2, number=4)) == [("c", "me/4"), ("a", "me/4")]
    assert claimed(await take_turn(client, free=3, number=5)) == [("b", "me/5"), ("d", "me/5"), ("e", "me/5")]
    assert not [key for key in store.dump() if key.startswith("shel")]
    assert raw.hgetall(f"{BASE}job:c").keys() == {"state", "enqueued_ms", "token", "started_ms"}


async def test_priorities_are_kept_on_the_shelf(client: Client, store: Store) -> None:
    """What comes back takes its place among the ranked of other tasks, as if it had never been away."""
    store.seed(worker("me"))
    await client.pauses.pause_task("mail")

    def job(name: str, task: str, level: int | None) -> NewJob:
        rank = None if level is None else (9 - level) * 2**43
        return NewJob(id=JobId(name), envelope=f'[1,"{task}",[],{{}},{{}}]'.encode(), rank=rank)

    await client.enqueue([job("m9", "mail", 9), job("m5", "mail", None), job("m0", "mail", 0), job("m8", "mail", 8)])
    await take_turn(client, free=9)
    await client.enqueue([job("o9", "other", 9), job("o5", "other", None), job("o0", "other", 0)])
    await client.pauses.resume_task("mail")
    order = [job_id for number in range(3, 20) for job_id, _ in claimed(await take_turn(client, free=1, number=number))]
    assert order == ["m9", "o9", "m8", "m5", "o5", "m0", "o0"]


async def test_a_resume_wakes_whoever_waits(
    client: Client, store: Store, listening: Listening, raw: redis.Redis
) -> None:
    """A parked worker waits at the list, where no job of the shelf ever appears; a busy one looks when it is free."""
    store.seed(*(seeded("mail", queued(name)) for name in "ab"), worker("me"))
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    with listening("me") as heard:
        await client.pauses.resume_task("mail")
        assert heard() == ["resume mail"]
    assert store.dump()["queued"] == ["wake"]
    raw.delete(f"{BASE}queued")  # a parked fetch has caught it
    assert claimed(await take_turn(client, free=1, number=3)) == [("a", "me/3")]
    assert store.dump()["queued"] == ["wake"], "the rest is for who has a free slot still"


async def test_one_call_sets_aside_a_bounded_number(client: Client, store: Store, raw: redis.Redis) -> None:
    """A script must be short, however many jobs of the task come one after the other; the next call goes on."""
    store.seed(worker("me"))
    await client.pauses.pause_task("mail")
    for _ in range(3):
        await client.enqueue(
            [NewJob(id=JobId(f"m{raw.dbsize():05}{n:03}"), envelope=b'[1,"mail"]') for n in range(500)]
        )
    await client.enqueue([NewJob(id=JobId("other"), envelope=b'[1,"other"]')])
    turn, numbers = await take_turn(client, free=5), iter(range(3, 40))
    while turn.state == "MORE" and not turn.leases:
        assert len(shelf_of(store, raw)) <= 1500
        turn = await take_turn(client, free=5, number=next(numbers))
    assert claimed(turn)[0][0] == "other"
    assert next(numbers) > 4, "one call did all of it"
    assert len(shelf_of(store, raw)) == 1500


async def test_stats_list_and_doctor_know_the_shelf(client: Client, store: Store) -> None:
    """A job that is set aside is queued, is no fault, and keeps nobody waiting whom a worker could serve."""
    store.seed(seeded("mail", queued("a")), seeded("mail", queued("b")), worker("me"))
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    stats = await client.stats()
    assert (stats.queued, stats.shelved, stats.oldest) == (2, 2, None)
    assert await client.list_ids(JobState.QUEUED, 0, 10) == ["a", "b"]
    assert await client.list_ids(JobState.QUEUED, 1, 1) == ["b"]
    assert [one.fault for one in await client.repairs.examine([JobId("a")], 0)] == [None]
    await client.pauses.resume_task("mail")
    stats = await client.stats()
    assert stats.shelves == [Shelf("mail", None, 2)]
    assert stats.oldest is not None


async def test_a_job_on_a_shelf_that_nobody_knows_is_found_and_put_back(
    client: Client, store: Store, raw: redis.Redis
) -> None:
    """An operator who deletes the hash of the shelves must not lose what lies on them."""
    store.seed(seeded("mail", queued("a")), worker("me"))
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    raw.delete(f"{BASE}shelves")
    assert [one.fault for one in await client.repairs.examine([JobId("a")], 10)] == [Fault.QUEUED_NOWHERE]
    assert await client.repairs.mend([(JobId("a"), Fault.QUEUED_NOWHERE)], 10) == ["a"]
    assert claimed(await take_turn(client, free=5, number=3)) == [("a", "me/3")]
    assert not [key for key in store.dump() if key.startswith("shel")]


@pytest.mark.parametrize("how", ["cancel", "delete", "purge", "expire"])
async def test_a_job_on_the_shelf_can_end(client: Client, store: Store, raw: redis.Redis, how: str) -> None:
    """As any that waits; nothing of it stays behind."""
    store.seed(seeded("mail", queued("a", expires_ms=60)), seeded("mail", queued("b")), worker("me"))
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    left = ["b"]
    if how == "cancel":
        assert await client.cancel(JobId("a")) is Cancellation.CANCELLED
    elif how == "delete":
        assert await client.delete(JobId("a")) == "deleted"
    elif how == "purge":
        assert await client.purge() == (2, False)
        left = []
    else:
        raw.hset(f"{BASE}job:a", "expires_ms", 1)
        await client.pauses.resume_task("mail")
        assert claimed(await take_turn(client, free=5, number=3)) == [("b", "me/3")]
        left = []
    assert shelf_of(store, raw) == left
    assert raw.hget(f"{BASE}job:a", "shelf") is None
    if how in ("cancel", "expire"):
        assert raw.hget(f"{BASE}job:a", "state") == ("cancelled" if how == "cancel" else "expired")


async def test_a_purge_of_shelves_is_bounded(client: Client, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several calls take what lies there, and say so."""
    monkeypatch.setattr("aqueue.store.client.BATCH", 2)
    store.seed(
        *(seeded("mail", queued(name)) for name in "abc"), *(seeded("tell", queued(n)) for n in "de"), worker("me")
    )
    await client.pauses.pause_task("mail")
    await client.pauses.pause_task("tell")
    await take_turn(client, free=9)
    assert [await client.purge() for _ in range(3)] == [(2, True), (2, True), (1, False)]


async def test_a_job_that_held_a_permit_hands_it_on(client: Client, store: Store, raw: redis.Redis) -> None:
    """A job that may not start must not hold up jobs of other tasks that share its limit."""
    store.seed(running("a", "me/1", limits="c.00.1"), worker("me"))
    raw.sadd(f"{BASE}permits:00", "a")
    mail, other = b'[1,"mail"]', b'[1,"other"]'
    await client.enqueue([NewJob(id=JobId("m"), envelope=mail, limits="c.00.1")])
    await client.enqueue([NewJob(id=JobId("o"), envelope=other, limits="c.00.1")])
    assert claimed(await take_turn(client, free=5)) == []  # both wait before the gate
    await client.pauses.pause_task("mail")
    done = settle("a", Completed(b"1", 60_000, "other"))
    assert claimed(await take_turn(client, done, free=5, number=3)) == [("o", "me/3")]
    assert shelf_of(store, raw) == ["m"]
    await client.pauses.resume_task("mail")
    assert claimed(await take_turn(client, free=5, number=4)) == []  # its limit holds for it still
    done = settle("o", Completed(b"1", 60_000, "other"), "me/3")
    assert claimed(await take_turn(client, done, free=5, number=5)) == [("m", "me/5")]


async def test_a_job_that_a_rate_lets_go_makes_way_at_once(client: Client, store: Store, raw: redis.Redis) -> None:
    """A line of paused jobs before a rate of one per hour must not cost those behind it an hour for each."""
    store.seed(worker("me"))
    hour = "g.00.3600000000.1"
    mails = [NewJob(id=JobId(f"m{n}"), envelope=b'[1,"mail"]', limits=hour) for n in range(3)]
    await client.enqueue([*mails, NewJob(id=JobId("o"), envelope=b'[1,"other"]', limits=hour)])
    assert claimed(await take_turn(client, free=9)) == [("m0", "me/2")]
    await client.pauses.pause_task("mail")
    raw.delete(f"{BASE}pace:00")  # the hour is over
    raw.zadd(f"{BASE}timers", {"00": 1})
    found: list[tuple[str, str]] = []
    number = 3
    while not found and number < 9:
        turn = await take_turn(client, free=9, number=number)
        found, number = claimed(turn), number + 1
        assert found or turn.next_due == 0, "it is looked at again at once"
    assert [job_id for job_id, _ in found] == ["o"]
    assert shelf_of(store, raw) == ["m1", "m2"]


async def test_a_job_of_a_dead_worker_waits_too(client: Client, store: Store, raw: redis.Redis) -> None:
    """It ran when its worker died, which counts; nobody holds a job that was set aside, so nothing counts for it."""
    store.seed(
        seeded("mail", running("a", "dead/1")), seeded("mail", queued("b")), worker("me"), worker("dead", lease=-30)
    )
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    await client.reclaim()
    assert claimed(await take_turn(client, free=5, number=3)) == []
    assert shelf_of(store, raw) == ["b", "a"]
    assert [raw.hget(f"{BASE}job:{name}", "crashes") for name in "ab"] == ["1", None]


async def test_a_job_that_is_paused_again_waits_again(client: Client, store: Store, raw: redis.Redis) -> None:
    """Between a resume and the next pause some have come back, and the rest has not moved."""
    store.seed(*(seeded("mail", queued(name)) for name in "abc"), worker("me"))
    await client.pauses.pause_task("mail")
    await take_turn(client, free=5)
    await client.pauses.resume_task("mail")
    assert claimed(await take_turn(client, free=1, number=3)) == [("a", "me/3")]
    await client.pauses.pause_task("mail")
    assert claimed(await take_turn(client, free=5, number=4)) == []
    assert shelf_of(store, raw) == ["b", "c"]


@pytest.mark.parametrize("resumed", ["", "resumed"])
async def test_a_shelf_of_the_wrong_type_costs_nobody_else_anything(
    client: Client, store: Store, raw: redis.Redis, resumed: str
) -> None:
    """Its jobs are put off until it has gone; it is named by the doctor."""
    store.seed(seeded("mail", queued("a")), seeded("other", queued("b")), worker("me"))
    await client.pauses.pause_task("mail")
    raw.set(f"{BASE}shelf:mail", "somebody else's")
    if resumed:
        await client.pauses.resume_task("mail")
        assert claimed(await take_turn(client, free=5)) == [("a", "me/2"), ("b", "me/2")]
        await take_turn(client, free=5, number=3)
        assert "queued" not in store.dump(), "no worker is woken for what nobody can read"
    else:
        assert claimed(await take_turn(client, free=5)) == [("b", "me/2")]
        assert raw.hget(f"{BASE}job:a", "state") == "scheduled"
        assert raw.hget(f"{BASE}job:a", "shelf") is None
    assert (await client.stats()).shelved == 0
    assert await client.list_ids(JobState.QUEUED, 0, 10) == []
    await client.purge()
    raw.delete(f"{BASE}shelf:mail")


async def test_a_wrong_typed_note_starts_nothing(client: Client, store: Store, raw: redis.Redis) -> None:
    """Nobody can say then what is paused; the turn is refused and comes again."""
    before = store.seed(seeded("mail", queued("a")), worker("me"), {"shelves": "somebody else's"})
    for call in (
        lambda: take_turn(client, free=5),
        lambda: client.pauses.pause_task("mail"),
        lambda: client.pauses.resume_task("mail"),
        client.purge,
    ):
        with pytest.raises(StoreError):
            await call()
    assert but(store.dump(), {"workers": {"me": 10}}) == but(before, {"queues": ["q"]})


async def test_a_full_server_can_pause_and_resume_tasks(
    client: Client, store: Store, full: Callable[[], None], raw: redis.Redis
) -> None:
    """A task that runs wild is stopped first of all."""
    store.seed(seeded("mail", queued("a")), worker("me"))
    full()
    assert await client.pauses.pause_task("mail") is True
    assert claimed(await take_turn(client, free=5)) == []
    assert await client.pauses.resume_task("mail") is True
    assert claimed(await take_turn(client, free=5, number=3)) == [("a", "me/3")]


async def test_so_many_tasks_may_be_paused_and_no_more(client: Client, store: Store) -> None:
    """Every claim reads their names."""
    store.seed(worker("me"))
    for n in range(100):
        await client.pauses.pause_task(f"task-{n}")
    assert await client.pauses.pause_task("task-0") is False
    with pytest.raises(ConfigurationError, match="has 100 paused tasks already; pause the whole queue"):
        await client.pauses.pause_task("one-more")
    assert len((await client.stats()).shelves) == 100


async def test_a_queue_that_is_paused_as_well_sets_nothing_aside(make_client: MakeClient, store: Store) -> None:
    """The two go together: what is paused as a whole is not looked at."""
    client = make_client()
    before = store.seed(seeded("mail", queued("a")), worker("me"), {"paused": -30})
    await client.pauses.pause_task("mail")
    assert (await take_turn(client, free=5)).state == "PAUSED"
    assert without(store.dump(), "shelves") == but(before, TURN_TAKEN, {"queues": ["q"]})
