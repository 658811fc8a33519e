"""A run between its claim and its first step: what it is told there must not get lost."""

from __future__ import annotations

import asyncio

import pytest

from aqueue import Queue, Worker
from aqueue.job import JobId, LeaseToken
from aqueue.store.records import Cancelled, Lease, Outcome, Released
from aqueue.worker.deadlines import Deadlines
from aqueue.worker.executor import Executor, Shared
from aqueue.worker.fetcher import Fetcher
from aqueue.worker.run import Reason, Run
from aqueue.worker.threads import Threads


class NotingLane:
    """Stands for a lane; notes what is settled."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.settled: list[Outcome] = []

    def settle(self, run: Run, outcome: Outcome) -> None:
        run.ended = True
        self.settled.append(outcome)


def idle_worker() -> tuple[Worker, NotingLane]:
    queue = Queue("q", url="redis://nowhere")
    worker = Worker(queue)
    worker._fetcher = Fetcher(1)
    return worker, NotingLane(Executor(queue, [], None, Shared(Threads(1), Deadlines())))


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(Reason.CANCELLED, Cancelled), (Reason.SHUTDOWN, Released), (Reason.LEASE_LOST, Released)],
    ids=["cancelled", "shut down", "lost"],
)
async def test_a_run_that_is_told_to_end_before_it_starts_is_not_started(
    reason: Reason, outcome: type[Outcome]
) -> None:
    """A cancel that falls between the claim and the first step would otherwise be obeyed five seconds later."""
    worker, lane = idle_worker()
    run = Run(Lease(JobId("j"), LeaseToken("me/1"), 0, 0, 0, 0, -1, b'[1,"work",[],{},{}]'))
    worker._start(lane, [run])  # type: ignore[arg-type]  # a lane as far as this goes
    run.stop(reason)
    await asyncio.sleep(0)
    assert run.task is None
    assert [type(settled) for settled in lane.settled] == [outcome]


async def test_a_lease_that_arrives_during_a_drain_goes_back() -> None:
    """It answers a turn from before the drain, whose reply took long."""
    worker, lane = idle_worker()
    assert worker._fetcher is not None
    worker._fetcher.drain()
    run = Run(Lease(JobId("j"), LeaseToken("me/1"), 0, 0, 0, 0, -1, b""))
    worker._start(lane, [run])  # type: ignore[arg-type]  # as above
    assert lane.settled == [Released()]
    await asyncio.sleep(0)
    assert run.task is None


async def test_a_run_that_has_ended_is_told_nothing() -> None:
    """Its outcome is noted already, and a reason that comes later must not change what is made of it."""
    run = Run(Lease(JobId("j"), LeaseToken("me/1"), 0, 0, 0, 0, -1, b""))
    run.ended = True
    run.stop(Reason.SHUTDOWN)
    assert run.reason is None
