"""Starts, asks, times and ends the processes of one cell. Whatever a peer does, the harness goes on."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.environments import ROOT, scrubbed
from bench.peers.base import RECORD, TRACE_VARIABLE, Config
from bench.records import Entrant
from bench.servers import Server

ASK_SECONDS: Final = 60.0
STOP_SECONDS: Final = 8.0
"""A worker that has not ended so long after SIGTERM is killed."""
POLL_SECONDS: Final = 0.01


class PeerFailed(Exception):
    """A process of a peer broke, or answered with an error."""


class PeerUnsupported(Exception):
    """The peer says that it cannot do this."""


@dataclass(frozen=True)
class Site:
    """Where cells of one entrant run: its interpreter, the server's binary and options."""

    entrant: Entrant
    python: Path
    server: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Traced:
    """What the trace says: when each job first started, in nanoseconds of the wall clock, and how many ran again."""

    starts: Mapping[int, int]
    doubles: int
    end: int = 0
    """The last start of all, second runs included."""

    @property
    def span(self) -> float:
        """Seconds from the first start of a job to the last."""
        return (max(self.starts.values()) - min(self.starts.values())) / 1e9 if self.starts else 0.0

    def rate(self, slots: int) -> float:
        """Jobs per second from the first start to the last.

        As many jobs as there are slots may start at the first instant, so that many are not counted.
        """
        count = len(self.starts) - min(slots, len(self.starts) // 2 or 1)
        return count / self.span if self.span else 0.0

    def steady(self) -> float:
        """Jobs per second without the first 40 % and the last 5 %: when all of several workers are up and busy."""
        ordered = sorted(self.starts.values())
        first, last = int(0.40 * len(ordered)), int(0.95 * len(ordered)) - 1
        span = (ordered[last] - ordered[first]) / 1e9 if last > first else 0.0
        return (last - first) / span if span else 0.0

    def since(self, first: int) -> Traced:
        """Leave out the jobs before a number, such as those that warmed a worker up."""
        return Traced({number: at for number, at in self.starts.items() if number >= first}, self.doubles, self.end)


class Process:
    """One process of a peer, in a session of its own, so that its children end with it."""

    def __init__(self, site: Site, role: str, config: Config) -> None:
        self.role = f"{site.entrant.label} {role}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end()
        environment = {**os.environ, TRACE_VARIABLE: config.trace, "PYTHONUNBUFFERED": "1"}
        self.popen = subprocess.Popen(
            [str(site.python), "-m", site.entrant.module, role, json.dumps(asdict(config))],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )

    def said(self) -> str:
        """Give the end of what it wrote to standard error."""
        self._errors.seek(0)
        return scrubbed(self._errors.read().decode("utf-8", "replace"))

    def check(self) -> None:
        """Errors: PeerFailed if it has ended."""
        if self.popen.poll() is not None:
            raise PeerFailed(f"{self.role} ended with code {self.popen.returncode}: {self.said()}")

    def end(self) -> bool:
        """Stop it as an operator would, then by force; say whether asking was enough."""
        with contextlib.suppress(OSError):
            self.popen.terminate()
        try:
            self.popen.wait(STOP_SECONDS)
            willing = True
        except subprocess.TimeoutExpired:
            willing = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return willing

    def rss_mib(self) -> float:
        """Give its resident memory with that of its children."""
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text("utf-8").split()
        return sum(_rss_kib(pid) for pid in (self.popen.pid, *map(int, children))) / 1024


class Producer(Process):
    """The process that enqueues and reads results."""

    def __init__(self, site: Site, config: Config) -> None:
        super().__init__(site, "produce", config)
        self._pending = b""

    def ask(self, do: str, within: float = ASK_SECONDS, **more: Any) -> dict[str, Any]:
        """Have a command done. Errors: PeerFailed, PeerUnsupported."""
        assert self.popen.stdin is not None
        try:
            self.popen.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self.popen.stdin.flush()
        except OSError:
            self.popen.wait()
            self.check()
        answer: dict[str, Any] = json.loads(self.line(within))
        if answer.get("unsupported"):
            raise PeerUnsupported(answer["text"])
        if "error" in answer:
            raise PeerFailed(f"{self.role}, {do}: {scrubbed(answer['error'])}")
        return answer

    def line(self, seconds: float) -> bytes:
        """Read one line of the answers."""
        assert self.popen.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self.popen.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise PeerFailed(f"{self.role} did not answer within {seconds:g} s: {self.said()}")
            part = os.read(self.popen.stdout.fileno(), 1 << 16)
            if not part:
                self.popen.wait()
                self.check()
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line


class Stage:
    """One cell's server, trace and processes; leaving it ends all of them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._processes: list[Process] = []
        self.workers: list[Process] = []

    def __enter__(self) -> Self:
        self.server = Server(self.site.server, self.site.options).__enter__()
        handle, self.trace = tempfile.mkstemp(prefix="aqueue-bench-trace-")
        os.close(handle)
        return self

    def config(self, **more: Any) -> Config:
        return Config(self.server.url, self.trace, variant=self.site.entrant.variant, **more)

    def producer(self, entrant: Entrant | None = None) -> Producer:
        """Start a producing process, of another entrant if one is given that shares the interpreter."""
        site = self.site if entrant is None else replace(self.site, entrant=entrant)
        producer = Producer(site, self.config())
        self._processes.append(producer)
        return producer

    def start_workers(self, concurrency: int, processes: int = 1, max_jobs: int = 0) -> None:
        for _ in range(processes):
            worker = Process(self.site, "worker", self.config(concurrency=concurrency, max_jobs=max_jobs))
            self._processes.append(worker)
            self.workers.append(worker)

    def count(self) -> int:
        return Path(self.trace).stat().st_size // RECORD.size

    def wait_for(self, count: int, seconds: float, stall: float = 6.0) -> bool:
        """Wait until so many starts are traced; False once time is up. Errors: PeerFailed when nothing moves."""
        begun = moved = time.monotonic()
        seen = self.count()
        while seen < count:
            time.sleep(POLL_SECONDS)
            now, last, seen = time.monotonic(), seen, self.count()
            if seen > last:
                moved = now
            elif now - moved > stall + (0 if seen else 10):  # a worker may take a while to come up
                raise PeerFailed(f"stuck: only {seen} of {count} jobs started; {self._said()}")
            if now - begun > seconds:
                return False
            for worker in self.workers:
                if worker.popen.poll() is not None and self.count() < count:
                    worker.check()
        return True

    def _said(self) -> str:
        return " ".join(filter(None, (worker.said() for worker in self.workers))) or "the worker said nothing"

    def traced(self) -> Traced:
        starts: dict[int, int] = {}
        total, end = 0, 0
        for number, at in RECORD.iter_unpack(self._records()):
            total += 1
            end = max(end, at)
            starts.setdefault(number, at)
        return Traced(starts, total - len(starts), end)

    def _records(self) -> bytes:
        data = Path(self.trace).read_bytes()
        return data[: len(data) // RECORD.size * RECORD.size]

    def stop_workers(self) -> bool:
        """End the workers; say whether all of them ended when asked."""
        willing = [worker.end() for worker in self.workers]
        self._processes = [process for process in self._processes if process not in self.workers]
        self.workers = []
        return all(willing)

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.end()
        self.server.__exit__(None, None, None)
        Path(self.trace).unlink(missing_ok=True)


def describe(site: Site) -> dict[str, Any]:
    """Ask a peer's file what it is. Errors: PeerFailed."""
    config = Config("redis://127.0.0.1:1/0", os.devnull, variant=site.entrant.variant)
    done = subprocess.run(
        [str(site.python), "-m", site.entrant.module, "about", json.dumps(asdict(config))],
        cwd=ROOT, capture_output=True, text=True, timeout=ASK_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise PeerFailed(scrubbed(done.stderr))
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def _rss_kib(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
