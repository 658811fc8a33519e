"""One timer for all runs: each ends at its own time, whichever was noted first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aqueue.job import JobId, LeaseToken
from aqueue.store.records import Lease
from aqueue.worker.deadlines import Deadlines
from aqueue.worker.run import Reason, Run


def begin(name: str) -> Run:
    """A run that goes on until it is stopped."""

    async def go_on() -> None:
        await asyncio.get_running_loop().create_future()

    run = Run(Lease(JobId(name), LeaseToken("me/1"), 0, 0, 0, 0, -1, b""))
    run.task = asyncio.get_running_loop().create_task(go_on())
    return run


@pytest.fixture
async def deadlines() -> AsyncIterator[Deadlines]:
    deadlines = Deadlines()
    yield deadlines
    deadlines.close()


async def ended(run: Run) -> None:
    assert run.task is not None
    async with asyncio.timeout(10):
        await asyncio.wait([run.task])


async def test_each_run_ends_at_its_own_time(deadlines: Deadlines) -> None:
    """The timer stands at the earliest; a later run with a shorter timeout moves it forward."""
    loop, took = asyncio.get_running_loop(), dict[str, float]()
    timeouts = {"long": 600, "short": 0.02, "middle": 0.08}
    runs, begun = {name: begin(name) for name in timeouts}, loop.time()
    for name, timeout in timeouts.items():
        deadlines.watch(runs[name], timeout)
        runs[name].task.add_done_callback(lambda _, name=name: took.update({name: loop.time() - begun}))  # type: ignore[union-attr, misc]
    for name in ("short", "middle"):
        await ended(runs[name])
        assert took[name] >= timeouts[name]
        assert runs[name].reason is Reason.TIMEOUT
    assert runs["long"].reason is None
    deadlines.watch(runs["long"], 0.02)
    await ended(runs["long"])
    assert runs["long"].reason is Reason.TIMEOUT


async def test_a_run_that_has_ended_is_not_stopped(deadlines: Deadlines) -> None:
    """Nor does it keep anybody else from it: the timer goes on for the rest."""
    early, late = begin("early"), begin("late")
    deadlines.watch(early, 0.02)
    deadlines.watch(late, 0.05)
    deadlines.forget(early)
    await ended(late)
    assert early.reason is None
    assert early.task is not None
    early.task.cancel()
    await ended(early)


async def test_no_timeout_is_no_deadline(deadlines: Deadlines) -> None:
    """0 means for ever; as a deadline it would have passed already."""
    free, other = begin("free"), begin("other")
    deadlines.watch(free, 0)
    deadlines.watch(other, 0.02)
    await ended(other)
    assert free.reason is None
    free.stop(Reason.CANCELLED)
    await ended(free)


async def test_who_outlives_a_timeout_can_still_be_told_to_stop(deadlines: Deadlines) -> None:
    """A shutdown must not be refused because the job was told once already and did not listen."""
    heard: list[str] = []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                heard.append(str(run.reason))

    run = Run(Lease(JobId("j"), LeaseToken("me/1"), 0, 0, 0, 0, -1, b""))
    run.task = asyncio.get_running_loop().create_task(stubborn())
    deadlines.watch(run, 0.02)
    async with asyncio.timeout(10):
        while not heard:
            await asyncio.sleep(0)
    run.stop(Reason.TIMEOUT)
    run.stop(Reason.SHUTDOWN)
    await ended(run)
    assert heard == ["Reason.TIMEOUT", "Reason.SHUTDOWN"]
