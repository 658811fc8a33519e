"""One job per file of a directory, by default of the standard library: python examples/quickstart.py [DIR]."""

import asyncio
import sys
import sysconfig
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import rich
from rich.progress import track
from rich.table import Table

from aqueue import Queue, Worker

queue = Queue("quickstart")  # at AQUEUE_URL, or on a development server that starts by itself in ./.aqueue


@dataclass
class File:
    size: int
    lines: int
    digest: str


def examine(path: str) -> File:
    data = Path(path).read_bytes()
    return File(len(data), data.count(b"\n"), sha256(data).hexdigest())


@queue.task
async def read(path: str) -> File:
    return await asyncio.to_thread(examine, path)


async def main(paths: list[str]) -> None:
    async with queue, Worker(queue, concurrency=20):  # or elsewhere: python -m aqueue.worker quickstart:queue
        start = time.perf_counter()
        jobs = await queue.enqueue_many(read.call(path) for path in paths)
        files = [await job.result() for job in track(jobs, "Reading")]
        speed = len(files) / (time.perf_counter() - start)
        waits = sorted(info.waited or 0 for info in await asyncio.gather(*(job.info() for job in jobs)))
    table = Table("files", "bytes", "lines", "jobs/s", "wait p50", "wait p99")
    totals = len(files), sum(file.size for file in files), sum(file.lines for file in files), round(speed)
    p50, p99 = (waits[len(waits) * percent // 100] for percent in (50, 99))
    table.add_row(*(f"{total:,}" for total in totals), f"{p50:.3f} s", f"{p99:.3f} s")
    rich.print(table)
    if files != [examine(path) for path in paths]:  # sizes, line counts and SHA-256, one by one
        sys.exit("totals differ from a direct computation")
    print("verified: totals equal a direct computation")


if __name__ == "__main__":
    root = Path(*sys.argv[1:] or [sysconfig.get_path("stdlib")])
    found = [path for path in root.rglob("*") if not {"site-packages", "__pycache__"} & {*path.relative_to(root).parts}]
    paths = [str(path) for path in found if path.is_file()]
    asyncio.run(main(paths)) if paths else sys.exit(f"There is no file in {root}.")
