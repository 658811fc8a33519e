"""Ids of jobs: made by the client, so that an enqueue that is sent twice is stored once."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from aqueue.job import JobId

RANDOM_BITS: Final = 72
STEP_BITS: Final = 32
"""Within one millisecond the next id cannot be guessed from the last, and a million of them fit."""

_DRAWN_BYTES: Final = 4096
"""Random bytes are drawn from the system in lots: one call each would cost as much as the rest of an id."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
"""Base 32, whose digits sort as the numbers do, ten bits at a time."""
_SHIFTS: Final = range(110, -1, -10)


class JobIds:
    """Makes ids that sort by time: 48 bits of milliseconds and 72 random ones, in 24 characters.

    Those of one process only grow, so that jobs keep the order in which they were enqueued wherever ids are sorted.
    """

    def __init__(self) -> None:
        self._last = 0
        self._drawn = b""
        self._used = 0
        self._lock = threading.Lock()

    def __call__(self) -> JobId:
        now = time.time_ns() // 1_000_000 << RANDOM_BITS
        with self._lock:
            if now > self._last:
                value = now | self._random(RANDOM_BITS) >> 1  # half of the range is left for the steps
            else:
                value = self._last + 1 + self._random(STEP_BITS)
            self._last = value
        return JobId("".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS]))

    def _random(self, bits: int) -> int:
        end = self._used + bits // 8
        if end > len(self._drawn):
            self._drawn, self._used, end = os.urandom(_DRAWN_BYTES), 0, bits // 8
        value = int.from_bytes(self._drawn[self._used : end])
        self._used = end
        return value


def new_job_id() -> JobId:
    """Make the id of a new job."""
    return _job_ids()


def _renew_job_ids() -> None:
    """A forked child must neither go on in its parent's sequence nor find its lock held."""
    global _job_ids  # noqa: PLW0603  # what a fork copies has to be replaced
    _job_ids = JobIds()


_job_ids = JobIds()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_job_ids)
