"""The producing role: reads one JSON command per line, does it, and answers with one JSON line.

    {"do":"fill","task","first","count","payload","limit"} -> {"seconds","count","way"}   in bulk; handles are kept
    {"do":"one",...the same}                               -> {"seconds","count"}         one awaited at a time
    {"do":"producers",...the same,"producers":50}          -> {"seconds","count"}         tasks, or threads
    {"do":"latency","first","count","gap","limit"}         -> {"sent_ns","result_ms" or null,"problem"}
    {"do":"delayed","first","count","seconds","gap"}       -> {"due_ns":[...]}
    {"do":"check","count","timeout"}                       -> {"found","wrong","problem"}

`payload` is a size in bytes or null; `limit` ends a command early after so many seconds, and `count` in the answer
says how many were done. A failure is answered {"error": text, "unsupported": bool} and the next command is read.
Both forms below do the same, one with await and one without.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TextIO

from bench.peers.base import AsyncPeer, SyncPeer, Unsupported

PIECE: Final = 1_000
"""Jobs per call of `enqueue_many`; no peer is asked to hold more at once."""
KEPT: Final = 5_000
"""Handles kept for `check`: those of the last jobs."""
RESULT_SECONDS: Final = 5.0
CHECKS_AT_ONCE: Final = 50

Command = dict[str, Any]
Answer = dict[str, Any]


@dataclass
class Batch:
    """The jobs of one command, handed out one by one until they or the time run out; safe between threads."""

    task: str
    payload: str | None
    numbers: Iterator[int]
    end: float
    begun: float = field(default_factory=time.perf_counter)
    handed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, command: Command) -> Batch:
        size = command.get("payload")
        first = command.get("first", 0)
        return cls(
            command.get("task", "noop"),
            None if size is None else "x" * size,
            iter(range(first, first + command["count"])),
            time.perf_counter() + (command.get("limit") or float("inf")),
        )

    def take(self, most: int) -> list[int]:
        if time.perf_counter() > self.end:
            return []
        with self.lock:
            taken = list(islice(self.numbers, most))
            self.handed += len(taken)
        return taken

    def expected(self, number: int) -> int:
        return number if self.payload is None else len(self.payload)

    def answer(self, **more: Any) -> Answer:
        return {"seconds": time.perf_counter() - self.begun, "count": self.handed, **more}


class Handles:
    """The last handles with the values their jobs are to return."""

    def __init__(self) -> None:
        self._kept: deque[tuple[Any, int]] = deque(maxlen=KEPT)

    def keep(self, batch: Batch, numbers: list[int], handles: list[Any]) -> None:
        self._kept.extend((handle, batch.expected(n)) for n, handle in zip(numbers, handles, strict=True))

    def last(self, count: int) -> list[tuple[Any, int]]:
        return list(self._kept)[-count:]


def failure(error: BaseException) -> Answer:
    return {"error": traceback.format_exc(limit=-6), "unsupported": isinstance(error, Unsupported), "text": str(error)}


def tally(values: list[tuple[Any, int]], problem: str) -> Answer:
    wrong = sum(value != expected for value, expected in values)
    return {"found": len(values), "wrong": wrong, "problem": problem}


class AsyncProducer:
    """Commands for a peer that awaits."""

    def __init__(self, peer: AsyncPeer) -> None:
        self.peer = peer
        self.handles = Handles()

    async def fill(self, command: Command) -> Answer:
        batch = Batch.of(command)
        try:
            while numbers := batch.take(PIECE):
                self.handles.keep(batch, numbers, await self.peer.enqueue_many(batch.task, numbers, batch.payload))
        except Unsupported:
            return await self.producers(command) | {"way": "50 producers"}
        return batch.answer(way="bulk")

    async def one(self, command: Command) -> Answer:
        batch = Batch.of(command)
        await self._feed(batch)
        return batch.answer()

    async def producers(self, command: Command) -> Answer:
        batch = Batch.of(command)
        await asyncio.gather(*(self._feed(batch) for _ in range(command.get("producers", 50))))
        return batch.answer()

    async def _feed(self, batch: Batch) -> None:
        while numbers := batch.take(1):
            self.handles.keep(batch, numbers, [await self.peer.enqueue(batch.task, numbers[0], batch.payload)])

    async def latency(self, command: Command) -> Answer:
        batch, sent, results, problem = Batch.of(command), [], [], ""
        while not problem and (numbers := batch.take(1)):
            sent.append(time.time_ns())
            begun = time.perf_counter()
            handle = await self.peer.enqueue(batch.task, numbers[0])
            if self.peer.stores_results:
                try:
                    await self.peer.result(handle, RESULT_SECONDS)
                    results.append((time.perf_counter() - begun) * 1000)
                except Exception as error:  # noqa: BLE001  # what was measured so far still counts
                    problem = f"result {len(sent)} did not come: {error!r}"
            await asyncio.sleep(command["gap"])
        return batch.answer(sent_ns=sent, result_ms=results or None, problem=problem)

    async def delayed(self, command: Command) -> Answer:
        batch, due = Batch.of(command), []
        while numbers := batch.take(1):
            due.append(time.time_ns() + round(command["seconds"] * 1e9))
            await self.peer.delay(batch.task, numbers[0], command["seconds"])
            await asyncio.sleep(command["gap"])
        return batch.answer(due_ns=due)

    async def check(self, command: Command) -> Answer:
        if not self.peer.stores_results:
            raise Unsupported("no results")
        values: list[tuple[Any, int]] = []
        todo = iter(self.handles.last(command["count"]))
        problems: list[str] = []

        async def read() -> None:
            for handle, expected in todo:
                try:
                    values.append((await self.peer.result(handle, command["timeout"]), expected))
                except Exception as error:  # noqa: BLE001  # any failure to read is what is counted here
                    problems.append(repr(error))

        await asyncio.gather(*(read() for _ in range(CHECKS_AT_ONCE)))
        return tally(values, next(iter(problems), ""))


class SyncProducer:
    """Commands for a peer that blocks."""

    def __init__(self, peer: SyncPeer) -> None:
        self.peer = peer
        self.handles = Handles()

    def fill(self, command: Command) -> Answer:
        batch = Batch.of(command)
        try:
            while numbers := batch.take(PIECE):
                self.handles.keep(batch, numbers, self.peer.enqueue_many(batch.task, numbers, batch.payload))
        except Unsupported:
            return self.producers(command) | {"way": "50 producers"}
        return batch.answer(way="bulk")

    def one(self, command: Command) -> Answer:
        batch = Batch.of(command)
        self._feed(batch)
        return batch.answer()

    def producers(self, command: Command) -> Answer:
        count = command.get("producers", 50)
        with ThreadPoolExecutor(count) as pool:
            batch = Batch.of(command)
            for done in [pool.submit(self._feed, batch) for _ in range(count)]:
                done.result()
            return batch.answer()

    def _feed(self, batch: Batch) -> None:
        while numbers := batch.take(1):
            self.handles.keep(batch, numbers, [self.peer.enqueue(batch.task, numbers[0], batch.payload)])

    def latency(self, command: Command) -> Answer:
        batch, sent, results, problem = Batch.of(command), [], [], ""
        while not problem and (numbers := batch.take(1)):
            sent.append(time.time_ns())
            begun = time.perf_counter()
            handle = self.peer.enqueue(batch.task, numbers[0])
            if self.peer.stores_results:
                try:
                    self.peer.result(handle, RESULT_SECONDS)
                    results.append((time.perf_counter() - begun) * 1000)
                except Exception as error:  # noqa: BLE001  # what was measured so far still counts
                    problem = f"result {len(sent)} did not come: {error!r}"
            time.sleep(command["gap"])
        return batch.answer(sent_ns=sent, result_ms=results or None, problem=problem)

    def delayed(self, command: Command) -> Answer:
        batch, due = Batch.of(command), []
        while numbers := batch.take(1):
            due.append(time.time_ns() + round(command["seconds"] * 1e9))
            self.peer.delay(batch.task, numbers[0], command["seconds"])
            time.sleep(command["gap"])
        return batch.answer(due_ns=due)

    def check(self, command: Command) -> Answer:
        if not self.peer.stores_results:
            raise Unsupported("no results")
        values: list[tuple[Any, int]] = []
        problem = ""
        for handle, expected in self.handles.last(command["count"]):
            try:
                values.append((self.peer.result(handle, command["timeout"]), expected))
            except Exception as error:  # noqa: BLE001  # any failure to read is what is counted here
                problem = problem or repr(error)
        return tally(values, problem)


async def serve_async(peer: AsyncPeer, answers: TextIO) -> None:
    """Answer commands until standard input ends."""
    await peer.open()
    producer = AsyncProducer(peer)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command: Command = json.loads(line)
        try:
            answer: Answer = await getattr(producer, command["do"])(command)
        except Exception as error:  # noqa: BLE001  # the harness reports it
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")
    await peer.close()


def serve_sync(peer: SyncPeer, answers: TextIO) -> None:
    """Answer commands until standard input ends."""
    peer.open()
    producer = SyncProducer(peer)
    while line := sys.stdin.readline():
        command: Command = json.loads(line)
        try:
            answer: Answer = getattr(producer, command["do"])(command)
        except Exception as error:  # noqa: BLE001  # the harness reports it
            answer = failure(error)
        answers.write(json.dumps(answer) + "\n")
    peer.close()
