"""How free slots are shared out by weight: by the numbers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqueue.worker.shares import Shares

WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


class Station:
    """Queues of a simulated worker, each with so many jobs; all jobs take equally long."""

    def __init__(self, weights: list[int], jobs: list[int], caps: list[int] | None = None) -> None:
        self.shares = Shares(weights)
        self.jobs = jobs
        self.caps = caps or [10**9] * len(jobs)
        self.running = [0] * len(jobs)
        self.started = [0] * len(jobs)

    def turn(self, slots: int) -> list[int]:
        """Fill the slots that are free, then let one job of every queue that runs some end."""
        rooms = [min(jobs, cap - run) for jobs, cap, run in zip(self.jobs, self.caps, self.running, strict=True)]
        portions = self.shares.portions(slots - sum(self.running), self.started, rooms)
        for n, portion in enumerate(portions):
            assert portion <= rooms[n]
            self.jobs[n] -= portion
            self.running[n] += portion
            self.started[n] += portion
        assert sum(portions) == min(slots - sum(self.running) + sum(portions), sum(rooms)), "a slot stays free"
        self.running = [max(0, run - 1) for run in self.running]
        return portions


@given(WEIGHTS, st.integers(1, 300))
def test_starts_follow_the_weights_while_all_queues_have_jobs(weights: list[int], slots: int) -> None:
    """Each queue is within one job of its share, however many slots there are and come free at once."""
    shares, started = Shares(weights), [0] * len(weights)
    for free in [slots, 1, 1, 2, 3, slots // 2 + 1, 7] * 3:
        portions = shares.portions(free, started, [10**6] * len(weights))
        assert sum(portions) == free
        started = [had + portion for had, portion in zip(started, portions, strict=True)]
        for n, weight in enumerate(weights):
            assert abs(started[n] - sum(started) * weight / sum(weights)) <= len(weights)


@given(WEIGHTS, st.data())
def test_no_slot_stays_free_while_a_queue_has_room(weights: list[int], data: st.DataObject) -> None:
    """Whoever is empty or at its cap leaves its share to the others, and nobody gets more than there is room for."""
    numbers = st.lists(st.integers(0, 40), min_size=len(weights), max_size=len(weights))
    caps = data.draw(st.lists(st.integers(1, 5), min_size=len(weights), max_size=len(weights)))
    station = Station(weights, data.draw(numbers), caps)
    for slots in data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=12)):
        if slots >= sum(station.running):
            station.turn(slots)


@given(WEIGHTS.filter(lambda weights: len(weights) > 1), st.integers(1, 20))
def test_no_queue_starves(weights: list[int], slots: int) -> None:
    """The lightest one has its turn before the others have had more than their weights say."""
    station = Station(weights, [10**6] * len(weights))
    lightest = weights.index(min(weights))
    while not station.started[lightest]:
        station.turn(slots)
    assert sum(station.started) <= sum(weights) / min(weights) + slots + len(weights)


@pytest.mark.parametrize("idle", [0, 1])
def test_a_queue_that_was_empty_is_not_owed_for_it(idle: int) -> None:
    """Else it would hold off the others for as long as it had nothing to do."""
    jobs = [10**6, 10**6]
    jobs[idle] = 0
    station = Station([3, 1], jobs)
    for _ in range(1000):
        station.turn(4)
    station.jobs[idle], before = 10**6, list(station.started)
    for _ in range(100):
        station.turn(4)
    gained = [now - had for now, had in zip(station.started, before, strict=True)]
    assert gained[0] / sum(gained) == pytest.approx(0.75, abs=0.05)


def test_what_a_queue_started_while_nobody_else_had_work_is_not_held_against_it() -> None:
    """A queue at rest gets its jobs without being asked for a portion; that took nothing from anybody."""
    shares = Shares([1, 1])
    assert shares.portions(4, [5000, 0], [9, 9]) == [2, 2]


def test_a_queue_gains_nothing_by_going_and_coming_back() -> None:
    """Its jobs come one by one, or it is at its cap after each; its share must not grow by that."""
    shares, started, gone = Shares([1, 9]), [0, 0], False
    for _ in range(3000):
        portions = shares.portions(1, started, [0 if gone else 1, 10**6])
        started = [had + portion for had, portion in zip(started, portions, strict=True)]
        gone = portions[0] == 1
    assert started[0] / sum(started) == pytest.approx(0.1, abs=0.01)


def test_one_slot_goes_around() -> None:
    """With a concurrency of one the weights are seen in the order of the starts."""
    station = Station([2, 1], [9, 9])
    order = [station.turn(1).index(1) for _ in range(9)]
    assert order == [0, 1, 0] * 3
