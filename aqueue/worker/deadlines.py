"""Ends attempts that take longer than their timeout, with one timer for all runs of a worker.

A timer of its own per run would cost more than a short job does. Starting and ending a run only notes its deadline;
the runs are looked through when the earliest one that was noted has come.
"""

from __future__ import annotations

import asyncio

from aqueue.worker.run import Reason, Run


class Deadlines:
    """The runs of one worker that must have ended by some time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Run, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = float("inf")

    def watch(self, run: Run, timeout: float) -> None:
        """Stop `run` in `timeout` seconds; 0 is never."""
        if not timeout:
            return
        deadline = self._watched[run] = self._loop.time() + timeout
        if deadline < self._next:
            self._set(deadline)

    def forget(self, run: Run) -> None:
        """The run has ended."""
        self._watched.pop(run, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, deadline: float) -> None:
        self.close()
        self._next = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        now, self._timer, self._next = self._loop.time(), None, float("inf")
        for run in [run for run, deadline in self._watched.items() if deadline <= now]:
            del self._watched[run]
            run.stop(Reason.TIMEOUT)
        if self._watched:
            self._set(min(self._watched.values()))
