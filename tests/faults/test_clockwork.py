"""A schedule of every second, while workers are killed and their server is restarted: each slot starts one job."""

from __future__ import annotations

import contextlib
import random
import time
from functools import partial
from pathlib import Path

import pytest
import redis
from servers import Server

from faults.fleet import Fleet, wait_until

pytestmark = pytest.mark.timeout(300)

BASE = "aqueue:{clockwork}:"


def slots(server: Server) -> list[int]:
    """The slots that have a job, in Unix seconds."""
    with server.client() as raw:
        keys = [str(key) for key in raw.scan_iter(f"{BASE}job:strike.*", count=1000)]
    found = sorted(int(key.rpartition(".")[2]) for key in keys)
    assert all(slot % 1000 == 0 for slot in found)
    return [slot // 1000 for slot in found]


def has(server: Server, count: int) -> bool:
    with contextlib.suppress(redis.RedisError):
        return len(slots(server)) >= count
    return False


def _strike(server: Server, directory: Path, *, workers: int, count: int, kills: int, restart: bool) -> None:
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
        found = slots(server)
        with server.client() as raw:
            completed = partial(raw.hget, f"{BASE}stats", "completed")
            wait_until(lambda: int(str(completed() or 0)) >= len(found), 30, "all have run")
        starts = fleet.runs()
    missed = set(range(found[0], found[-1] + 1)) - set(found)
    strangers = set(starts) - {f"strike.{slot * 1000}" for slot in (*found, found[-1] + 1, found[-1] + 2)}
    print(f"{len(found)} slots, {kills} kills, {int(restart)} restarts, {len(missed)} missed, {len(strangers)} twice")
    assert (missed, strangers) == (set(), set())


def test_each_second_strikes_once_although_workers_are_killed(own_server: Server, tmp_path: Path) -> None:
    """Whoever is left starts what is due, and nobody starts it again."""
    _strike(own_server, tmp_path, workers=2, count=4, kills=1, restart=False)


@pytest.mark.chaos
def test_two_minutes_of_seconds(own_server: Server, tmp_path: Path) -> None:
    """Five workers, four kills, and a restart of the server in between."""
    _strike(own_server, tmp_path, workers=5, count=120, kills=4, restart=True)
