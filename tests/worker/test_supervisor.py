"""Several processes under one, tried with small scripts in place of workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from aqueue.worker import supervisor as supervisor_module
from aqueue.worker.supervisor import UNUSABLE, Supervisor, child_command

WAIT_SECONDS: Final = 15.0

NOTE: Final = """
import os, signal, sys, time
from pathlib import Path

def note(word):
    with open("notes", "a") as file:
        file.write(f"{os.getpid()} {word}\\n")

def told(number, _):
    note(signal.Signals(number).name)
    sys.exit(0)

def serve():
    while True:
        time.sleep(0.02)  # a signal that comes just before signal.pause() would be slept through

signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
note("began")
"""
SERVE: Final = "serve()"


class Notes:
    """What the processes have written down."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "notes"

    def of(self, word: str) -> list[int]:
        """The pids that noted a word."""
        text = self._file.read_text() if self._file.exists() else ""
        return [int(line.split()[0]) for line in text.splitlines() if line.split()[1] == word]

    async def wait_for(self, word: str, count: int) -> list[int]:
        await until(lambda: len(self.of(word)) >= count)
        return self.of(word)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not fact():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.chdir(tmp_path)
    return Notes(tmp_path)


@pytest.fixture(autouse=True)
def all_ends_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take seconds to start a process."""
    monkeypatch.setattr(supervisor_module, "QUICK_SECONDS", 600)


class Running:
    """Supervisors of this test, all of which are stopped at its end."""

    def __init__(self) -> None:
        self._tasks: list[tuple[Supervisor, asyncio.Task[int]]] = []

    def start(self, script: str, count: int, *, once: bool = False) -> tuple[Supervisor, asyncio.Task[int]]:
        supervisor = Supervisor([sys.executable, "-c", NOTE + script], count, once=once)
        task = asyncio.get_running_loop().create_task(supervisor.run())
        self._tasks.append((supervisor, task))
        return supervisor, task

    async def stop(self) -> None:
        for supervisor, task in self._tasks:
            supervisor._forward(signal.SIGTERM)
            await asyncio.wait_for(task, WAIT_SECONDS)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running()
    yield running
    await running.stop()


def stop(supervisor: Supervisor, number: signal.Signals = signal.SIGTERM) -> None:
    """What the signal handler does."""
    supervisor._forward(number)


async def test_all_run_side_by_side_and_end_together(running: Running, notes: Notes) -> None:
    """One SIGTERM to the one an orchestrator knows has to reach all."""
    supervisor, task = running.start(SERVE, 3)
    pids = await notes.wait_for("began", 3)

    stop(supervisor)

    assert await task == 0
    assert sorted(notes.of("SIGTERM")) == sorted(pids)
    assert not any(map(is_alive, pids))


async def test_the_signal_itself_is_passed_on_once(running: Running, notes: Notes) -> None:
    """A Ctrl-C must count as one signal, not as the second, which cancels jobs: children are in other groups."""
    supervisor, task = running.start(SERVE, 1)
    (pid,) = await notes.wait_for("began", 1)
    assert os.getpgid(pid) == pid
    # It may have begun before its supervisor knows it, who would then tell it to stop by SIGTERM.
    await until(lambda: [child.pid for child in supervisor._children.values()] == [pid])

    stop(supervisor, signal.SIGINT)

    assert await task == 0
    assert notes.of("SIGINT") == [pid]


async def test_its_own_signal_handler_stops_it(running: Running, notes: Notes) -> None:
    """The handler is what the operating system calls."""
    _, task = running.start(SERVE, 2)
    await notes.wait_for("began", 2)

    os.kill(os.getpid(), signal.SIGTERM)

    assert await task == 0
    assert len(notes.of("SIGTERM")) == 2


async def test_who_is_killed_is_started_again_and_the_others_stay(
    running: Running, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ran out of memory must not cost the others their jobs."""
    running.start(SERVE, 2)
    killed, spared = await notes.wait_for("began", 2)

    os.kill(killed, signal.SIGKILL)
    pids = await notes.wait_for("began", 3)

    assert f"worker process {killed} ended with signal SIGKILL, it is started again in 1 s" in caplog.text
    assert is_alive(spared)
    assert len(set(pids)) == 3


async def test_one_that_ends_well_is_renewed_at_once_and_in_silence(
    running: Running, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """That is how --max-jobs renews processes: not a fault, so neither a pause nor a line."""
    running.start(f"sys.exit(0) if len(Path('notes').read_text().split()) < 6 else {SERVE}", 1)

    assert len(set(await notes.wait_for("began", 3))) == 3
    assert caplog.text == ""


async def test_one_that_cannot_even_start_is_tried_ever_more_slowly(
    running: Running, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash at import must not eat a processor, nor fill the disk with its traceback."""
    supervisor, task = running.start("sys.exit(1)", 1)
    await until(lambda: "in 1 s" in caplog.text)
    (paused_at,) = [record.created for record in caplog.records if "in 1 s" in record.getMessage()]
    await notes.wait_for("began", 2)
    assert time.time() - paused_at > 0.9
    await until(lambda: "ended with code 1, it is started again in 2 s" in caplog.text)

    stop(supervisor)

    assert await task == 0
    assert "ended with code 1, it is started again in 1 s" in caplog.text


async def test_a_pause_does_not_delay_the_end(
    running: Running, notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An orchestrator counts the seconds."""
    pause = Supervisor._pause
    monkeypatch.setattr(Supervisor, "_pause", lambda self, _: pause(self, 600))
    supervisor, task = running.start("sys.exit(1)", 1)
    await until(lambda: "in 1 s" in caplog.text)

    stop(supervisor)

    assert await asyncio.wait_for(task, WAIT_SECONDS) == 0
    assert len(notes.of("began")) == 1


async def test_what_cannot_be_mended_by_trying_ends_all(running: Running, notes: Notes) -> None:
    """A wrong name on the command line stays wrong."""
    second = "len(Path('notes').read_text().splitlines()) == 2"
    _, task = running.start(f"sys.exit({UNUSABLE}) if {second} else {SERVE}", 2)

    assert await task == UNUSABLE
    assert not any(map(is_alive, notes.of("began")))


async def test_with_once_nothing_is_started_again(running: Running, notes: Notes) -> None:
    """With --burst, whoever ends well has finished."""
    _, task = running.start("sys.exit(0)", 3, once=True)

    assert await task == 0
    assert len(notes.of("began")) == 3


async def test_a_failure_while_stopping_is_the_exit_code(running: Running, notes: Notes) -> None:
    """A worker that could not stop cleanly must not look as if it had."""
    supervisor, task = running.start(
        f"signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); note('ready'); {SERVE}", 2
    )
    await notes.wait_for("ready", 2)

    stop(supervisor)

    assert await task == 7


def test_a_child_is_a_fresh_interpreter_with_the_same_command_line() -> None:
    """Nothing is forked in the middle of anything."""
    assert child_command(["tasks:queue", "-p", "2"]) == [
        sys.executable, "-m", "aqueue.worker", "tasks:queue", "-p", "2"
    ]  # fmt: skip
