"""Schedules of every second, while workers are killed and their server is restarted: each slot starts one job.

The code has one of them, and another was made at run time by a process that is long gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from functools import partial
from pathlib import Path

import pytest
import redis
from servers import Server

from aqueue import Queue
from faults.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(300)

BASE = "aqueue:{clockwork}:"


KINDS = ("strike", "made")
"""The schedule of the code, and that of a user."""


def slots(server: Server, kind: str) -> list[int]:
    """The slots that have a job, in Unix seconds."""
    with server.client() as raw:
        keys = [str(key) for key in raw.scan_iter(f"{BASE}job:{kind}.*", count=1000)]
    found = sorted(int(key.rpartition(".")[2]) for key in keys)
    assert all(slot % 1000 == 0 for slot in found)
    return [slot // 1000 for slot in found]


def has(server: Server, count: int) -> bool:
    with contextlib.suppress(redis.RedisError):
        return all(len(slots(server, kind)) >= count for kind in KINDS)
    return False


async def _make(server: Server) -> None:
    async with Queue("clockwork", url=server.url) as queue:
        await queue.schedule(queue.remote("strike").call(), id="made", cron="* * * * * *", misfire="all")


def _strike(server: Server, directory: Path, *, workers: int, count: int, kills: int, restart: bool) -> None:
    asyncio.run(_make(server))
    with Fleet(server.url, directory, lease=2, application="clockwork:queue") as fleet:
        fleet.start(workers)
        wait_until(partial(has, server, 1), 30, "the first slot has come")
        for n in range(kills):
            wait_until(partial(has, server, (n + 1) * count // (kills + 2)), count + 30, "it goes on")
            fleet.kill(random.choice(fleet.processes))
            if restart and n == kills // 2:
                server.kill()
                time.sleep(2)  # slots come and go meanwhile
                server.start()
            fleet.start()
        wait_until(partial(has, server, count), count + 60, f"{count} slots have come")
        with server.client() as raw:
            completed = partial(raw.hget, f"{BASE}stats", "completed")
            wanted = sum(len(slots(server, kind)) for kind in KINDS)
            wait_until(lambda: int(str(completed() or 0)) >= wanted, 30, "all have run")
        starts = fleet.runs()
        found = {kind: slots(server, kind) for kind in KINDS}
    for kind, seen in found.items():
        own = [start for start in starts if start.startswith(f"{kind}.")]
        missed = set(range(seen[0], seen[-1] + 1)) - set(seen)
        strangers = set(own) - {f"{kind}.{slot * 1000}" for slot in seen}
        print(f"{kind}: {len(seen)} slots, {kills} kills, {int(restart)} restarts, {len(missed)} missed, "
              f"{len(strangers)} strangers")  # fmt: skip
        assert (missed, strangers) == (set(), set())


def test_each_second_strikes_once_although_workers_are_killed(own_server: Server, tmp_path: Path) -> None:
    """Whoever is left starts what is due, and nobody starts it again."""
    _strike(own_server, tmp_path, workers=2, count=4, kills=1, restart=False)


@pytest.mark.chaos
def test_two_minutes_of_seconds(own_server: Server, tmp_path: Path) -> None:
    """Five workers, four kills, and a restart of the server in between."""
    _strike(own_server, tmp_path, workers=5, count=120, kills=4, restart=True)
