"""Shares free slots out among queues by their weights, so that starts follow the weights. Arithmetic alone, no queue.

Each queue has a mark, which each of its starts moves on by one over its weight: equal marks mean starts as the weights
say. Free slots go to the queues that are behind, as water fills the lower places first. A queue that wants nothing, is
at its cap or cannot be asked leaves its share to the others, and gets nothing later for having done so: when it comes
back, its mark is brought up to where the others are. Start-time fair queueing, after Goyal, Vin and Cheng.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Shares:
    """The marks of one worker's queues."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._marks = [0.0] * len(weights)
        self._started = [0] * len(weights)
        self._wanting = [False] * len(weights)
        self._level = 0.0
        """Up to where everybody who wanted slots has been served."""

    def portions(self, free: int, started: Sequence[int], rooms: Sequence[int]) -> list[int]:
        """Give to each queue how many of the `free` slots are for it.

        `started` counts the starts of each queue so far, `rooms` says how many slots it could take: 0 for one that
        wants none. All free slots are given away, unless there is not that much room.
        """
        self._move_marks(started, rooms)
        level = self._fill(free, rooms)
        portions = [
            min(room, max(0, math.floor((level - mark) * weight))) if room else 0
            for mark, weight, room in zip(self._marks, self._weights, rooms, strict=True)
        ]
        for _ in range(min(free, sum(rooms)) - sum(portions)):  # fewer than there are queues
            behind = min(
                (n for n, room in enumerate(rooms) if portions[n] < room),
                key=lambda n: self._marks[n] + portions[n] / self._weights[n],
            )
            portions[behind] += 1
        return portions

    def _move_marks(self, started: Sequence[int], rooms: Sequence[int]) -> None:
        """Take in who has started what, and who is back; what started while a queue wanted nothing took from nobody."""
        for n, wanted in enumerate(self._wanting):
            if wanted:
                self._marks[n] += (started[n] - self._started[n]) / self._weights[n]
        going_on = [mark for mark, room, wanted in zip(self._marks, rooms, self._wanting, strict=True)
                    if room and wanted]  # fmt: skip
        self._level = max(self._level, min(going_on, default=self._level))
        for n, room in enumerate(rooms):
            if room and not self._wanting[n]:
                self._marks[n] = max(self._marks[n], self._level)
        self._started = list(started)
        self._wanting = [room > 0 for room in rooms]

    def _fill(self, free: int, rooms: Sequence[int]) -> float:
        """Give the height up to which `free` slots fill the room of all queues; each is as wide as its weight."""
        bends: list[tuple[float, int]] = []
        for mark, weight, room in zip(self._marks, self._weights, rooms, strict=True):
            if room:
                bends += (mark, weight), (mark + room / weight, -weight)
        height, width, left = 0.0, 0, float(free)
        for bend, change in sorted(bends):
            if width and (bend - height) * width >= left:
                return height + left / width
            left -= (bend - height) * width
            height, width = bend, width + change
        return height
