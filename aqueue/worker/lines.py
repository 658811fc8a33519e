"""What a worker is told of each of its queues: a weight, and how many of its jobs may run here at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aqueue.errors import ConfigurationError, shown
from aqueue.queue import Queue
from aqueue.store.codec import WorkerInfo, encode_worker

MOST: Final = 1_000_000
"""Beyond this it is a slip."""


@dataclass(frozen=True, slots=True)
class Line:
    """One queue of a worker; no weight is strict order, no cap is as many as the worker has slots."""

    queue: Queue
    weight: int | None = None
    cap: int | None = None

    def __str__(self) -> str:
        """Write it as on the command line: low=3,max=2."""
        return spelled(self.queue.name, self.weight, self.cap)

    def introduction(self, concurrency: int) -> str:
        """Write what a worker says of itself on this queue."""
        from aqueue import __version__  # noqa: PLC0415  # the package's own top level imports this module's neighbours

        about = WorkerInfo(socket.gethostname(), os.getpid(), concurrency, __version__, self.weight, self.cap)
        return encode_worker(about)


def spelled(queue: str, weight: int | None, cap: int | None) -> str:
    """Write a queue with its numbers."""
    weighted = queue if weight is None else f"{queue}={weight}"
    return weighted if cap is None else f"{weighted},max={cap}"


def checked_lines(
    queues: Sequence[Queue], weights: Mapping[Queue, int] | None, caps: Mapping[Queue, int] | None
) -> list[Line]:
    """Give the line of each queue. Errors: ConfigurationError for what is no queue, no weight or no cap."""
    if not queues or not all(isinstance(queue, Queue) for queue in queues):
        raise ConfigurationError("A worker needs at least one Queue; write Worker(queue).")
    if len({queue.name for queue in queues}) < len(queues):
        raise ConfigurationError("A worker takes each queue once; drop the repeated one.")
    heavy, capped = _checked(queues, weights, "weights"), _checked(queues, caps, "caps")
    without = [queue.name for queue in queues if queue not in heavy]
    if heavy and without:
        raise ConfigurationError(
            f"weights must name all queues of the worker or none, and {', '.join(without)} has none; "
            "give it one, as in weights={high: 6, default: 3} or tasks:default=3, or drop weights for strict order."
        )
    return [Line(queue, heavy.get(queue), capped.get(queue)) for queue in queues]


def _checked(queues: Sequence[Queue], given: Mapping[Queue, int] | None, what: str) -> Mapping[Queue, int]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{what} must map queues to numbers, as in {what}={{queue: 3}}, not {shown(given)}.")
    for queue, value in given.items():
        name = queue.name if isinstance(queue, Queue) else shown(queue)
        if queue not in queues:
            raise ConfigurationError(f"{what} names {name}, which is no queue of this worker; pass it as one, too.")
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise ConfigurationError(
                f"{what}: that of queue {name} must be a whole number from 1 to {MOST:,}, not {shown(value)}; "
                "to run none of its jobs here, leave the queue out."
            )
    return given


def parted(spec: str) -> tuple[str, int | None, int | None]:
    """Part what a command line says of a queue, `module:queue=3,max=2`, into the queue, its weight and its cap.

    Errors: ConfigurationError.
    """
    head, comma, extra = spec.partition(",")
    name, equals, weight = head.partition("=")
    key, _, cap = extra.partition("=")
    if comma and key != "max":
        raise ConfigurationError(
            f"{spec!r} says {extra!r}, which is not understood; write {name}=WEIGHT,max=JOBS, or one of the two."
        )
    return name, _number(spec, "weight", weight) if equals else None, _number(spec, "cap", cap) if comma else None


def _number(spec: str, what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise ConfigurationError(f"{spec!r}: its {what} must be a whole number from 1 to {MOST:,}, not {text!r}.")
    return int(text)
