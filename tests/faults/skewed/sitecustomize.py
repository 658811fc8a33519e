"""Sets the wall clock of a Python process wrong by FAULT_CLOCK_SECONDS, before anything else is imported.

Python imports this by itself where this directory is on its path. Monotonic clocks stay as they are, as they do
on a machine whose wall clock is wrong.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Self

OFF_SECONDS = int(os.environ.get("FAULT_CLOCK_SECONDS", "0"))

_time, _time_ns = time.time, time.time_ns


class WrongDatetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Self:
        return super().now(tz) + dt.timedelta(seconds=OFF_SECONDS)

    @classmethod
    def utcnow(cls) -> Self:
        return super().now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=OFF_SECONDS)


if OFF_SECONDS:
    time.time = lambda: _time() + OFF_SECONDS
    time.time_ns = lambda: _time_ns() + OFF_SECONDS * 1_000_000_000
    dt.datetime = WrongDatetime  # type: ignore[misc]
