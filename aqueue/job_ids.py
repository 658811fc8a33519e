"""Ids of jobs: made by the client, so that an enqueue that is sent twice is stored once."""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from aqueue.job import JobId
from aqueue.settings import instant

RANDOM_BITS: Final = 72
STEPS_DRAWN: Final = 1024
"""Within one millisecond ids grow by random steps of 32 bits: the next cannot be guessed from the last, and a million
of them fit. Steps are drawn from the system in lots: one call for each would cost as much as the rest of an id."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_PAIRS: Final = [high + low for high in _DIGITS for low in _DIGITS]
"""Base 32, whose digits sort as the numbers do, ten bits at a time."""
HALF_BITS: Final = 60
LOW_HALF: Final = (1 << HALF_BITS) - 1


class JobIds:
    """Makes ids that sort by time: 48 bits of milliseconds and 72 random ones, in 24 characters.

    Those of one process only grow, so that jobs keep the order in which they were enqueued wherever ids are sorted.
    """

    def __init__(self) -> None:
        self._last = 0
        self._steps: Iterator[int] = iter(())
        self._high = 0
        self._high_text = _half(0)
        self._lock = threading.Lock()

    def __call__(self) -> JobId:
        now = time.time_ns() // 1_000_000 << RANDOM_BITS
        with self._lock:
            if now > self._last:  # half of the range is left for the steps
                self._last = now | int.from_bytes(os.urandom(RANDOM_BITS // 8)) >> 1
            else:
                self._last += 1 + (next(self._steps, None) or self._draw())
            high = self._last >> HALF_BITS
            if high != self._high:  # it hardly changes within a millisecond
                self._high, self._high_text = high, _half(high)
            return JobId(self._high_text + _half(self._last & LOW_HALF))

    def _draw(self) -> int:
        self._steps = iter(struct.unpack(f">{STEPS_DRAWN}I", os.urandom(4 * STEPS_DRAWN)))
        return next(self._steps)


def _half(bits: int) -> str:
    """Write 60 bits as 12 digits."""
    return (
        f"{_PAIRS[bits >> 50]}{_PAIRS[bits >> 40 & 1023]}{_PAIRS[bits >> 30 & 1023]}"
        f"{_PAIRS[bits >> 20 & 1023]}{_PAIRS[bits >> 10 & 1023]}{_PAIRS[bits & 1023]}"
    )


_SLOT: Final = re.compile(r"\.(\d{1,14})(?:~[0-9a-f]+)?$")
"""How ids of jobs end that schedules have started: with the slot, Unix ms, and with a unique key's digest if sealed."""


def slot_of(job_id: str) -> datetime | None:
    """Read the slot that a schedule's job stands for out of its id, if it stands for one."""
    found = _SLOT.search(job_id)
    return None if found is None else instant(int(found[1]))


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
