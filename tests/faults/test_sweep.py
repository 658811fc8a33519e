"""Every call of a fixed piece of work meets every fault, and each time nothing is lost, doubled or left behind.

The workload makes about 200 calls of 35 kinds. The short form hits the first call of every kind in one run per fault;
the long form hits one call per run, every one.
"""

from __future__ import annotations

import asyncio

import pytest

from aqueue.store import scripts
from faults.laboratory import Laboratory
from faults.proxy import Fault, first_of_each, honest, nth

pytestmark = pytest.mark.usefixtures("impatient")

AT_ONCE = 8
"""Runs of the long form side by side; each mostly waits."""


async def test_the_workload_calls_every_script(laboratory: Laboratory) -> None:
    """A script that it does not call is not swept."""
    found = await laboratory.tried(honest)
    assert found.wrong == []
    assert set(scripts.names()) <= set(found.calls)
    assert {"BLMOVE", "CLIENT ID", "CLIENT UNBLOCK", "HELLO", "INFO", "SADD", "SSUBSCRIBE", "SUNSUBSCRIBE"} <= set(
        found.calls
    )


async def test_the_first_call_of_every_kind_meets_every_fault(laboratory: Laboratory) -> None:
    """One run per fault, each full of it, and not one job pays for it."""
    runs = await asyncio.gather(*(laboratory.tried(first_of_each(fault)) for fault in Fault))
    assert {fault.value: run.wrong for fault, run in zip(Fault, runs, strict=True) if run.wrong} == {}
    assert all(run.lies >= len(scripts.names()) for run in runs)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
async def test_every_single_call_meets_the_fault(fault: Fault, laboratory: Laboratory) -> None:
    """The long form: one fault per run, at each call in turn."""
    calls = (await laboratory.tried(honest)).calls
    places = [(name, n) for name, count in sorted(calls.items()) for n in range(1, count + 1)]
    turn, wrong, lies = asyncio.Semaphore(AT_ONCE), dict[str, list[str]](), 0

    async def one(name: str, n: int) -> None:
        nonlocal lies
        async with turn:
            found = await laboratory.tried(nth(name, n, fault))
        lies += found.lies
        if found.wrong:
            wrong[f"{name} {n}"] = found.wrong

    await asyncio.gather(*(one(name, n) for name, n in places))
    print(f"{fault.value}: {len(places)} runs, {lies} faults, {len(wrong)} with complaints")
    for place, complaint in wrong.items():
        print(f"{place}:", *complaint, sep="\n  ")
    assert wrong == {}
