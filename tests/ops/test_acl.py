"""`aqueue acl`: users with the least rights, on real servers: all that is theirs works, and nothing else does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError
from servers import Server
from typer.testing import CliRunner

from aqueue import (
    Concurrency,
    Context,
    JobCancelled,
    JobFailed,
    JobState,
    Queue,
    Rate,
    RateLimited,
    RetryLater,
    Settings,
    StoreError,
    Window,
    Worker,
)
from aqueue.job import WorkerId
from aqueue.ops.cli import app
from aqueue.store.permissions import Role

PASSWORD: Final = "not:easy/to@guess"
WAIT_SECONDS: Final = 20.0

Urls: TypeAlias = dict[Role, str]


def acl(*args: str, **input_: Any) -> str:
    result = CliRunner().invoke(app, ["acl", *args], **input_)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def make_users(client: redis.Redis, prefix: str = "aqueue") -> None:
    """Do what the help says: print with the password's hash, and hand the line to the server."""
    for role in Role:
        line = acl(role, "--prefix", prefix, "--password-file", "-", input=PASSWORD + "\n")
        client.execute_command(*line.split())  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


@pytest.fixture
def urls(server: Server, raw: redis.Redis) -> Iterator[Urls]:
    """The address of the server for each of three users."""
    make_users(raw)
    yield {role: f"unix://aqueue-{role}:{quote(PASSWORD, safe='')}@{server.socket}" for role in Role}
    raw.acl_deluser(*(f"aqueue-{role}" for role in Role))


def command(*args: str, url: str) -> tuple[int, str]:
    result = CliRunner(env={"AQUEUE_URL": url}).invoke(app, args)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


async def test_producers_and_workers_do_all_they_are_for(
    urls: Urls, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that is missing shows itself on the one path that needs it, so all of them are walked."""
    caplog.set_level(logging.INFO)
    settings = Settings(lease=1)
    async with (
        Queue("q", url=urls[Role.PRODUCER]) as mine,
        Queue("q", url=urls[Role.WORKER], settings=settings) as theirs,
    ):

        @theirs.task(retry=2)
        async def flaky(ctx: Context) -> int:
            if ctx.attempt == 1:
                raise RetryLater(0.01)
            return ctx.attempt

        @theirs.task(retry=1)
        async def broken() -> None:
            raise OSError("no such host")

        @theirs.task
        async def nested(n: int) -> int:
            return n if n == 0 else await (await nested.enqueue(n - 1)).result(timeout=WAIT_SECONDS) + 1

        @theirs.task
        async def endless() -> None:
            await asyncio.get_running_loop().create_future()

        store = await theirs.store()
        lost = await mine.enqueue("nested", 0)
        assert len((await store.settle_and_claim(WorkerId("ghost"), 1, [], 1)).leases) == 1
        await store.extend(WorkerId("ghost"), 1, [lost.id], "")

        early = await mine.remote("nested").options(key="early", delay=0.01, ttl=60).enqueue(0)
        again = await mine.remote("nested").options(key="early").enqueue(0)
        assert (again.id, again.created) == (early.id, False)
        unwanted = await mine.enqueue("nested", 0)
        await unwanted.cancel()
        async with Worker(theirs, grace=0):
            many = await mine.enqueue_many(mine.remote("nested").call(0) for _ in range(50))
            assert [await job.result(timeout=WAIT_SECONDS) for job in many] == [0] * 50
            assert await (await mine.enqueue("nested", 3)).result(timeout=WAIT_SECONDS) == 3
            assert await (await mine.enqueue("flaky")).result(timeout=WAIT_SECONDS) == 2
            assert await early.result(timeout=WAIT_SECONDS) == 0
            with pytest.raises(JobFailed):
                await (await mine.enqueue("broken")).result(timeout=WAIT_SECONDS)
            with pytest.raises(JobCancelled):
                await unwanted.result(timeout=WAIT_SECONDS)
            long = await mine.enqueue("endless")
            async with asyncio.timeout(WAIT_SECONDS):
                while await long.status() != JobState.RUNNING:
                    await asyncio.sleep(0.01)
            await long.cancel()
            with pytest.raises(JobCancelled):
                await long.result(timeout=WAIT_SECONDS)
            assert await lost.result(timeout=WAIT_SECONDS) == 0  # reclaimed
            assert (await lost.info()).crashes == 1
            assert await store.prune() in (-1, 0)
            await store.promote()
    assert "permi" not in caplog.text.lower()
    assert [
        record for record in caplog.records if record.levelno >= logging.ERROR and "broken" not in record.message
    ] == []


async def test_producers_and_workers_pass_limiters(urls: Urls, caplog: pytest.LogCaptureFixture) -> None:
    """A web application does, as do jobs: permits are given, renewed, handed on and told of."""
    for role in (Role.PRODUCER, Role.WORKER):
        async with Queue("q", url=urls[role]) as queue:
            limiter = queue.limiter(Concurrency(1, name="one"), wait=WAIT_SECONDS, lease=1)
            async with limiter as permit:
                waits = asyncio.create_task(limiter.acquire())
                await asyncio.sleep(0.5)  # until it is renewed
                assert not permit.lost
            await (await waits).release()
            rate, window = Rate(1, per=60, name=role), Window(1, per=60, name=role)
            async with queue.limiter(rate), queue.limiter(window):
                pass
            for limit in (rate, window):
                with pytest.raises(RateLimited):
                    await queue.limiter(limit).acquire(wait=1)
    assert "permit" not in caplog.text.lower()


async def test_each_does_its_part_with_a_paused_task(urls: Urls) -> None:
    """An operator pauses it, a worker sets its job aside, and a producer cancels that there."""
    async with (
        Queue("q", url=urls[Role.PRODUCER]) as mine,
        Queue("q", url=urls[Role.WORKER]) as theirs,
        Queue("q", url=urls[Role.OPERATOR]) as operators,
    ):
        await operators.pause("later")
        aside, other = await mine.enqueue("later"), await mine.enqueue("later")
        await Worker(theirs).run(burst=True)
        assert (await operators.paused()).tasks == {"later": 2}
        await aside.cancel()
        assert (await operators.paused()).tasks == {"later": 1}
        await operators.resume("later")
        turn = await (await theirs.store()).settle_and_claim(WorkerId("me"), 1, [], 5)
        assert [lease.id for lease in turn.leases] == [other.id]


async def test_operators_do_all_they_are_for(urls: Urls, server: Server, raw: redis.Redis) -> None:
    """Every command of the command line, at an address that a colleague may be given."""
    ask = partial(command, url=urls[Role.OPERATOR])

    async def asked(*args: str) -> tuple[int, str]:
        return await asyncio.to_thread(ask, *args)

    async with Queue("q", url=server.url) as queue:

        @queue.task(retry=1)
        async def broken() -> None:
            raise OSError("no such host")

        job = await broken.enqueue()
        async with Worker(queue):
            with pytest.raises(JobFailed):
                await job.result(timeout=WAIT_SECONDS)
        waiting = await queue.enqueue("later")
        await queue.remote("later").options(delay=60).enqueue()
        assert (await asked("stats"))[0] == 0
        code, text = await asked("jobs")
        assert (code, text.count(" q ")) == (0, 3)
        assert job.id in (await asked("job", job.id))[1]
        assert await asked("pause", "q") == (0, "q: paused, what runs goes on\n")
        assert await asked("resume", "q") == (0, "q: resumed\n")
        assert await asked("pause", "q", "--task", "later") == (0, "q: task later paused, what runs goes on\n")
        assert await asked("resume", "q", "--task", "later") == (0, "q: task later resumed\n")
        assert (await asked("jobs", "q", "--task", "broken", "--error", "OSError"))[1].count(" q ") == 1
        assert (await asked("retry", job.id))[0] == 0
        assert (await asked("cancel", job.id))[0] == 0
        assert (await asked("delete", job.id))[0] == 0
        raw.lrem("aqueue:{q}:queued", 0, waiting.id)
        code, text = await asked("doctor", "--repair", "--json")
        seen = json.loads(text)
        assert [(row["id"], row["repaired"]) for row in seen["findings"]] == [(waiting.id, True)]
        assert not [row for row in seen["checks"] if row["check"] == "permissions"]
        await queue.schedule(queue.remote("later").call(), id="nightly", cron="@daily")
        assert "nightly" in (await asked("schedules"))[1]
        for verb in ("pause", "resume", "delete"):
            assert (await asked("schedules", verb, "nightly"))[0] == 0
        assert await asked("retry", "--failed") == (0, "q: 0 failed jobs queued again\n")
        assert await asked("purge", "q", "--failed", "--yes") == (0, "q: 0 failed jobs deleted\n")
        assert await asked("purge", "q", "--yes") == (0, "q: 2 waiting jobs deleted\n")


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_theirs_is_refused(role: Role, urls: Urls, server: Server, raw: redis.Redis) -> None:
    """A stolen password opens one prefix, and no way to stop or empty the server."""
    raw.set("aqueue:other", "x", ex=60)
    refused = [
        "KEYS *", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET maxmemory 1", "ACL LIST",
        "SHUTDOWN", "SCRIPT FLUSH", "CLIENT LIST", "MONITOR", "SAVE", "REPLICAOF NO ONE", "GET aqueue:other",
        "GET other:{q}:payload:x", "HGETALL other:{q}:job:x", "DEL other:{q}:queued", "SMEMBERS other:queues",
        "GET aqueue:x:{q}:payload:x", "SSUBSCRIBE other:{q}:channel:x", "SSUBSCRIBE aqueue:{q}:other",
        "SPUBLISH other:{q}:channel:x hello", "SUBSCRIBE news", "PUBLISH news x", "MGET other aqueue:{q}:payload:x",
    ]  # fmt: skip
    with redis.Redis(
        unix_socket_path=str(server.socket), username=f"aqueue-{role}", password=PASSWORD, decode_responses=True
    ) as client:
        assert client.execute_command("PING")
        for line in refused:
            with pytest.raises(NoPermissionError):
                client.execute_command(*line.split())
        with pytest.raises(ResponseError, match=r"(?i)permission|can't"):
            client.eval("return redis.call('GET', 'other')", 0)
    assert raw.delete("aqueue:other") == 1


async def test_producers_make_schedules_and_workers_start_them(urls: Urls) -> None:
    """An application that makes them at run time is no operator."""
    async with Queue("q", url=urls[Role.PRODUCER]) as app, Queue("q", url=urls[Role.WORKER]) as queue:
        ran = asyncio.Event()

        @queue.task
        async def note() -> None:
            ran.set()

        queue.every(3600, id="fixed")(note)
        async with Worker(queue), asyncio.timeout(WAIT_SECONDS):
            await app.schedule(app.remote("note").call(), id="made", every=0.1, overlap="skip")
            await ran.wait()
            await app.schedules.pause("made")
            await app.schedules.edit("made", every=3600)
            await app.schedules.resume("made")
            job = await app.schedules.run("made")
            await job.result(timeout=WAIT_SECONDS)
            assert {info.id for info in await app.schedules.list()} == {"made", "fixed"}
            await app.schedules.delete("made")
            later = await app.remote("note").options(delay=60).enqueue()
            await later.reschedule(delay=0)
            await later.result(timeout=WAIT_SECONDS)


def test_a_producer_can_neither_stop_nor_empty_a_queue(urls: Urls, server: Server) -> None:
    """It is the one that faces the internet."""
    with redis.Redis(unix_socket_path=str(server.socket), username="aqueue-producer", password=PASSWORD) as client:
        for line in ("SET aqueue:{q}:paused 1", "GET aqueue:{q}:paused", "HGETALL aqueue:{q}:held:x",
                     "ZADD aqueue:{q}:workers 1 x", "RPOP aqueue:{q}:queued", "SCAN 0"):  # fmt: skip
            with pytest.raises(NoPermissionError):
                client.execute_command(*line.split())


async def test_a_refusal_says_what_is_missing(urls: Urls) -> None:
    """Whoever widens rights needs to know which."""
    async with Queue("q", url=urls[Role.PRODUCER]) as queue:
        with pytest.raises(StoreError, match="does not permit this user what aqueue needs"):
            await queue.pause()
        with pytest.raises(StoreError, match="does not permit"):
            await queue.stats()
    async with Queue("q", url=urls[Role.PRODUCER], settings=Settings(prefix="other")) as queue:
        with pytest.raises(StoreError, match="does not permit"):
            await queue.enqueue("later")


async def test_another_prefix_has_users_of_its_own(server: Server, raw: redis.Redis) -> None:
    """One server, two applications; special characters in a prefix must not widen the pattern."""
    make_users(raw, prefix="shop*")
    login = quote(PASSWORD, safe="")
    url = f"unix://aqueue-worker:{login}@{server.socket}"
    try:
        async with Queue("q", url=url, settings=Settings(prefix="shop*")) as queue:

            @queue.task(result_ttl=0)
            async def double(n: int) -> int:
                return 2 * n

            async with Worker(queue):
                job = await double.enqueue(4)
                async with asyncio.timeout(WAIT_SECONDS):
                    while not (await job.status()).ended:
                        await asyncio.sleep(0.01)
        async with Queue("q", url=url, settings=Settings(prefix="shopping")) as queue:
            with pytest.raises(StoreError, match="does not permit"):
                await queue.enqueue("later")
    finally:
        raw.acl_deluser(*(f"aqueue-{role}" for role in Role))


# what is printed


def test_the_password_stands_in_no_output(tmp_path: Path) -> None:
    """Terminals and build logs remember."""
    secret = tmp_path / "secret.txt"
    secret.write_text("geheim\n")
    line = acl("worker", "--user", "jobs", "--password-file", str(secret))
    assert line.startswith(f"ACL SETUSER jobs reset on #{hashlib.sha256(b'geheim').hexdigest()} ~aqueue:{{* ")
    assert "geheim" not in line


def test_without_a_password_file_there_is_a_placeholder() -> None:
    """And a word about it where it does not get into a pipe."""
    result = CliRunner().invoke(app, ["acl", "producer"])
    assert result.exit_code == 0
    assert result.stdout.startswith("ACL SETUSER aqueue-producer reset on >PASSWORD ~aqueue:{*}:job:* ")
    assert "Replace PASSWORD" in result.stderr
    assert "@all" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nobody"], [], ["worker", "--prefix", "a b"], ["worker", "--user", "a b"], ["worker", "--prefix", "{"]],
)
def test_senseless_requests_are_refused(arguments: list[str]) -> None:
    """A line that means something else than was asked for must not reach a server."""
    result = CliRunner().invoke(app, ["acl", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr


def test_the_help_fits_a_screen_and_its_examples_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People copy examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("geheim")
    text = CliRunner().invoke(app, ["acl", "--help"]).stdout
    assert len(text.splitlines()) <= 24
    assert max(map(len, text.splitlines())) <= 84
    examples = [
        line.partition("|")[0].split()[1:] for line in text.splitlines() if line.strip().startswith("aqueue acl")
    ]
    assert len(examples) == 3
    for example in examples:
        assert CliRunner().invoke(app, example).stdout.startswith("ACL SETUSER ")


def test_the_document_s_examples_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it knows every role."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    examples = [line.partition("|")[0].split()[2:] for line in text.splitlines() if line.startswith("$ aqueue acl")]
    assert {example[1] for example in examples} == set(Role)
    for example in examples:
        Path(example[-1]).write_text("geheim")
        assert CliRunner().invoke(app, example).stdout.startswith("ACL SETUSER ")
    assert all(f"| {role} |" in text for role in Role)
