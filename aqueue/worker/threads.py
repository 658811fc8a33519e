"""Plain functions in threads, which can be interrupted but not abandoned.

A thread cannot be cancelled. What is told to stop gets an exception at its next bytecode, and its slot stays taken
until it has really ended: a second run of the same job beside it would be worse than a late one.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import anyio.to_thread

T = TypeVar("T")


class Interrupted(BaseException):
    """Raised inside a thread whose job was told to stop. Not an Exception, so that `except Exception` lets it pass."""


class _Body:
    """What a thread runs, with the means to interrupt exactly that and not what the thread does next."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._told = False

    def __call__(self) -> tuple[Any, BaseException | None]:
        """Return value or exception: a SystemExit must reach the job's run, not the loop between the two."""
        with self._lock:
            if self._told:  # before this thread was there to be interrupted
                return None, Interrupted()
            self._thread = threading.get_ident()
        try:
            return self._function(), None
        except BaseException as error:  # noqa: BLE001  # the boundary of user code; raised again in Threads.run
            return None, error
        finally:
            with self._lock:
                self._thread = None

    def interrupt(self) -> None:
        with self._lock:
            self._told = True
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(Interrupted))


class Threads:
    """The threads of one worker: as many as it has slots."""

    def __init__(self, count: int) -> None:
        self._limiter: Final = anyio.CapacityLimiter(count)
        self.unfinished = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread, with the contextvars of here; cancelling interrupts it and waits for its end."""
        body = _Body(function)
        work = asyncio.ensure_future(anyio.to_thread.run_sync(body, limiter=self._limiter))
        self.unfinished += 1
        try:
            value, error = await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                body.interrupt()
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError:  # told again; the thread still has to end
                    continue
            work.exception()  # whatever it died of, it was told to
            raise
        finally:
            self.unfinished -= 1
        if error is not None:
            raise error
        return cast("T", value)
