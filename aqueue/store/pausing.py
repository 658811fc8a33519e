"""Pausing a queue, or single tasks of it, for the whole fleet."""

from __future__ import annotations

import contextlib
from typing import Final

from aqueue.errors import ConfigurationError, StoreFull
from aqueue.store import layout
from aqueue.store.part import Part

MOST_PAUSED: Final = 100
"""Tasks of one queue: every claim reads their names. Whoever pauses more means the queue."""


class Pauses(Part):
    """Who may start jobs: told once, and kept by each claim from then on."""

    async def pause(self, span_ms: int = 0) -> bool:
        """Let no further job start, for a time or, with 0, until the resume; return whether that is a change."""
        with contextlib.suppress(StoreFull):  # a full server must still be pausable
            await self._client.register()
        keys = self.keys
        return bool(await self._run("pause", layout.integer, [keys.paused, keys.workers], [keys.base, span_ms]))

    async def resume(self) -> bool:
        """Let jobs start again; return whether that is a change."""
        keys = self.keys
        return bool(await self._run("resume", layout.integer, [keys.paused, keys.workers], [keys.base]))

    async def pause_task(self, task: str) -> bool:
        """Let no further job of one task start; return whether that is a change.

        Errors: ConfigurationError where a hundred tasks of the queue are paused already.
        Source: lua/pause_task.lua; lua/include/shelving.lua says what becomes of the jobs.
        """
        with contextlib.suppress(StoreFull):
            await self._client.register()
        keys = self.keys
        read = layout.one_of("paused", "already", "full")
        word = await self._run("pause_task", read, [keys.shelves, keys.workers], [keys.base, task, MOST_PAUSED])
        if word == "full":
            raise ConfigurationError(
                f"Queue {keys.queue} has {MOST_PAUSED} paused tasks already; pause the whole queue, or resume some."
            )
        return word == "paused"

    async def resume_task(self, task: str) -> bool:
        """Let jobs of one task start again; return whether that is a change. Source: lua/resume_task.lua."""
        keys = self.keys
        read = layout.one_of("resumed", "already")
        named = [keys.queued, keys.shelves, keys.workers]
        return await self._run("resume_task", read, named, [keys.base, task]) == "resumed"
