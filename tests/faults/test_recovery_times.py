"""How long users wait after a death: measured, and printed for docs/faults.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

import pytest
from servers import Server

from aqueue import Queue
from faults.fleet import Fleet, wait_until
from faults.load import Load
from faults.test_failover import Site, cluster_site, sentinel_site

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

LONG_OUTAGE_SECONDS = 12
"""By then every pause has grown as long as it gets."""

DRAINED_SECONDS = 0.3
"""What a dead server has said before has been heard by then, and no other has taken its place."""


def tell(what: str, took: list[float]) -> None:
    print(f"{what}: n {len(took)}, p50 {median(took):.2f} s, max {max(took):.2f} s {[round(one, 2) for one in took]}")


async def test_the_jobs_of_killed_workers_run_elsewhere(own_server: Server, tmp_path: Path) -> None:
    """Ten workers with one job each die at ten moments between their heartbeats, with the lease that users have."""
    gate = tmp_path / "gate"
    async with Queue("faults", url=own_server.url) as queue:
        (tmp_path / "spare").mkdir()
        with (
            Fleet(own_server.url, tmp_path, lease=15, options=("--concurrency", "1")) as fleet,
            Fleet(own_server.url, tmp_path / "spare", lease=15, options=("--concurrency", "20")) as spare,
        ):
            fleet.start(10)
            for _ in range(10):
                await queue.enqueue("gated", str(gate))
            await asyncio.to_thread(wait_until, lambda: len(fleet.runs()) == 10, 60, "each has one")
            spare.start()
            await asyncio.to_thread(wait_until, lambda: spare.log().count("tasks:") == 1, 30, "the spare one is up")
            started = {line.pid: line.job_id for line in fleet.lines()}
            killed: dict[str, float] = {}
            for process in list(fleet.processes):
                killed[started[process.pid]] = time.time()
                fleet.kill(process)
                await asyncio.sleep(0.5)
            await asyncio.to_thread(wait_until, lambda: len(spare.runs()) == 10, 60, "all run elsewhere")
            took = [line.at - killed[line.job_id] for line in spare.lines() if line.what == "start"]
            gate.touch()
    tell("killed worker", took)
    assert max(took) <= 20


async def _recovery(load: Load, back: Callable[[], object]) -> float:
    """Say how long after the return of `back` a producer got the first result; called once results come no more."""
    told = len(load.history.told)

    def come_back() -> float:
        back()
        return time.monotonic()

    async def served() -> float:
        while len(load.history.told) == told:
            await asyncio.sleep(0.002)
        return time.monotonic()

    async with asyncio.timeout(90):
        is_back, is_served = await asyncio.gather(asyncio.to_thread(come_back), served())
    return max(0.0, is_served - is_back)  # whoever looks for the new primary may see it later than the worker


async def test_jobs_complete_after_a_restart(own_server: Server) -> None:
    """Killed under load and started again with its file, after short and long outages."""
    took: dict[float, list[float]] = {1.0: [], LONG_OUTAGE_SECONDS: []}
    async with Load(own_server.url) as load, load.worker():
        for outage in [1.0] * 10 + [LONG_OUTAGE_SECONDS] * 5:
            await load.more()
            await asyncio.to_thread(own_server.kill)
            await asyncio.sleep(outage)
            took[outage].append(await _recovery(load, own_server.start))
        with own_server.client() as raw:
            assert await load.wrong(raw) == []
    for outage, times in took.items():
        tell(f"restarted server, away for {outage:g} s", times)
    assert max(map(max, took.values())) <= 5


@pytest.mark.parametrize("make", [sentinel_site, cluster_site])
async def test_jobs_complete_after_a_failover(
    make: Callable[..., AbstractContextManager[Site]], tmp_path: Path
) -> None:
    """Counted from when there is a new primary; how long that takes is a matter of the servers' settings."""
    took: dict[int, list[float]] = {1_000: [], LONG_OUTAGE_SECONDS * 1000: []}
    for n, patience_ms in enumerate([1_000] * 5 + [LONG_OUTAGE_SECONDS * 1000] * 3):
        (tmp_path / str(n)).mkdir()
        with make(tmp_path / str(n), patience_ms=patience_ms) as site:
            async with Load(site.url) as load, load.worker():
                await load.more()
                await asyncio.to_thread(site.kill, next(iter(site.servers)))
                await asyncio.sleep(DRAINED_SECONDS)
                took[patience_ms].append(await _recovery(load, site.primary))
    for patience_ms, times in took.items():
        tell(f"{make.__name__}, primary missed for {patience_ms / 1000:g} s", times)
    assert max(map(max, took.values())) <= 5
