"""Sealed jobs from end to end: whole ones run, and no others; what is encrypted is nowhere to be read."""

from __future__ import annotations

import base64
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
import redis
from facts import until_state
from servers import Server, binaries

from aqueue import (
    Context,
    Debounce,
    Discard,
    Encryption,
    Job,
    JobFailed,
    JobState,
    Middleware,
    PayloadRefused,
    Queue,
    Retry,
    Settings,
    Signing,
    Unique,
    Worker,
)
from aqueue.job import JobId
from aqueue.store import codec
from aqueue.store.records import NewJob

KEYS: Final = {name: f"{name}:{base64.b64encode(name.encode() * 16).decode()}" for name in ("k1", "k2")}
SECRET: Final = "4929-1234-5678"

kinds = pytest.mark.parametrize("kind", [Signing, Encryption])


def seal(kind: type[Any], *names: str) -> Any:
    return kind(",".join(KEYS.get(name, name) for name in names))


class Shop:
    """A queue with one task, which notes what it was called with."""

    def __init__(self, url: str, protection: Any = None, name: str = "q", **options: Any) -> None:
        settings = Settings(lease=1.5, retry=Retry(max_attempts=3, backoff=0), seal=protection, **options)
        self.queue = Queue(name, url=url, settings=settings, middleware=[Stamp()])
        self.sold: list[Any] = []
        self.sell = self.queue.task(name="sell")(self._sell)
        self.drop = self.queue.task(name="drop")(self._sell)

    async def _sell(self, ctx: Context, what: Any) -> Any:
        self.sold.append(what)
        if what == "late" and ctx.attempt == 1:
            raise RuntimeError(SECRET)
        if what == "never":
            raise Discard(SECRET)
        return [what, ctx.headers["stamp"]]


class Stamp(Middleware):
    async def around_enqueue(self, calls: Any, proceed: Any) -> Any:
        for call in calls:
            call.headers = {"stamp": SECRET}
        return await proceed(calls)


@pytest.fixture
def engine() -> str:
    """Seals are made and opened here; to servers they are bytes as any other."""
    return next(iter(binaries()))


@pytest.fixture
def raw(server: Server) -> Iterator[Any]:
    """A plain client to look behind the scenes. It gives bytes, which is more than its types know."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        yield client


@pytest.fixture
async def shop(server: Server) -> Any:
    """Open shops, all at the same server."""
    async with AsyncExitStack() as stack:

        async def opened(*protection: Any, **options: Any) -> Shop:
            one = Shop(server.url, *protection, **options)
            await stack.enter_async_context(one.queue)
            return one

        yield opened


async def refusal(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job.result(timeout=10)
    assert caught.value.exception_type == "PayloadRefused", caught.value
    return caught.value


def payload(job_id: str, queue: str = "q") -> str:
    return f"aqueue:{{{queue}}}:payload:{job_id}"


def everything(raw: Any) -> bytes:
    """Give all keys and values of a server."""
    parts = []
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": raw.get, b"hash": raw.hgetall, b"zset": lambda key: raw.zrange(key, 0, -1),
        b"list": lambda key: raw.lrange(key, 0, -1), b"set": raw.smembers,
    }  # fmt: skip
    for key in raw.scan_iter():
        parts += [key, repr(readers[raw.type(key)](key)).encode()]
    return b"\n".join(parts)


# whole ones


@kinds
@pytest.mark.parametrize("serializer", ["json", "pickle"])
async def test_a_sealed_job_is_a_job_like_any_other(shop: Any, kind: type[Any], serializer: str) -> None:
    """At once, delayed, in bulk, tried again, run again; small results, which come with the news, and large ones."""
    one = await shop(seal(kind, "k1"), serializer=serializer)
    wanted = ["a", "late", None, "ü" * 9000, {"deep": [1.5]}]
    async with Worker(one.queue):
        jobs = [await one.sell.options(delay=0.01).enqueue("later"), await one.queue.enqueue("sell", "by name")]
        jobs += await one.queue.enqueue_many(one.sell.call(what) for what in wanted)
        results = [await job.result(timeout=10) for job in jobs]
        assert results == [[what, SECRET] for what in ["later", "by name", *wanted]]
        assert await one.queue.job(jobs[0].id).result(timeout=10) == ["later", SECRET]

        never = await one.sell.enqueue("never")
        with pytest.raises(JobFailed, match=SECRET):
            await never.result(timeout=10)
        await one.queue.rerun(never.id)
        with pytest.raises(JobFailed, match=SECRET):
            await never.result(timeout=10)
    assert one.sold.count("never") == one.sold.count("late") == 2
    info = await never.info()
    assert (info.task, info.payload) == ("sell", kind.word + ("" if serializer == "json" else " pickle"))
    assert info.args == (["never"] if serializer == "json" else None)


async def test_a_pickle_brings_what_json_cannot(shop: Any) -> None:
    """That is the only reason to choose it."""
    one = await shop(seal(Signing, "k1"), serializer="pickle")
    async with Worker(one.queue):
        (value, _) = await (await one.sell.enqueue({1, (2, 3)})).result(timeout=10)
    assert value == {1, (2, 3)} == one.sold[0]


@pytest.mark.parametrize("serializer", ["json", "pickle"])
async def test_what_is_encrypted_is_nowhere_to_be_read(
    shop: Any, raw: Any, caplog: pytest.LogCaptureFixture, serializer: str
) -> None:
    """Arguments, headers, results, errors and their tracebacks; in a copy of the server, and in start and end lines."""
    one = await shop(seal(Encryption, "k1"), serializer=serializer)
    jobs = [await one.sell.enqueue(what) for what in (SECRET, "late", "never")]
    forms = SECRET.encode(), base64.b64encode(SECRET.encode())[:-4]
    assert not any(form in everything(raw) for form in forms)
    with caplog.at_level(logging.INFO):
        await Worker(one.queue, max_jobs=4).run(burst=True)
    assert [await job.status() for job in jobs[1:]] == [JobState.COMPLETED, JobState.FAILED]
    assert await jobs[0].result(timeout=10) == [SECRET, SECRET]
    assert not any(form in everything(raw) for form in forms)
    started = [line for line in caplog.messages if "->" in line]
    assert len(started) == 4
    assert all("sell(…)" in line for line in started)


# and no others


@kinds
@pytest.mark.parametrize("where", ["job", "queue", "task"])
async def test_a_moved_payload_is_refused_at_once_and_runs_nothing(
    shop: Any, raw: Any, kind: type[Any], where: str
) -> None:
    """Whoever can write to the server could otherwise have any call that was ever made, made again as another."""
    one, other = await shop(seal(kind, "k1")), await shop(seal(kind, "k1"), name="other")
    good, victim = await one.sell.enqueue("good"), await one.sell.enqueue("victim")
    source = payload((await other.sell.enqueue("x")).id, "other") if where == "queue" else payload(good.id)
    data = raw.get(source)
    if where == "task":
        data = raw.get(payload(victim.id)).replace(b"sell", b"drop")
    raw.set(payload(victim.id), data)
    async with Worker(one.queue):
        error = await refusal(victim)
        assert await good.result(timeout=10) == ["good", SECRET]
    assert "changed, or moved from another job, task or queue" in error.reason
    assert one.sold == ["good"]
    info = await victim.info()
    assert (info.state, info.attempt, info.payload, info.args) == (JobState.FAILED, 1, kind.word, None)


@kinds
async def test_an_unsealed_payload_is_refused_at_once_and_runs_nothing(shop: Any, kind: type[Any]) -> None:
    """A signature that may be left out protects nobody."""
    one, stranger = await shop(seal(kind, "k1")), await shop()
    job, good = await stranger.sell.enqueue("stranger"), await one.sell.enqueue("good")
    async with Worker(one.queue):
        error = await refusal(job if kind is Signing else one.sell.job(job.id))
        await good.result(timeout=10)
    assert f"are not {kind.word}" in error.reason
    assert one.sold == ["good"]
    assert (await job.info()).attempt == 1


@kinds
async def test_a_payload_with_an_unknown_key_is_refused_and_runs_once_the_key_is_there(
    shop: Any, kind: type[Any]
) -> None:
    """The likeliest cause is a rotation in the wrong order; nothing may be lost to that."""
    one, ahead = await shop(seal(kind, "k1")), await shop(seal(kind, "k2", "k1"))
    job = await ahead.sell.enqueue("new")
    async with Worker(one.queue):
        error = await refusal(job)
    assert "key 'k2' that is not here (k1)" in error.reason
    assert not one.sold
    mended = await shop(seal(kind, "k1", "k2"))
    await mended.queue.rerun(job.id)
    async with Worker(mended.queue):
        assert await job.result(timeout=10) == ["new", SECRET]


@kinds
async def test_a_wrong_key_of_the_right_name_is_refused(shop: Any, kind: type[Any]) -> None:
    """Two deployments that both call their key k1 are two deployments."""
    one, wrong = await shop(seal(kind, "k1")), await shop(kind(KEYS["k2"].replace("k2:", "k1:")))
    job = await wrong.sell.enqueue("x")
    async with Worker(one.queue):
        error = await refusal(job if kind is Signing else one.sell.job(job.id))
    assert "another key of the same id" in error.reason
    assert not one.sold


@kinds
async def test_a_key_is_rotated_under_load_and_no_job_is_refused(shop: Any, kind: type[Any]) -> None:
    """Workers and producers are never replaced at the same instant."""
    steps = ["k1", "none"], ["k1"], ["k1", "k2"], ["k2", "k1"], ["k2"]
    jobs: list[Job[Any]] = []
    before = await shop(seal(kind, "none", "k1"))
    for step in steps:
        after = await shop(seal(kind, *step))
        for producer, consumer in ((before, after), (after, before)):
            new = [await producer.sell.enqueue(n) for n in range(3)]
            await Worker(consumer.queue).run(burst=True)
            assert [await job.result(timeout=10) for job in new] == [[n, SECRET] for n in range(3)]
            jobs += new
        before = after
    assert len(jobs) == 30


async def test_a_payload_that_was_deleted_is_not_called_unsealed(shop: Any, raw: Any) -> None:
    """Else people look for a stranger where somebody has tidied up."""
    one = await shop(seal(Signing, "k1"))
    job = await one.sell.enqueue("x")
    raw.delete(payload(job.id))
    await Worker(one.queue).run(burst=True)
    assert "are gone" in (await refusal(job)).reason


async def test_a_worker_without_keys_refuses_what_is_sealed(shop: Any) -> None:
    """It was started without its secrets; it says so, instead of running what it cannot check."""
    one, bare = await shop(seal(Signing, "k1")), await shop()
    job = await one.sell.enqueue("x")
    await Worker(bare.queue).run(burst=True)
    assert "AQUEUE_SIGNING_KEYS" in (await refusal(job)).reason
    assert not bare.sold


@kinds
@pytest.mark.parametrize("moment", ["retry", "rerun", "promote"])
async def test_the_seal_is_opened_at_every_run(shop: Any, raw: Any, kind: type[Any], moment: str) -> None:
    """A payload may be exchanged while its job waits for its second run, too."""
    one = await shop(seal(kind, "k1"))
    source = raw.get(payload((await one.sell.enqueue("x")).id))
    await one.queue.purge()
    job = await one.sell.options(delay=3600 if moment == "promote" else 0).enqueue(
        {"retry": "late", "rerun": "never", "promote": "delayed"}[moment]
    )
    if moment == "retry":
        await Worker(one.queue, max_jobs=1).run()
    elif moment == "rerun":
        await Worker(one.queue).run(burst=True)
        await one.queue.rerun(job.id)
    runs = len(one.sold)
    raw.set(payload(job.id), source)
    if moment == "promote":
        raw.zadd("aqueue:{q}:scheduled", {job.id: 1})
    async with Worker(one.queue):
        await until_state(job, JobState.FAILED)
        await refusal(job)
    assert len(one.sold) == runs == (0 if moment == "promote" else 1)


class Bomb:
    """Unpickling one calls a function of somebody else's choice."""

    def __reduce__(self) -> tuple[Any, ...]:
        return gone_off.append, (True,)


gone_off: list[bool] = []


@kinds
async def test_a_pickle_that_is_not_ours_is_never_loaded(shop: Any, raw: Any, kind: type[Any]) -> None:
    """Not by the worker, not by who reads the job or its result: loading is running."""
    one = await shop(seal(kind, "k1", "none"), serializer="pickle")
    bomb = pickle.dumps(((Bomb(),), {}))
    call = b'[1,"sell","' + base64.b64encode(bomb) + b'",{},{"extra":{"stamp":"s"}}]'
    lines = [b"", *(f"{word} pickle k1 sell\n".encode() + bytes(32) for word in ("signed", "encrypted"))]
    for line in lines:
        job = await one.sell.enqueue("x")
        raw.set(payload(job.id), line + call)
        await job.info()
        await Worker(one.queue).run(burst=True)
        assert await job.status() in (JobState.FAILED, JobState.SCHEDULED)
        done = await one.sell.enqueue("y")
        await Worker(one.queue).run(burst=True)
        raw.hset(f"aqueue:{{q}}:job:{done.id}", "result", line + bomb)
        with pytest.raises(Exception, match="result"):  # of one kind or the other
            await done.result(timeout=10)
    assert not gone_off
    assert "x" not in one.sold


# unique keys


@kinds
@pytest.mark.parametrize("policy", [Unique("place", on_conflict="replace"), Debounce("1h", "place", max_wait="2h")])
async def test_a_waiting_job_is_replaced_by_what_was_sealed_before_its_id_was_known(
    shop: Any, raw: Any, kind: type[Any], policy: Unique | Debounce
) -> None:
    """Else whoever turned on signing would have to give up replacing and debouncing."""
    queue: Queue = (await shop(seal(kind, "k1"))).queue
    done: list[tuple[str, int]] = []

    @queue.task(unique=policy)
    async def index(place: str, version: int) -> int:
        done.append((place, version))
        return version

    delayed = index if isinstance(policy, Debounce) else index.options(delay=3600)
    first, *others = [await delayed.enqueue("here", version) for version in range(3)]
    assert [job == first for job in others] == [True, True]
    raw.zadd("aqueue:{q}:scheduled", {first.id: 1})
    async with Worker(queue):
        assert await others[-1].result(timeout=10) == await first.result(timeout=10) == 2
    assert done == [("here", 2)]


@kinds
async def test_a_replacing_payload_fits_the_jobs_of_its_key_alone(shop: Any, raw: Any, kind: type[Any]) -> None:
    """It is bound to no job, so it must be bound to what it may replace."""
    one = await shop(seal(kind, "k1"))
    replacing = one.sell.options(unique=Unique(on_conflict="replace"))
    source = raw.get(payload((await replacing.options(key="a").enqueue("moved")).id))
    others = [
        await replacing.options(key="b").enqueue("of another key"),
        await one.sell.options(key="c").enqueue("that nobody may replace"),
        await one.sell.enqueue("without a key"),
    ]
    kept = await one.sell.options(key="d").enqueue("not to be moved")
    raw.copy(payload(kept.id), payload("x~" + kept.id.partition("~")[2]))
    raw.copy(f"aqueue:{{q}}:job:{kept.id}", f"aqueue:{{q}}:job:{'x~' + kept.id.partition('~')[2]}")
    raw.lpush("aqueue:{q}:queued", "x~" + kept.id.partition("~")[2])
    for job in others:
        raw.set(payload(job.id), source)
    async with Worker(one.queue):
        for job in (*others, one.sell.job("x~" + kept.id.partition("~")[2])):
            assert "changed, or moved" in (await refusal(job)).reason
        await kept.result(timeout=10)
    assert sorted(one.sold) == ["moved", "not to be moved"]


# results


@kinds
async def test_a_result_that_was_not_sealed_for_its_job_is_refused(shop: Any, raw: Any, kind: type[Any]) -> None:
    """Who waits acts on what it gets, just as a worker does."""
    one = await shop(seal(kind, "k1"))
    first, second = await one.sell.enqueue(1), await one.sell.enqueue(2)
    await Worker(one.queue).run(burst=True)
    records = [f"aqueue:{{q}}:job:{job.id}" for job in (first, second)]
    raw.hset(records[1], "result", raw.hget(records[0], "result"))
    with pytest.raises(PayloadRefused, match=r"The result of job .+ changed, or moved") as caught:
        await second.result(timeout=10)
    assert caught.value.job_id == second.id
    raw.hset(records[1], "result", b"2")
    with pytest.raises(PayloadRefused, match=f"is not {kind.word}"):
        await second.result(timeout=10)
    assert await first.result(timeout=10) == [1, SECRET]


async def test_a_result_is_refused_to_who_has_no_keys(shop: Any) -> None:
    """With the name of what is missing, not with an error of some parser."""
    one, bare = await shop(seal(Encryption, "k1")), await shop()
    job, failed = await one.sell.enqueue(1), await one.sell.enqueue("never")
    await Worker(one.queue).run(burst=True)
    with pytest.raises(PayloadRefused, match="AQUEUE_ENCRYPTION_KEYS"):
        await bare.queue.job(job.id).result(timeout=10)
    with pytest.raises(JobFailed, match="AQUEUE_ENCRYPTION_KEYS"):
        await bare.queue.job(failed.id).result(timeout=10)
    assert (await bare.queue.job(failed.id).info()).args is None


# sent twice


@kinds
async def test_a_job_that_is_sealed_and_sent_again_is_stored_once(shop: Any, raw: Any, kind: type[Any]) -> None:
    """Each sealing gives other bytes; it is the id that says that the job is there already."""
    one = await shop(seal(kind, "k1"))
    wire, store = one.queue.wire, await one.queue.store()
    call = wire.encode_call("sell", ("twice",), {}, codec.Headers(extra={"stamp": "s"}))
    payloads = [wire.seal_call(JobId("j1"), "sell", call) for _ in range(2)]
    for data in payloads:
        assert await store.enqueue([NewJob(id=JobId("j1"), envelope=data)]) == ["j1"]
    assert raw.get(payload("j1")) == payloads[0]
    async with Worker(one.queue):
        assert await one.queue.job("j1").result(timeout=10) == ["twice", "s"]
    assert await store.enqueue([NewJob(id=JobId("j1"), envelope=payloads[1])]) == ["j1"]
    assert (await one.queue.stats()).queued == 0
    assert one.sold == ["twice"]
