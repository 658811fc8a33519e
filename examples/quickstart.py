"""One job per file of a directory tree: python examples/quickstart.py [DIR]

Without DIR it reads Python's standard library; without AQUEUE_URL a development server serves from ./.aqueue.
"""

import asyncio
import sys
import sysconfig
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from aqueue import Queue, Worker

queue = Queue("quickstart")


@dataclass
class File:
    size: int
    lines: int
    digest: str


@queue.task
def read(path: str) -> File:  # a plain function runs in a thread, where it may block; async def works as well
    data = Path(path).read_bytes()
    return File(len(data), data.count(b"\n"), sha256(data).hexdigest())


async def main(root: Path) -> None:
    found = [path for path in root.rglob("*") if path.is_file()]
    paths = [str(path) for path in found if not {"site-packages", "__pycache__"} & {*path.relative_to(root).parts}]
    async with queue, Worker(queue, concurrency=20):  # elsewhere: python -m aqueue.worker quickstart:queue
        started = time.perf_counter()
        jobs = await queue.enqueue_many(read.call(path) for path in paths)
        results = [asyncio.create_task(job.result()) for job in jobs]
        for ended in track(asyncio.as_completed(results), "Reading files", total=len(jobs)):
            await ended
        seconds = time.perf_counter() - started
        infos = await asyncio.gather(*(job.info() for job in jobs))  # records are kept for an hour: result_ttl
    files = [result.result() for result in results]
    waits = sorted(info.waited or 0 for info in infos)
    table = Table("files", "bytes", "lines", "jobs/s", "p50 wait", "p99 wait", title=str(root))
    totals = f"{len(files):,}", f"{sum(file.size for file in files):,}", f"{sum(file.lines for file in files):,}"
    table.add_row(*totals, f"{len(jobs) / seconds:,.0f}", *(f"{waits[len(waits) * p // 100]:.3f} s" for p in (50, 99)))
    Console().print(table)
    if files != [await read(path) for path in paths]:  # a task called like a function runs right here
        sys.exit("totals differ from a direct computation")
    print("verified: totals equal a direct computation")


if __name__ == "__main__":
    asyncio.run(main(Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])))
