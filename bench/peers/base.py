"""What every measured queue offers to the harness, and how the harness drives it.

Standard library only (uvloop where it is installed): this file runs in the virtual environment of every peer. A
peer's file says

    from bench.peers.base import SyncPeer, main

    class Rq(SyncPeer): ...

    if __name__ == "__main__":
        main(Rq)

and is started by the harness in the repository's root, in one of three roles:

    python -m bench.peers.peer_rq about CONFIG      prints one JSON line about the peer and ends
    python -m bench.peers.peer_rq worker CONFIG     runs a worker until SIGTERM
    python -m bench.peers.peer_rq produce CONFIG    reads a JSON command per line and answers each with a JSON line
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, TextIO, TypeVar

T = TypeVar("T")

RECORD = struct.Struct("<qq")
"""What a job leaves in the trace when it starts: its number, and the wall clock in nanoseconds."""
TRACE_VARIABLE = "BENCH_TRACE"
"""Names the trace file in the environment, so that forked and spawned children find it as well."""


@dataclass(frozen=True)
class Config:
    """One process of a measurement."""

    url: str
    """redis://127.0.0.1:port/0; the same server for every peer."""
    trace: str
    """File that jobs append to."""
    concurrency: int = 1
    variant: str = ""
    """Which of a peer's variants to run, such as "stream" for taskiq; empty is the first one."""
    max_jobs: int = 0
    """For aqueue alone: the worker ends after so many jobs; 0 is never."""


class Trace:
    """Where jobs say that they ran. O_APPEND writes of one record are atomic, also across forks and threads."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, number: int) -> None:
        os.write(self._file, RECORD.pack(number, time.time_ns()))


@cache
def trace() -> Trace:
    """Give the trace of this process."""
    return Trace(os.environ[TRACE_VARIABLE])


class Unsupported(Exception):
    """The peer has no such feature, or only outside its own package; the report says so."""


class Peer(ABC):
    """Common to async and blocking peers.

    Tasks that every peer registers, with the same bodies (bench/peers/bodies.py):
    noop(number) -> number; io(number) awaits or sleeps 10 ms; echo(number, payload: str) -> len(payload).
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """The settings used, as the peer's documentation recommends them for throughput, in one or two sentences."""
    stores_results: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def work(self) -> None:
        """Run one worker process with config.concurrency slots until SIGTERM."""


class AsyncPeer(Peer):
    """A peer whose documentation shows `await`. Everything but `work` is called in one running loop (uvloop)."""

    async def open(self) -> None:
        """Connect; called once before the first command."""

    async def close(self) -> None:
        """Disconnect; called once after the last command."""

    @abstractmethod
    async def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        """Enqueue one job in one call, as the documentation shows it, and return its handle."""

    async def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        """Enqueue in the fastest documented bulk way. Called with at most 1,000 numbers at a time."""
        raise Unsupported("no way to enqueue in bulk")

    async def delay(self, task: str, number: int, seconds: float) -> Any:
        """Enqueue one job that is due in so many seconds."""
        raise Unsupported("no delayed jobs")

    async def result(self, handle: Any, timeout: float) -> Any:
        """Wait for a job's value as the documentation shows it."""
        raise Unsupported("no results")


class SyncPeer(Peer):
    """A peer whose documentation shows blocking calls. `enqueue` is also called from 50 threads at once."""

    def open(self) -> None:
        """Connect; called once before the first command."""

    def close(self) -> None:
        """Disconnect; called once after the last command."""

    @abstractmethod
    def enqueue(self, task: str, number: int, payload: str | None = None) -> Any:
        """Enqueue one job in one call, as the documentation shows it, and return its handle."""

    def enqueue_many(self, task: str, numbers: Sequence[int], payload: str | None = None) -> list[Any]:
        """Enqueue in the fastest documented bulk way. Called with at most 1,000 numbers at a time."""
        raise Unsupported("no way to enqueue in bulk")

    def delay(self, task: str, number: int, seconds: float) -> Any:
        """Enqueue one job that is due in so many seconds."""
        raise Unsupported("no delayed jobs")

    def result(self, handle: Any, timeout: float) -> Any:
        """Wait for a job's value as the documentation shows it."""
        raise Unsupported("no results")


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop where that is installed."""
    try:
        import uvloop  # noqa: PLC0415  # optional
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def main(peer_class: type[AsyncPeer | SyncPeer]) -> None:
    """Play the role that the command line names. Standard output carries the answers and nothing else."""
    from bench.peers import produce  # noqa: PLC0415  # it needs the classes above

    role, text = sys.argv[1:3]
    config = Config(**json.loads(text))
    os.environ[TRACE_VARIABLE] = config.trace
    logging.basicConfig(level=logging.WARNING)
    answers = _own_stdout()
    peer = peer_class(config)
    if role == "about":
        answers.write(json.dumps(_description(peer)) + "\n")
    elif role == "worker":
        peer.work()
    elif isinstance(peer, AsyncPeer):
        run_loop(produce.serve_async(peer, answers))
    else:
        produce.serve_sync(peer, answers)


def _own_stdout() -> TextIO:
    """Keep standard output for answers; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _description(peer: Peer) -> dict[str, Any]:
    installed = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
    return {
        "name": peer.name,
        "about": peer.about,
        "stores_results": peer.stores_results,
        "async": isinstance(peer, AsyncPeer),
        "python": sys.version.split()[0],
        "versions": dict(sorted(installed.items())),
    }
