"""Calls functions that users hand in: async ones are awaited, plain ones run in a thread, as tasks do.

The threads are few and daemons: a function that never returns holds neither the event loop nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeAlias

from aqueue.errors import ConfigurationError, shown

THREADS: Final = 4
"""Per function; when all hang, further calls wait until the moment's timeout."""

Work: TypeAlias = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]", Callable[[], object]]


class Callback:
    """One function, async or plain."""

    def __init__(self, function: object, what: str) -> None:
        """Take a function. Errors: ConfigurationError if it cannot be called."""
        if not callable(function):
            raise ConfigurationError(f"{what} must be a function, async or plain, not {shown(function)}.")
        self.function: Callable[..., Any] = function
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004  # an object whose call is async
        )
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._threads = 0
        self._idle = threading.Semaphore(0)

    def takes(self, name: str) -> bool:
        """Say whether the function has a parameter of this name."""
        try:
            return name in inspect.signature(self.function).parameters
        except (TypeError, ValueError):  # some that are written in C have none that can be read
            return False

    async def call(self, *args: Any, **kwargs: Any) -> None:
        """Call the function and wait for its end. Errors: whatever it raises."""
        if self._is_async:
            await self.function(*args, **kwargs)
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        call = partial(copy_context().run, self.function, *args, **kwargs)
        if not self._idle.acquire(blocking=False) and self._threads < THREADS:
            self._threads += 1
            threading.Thread(target=self._serve, name="aqueue middleware", daemon=True).start()
        self._work.put((loop, done, call))
        await done

    def _serve(self) -> None:
        while True:
            loop, done, call = self._work.get()
            if not done.cancelled():  # else nobody waits for it any more
                error: BaseException | None = None
                try:
                    call()
                except BaseException as raised:  # noqa: BLE001  # the boundary of user code; raised again in `call`
                    error = raised
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_end, done, error)
                del error
            del loop, done, call
            self._idle.release()


def _end(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error if not isinstance(error, StopIteration) else RuntimeError("StopIteration"))
