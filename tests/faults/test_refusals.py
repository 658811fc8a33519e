"""What the server may say instead of doing what it is asked: who notices, and what becomes of the jobs."""

from __future__ import annotations

import asyncio

import pytest
from servers import Server

from aqueue import Queue, StoreError, StoreFull, StoreUnavailable, Worker
from aqueue.store import scripts
from faults.laboratory import Laboratory
from faults.proxy import Decide, Lie, Proxy, Refusal, Request, first_of_each, honest

PASSING = (
    "LOADING server is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "BUSY Redis is busy running a script.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "NOSCRIPT No matching script.",
)
"""Nothing was executed, and it will be when it is asked again, here or elsewhere."""

STAYING: dict[str, type[StoreError]] = {
    "OOM command not allowed when used memory > 'maxmemory'.": StoreFull,
    "NOPERM User default has no permissions to run the 'evalsha' command": StoreError,
    "WRONGTYPE Operation against a key holding the wrong kind of value": StoreError,
    "ERR unknown command": StoreError,
}
"""To ask again would not help; a producer is told at once what it is."""


def word(line: str) -> str:
    return line.partition(" ")[0]


def always(name: str, line: str) -> Decide:
    return lambda request: Refusal(line) if request.name == name else None


def of_scripts(line: str) -> Decide:
    """Refuse the first call of every script."""

    def decide(request: Request) -> Lie | None:
        return Refusal(line) if request.nth == 1 and request.name in scripts.names() else None

    return decide


def at_workers(line: str) -> Decide:
    """Refuse to a worker the first call of every kind but those with which it makes sure of its server."""
    met = set[str]()

    def decide(request: Request) -> Lie | None:
        if request.door != "worker" or request.name in {"HELLO", "INFO", *met}:
            return None
        met.add(request.name)
        return Refusal(line)

    return decide


@pytest.mark.usefixtures("impatient")
async def test_what_passes_is_noticed_by_nobody(laboratory: Laboratory) -> None:
    """Each refusal meets the first call of every script, and neither producer nor job pays for it."""
    runs = await asyncio.gather(*(laboratory.tried(of_scripts(line)) for line in PASSING))
    assert {word(line): run.wrong for line, run in zip(PASSING, runs, strict=True) if run.wrong} == {}
    assert all(run.lies == len(scripts.names()) for run in runs)


@pytest.mark.usefixtures("impatient")
async def test_what_passes_may_meet_every_other_command_too(laboratory: Laboratory) -> None:
    """Greetings, subscriptions and parked fetches are refused by a server that is loading as scripts are."""
    lines = [line for line in PASSING if word(line) in ("LOADING", "MASTERDOWN", "BUSY")]
    runs = await asyncio.gather(*(laboratory.tried(first_of_each(Refusal(line))) for line in lines))
    assert {word(line): run.wrong for line, run in zip(lines, runs, strict=True) if run.wrong} == {}


@pytest.mark.usefixtures("impatient")
async def test_a_worker_outlives_what_stays(laboratory: Laboratory) -> None:
    """It says so once and tries again; a job that was taken for settled is."""
    runs = await asyncio.gather(*(laboratory.tried(at_workers(line)) for line in STAYING))
    assert {word(line): run.wrong for line, run in zip(STAYING, runs, strict=True) if run.wrong} == {}


@pytest.mark.parametrize("line", PASSING[:-1], ids=word)  # a script that is sent whole cannot be unknown
async def test_what_should_pass_and_does_not_is_an_outage(
    line: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer waits for as long as its patience lasts, and is told that the server cannot be used."""
    monkeypatch.setattr("aqueue.store.connection.PATIENCE_SECONDS", 1.0)
    door = await proxy.door("main")
    async with Queue("q", url=door.url) as queue:
        proxy.decide = always("enqueue", line)
        with pytest.raises(StoreUnavailable):
            await queue.enqueue("work")
        assert len(proxy.lies) > 1


@pytest.mark.parametrize(("line", "error"), STAYING.items(), ids=map(word, STAYING))
async def test_what_stays_is_told_at_once(line: str, error: type[StoreError], proxy: Proxy) -> None:
    """In its own class, and after one try."""
    door = await proxy.door("main")
    async with Queue("q", url=door.url) as queue:
        proxy.decide = always("enqueue", line)
        with pytest.raises(error) as caught:
            await queue.enqueue("work")
        assert not isinstance(caught.value, StoreUnavailable)
        assert len(proxy.lies) == 1


async def test_what_ended_while_a_turn_was_refused_is_stored_when_that_is_over(server: Server, proxy: Proxy) -> None:
    """Nothing else may wake the worker then: it would hold its jobs, and the leases of them, for ever."""
    gates, started = [asyncio.Event(), asyncio.Event()], [asyncio.Event(), asyncio.Event()]
    door = await proxy.door("worker")
    async with Queue("q", url=door.url) as queue, Queue("q", url=server.url) as producer:

        @queue.task
        async def gated(n: int) -> int:
            started[n].set()
            await gates[n].wait()
            return n

        async with Worker(queue), asyncio.timeout(30):
            first = await producer.enqueue("gated", 0)
            await started[0].wait()
            proxy.decide = always("settle_and_claim", "ERR not now")
            second = await producer.enqueue("gated", 1)
            while len(proxy.lies) < 2:  # the turn that is to claim the second one is open, and sent again
                await asyncio.sleep(0.01)
            gates[0].set()
            told = len(proxy.lies)
            while len(proxy.lies) < told + 2:  # it has ended meanwhile, and the worker has looked
                await asyncio.sleep(0.01)
            proxy.decide = honest
            await started[1].wait()
            assert await first.result() == 0
            gates[1].set()
            assert await second.result() == 1
