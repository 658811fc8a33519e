"""How fast one worker process drains no-op jobs: python bench/drain.py [--jobs N] [--concurrency N] [--url URL].

Prints jobs per second, the server's CPU time and the round trips per job, and the median of several rounds. The
server's own work is counted by the server (INFO), from before the worker starts until it has ended.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.table import Table

from aqueue import Queue, Worker
from aqueue.store.client import BATCH


@dataclass(frozen=True)
class Round:
    """One drain; times in seconds."""

    enqueue: float
    drain: float
    server_cpu: float
    commands: int


async def measure(queue: Queue, jobs: int, concurrency: int) -> Round:
    """Enqueue, then drain, counting what the server did for the drain."""

    @queue.task
    async def noop() -> None:
        pass

    begun = time.perf_counter()
    for first in range(0, jobs, BATCH):
        await queue.enqueue_many(noop.call() for _ in range(min(BATCH, jobs - first)))
    enqueue = time.perf_counter() - begun
    before = await usage(queue)
    begun = time.perf_counter()
    worker = Worker(queue, concurrency=concurrency)
    await worker.run(burst=True)
    drain = time.perf_counter() - begun
    after = await usage(queue)
    if worker.journal.tally["completed"] != jobs:
        raise SystemExit(f"only {worker.journal.tally} of {jobs} jobs completed")
    return Round(enqueue, drain, after[0] - before[0], after[1] - before[1])


async def usage(queue: Queue) -> tuple[float, int]:
    """Give the server's CPU seconds and the requests it has answered; commands inside scripts do not count."""
    info = await (await queue.store()).plain("INFO", "everything")
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    requests = sum(
        int(dict(part.split("=") for part in fields[f"cmdstat_{name}"].split(","))["calls"])
        for name in ("evalsha", "eval", "blmove")
        if f"cmdstat_{name}" in fields
    )
    return float(fields["used_cpu_sys"]) + float(fields["used_cpu_user"]), requests


async def main(arguments: argparse.Namespace) -> None:
    logging.getLogger("aqueue").setLevel(logging.ERROR)
    table = Table("round", "enqueue/s", "drain/s", "server CPU per job", "round trips per job")
    rounds = []
    async with Queue("bench", url=arguments.url) as queue:
        for number in range(arguments.rounds):
            await queue.purge()
            one = await measure(queue, arguments.jobs, arguments.concurrency)
            rounds.append(one)
            table.add_row(str(number + 1), *figures(one, arguments.jobs))
    median = Round(*(statistics.median(getattr(one, name) for one in rounds) for name in Round.__annotations__))
    table.add_row("median", *figures(median, arguments.jobs), style="bold")
    title = f"{arguments.jobs:,} no-op jobs, results stored, one process, concurrency {arguments.concurrency}, uvloop"
    Console().print(title, table, sep="\n")


def figures(one: Round, jobs: int) -> list[str]:
    return [
        f"{jobs / one.enqueue:,.0f}",
        f"{jobs / one.drain:,.0f}",
        f"{one.server_cpu / jobs * 1e6:.1f} µs",
        f"{one.commands / jobs:.3f}",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", help="where Redis is; default AQUEUE_URL, else the embedded server")
    uvloop.run(main(parser.parse_args()))
