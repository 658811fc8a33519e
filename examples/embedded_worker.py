"""A worker beside other things in one event loop: here a TCP server, each line of which becomes a job."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing

from aqueue import Context, Depends, Queue, Worker

queue = Queue("readings")


@asynccontextmanager
async def open_pool() -> AsyncGenerator[asyncio.Queue[sqlite3.Connection]]:
    """Run once per worker, around all of its jobs; what is yielded is their `ctx.state`."""
    pool = asyncio.Queue[sqlite3.Connection]()
    with closing(sqlite3.connect(":memory:")) as db:  # a real pool would hold several
        db.execute("CREATE TABLE reading (sensor TEXT, hour INTEGER, celsius REAL, PRIMARY KEY (sensor, hour))")
        pool.put_nowait(db)
        print("pool opened")
        yield pool
    print("pool closed")


async def transaction(ctx: Context) -> AsyncGenerator[sqlite3.Connection]:
    """Run once per job, around it; what the job raises is raised at the yield."""
    db = await ctx.state.get()
    try:
        with db:  # commits, or rolls back if the job raised
            yield db
    finally:
        ctx.state.put_nowait(db)


@queue.task  # a job runs at least once, so a second run must be harmless
async def record(sensor: str, hour: int, celsius: float, db: sqlite3.Connection = Depends(transaction)) -> str:
    db.execute("INSERT OR REPLACE INTO reading VALUES (?, ?, ?)", (sensor, hour, celsius))
    (mean,) = db.execute("SELECT avg(celsius) FROM reading WHERE sensor = ?", (sensor,)).fetchone()
    return f"{sensor}: {mean:.1f} on average"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for line in reader:
        sensor, hour, celsius = line.decode().split()
        job = await record.enqueue(sensor, int(hour), float(celsius))
        writer.write(f"{await job.result(timeout=10)}\n".encode())
    writer.close()


async def main() -> None:
    async with queue, Worker(queue, lifespan=open_pool), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.writelines([b"attic 8 14.0\n", b"attic 9 16.0\n", b"cellar 9 11.5\n"])
        writer.write_eof()
        print((await reader.read()).decode().strip())
        writer.close()


asyncio.run(main())
