"""Layers are told once of each process of the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from servers import Server, binaries

from aqueue import JobFailed, Queue, Worker

SECONDS_ALLOWED: Final = 30.0
TASKS: Final = """
import asyncio, os
from aqueue import Middleware, Queue

class Notes(Middleware):
    moment_timeout = 0.1

    async def on_process_start(self, event):
        self.note("process_start", event)

    async def on_worker_start(self, event):
        self.note("worker_start", event)

    async def on_worker_stop(self, event):
        self.note("worker_stop", event)

    async def on_process_stop(self, event):
        self.note("process_stop", event)
        await asyncio.sleep(3600)

    def note(self, word, event):
        with open("notes", "a") as file:
            file.write(f"{os.getpid()} {word} {','.join(event.queues)}\\n")

notes = Notes()
one = Queue("one", middleware=[notes])
two = Queue("two", middleware=[notes])
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """One is enough: nothing here depends on it."""
    with Server(next(iter(binaries().values()))) as server:
        yield server


def test_each_process_is_told_of_once_and_a_layer_that_hangs_ends_with_it(server: Server, tmp_path: Path) -> None:
    """What is opened per process, such as a port for metrics, must not be opened per queue, nor stay open."""
    (tmp_path / "tasks.py").write_text(TASKS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUEUE_")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "aqueue.worker", "tasks:one", "tasks:two", "-p", "2"],
        cwd=tmp_path,
        env={**environment, "AQUEUE_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    notes, deadline = tmp_path / "notes", time.monotonic() + SECONDS_ALLOWED
    try:
        while not notes.exists() or notes.read_text().count("worker_start") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=SECONDS_ALLOWED)
    finally:
        process.kill()
    assert process.returncode == 0
    told: dict[str, list[str]] = {}
    for line in notes.read_text().splitlines():
        pid, word = line.split(" ", 1)
        told.setdefault(pid, []).append(word)
    words = [f"{word} one,two" for word in ("process_start", "worker_start", "worker_stop", "process_stop")]
    assert list(told.values()) == [words, words]
    assert str(process.pid) not in told  # the supervisor runs no jobs, and none of this code
    assert log.count("middleware Notes.on_process_stop took longer than 0.1 s") == 2


DYING: Final = """
import os
from aqueue import Middleware, Queue, Settings

class Undo(Middleware):
    async def on_exhausted(self, event):
        with open("notes", "a") as file:
            file.write(f"{event.job_id} {event.attempt}\\n")
        if "DIES" in os.environ:
            os._exit(9)

queue = Queue("q", middleware=[Undo()], settings=Settings(lease=1.5))

@queue.task(retry=1)
async def work() -> None:
    raise OSError
"""


async def test_a_worker_that_dies_in_on_exhausted_has_the_next_one_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the failure is stored, an alarm comes twice at worst; told after it, it could come never."""
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(DYING, namespace)  # the text right above
    queue: Queue = namespace["queue"]
    queue.use_url(server.url)
    async with queue:
        job = await queue.enqueue("work")
        died = subprocess.run(
            [sys.executable, "-m", "aqueue.worker", "dying:queue", "--url", server.url],
            env={**os.environ, "DIES": "1"},
            check=False,
            capture_output=True,
        )
        assert died.returncode == 9, died.stderr
        async with Worker(queue):
            with pytest.raises(JobFailed, match="OSError"):
                await job.result(timeout=SECONDS_ALLOWED)
        info = await job.info()
        assert (info.attempt, info.crashes) == (1, 1)
    assert (tmp_path / "notes").read_text().splitlines() == [f"{job.id} 1"] * 2
