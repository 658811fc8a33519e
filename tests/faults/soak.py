"""Steady work of every kind for as long as one likes, measured from outside all the while."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from aqueue import Cancellation, Job, JobFailed, Queue

TICK_SECONDS: Final = 0.05
RESULT_SECONDS: Final = 60.0
"""Ends a story that has failed."""
KEEP_SECONDS: Final = 2
"""How long results and failures stay: short, so that what is never taken away stands out soon."""


@dataclass(frozen=True)
class Sample:
    """One moment of a soak. Memory in MiB, latencies in ms since the sample before."""

    at: float
    rss: float
    server: float
    p50: float
    p99: float
    connections: int
    keys: int
    unfinished: int


def growth(samples: Sequence[Sample], name: str) -> float:
    """Say by how much a figure grows over all samples: by the median slope of all pairs, which no outlier bends."""
    points = [(sample.at, float(getattr(sample, name))) for sample in samples]
    slopes = [(later - sooner) / (at - before) for (before, sooner), (at, later) in combinations(points, 2)]
    return statistics.median(slopes) * (points[-1][0] - points[0][0])


def usual(samples: Sequence[Sample], name: str) -> float:
    return statistics.median(float(getattr(sample, name)) for sample in samples)


def second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Leave out what comes before all pools and caches are as large as they get."""
    return samples[len(samples) // 2 :]


def table(samples: Sequence[Sample], rows: int = 20) -> str:
    """Write every so-manieth sample as a line, and what becomes of the second half."""
    names = [field.name for field in fields(Sample)]
    chosen = list(samples[:: max(1, len(samples) // rows)])
    lines = ["".join(f"{name:>12}" for name in names)]
    lines += ["".join(f"{value:12.1f}" for value in astuple(sample)) for sample in chosen]
    for name, what in (("median", usual), ("growth", growth)):
        lines.append(f"{name:>12}" + "".join(f"{what(second_half(samples), figure):12.2f}" for figure in names[1:]))
    return "\n".join(lines)


def resident_mib(pid: int) -> float:
    """Read how much memory a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


class Soak:
    """Stories of jobs at a steady pace, for the tasks of application.py."""

    def __init__(self, queue: Queue, raw: redis.Redis, pids: Callable[[], list[int]]) -> None:
        self.told: Counter[str] = Counter()
        """Stories that have come to their good end, by kind."""
        self.wrong: list[str] = []
        self.made = 0
        """Jobs; a story may find that of another, by its key."""
        self.samples: list[Sample] = []
        self._queue = queue
        self._raw = raw
        self._pids = pids
        self._latencies: list[float] = []
        self._going: set[asyncio.Task[None]] = set()
        self._kinds: list[Callable[[int], Coroutine[Any, Any, None]]] = [
            self._awaited, self._delayed, self._awaited, self._retried, self._left_alone,
            self._cancelled, self._awaited, self._unique, self._threaded, self._failed,
        ]  # fmt: skip

    async def _enqueue(self, task: str, *args: Any, **options: Any) -> Job[Any]:
        job: Job[Any] = await self._queue.remote(task).options(**options).enqueue(*args)
        self.made += job.created
        return job

    async def _finished(self, job: Job[Any]) -> None:
        assert await job.result(timeout=RESULT_SECONDS) == "done"

    async def _awaited(self, n: int) -> None:
        began = time.monotonic()
        await self._finished(await self._enqueue("brief", 0.001))
        self._latencies.append(time.monotonic() - began)

    async def _left_alone(self, n: int) -> None:
        await self._enqueue("brief", 0)

    async def _delayed(self, n: int) -> None:
        await self._finished(await self._enqueue("brief", 0, delay=0.1 * (n % 20)))

    async def _retried(self, n: int) -> None:
        await self._finished(await self._enqueue("second_time"))

    async def _cancelled(self, n: int) -> None:
        job = await self._enqueue("brief", 0, delay=600)
        assert await job.cancel() is Cancellation.CANCELLED

    async def _unique(self, n: int) -> None:
        await self._finished(await self._enqueue("brief", 0.01, key=f"key {n % 50}"))

    async def _threaded(self, n: int) -> None:
        job = await self._enqueue("threaded", 0.001)
        await self._finished(job)
        assert (await job.info()).crashes == 0

    async def _failed(self, n: int) -> None:
        job = await self._enqueue("second_time", retry=1)
        with pytest.raises(JobFailed, match="the first time it fails"):
            await job.result(timeout=RESULT_SECONDS)

    async def _tell(self, n: int) -> None:
        kind = self._kinds[n % len(self._kinds)]
        try:
            await kind(n)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what this is about
            self.wrong.append(f"{kind.__name__} {n}: {error!r}")
        else:
            self.told[kind.__name__.strip("_")] += 1

    async def run(self, seconds: float, *, per_second: float, every: float) -> None:
        """Begin so many stories a second, whether or not the earlier ones have ended, and sample now and then."""
        loop = asyncio.get_running_loop()
        began, begun = loop.time(), 0
        sampled = began
        while (now := loop.time()) < began + seconds:
            for _ in range(int((now - began) * per_second) - begun):
                task = loop.create_task(self._tell(begun))
                self._going.add(task)
                task.add_done_callback(self._going.discard)
                begun += 1
            if now >= sampled + every and len(self._latencies) > 1:
                sampled = now
                self.samples.append(await asyncio.to_thread(self._sample, now - began))
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.gather(*self._going)

    def _sample(self, at: float) -> Sample:
        latencies, self._latencies = sorted(self._latencies), []
        info: dict[str, Any] = dict(self._raw.info())
        return Sample(
            at=at,
            rss=statistics.mean(map(resident_mib, self._pids())),
            server=info["used_memory"] / 2**20,
            p50=1000 * statistics.median(latencies),
            p99=1000 * latencies[int(len(latencies) * 0.99)],
            connections=info["connected_clients"],
            keys=int(self._raw.dbsize()),
            unfinished=len(self._going),
        )
