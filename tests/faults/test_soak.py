"""What goes on for long must not grow: neither memory, nor latency, nor connections, nor keys."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
import redis
from servers import Server

from aqueue import Queue, Settings
from faults.fleet import Fleet, wait_until
from faults.load import until
from faults.soak import KEEP_SECONDS, Sample, Soak, growth, second_half, table, usual

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
MINUTES = float(os.environ.get("AQUEUE_SOAK_MINUTES", "10"))
WORKERS = 2
SETTINGS = Settings(lease=15, result_ttl=KEEP_SECONDS, failure_ttl=KEEP_SECONDS)

ALLOWED = {
    "rss": (0.03, 1.0),
    "server": (0.05, 0.5),
    "p50": (0.25, 3.0),
    "p99": (0.4, 25.0),
    "connections": (0.0, 0.5),
    "keys": (0.05, 30.0),
    "unfinished": (0.25, 10.0),
}
"""Growth, as a part of the median or outright, whichever is more: what a shared machine does by itself."""


def grown(samples: Sequence[Sample], names: set[str]) -> dict[str, float]:
    """Give what has grown by more than is allowed, and by how much."""
    found = {name: growth(samples, name) for name in names}
    return {
        name: more
        for name, more in found.items()
        if more > max(ALLOWED[name][0] * usual(samples, name), ALLOWED[name][1])
    }


async def _soak(server: Server, raw: redis.Redis, directory: Path, *, seconds: float, every: float) -> list[Sample]:
    with Fleet(server.url, directory, lease=15, keep_record=False) as fleet:
        fleet.start(WORKERS, FAULT_KEEP=str(KEEP_SECONDS))
        wait_until(lambda: raw.zcard("aqueue:{faults}:workers") == WORKERS, 30, "the workers are up")
        async with Queue("faults", url=server.url, settings=SETTINGS) as queue:
            soak = Soak(queue, raw, lambda: [process.pid for process in fleet.processes])
            began = time.monotonic()
            await soak.run(seconds, per_second=100, every=every)
            took = time.monotonic() - began
            await until(lambda: not left_of_jobs(raw))
            stats = await queue.stats()
        assert soak.wrong == []
        assert soak.made == sum(stats.counters.get(end, 0) for end in ("completed", "failed", "cancelled"))
        assert "damaged" not in stats.counters
        assert "crashed" not in stats.counters
        print(f"\n{soak.told.total()} stories of {soak.made} jobs in {took:.0f} s, {dict(soak.told)}; {stats.counters}")
        print(table(soak.samples))
        return soak.samples


def left_of_jobs(raw: redis.Redis) -> list[str]:
    return [key for key in map(str, raw.scan_iter("aqueue:{faults}:*:*", count=1000)) if ":worker:" not in key]


@pytest.fixture
def kept_small(own_server: Server, raw_own: redis.Redis) -> redis.Redis:
    raw_own.config_set("appendonly", "no")  # a file that grows is no leak, and fsync is not what is measured
    return raw_own


@needs_proc
async def test_a_soak_sees_what_it_is_to_see(own_server: Server, kept_small: redis.Redis, tmp_path: Path) -> None:
    """The short form, too short for slopes: all stories end well, and the keys go again."""
    samples = await _soak(own_server, kept_small, tmp_path, seconds=3, every=0.2)
    assert len(samples) >= 5
    assert grown(samples, {"connections"}) == {}
    assert max(sample.keys for sample in samples) > 50
    assert min(sample.rss for sample in samples) > 10


@needs_proc
@pytest.mark.chaos
@pytest.mark.timeout(MINUTES * 60 + 300)
async def test_nothing_grows_for_long(own_server: Server, kept_small: redis.Redis, tmp_path: Path) -> None:
    """The long form, of AQUEUE_SOAK_MINUTES."""
    samples = await _soak(own_server, kept_small, tmp_path, seconds=60 * MINUTES, every=max(1.0, MINUTES / 2))
    assert grown(second_half(samples), set(ALLOWED)) == {}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_what_grows_slowly_is_seen(name: str) -> None:
    """A tenth more over an hour is a leak that fills any machine; noise of the same size is none."""
    chance = random.Random(1)
    base = {field.name: 1000.0 for field in fields(Sample)}

    def samples(rising: float) -> list[Sample]:
        values = [1000 * (1 + rising * n / 100) + chance.uniform(-20, 20) for n in range(100)]
        return [Sample(**{**base, "at": float(n), name: value}) for n, value in enumerate(values)]  # type: ignore[arg-type]

    assert grown(second_half(samples(0.0)), {name}) == {} or name == "connections"
    assert grown(second_half(samples(3.0)), {name}).keys() == {name}
