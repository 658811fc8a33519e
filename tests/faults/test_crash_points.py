"""A worker dies before and after each of its calls to the server, and every job completes on the next worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from servers import Server

from aqueue import Concurrency, Queue, Rate, Worker
from aqueue.job import WorkerId
from faults import application
from faults.crashing import KINDS
from faults.fleet import HERE, read_lines
from faults.history import History, Remains, complaints, remains

JOBS, RUNS = 12, 13
"""One job takes two runs; one is made by a schedule."""
SOON = timedelta(seconds=0.4)
AT_ONCE = 4
"""Processes side by side."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Died:
    """One run of a subject: the points that it passed, how it ended, and what was wrong after the next worker."""

    points: list[str]
    code: int
    wrong: list[str]


class Morgue:
    """Lets workers die, each on a queue of its own, and has their jobs run by another."""

    def __init__(self, server: Server, raw: redis.Redis, record: Path) -> None:
        self._server = server
        self._raw = raw
        self._record = record
        self._count = 0

    async def dies(self, crash: str) -> Died:
        self._count += 1
        name = f"crash{self._count}"
        calls = self._record.with_name(f"{name}.calls")
        async with Queue(name, url=self._server.url) as queue:
            for task in application.queue.tasks.values():
                queue.register(task.function, task.name, task.defaults)
            history = await self._prepare(queue)
            code, errors = await self._run_subject(name, crash, calls)
            left = remains(self._raw, name)
            await self._have_the_rest_run(queue)
        self._take_in(history, left)
        after = remains(self._raw, name)
        wrong = [errors] if code not in (0, -signal.SIGKILL) else []
        wrong += complaints(history, after)
        wrong += [f"{job_id} is {state}" for job_id, state in after.states.items() if state != "completed"]
        return Died(calls.read_text().splitlines(), code, wrong)

    async def _prepare(self, queue: Queue) -> History:
        """Enqueue a job for each way to a worker: from a dead one, from the list, to be retried, and delayed."""
        orphan = await queue.enqueue("brief", 0)
        await (await queue.store()).settle_and_claim(WorkerId("dead"), 1, [], 1)
        self._end_leases(queue.name)
        brief = [await queue.enqueue("brief", 0.01) for _ in range(4)]
        again = await queue.enqueue("second_time")
        delayed = await queue.remote("brief").options(delay=0.3).enqueue(0.2)  # alone, so a fetch parks beside it
        limited = queue.remote("brief").options(limit=[Concurrency(1), Rate(200)], priority=7)
        held_back = [await limited.enqueue(0) for _ in range(3)]
        inside = await queue.enqueue("with_permit", 1, 0)
        made = await queue.schedule(queue.remote("brief").call(0), id=f"made-{queue.name}", at=_now() + SOON)
        slot = f"{made.id}.{round(made.next[0].timestamp() * 1000)}"
        acknowledged: set[str] = {slot} | {job.id for job in (orphan, *brief, again, delayed, *held_back, inside)}
        history = History(asked=JOBS, acknowledged=acknowledged)
        history.cause(again.id)
        return history

    async def _run_subject(self, name: str, crash: str, calls: Path) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "faults.crashing", cwd=HERE.parent, stderr=subprocess.PIPE,
            env={
                **os.environ, "AQUEUE_URL": self._server.url,
                "FAULT_QUEUE": name, "FAULT_CRASH": crash, "FAULT_CALLS": str(calls),
                "FAULT_RECORD": str(self._record), "FAULT_RUNS": str(RUNS),
            },
        )  # fmt: skip
        _, errors = await process.communicate()
        return process.returncode or 0, errors.decode()

    def _end_leases(self, name: str) -> None:
        """Let the time pass that the workers' leases last."""
        key = f"aqueue:{{{name}}}:workers"
        for worker in map(str, self._raw.zrange(key, 0, -1)):
            self._raw.zadd(key, {worker: 1})

    async def _have_the_rest_run(self, queue: Queue) -> None:
        self._end_leases(queue.name)
        async with Worker(queue), asyncio.timeout(60):
            while await self._has_more(queue):
                await asyncio.sleep(0.02)

    async def _has_more(self, queue: Queue) -> bool:
        stats = await queue.stats()
        return bool(stats.queued + stats.scheduled + stats.running or await queue.schedules.list())

    def _take_in(self, history: History, left: Remains) -> None:
        """Write what the tasks have recorded into the history; only what the dead worker held may run again."""
        for line in read_lines(self._record):
            if line.job_id in history.acknowledged:
                getattr(history, line.what)(line.job_id)
        for job_id, places in left.places.items():
            if "held" in places:
                history.cause(job_id)


@pytest.fixture
async def morgue(
    server: Server, raw: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Morgue]:
    record = tmp_path / "record"
    monkeypatch.setattr(application, "RECORD", str(record))
    application.queue.use_url(server.url)  # its tasks run here, too, and pass its limiters
    yield Morgue(server, raw, record)
    await application.queue.close()


async def _each_dies(morgue: Morgue, points: list[str]) -> dict[str, list[str]]:
    """Let a worker die at each point; return what was wrong, by point."""
    turn, wrong, killed = asyncio.Semaphore(AT_ONCE), dict[str, list[str]](), 0

    async def one(point: str) -> None:
        nonlocal killed
        async with turn:
            died = await morgue.dies(point)
        killed += died.code == -signal.SIGKILL
        if died.wrong:
            wrong[point] = died.wrong

    await asyncio.gather(*(one(point) for point in points))
    print(f"{len(points)} points, {killed} deaths, {len(wrong)} with complaints")
    for point, complaint in wrong.items():
        print(f"{point}:", *complaint, sep="\n  ")
    assert killed > len(points) / 2, "a run that is not disturbed passes these points; most must be reached again"
    return wrong


@pytest.mark.chaos
@pytest.mark.timeout(1800)
async def test_a_worker_may_die_at_any_point(morgue: Morgue) -> None:
    """The long form: before and after every single call."""
    whole = await morgue.dies("never")
    assert (whole.code, whole.wrong) == (0, [])
    assert await _each_dies(morgue, whole.points) == {}


@pytest.mark.timeout(300)
async def test_a_worker_may_die_at_the_first_call_of_every_kind(morgue: Morgue) -> None:
    """Before it, and after it: what the server knows by then is all that the next worker has."""
    whole = await morgue.dies("never")
    assert (whole.code, whole.wrong) == (0, [])
    first = [point for point in whole.points if point.endswith(" 1")]
    assert {point.split()[1] for point in first} >= {*KINDS, "retire", "acquire", "release_permit"}
    assert await _each_dies(morgue, first) == {}
