"""One job while it runs here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aqueue.context import Context
from aqueue.store.records import Lease

NAME_LIMIT: Final = 200
"""Characters of a task's name that are shown: no registered one is longer, and others are anybody's."""


class Reason(Enum):
    """Why a run is told to stop; decides what becomes of the job."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease lost"
    SHUTDOWN = "shutdown"


@dataclass(slots=True, eq=False)
class Run:
    """A lease, the asyncio task that works on it, and why that was told to stop, if it was."""

    lease: Lease
    task: asyncio.Task[None] | None = field(default=None)
    name: str = "?"
    """The task's name, once the envelope has been read."""
    reason: Reason | None = None
    ended: bool = False
    """Its outcome is known, and noted for the next turn."""
    began: float = 0.0
    """By the performance counter."""
    ran: float = 0.0
    """Seconds, once it has ended."""
    context: Context | None = None
    """What its code was given, if it came to that."""
    raised: BaseException | None = None
    """What it raised; kept only where middleware is to be told, and only until then."""
    left_out: bool = False
    """A layer has answered in the job's place."""

    def stop(self, reason: Reason) -> None:
        """Cancel the run once; the first reason stands. A run that outlives its timeout may be told again."""
        told = self.reason is not None and (self.reason is not Reason.TIMEOUT or reason is Reason.TIMEOUT)
        if self.ended or told:
            return
        self.reason = reason
        if self.task is not None:  # else it will not be started
            self.task.cancel()
