"""Worker processes that a test may kill, and the record of what ran in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).parent


def wait_until(fact: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a fact, not for time; the deadline only ends a test that has failed."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Line:
    what: str
    job_id: str
    pid: int
    at: float
    attempt: int
    crashes: int


def read_lines(record: Path) -> list[Line]:
    """Read what the application has recorded so far."""
    if not record.exists():
        return []
    found = []
    for line in record.read_text().splitlines():
        what, job_id, pid, at, attempt, crashes = line.split()
        found.append(Line(what, job_id, int(pid), float(at), int(attempt), int(crashes)))
    return found


class Fleet:
    """Some `python -m aqueue.worker` processes on one server."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        lease: float = 1.5,
        crash_limit: int = 3,
        blocked_cap: float | None = None,
        keep_record: bool = True,
        options: tuple[str, ...] = (),
        application: str = "application:queue",
    ) -> None:
        self._record = directory / "record"
        self._log = directory / "log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "AQUEUE_URL": url,
            "FAULT_RECORD": str(self._record) if keep_record else os.devnull,
            "FAULT_LEASE": str(lease),
            "FAULT_CRASH_LIMIT": str(crash_limit),
        }
        self._options = options
        self._application = application
        if blocked_cap is not None:
            self._environment["FAULT_BLOCKED_CAP"] = str(blocked_cap)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int = 1, **environment: str) -> list[subprocess.Popen[bytes]]:
        with self._log.open("ab") as log:
            started = [
                subprocess.Popen(
                    [sys.executable, "-W", "error", "-m", "aqueue.worker", self._application, *self._options],
                    cwd=HERE,
                    env=self._environment | environment,
                    stderr=log,
                )
                for _ in range(count)
            ]
        self.processes += started
        return started

    def kill(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        process.send_signal(number)
        process.wait(60)
        self.processes.remove(process)

    def lines(self) -> list[Line]:
        return read_lines(self._record)

    def runs(self, what: str = "start") -> Counter[str]:
        """Count starts, or ends, by job."""
        return Counter(line.job_id for line in self.lines() if line.what == what)

    def busiest(self) -> subprocess.Popen[bytes]:
        """Give the process with the most unfinished runs."""
        running: Counter[int] = Counter()
        for line in self.lines():
            running[line.pid] += 1 if line.what == "start" else -1
        return max(self.processes, key=lambda process: running[process.pid])

    def log(self) -> str:
        return self._log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
