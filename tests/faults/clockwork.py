"""An application that does something every second, for the fault tests of schedules."""

from __future__ import annotations

import os

from aqueue import Context, Queue, Settings
from faults.application import record

queue = Queue("clockwork", settings=Settings(lease=float(os.environ.get("FAULT_LEASE", "15"))))


@queue.cron("* * * * * *", misfire="all")
async def strike(context: Context) -> None:
    record("start", context)
    record("end", context)
