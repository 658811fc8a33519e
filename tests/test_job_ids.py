"""Ids are made without asking anybody, so they must not meet."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest

from aqueue.job_ids import JobIds


def test_ids_of_one_process_only_grow() -> None:
    """What comes back goes before what waits, oldest first, and ids are what says so."""
    make = JobIds()
    ids = [make() for _ in range(50_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {len(job_id) for job_id in ids} == {24}


def test_ids_go_on_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks are set; an id must not come twice for it, nor sort before an older one."""
    make = JobIds()
    first = make()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    later = [make() for _ in range(100)]
    assert [first, *later] == sorted({first, *later})


def test_ids_sort_by_time_across_processes() -> None:
    """Two makers that never heard of each other agree on the millisecond."""
    one, other = JobIds(), JobIds()
    before = one()
    deadline = time.monotonic_ns() + 3_000_000
    while time.monotonic_ns() < deadline:
        pass
    assert before < other()


def test_neighbouring_ids_cannot_be_guessed() -> None:
    """A job's id is all that a result page asks for."""
    make = JobIds()
    values = [int(make(), 32) for _ in range(1_000)]
    steps = {later - earlier for earlier, later in pairwise(values)}
    assert len(steps) == 999
    assert max(steps) > 1 << 24


def test_threads_share_one_sequence() -> None:
    """A web server's threads enqueue at the same instant."""
    make, made = JobIds(), list[list[str]]()

    def work() -> None:
        made.append([make() for _ in range(2_000)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [job_id for lot in made for job_id in lot]
    assert len(set(ids)) == len(ids) == 16_000
