"""Ids of jobs: made by the client, so that an enqueue that is sent twice is stored once."""

from __future__ import annotations

import base64
import os
import secrets
import threading
import time
from typing import Final

from aqueue.job import JobId


class JobIds:
    """Makes ids that sort by time: 48 bits of milliseconds and 72 random ones, in 24 characters.

    Those of one process only grow, so that jobs keep the order in which they were enqueued wherever ids are sorted.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> JobId:
        now = time.time_ns() // 1_000_000 << RANDOM_BITS
        with self._lock:
            step = 1 + secrets.randbits(STEP_BITS)
            self._last = max(self._last + step, now | secrets.randbits(RANDOM_BITS - 1))
            value = self._last
        return JobId(base64.b32hexencode(value.to_bytes(15, "big")).decode().lower())


RANDOM_BITS: Final = 72
STEP_BITS: Final = 32
"""Within one millisecond the next id cannot be guessed from the last, and a million of them fit."""


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
