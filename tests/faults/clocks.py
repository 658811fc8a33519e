"""Clocks that are wrong: those of workers, and that of the server, which steps while it works."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest
import redis

from aqueue.store import scripts

SKEWED: Final = Path(__file__).parent / "skewed"
"""On the path of a Python process, it sets its clock wrong."""
OFFSET_KEY: Final = "clock-offset-ms"


def wrong_by(seconds: int) -> dict[str, str]:
    """Give the environment of a process whose wall clock is wrong."""
    path = os.pathsep.join(filter(None, [str(SKEWED), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "FAULT_CLOCK_SECONDS": str(seconds)}


class SteppingClock:
    """The server's clock as all scripts read it, and a way to step it.

    The scripts are those of the package but for one line: where they read the clock they add what a key holds. What
    Redis itself lets expire goes by the true clock.
    """

    def __init__(self, raw: redis.Redis, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._raw = raw
        shutil.copytree(str(scripts._LUA), directory)
        include = directory / "include" / "clock.lua"
        text = include.read_text("utf-8")
        stepped = text.replace(
            "return t[1] * 1000", f"return tonumber(redis.call('GET', '{OFFSET_KEY}') or 0) + t[1] * 1000"
        )
        assert stepped != text, "the scripts read the clock in another way now"
        include.write_text(stepped, "utf-8")
        patch.setattr(scripts, "_LUA", directory)
        scripts.load.cache_clear()

    def step(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self._raw.incrby(OFFSET_KEY, round(seconds * 1000))

    def now_ms(self) -> float:
        seconds, micros = self._raw.time()
        return seconds * 1000 + micros / 1000 + int(str(self._raw.get(OFFSET_KEY) or 0))
