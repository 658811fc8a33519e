"""The end of a worker's life: its last outcomes are stored, what it still holds goes back, and the fleet forgets it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from aqueue.errors import StoreError
from aqueue.job import WorkerId
from aqueue.worker.heartbeat import Heartbeat
from aqueue.worker.lane import Lane

log = logging.getLogger("aqueue.worker")

FLUSH_SECONDS: Final = 2.0
"""For the last settles, when the server cannot be reached either."""
FLUSH_PAUSE_SECONDS: Final = 0.1


async def take_leave(lanes: Sequence[Lane], worker: WorkerId, heartbeat: Heartbeat) -> None:
    """Store the last outcomes, then hand back what is still held and leave the fleet."""
    quiet = await asyncio.gather(*(_flush(lane) for lane in lanes))
    await heartbeat.stop()  # a renewal after the farewell would bring the worker back
    leaving = [lane for lane, may_leave in zip(lanes, quiet, strict=True) if may_leave]
    said = await asyncio.gather(*(_retire(lane, worker) for lane in leaving))
    gone = {lane.name for lane, heard in zip(leaving, said, strict=True) if heard}
    for lane in lanes:
        if lane.name not in gone:
            log.error("queue %s: what this worker still held runs again when its lease ends", lane.name)


async def _retire(lane: Lane, worker: WorkerId) -> bool:
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await lane.client.retire(worker)
    except (TimeoutError, StoreError) as error:
        log.debug("queue %s: no farewell: %s", lane.name, error)
        return False
    return True


async def _flush(lane: Lane) -> bool:
    """Store a lane's last outcomes; say whether the worker may leave, with nothing on its way any more."""
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await lane.unparked()
            while lane.outbox or lane.turn_open:
                if await lane.take_turn(0) is None:
                    await asyncio.sleep(FLUSH_PAUSE_SECONDS)
    except TimeoutError:
        await lane.close()
        return False
    return await lane.close()
