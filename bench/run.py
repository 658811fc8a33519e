"""Runs a plan: rounds of all groups, the queues in turn, and keeps what came of it, failures included."""

from __future__ import annotations

import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.draining import Scale
from bench.driver import PeerFailed, PeerUnsupported, Site, Stage, describe
from bench.environments import ROOT, EnvironmentFailed, interpreter
from bench.measures import MEASURES
from bench.plan import Group, Plan
from bench.records import BARE, Cell, Entrant, Reading, Result, Run
from bench.servers import Server

IDLE_AT_ONCE: Final = 4
"""Idle workers hardly disturb one another, and each takes ten seconds."""

Told = Callable[[Cell, Reading], None]


class Runner:
    """One run of the benchmark on one kind of server."""

    def __init__(self, plan: Plan, server: str, binary: str, options: tuple[str, ...], told: Told) -> None:
        self.plan = plan
        self.server = {"name": server, "options": " ".join(option or '""' for option in options)}
        self._binary = binary
        self._options = options
        self._told = told
        self._sites: dict[Entrant, Site] = {}
        self._failed: dict[str, str] = {}
        """Peer -> why it cannot be measured at all."""
        self._results: dict[tuple[str, str, str], Result] = {}
        self._peers: dict[str, dict[str, Any]] = {}
        self._begun = time.monotonic()

    def prepare(self, told: Callable[[str], None]) -> None:
        """Make the environments and ask every peer's file what it is. Not part of the measured time."""
        for entrant in (BARE, *self.plan.entrants):
            told(entrant.label)
            try:
                site = Site(entrant, interpreter(entrant.peer), self._binary, self._options)
                self._peers[entrant.label] = describe(site)
                self._sites[entrant] = site
            except (EnvironmentFailed, PeerFailed, subprocess.TimeoutExpired) as error:
                self._failed[entrant.label] = str(error)
                self._peers[entrant.label] = {"error": str(error)}
        with Server(self._binary, self._options) as server:
            info = server.info()
        valkey = info.get("valkey_version")
        self.server["version"] = f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}"
        self._begun = time.monotonic()

    def run(self) -> Iterator[Run]:
        """Take all readings; gives what there is after every group of cells."""
        rounds = max(cell.rounds for group in self.plan.groups for cell in group)
        for number in range(rounds):
            for group in self.plan.groups:
                self._take_turns([cell for cell in rotated(group, number) if cell.rounds > number])
                yield self.so_far()

    def _take_turns(self, cells: list[Cell]) -> None:
        if cells and cells[0].measure == "idle":
            with ThreadPoolExecutor(IDLE_AT_ONCE) as pool:
                for cell, reading in zip(cells, pool.map(self._read, cells), strict=True):
                    self._keep(cell, reading)
            return
        for cell in cells:
            if self._affordable(cell):
                self._keep(cell, self._read(cell))

    def _affordable(self, cell: Cell) -> bool:
        """A first reading is always taken; a further one if it will end within the budget."""
        before = self._results.get(cell.key)
        if before is None:
            return True
        return time.monotonic() - self._begun + before.readings[-1].seconds < self.plan.budget

    def _read(self, cell: Cell) -> Reading:
        if cell.entrant.label in self._failed:
            return Reading(error=self._failed[cell.entrant.label])
        site = self._sites.get(cell.entrant)
        if site is None:  # a variant of aqueue that prices one feature
            site = Site(cell.entrant, interpreter(cell.entrant.peer), self._binary, self._options)
        return read(site, cell, self.plan.scale)

    def _keep(self, cell: Cell, reading: Reading) -> None:
        self._results[cell.key] = self._results.get(cell.key, Result(cell, ())).with_reading(reading)
        self._told(cell, reading)

    def so_far(self) -> Run:
        seconds = time.monotonic() - self._begun
        results = tuple(self._results.values())
        return Run(self.plan.kind, machine(), self.server, self._peers, results, seconds)


def rotated(group: Group, number: int) -> Group:
    """Start each round with another queue, so that none always follows the same one."""
    shift = number % len(group)
    return group[shift:] + group[:shift]


def read(site: Site, cell: Cell, scale: Scale) -> Reading:
    """Take one reading of one cell. Never raises for what a peer does."""
    begun = time.monotonic()
    try:
        with Stage(site) as stage:
            reading = MEASURES[cell.measure](stage, cell, scale)
    except PeerUnsupported as reason:
        reading = Reading(unsupported=str(reason) or "not supported")
    except PeerFailed as error:
        reading = Reading(error=str(error))
    except Exception:  # noqa: BLE001  # a defect of the harness costs one cell, and is shown in it
        reading = Reading(error=traceback.format_exc(limit=-3))
    return replace(reading, seconds=round(time.monotonic() - begun, 2))


def machine() -> dict[str, str]:
    """Say where the run took place, without naming the machine."""
    memory = _first("/proc/meminfo", "MemTotal")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(os.cpu_count()),
        "memory": f"{int(memory.split()[0]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _first(path: str, name: str) -> str:
    try:
        lines: Iterable[str] = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
