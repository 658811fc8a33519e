"""Lets what is read arrive later, as a long line does: in order, and without holding up what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def delayed(read: Callable[[], Awaitable[T]], seconds: Callable[[], float]) -> AsyncIterator[T]:
    """Give what `read` gives so many seconds later, and then raise what it raised."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, T | None, Exception | None]] = asyncio.Queue()

    async def keep_reading() -> None:
        while True:
            try:
                item = await read()
            except Exception as error:  # noqa: BLE001  # it is raised where it belongs
                line.put_nowait((loop.time() + seconds(), None, error))
                return
            line.put_nowait((loop.time() + seconds(), item, None))

    reading = loop.create_task(keep_reading())
    try:
        while True:
            due, item, error = await line.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # where there is no error there is an item
    finally:
        reading.cancel()
