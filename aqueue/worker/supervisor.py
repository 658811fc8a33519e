"""Several worker processes under one: spawned, watched, restarted, and stopped together.

Each is a fresh interpreter with the same command line, so nothing is forked in the middle of anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from aqueue.errors import ConfigurationError

log = logging.getLogger("aqueue.worker")

LIFELINE: Final = "AQUEUE_SUPERVISED"
"""Set for a process that has a supervisor: the number of the open file that ends when the supervisor does."""
QUICK_SECONDS: Final = 5.0
"""A process that ends in error sooner than this is not started again at once."""
MAX_PAUSE_SECONDS: Final = 30.0


class Supervisor:
    """Keeps `count` copies of a command running until it is told to stop."""

    def __init__(self, command: Sequence[str], count: int, *, once: bool) -> None:
        self._command = command
        self._count = count
        self._once = once
        """A process that ends well has finished its work, as with --burst."""
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signals: list[int] = []
        """What this process was told so far, for a child that is only just being started."""
        self._code = 0
        self._reloading = False
        self._changed = asyncio.Event()
        self._lifeline: int | None = None
        """The end to read, which every child has; nothing is ever written, so all there is to read is the end."""

    async def run(self, *, reload: bool = False) -> int:
        """Run until all have ended; return 0, or the code of the first that could not."""
        changes = _changes() if reload else None
        self._reloading = reload
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._forward, number)
        with self._open_lifeline():
            await self._watch_all(changes)
        return self._code

    @contextmanager
    def _open_lifeline(self) -> Generator[None]:
        """Hold a pipe that ends with this process, however that ends."""
        self._lifeline, own_end = os.pipe()
        try:
            yield
        finally:
            os.close(self._lifeline)
            os.close(own_end)

    async def _watch_all(self, changes: AsyncIterator[set[str]] | None) -> None:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._restart_on(changes)) if changes is not None else None
            keepers = [group.create_task(self._keep(index)) for index in range(self._count)]
            await asyncio.wait(keepers)
            if watcher is not None:
                watcher.cancel()

    def _forward(self, number: int) -> None:
        self._stopping.set()
        self._signals.append(number)
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(number)

    async def _keep(self, index: int) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            started = time.monotonic()
            # A group of its own: a Ctrl-C at the terminal reaches this process, which passes it on, once.
            child = await self._start()
            self._children[index] = child
            for number in self._signals:
                child.send_signal(number)
            code = await child.wait()
            if self._stopping.is_set() or (self._once and code == 0):
                self._code = self._code or (max(0, code))
                return
            if self._once or (code == UNUSABLE and not self._reloading):
                self._code = code
                self._forward(signal.SIGTERM)
                return
            quick = code != 0 and time.monotonic() - started < QUICK_SECONDS
            if code != 0:
                log.error(
                    "worker process %d ended with %s, it is started again%s",
                    child.pid,
                    _why(code),
                    f" in {pause:.0f} s" if quick else "",
                )
            if quick:
                await self._pause(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS) if quick else 1.0

    async def _start(self) -> asyncio.subprocess.Process:
        assert self._lifeline is not None  # noqa: S101  # processes are kept while it is open only
        return await asyncio.create_subprocess_exec(
            *self._command,
            start_new_session=True,
            pass_fds=[self._lifeline],
            env={**os.environ, LIFELINE: str(self._lifeline)},
        )

    async def _pause(self, seconds: float) -> None:
        """Wait before the next start, unless told to stop, or the code has changed meanwhile."""
        self._changed.clear()
        news = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._changed)]
        await asyncio.wait(news, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for waiting in news:
            waiting.cancel()

    async def _restart_on(self, changes: AsyncIterator[set[str]]) -> None:
        async for paths in changes:
            log.info("%s changed, restarting", ", ".join(sorted(paths)[:3]))
            self._changed.set()
            for child in list(self._children.values()):
                if child.returncode is None:
                    child.send_signal(signal.SIGTERM)


UNUSABLE: Final = 2
"""Exit code of a process that cannot work at all as it was called: starting it again would not help."""


def _changes() -> AsyncIterator[set[str]]:
    """Watch the Python files below the working directory. Errors: ConfigurationError without the reload extra."""
    try:
        from watchfiles import PythonFilter, awatch  # noqa: PLC0415  # only with the reload extra
    except ImportError:
        raise ConfigurationError(
            '--reload needs the package watchfiles; install it with: pip install "aqueue-redis[reload]".'
        ) from None

    async def watch() -> AsyncIterator[set[str]]:
        async for changes in awatch(".", watch_filter=PythonFilter()):
            yield {path for _, path in changes}

    return watch()


def child_command(arguments: Sequence[str]) -> list[str]:
    """Give the command of one worker process."""
    return [sys.executable, "-m", "aqueue.worker", *arguments]


def _why(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
