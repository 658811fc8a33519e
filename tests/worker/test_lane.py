"""A queue as one worker sees it: what happens while a turn is on its way must not be forgotten with its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aqueue import Queue
from aqueue.job import WorkerId
from aqueue.store.records import Settle, Turn
from aqueue.worker.deadlines import Deadlines
from aqueue.worker.executor import Executor, Shared
from aqueue.worker.journal import Journal
from aqueue.worker.lane import Lane
from aqueue.worker.threads import Threads


@pytest.fixture
async def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    queue = Queue("q", url="redis://nowhere")
    executor = Executor(queue, [], None, Shared(Threads(1), Deadlines()))
    return Lane(
        queue.unchecked_store(), executor, WorkerId("me"),
        journal=Journal(), start=lambda *_: None, wake=lambda: None,
    )  # fmt: skip


def answering(lane: Lane, monkeypatch: pytest.MonkeyPatch, meanwhile: Any) -> None:
    """Let the server find nothing, and something happen before its answer is read."""

    async def settle_and_claim(_worker: WorkerId, _turn: int, _settles: Sequence[Settle], _free: int) -> Turn:
        await asyncio.sleep(0)
        meanwhile()
        return Turn(frozenset(), [], None, "OK")

    monkeypatch.setattr(lane.client, "settle_and_claim", settle_and_claim)


async def test_a_catch_that_comes_while_a_turn_is_on_its_way_is_not_forgotten(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn may have emptied the inbox before; the job would wait there until something else happens."""

    def caught() -> None:
        lane.has_more = lane.has_caught = True

    answering(lane, monkeypatch, caught)
    await lane.take_turn(5)
    assert lane.has_more
    assert lane.has_caught


async def test_a_resume_that_comes_while_a_turn_is_on_its_way_is_not_forgotten(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn may have seen the queue paused still."""
    answering(lane, monkeypatch, lane.look_again)
    await lane.take_turn(5)
    assert lane.has_more


async def test_an_empty_answer_ends_the_looking(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise an idle worker would ask without end."""
    lane.has_more = lane.has_caught = True
    answering(lane, monkeypatch, lambda: None)
    await lane.take_turn(5)
    assert not lane.has_more
    assert not lane.has_caught


async def test_a_resume_that_comes_while_a_parked_turn_is_told_to_end_is_not_forgotten(lane: Lane) -> None:
    """That turn may have been taken before, while the queue was paused."""
    lane.park(1)
    assert lane.turn_parked
    lane.look_again()
    await lane.unpark()
    assert lane.has_more
    await lane.close()
